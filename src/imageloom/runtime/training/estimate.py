"""How long a training will take: by the pace of earlier ones, else by arithmetic, else unknown."""

from __future__ import annotations

import math
import operator
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from imageloom.domain.adapters import Pace
from imageloom.domain.catalog import Model
from imageloom.runtime.training import cost
from imageloom.runtime.training.cost import Amount

# Earlier trainings count within these ratios of pixels and of batch: the pace of a picture is
# taken to go with its pixels, and to be the same in any batch.
_PIXELS_LIKE = 4.0
_BATCH_LIKE = 4.0
_PACES = 5  # of so many, the nearest and newest, the median counts
# FLOP a second of one CPU thread in float32: trainings of the embedded model did 23e9 at batch 1 to
# 52e9 at batch 16, in CPU time, on a shared AMD EPYC.
_CPU_SPEED = 40e9
# FLOP a second of GPUs in bf16, by their names. An estimate, not measured here: a 4090 does
# 1.0 to 1.5 SDXL steps of 14.3 TFLOP a second at rank 16 and batch 1, 0.29 of what plain diffusers
# draws with there; the others are that share of theirs. Source: SimpleTuner, pull request 1184.
# Source: stable-fast's README: SDXL it/s of plain diffusers, H100 14.9, A100 8.7, 4090 4.6.
# All of UNets: transformers reach more, so a training of Flux is told as too long.
_GPU_SPEEDS = {"H200": 58e12, "H100": 58e12, "A100": 34e12, "4090": 18e12}
# Of smaller models a GPU's time goes into starting kernels, of which this arithmetic knows nothing.
_SMALL = 500_000_000  # parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Device:
    """A device that may do the training, as its live worker tells of it."""

    name: str
    memory_bytes: int | None

    @property
    def is_cpu(self) -> bool:
        """Whether it is a CPU, which tells no memory of its own."""
        return self.memory_bytes is None and "GPU" not in self.name


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a training will take on a device that does nothing else.

    None is unknown; `based_on` says what the numbers rest on, or what is lacking.
    """

    steps: int
    minutes: float | None
    memory_bytes: int | None
    based_on: str
    warnings: tuple[str, ...] = ()


def estimate(
    model: Model, amount: Amount, *, paces: Sequence[Pace], devices: Sequence[Device]
) -> Estimate:
    """Return what a training takes on the slowest of `devices`.

    `paces` are those of earlier trainings of the model, the newest first.
    """
    seconds, time_rests_on = _seconds(model, amount, paces, devices)
    memory, memory_rests_on = _memory(model, amount, devices)
    return Estimate(
        steps=amount.steps,
        minutes=None if seconds is None else float(f"{seconds / 60:.2g}"),
        memory_bytes=memory,
        based_on=f"{time_rests_on}; {memory_rests_on}",
        warnings=() if memory is None else _warnings(memory, devices),
    )


def _seconds(
    model: Model, amount: Amount, paces: Sequence[Pace], devices: Sequence[Device]
) -> tuple[float | None, str]:
    """Return the seconds of a training, and what they rest on."""
    names = {device.name for device in devices}
    here = [pace for pace in paces if pace.device in names or not devices]
    evaluations = cost.evaluations(amount)
    if nearest := _nearest(here, amount):
        each = statistics.median(_evaluation_seconds(pace, amount) for pace in nearest)
        where = ", ".join(dict.fromkeys(pace.device for pace in nearest))
        trainings = "1 training" if len(nearest) == 1 else f"{len(nearest)} trainings"
        return evaluations * each, f"time measured by {trainings} of {model.name} on {where}"
    if not devices:
        return None, f"no time: no worker is alive, and {model.name} was not trained like this"
    architecture = cost.architecture_of(model)
    if architecture is None:
        return None, f"no time: {model.name} was not trained like this, and is of no known shape"
    slowest = min(devices, key=lambda device: _speed(device, architecture.parameters) or 0.0)
    speed = _speed(slowest, architecture.parameters)
    if speed is None:
        return None, f"no time: {model.name} was not trained like this on {slowest.name}"
    flop = evaluations * architecture.flop * amount.pixels
    return flop / speed, f"time computed, at {speed / 1e12:g} TFLOP/s for {slowest.name}"


def _memory(model: Model, amount: Amount, devices: Sequence[Device]) -> tuple[int | None, str]:
    architecture = cost.architecture_of(model)
    if architecture is None:
        return None, "no memory: its shape is not known"
    # Computing in float32 takes more; on a GPU it is done in 16 bits.
    parameter_bytes = 4 if any(device.is_cpu for device in devices) else 2
    weights = cost.weight_bytes(architecture, parameter_bytes=parameter_bytes)
    needed = cost.memory_bytes(
        architecture, amount, weight_bytes=weights, parameter_bytes=parameter_bytes
    )
    return needed, f"memory computed, in {8 * parameter_bytes} bits"


def _warnings(memory: int, devices: Sequence[Device]) -> tuple[str, ...]:
    """Return a warning where every device tells its memory, and none has enough."""
    told = [device.memory_bytes for device in devices if device.memory_bytes is not None]
    if not told or len(told) < len(devices) or max(told) >= memory:
        return ()
    warning = (
        f"about {memory / 1e9:.1f} GB of memory are needed, and no live worker has more than "
        f"{max(told) / 1e9:.1f} GB; lower batch_size or resolution"
    )
    return (warning,)


def _nearest(paces: Sequence[Pace], amount: Amount) -> list[Pace]:
    """Return those that say something of a training, the likest first, of equal ones the newest."""

    def distance(pace: Pace) -> tuple[float, float]:
        pixels = abs(math.log(pace.side**2 / amount.pixels))
        return pixels, abs(math.log(pace.batch_size / amount.batch_size))

    most = math.log(_PIXELS_LIKE), math.log(_BATCH_LIKE)
    like = [pace for pace in paces if all(map(operator.le, distance(pace), most))]
    return sorted(like, key=distance)[:_PACES]


def _evaluation_seconds(pace: Pace, amount: Amount) -> float:
    """Return what one evaluation took at a pace, at the pixels of a training."""
    of_picture = cost.step_evaluations(amount.trained, keeping=pace.keeping)
    return amount.pixels / pace.side**2 / (of_picture * pace.images_per_second)


def _speed(device: Device, parameters: int) -> float | None:
    """Return the FLOP a second that trainings reach on a device, None where nobody knows."""
    if device.is_cpu:
        return _CPU_SPEED
    if parameters < _SMALL:
        return None
    return next((speed for part, speed in _GPU_SPEEDS.items() if part in device.name), None)
