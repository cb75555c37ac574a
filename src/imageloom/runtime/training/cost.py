"""How much work a training is, and what memory it takes: arithmetic; torch is not needed here.

Work is counted in evaluations: one answer of the denoiser for one picture. What an evaluation
costs is known by architecture. A multiplication and an addition are two FLOP.
Source: torch's FlopCounterMode over diffusers' denoisers of the published configurations and of the
embedded model, and the bytes that autograd keeps of them with LoRA on the layers that are trained,
under bf16 autocast; both on the meta device, so computed and not measured.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from imageloom.domain.catalog import Model
from imageloom.runtime.training.plan import (
    JUDGED_TIMESTEPS,
    KEPT_STEPS,
    KEPT_TIMESTEPS,
    PICTURES_PER_HALFWAY,
    PICTURES_PER_KEPT,
)

# In evaluations: one with its gradient for the adapter (2.08 to 2.17), a picture encoded (0.5 to
# 0.7), one decoded (1.4 to 1.6); of Flux the latter are a tenth, in a cost that is small anyway.
_TRAINED = 2.1
_ENCODED = 0.7
_DECODED = 1.5
# Families whose blocks are computed again on the way back, which saves memory for time: for Flux,
# 27 GB a picture of 1024 pixels would not fit beside the weights.
# Source: Korthikanti et al. 2022 (arXiv:2205.05198), 34 bytes a token and channel of a block, for
# 57 blocks of 3072 channels and 4608 tokens.
RECOMPUTED = ("flux",)
_RECOMPUTED = 1.0
# A number of the adapter takes four float32: itself, its gradient, the two moments of AdamW.
ADAPTER_BYTES = 16
# A step at its peak by what autograd keeps, and what libraries take once. Both measured: trainings
# of the embedded model at batches of 1, 4 and 16 added 120, 136 and 232 MB to the process.
_TRANSIENT = 1.3
_LIBRARIES = 90_000_000
# Autograd keeps so much more in float32 than under autocast, which holds some of both.
_FLOAT32 = 1.5
# A folder may be in float32, and lack or add a part: its size tells the architecture within this.
_LIKE = 3.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What base models of one shape cost.

    `parameters` are those of all networks, `flop` a pixel of one evaluation, `saved` the bytes a
    pixel that autograd keeps of it in 16 bits, `width` the numbers of an adapter for each rank.
    """

    family: str
    parameters: int
    flop: float
    saved: int
    width: int


ARCHITECTURES = (
    Architecture(family="sdxl", parameters=3_940_000, flop=70.3e3, saved=750, width=20_224),
    Architecture(
        family="sdxl", parameters=3_470_000_000, flop=6.45e6, saved=8_510, width=2_659_840
    ),
    Architecture(family="sd1", parameters=1_070_000_000, flop=3.06e6, saved=5_050, width=423_936),
    # Keeps what goes into its 57 blocks, 4608 tokens of 3072 channels each, and one block whole.
    Architecture(
        family="flux", parameters=16_870_000_000, flop=66.3e6, saved=2_000, width=4_085_760
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Amount:
    """A training in numbers.

    `pictures` go through its steps, over all epochs; `pixels` is the most that one has. `kept` are
    prompts whose pictures it leaves alone. `samples` are drawn at every checkpoint, asking `guided`
    times at each denoising step. `trained` is one evaluation with its gradient, in evaluations.
    """

    steps: int
    pictures: int
    cached: int
    held_out: int
    kept: int
    checkpoints: int
    samples: int
    sample_steps: int
    guided: int
    trained: float
    pixels: int
    batch_size: int
    gradient_accumulation: int
    rank: int


def trained_evaluations(model: Model) -> float:
    """Return what one evaluation with its gradient costs, in evaluations."""
    return _TRAINED + (_RECOMPUTED if model.family in RECOMPUTED else 0.0)


def guided_evaluations(model: Model) -> int:
    """Return the evaluations of one denoising step: guidance asks twice, but for Flux."""
    return 1 if model.family == "flux" or model.guidance_scale <= 1 else 2


def step_evaluations(trained: float, *, keeping: bool) -> float:
    """Return the evaluations for one picture of a step.

    Where prompts are kept, every so many pictures add an answer that is kept; and every so many one
    picture at half the adapter's weight, with an answer of its own, and what the base says to it.
    """
    if not keeping:
        return trained
    halfway = 1 / PICTURES_PER_HALFWAY
    return trained * (1 + 1 / PICTURES_PER_KEPT + 2 * halfway) + halfway


def evaluations(amount: Amount) -> float:
    """Return the evaluations of a whole training: caching, steps, checkpoints."""
    kept = (KEPT_STEPS + KEPT_TIMESTEPS) * amount.guided
    caching = amount.cached * _ENCODED + amount.kept * kept
    sample = amount.sample_steps * amount.guided + _DECODED
    checkpoint = amount.held_out * JUDGED_TIMESTEPS + amount.samples * sample
    steps = amount.pictures * step_evaluations(amount.trained, keeping=amount.kept > 0)
    return caching + steps + amount.checkpoints * checkpoint


def architecture_of(model: Model) -> Architecture | None:
    """Return the shape that a base model has by its family and size, None where it is like none."""
    nearest = _nearest(model)
    if nearest is None or not 1 / _LIKE < _size_by(model, nearest) < _LIKE:
        return None
    return nearest


def memory_bytes(
    architecture: Architecture, amount: Amount, *, weight_bytes: int, parameter_bytes: int
) -> int:
    """Return what a training adds to the memory of the device at its peak.

    `parameter_bytes` is 2 where the device computes in 16 bits, else 4.
    """
    rows = rows_of_step(
        batch_size=amount.batch_size,
        gradient_accumulation=amount.gradient_accumulation,
        keeping=amount.kept > 0,
    )
    adapter = ADAPTER_BYTES * amount.rank * architecture.width
    return weight_bytes + adapter + _step_bytes(architecture, amount.pixels, rows, parameter_bytes)


def weight_bytes(architecture: Architecture, *, parameter_bytes: int) -> int:
    """Return what the weights of a base model take."""
    return architecture.parameters * parameter_bytes


def step_bytes(model: Model, *, pixels: int, rows: int, parameter_bytes: int) -> int:
    """Return the bytes to keep free for a step, beside weights and adapter.

    By the nearest architecture of the family, however near: some reserve is better than none.
    """
    nearest = _nearest(model)
    return 0 if nearest is None else _step_bytes(nearest, pixels, rows, parameter_bytes)


def rows_of_step(*, batch_size: int, gradient_accumulation: int, keeping: bool) -> int:
    """Return the most that the denoiser sees together: a batch, and what is kept beside it."""
    kept = batch_size * gradient_accumulation / PICTURES_PER_KEPT
    return batch_size + (math.ceil(kept) if keeping else 0)


def _step_bytes(architecture: Architecture, pixels: int, rows: int, parameter_bytes: int) -> int:
    wider = 1.0 if parameter_bytes == 2 else _FLOAT32
    return round(_TRANSIENT * architecture.saved * pixels * rows * wider) + _LIBRARIES


def _nearest(model: Model) -> Architecture | None:
    of_family = [each for each in ARCHITECTURES if each.family == model.family]
    if not of_family or model.size_bytes <= 0:
        return None
    return min(of_family, key=lambda each: abs(math.log(_size_by(model, each))))


def _size_by(model: Model, architecture: Architecture) -> float:
    """Return the model's size by that of the architecture in 16 bits."""
    return model.size_bytes / (2 * architecture.parameters)
