"""Whether any live worker can ever run a task, and what would have to change.

Says no only where it can be told. What a device needs at least is known as a lower bound, and what
a worker does not tell counts as enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from imageloom.domain.catalog import Model, is_method

# At the last rung of the ladder the parts of a model take turns on the device. The largest part of
# each model of the catalog's own, its UNet or transformer, is 0.6 to 0.75 of its files by their
# published parameters in 16 bits. So half is less than any needs.
_LARGEST_PART: Final = 0.5
# Bytes that one row's denoising step needs for each pixel, beside weights. ComfyUI keeps 262 free
# for SDXL, in 16 bits and with fused attention, and no less for the others.
# Source: ComfyUI, comfy/model_base.py, `memory_required`; comfy/supported_models.py.
_PIXEL_BYTES: Final = 200
SIDE_STEP: Final = 64  # pixels, of sizes that are proposed


@dataclass(frozen=True, slots=True, kw_only=True)
class Able:
    """What a live worker says of itself. `memory_bytes` is None where it is not to be counted.

    `serves` are the models that it may serve, None where it is any.
    """

    queues: tuple[str, ...]
    memory_bytes: int | None
    lacking: tuple[str, ...]
    serves: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """What a task needs. `size` is that of the picture on the device, None where it varies."""

    queue: str
    model: Model | None
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a task is runnable; where it is not, why, and the nearest change that would run."""

    runnable: bool
    reason: str | None = None
    change: str | None = None


RUNNABLE: Final = Verdict(runnable=True)


def judge(demand: Demand, workers: Sequence[Able], models: Iterable[Model] = ()) -> Verdict:
    """Return whether one of the live workers can ever run what is demanded.

    `models` may be named instead, where that is the nearest change.
    """
    start = f"start a worker that serves {demand.queue}"
    if not workers:
        return Verdict(runnable=False, reason="no worker is alive", change=start)
    serving = [worker for worker in workers if demand.queue in worker.queues]
    if not serving:
        reason = f"no live worker serves {demand.queue}"
        return Verdict(runnable=False, reason=reason, change=start)
    model = demand.model
    if model is None:
        return RUNNABLE
    serving = [worker for worker in serving if _may_serve(worker, model)]
    if not serving:
        reason = f"no live worker may serve the model {model.name!r}"
        change = f"name {model.name} in IMAGELOOM_WORKER_MODELS of a worker"
        return Verdict(runnable=False, reason=reason, change=change)
    having = [worker for worker in serving if model.name not in worker.lacking]
    if not having:
        reason = f"the weights of the model {model.name!r} are on no live worker"
        return Verdict(runnable=False, reason=reason, change=_get(model))
    most = _most_memory(having)
    if most is None or least_bytes(model, demand.size) <= most:
        return RUNNABLE
    needed = least_bytes(model, demand.size) / 1e9
    reason = (
        f"the model {model.name!r} needs at least {needed:.1f} GB of memory for this, and no live "
        f"worker's device has more than {most / 1e9:.1f} GB"
    )
    return Verdict(
        runnable=False, reason=reason, change=_smaller(demand, model, most, serving, models)
    )


def least_bytes(model: Model, size: tuple[int, int] | None) -> int:
    """Return what a model needs at the very least for one picture of a size in pixels.

    Nothing where its files are the user's own: nobody says in how many bits they are.
    """
    if not model.source.startswith("hub:"):
        return 0
    pixels = 0 if size is None else size[0] * size[1]
    return round(model.size_bytes * _LARGEST_PART) + pixels * _PIXEL_BYTES


def _may_serve(worker: Able, model: Model) -> bool:
    return worker.serves is None or model.name in worker.serves or is_method(model)


def _most_memory(workers: Sequence[Able]) -> int | None:
    """Return the memory of the largest device, None where one does not tell."""
    told = [worker.memory_bytes for worker in workers if worker.memory_bytes is not None]
    return max(told) if told and len(told) == len(workers) else None


def _get(model: Model) -> str:
    if model.source.startswith("hub:"):
        return f"imageloom models pull {model.name}"
    return f"imageloom models add {model.name} --path PATH, on a machine with a worker"


def _smaller(
    demand: Demand, model: Model, most: int, serving: Sequence[Able], models: Iterable[Model]
) -> str:
    """Return the nearest change that fits: fewer pixels, another model, or a larger device."""
    smaller = None if demand.size is None else _smaller_size(model, demand.size, most)
    if smaller is not None and demand.size is not None:
        return f"{_sides(demand.size)} becomes {_sides(smaller)}"
    fitting = [
        other
        for other in models
        if other.kind == model.kind
        and any(
            other.name not in worker.lacking and _may_serve(worker, other) for worker in serving
        )
        and least_bytes(other, demand.size) <= most
    ]
    if fitting:
        return f"model {max(fitting, key=lambda each: each.size_bytes).name}"
    return f"start a worker on a device with {least_bytes(model, demand.size) / 1e9:.1f} GB or more"


def _smaller_size(model: Model, size: tuple[int, int], most: int) -> tuple[int, int] | None:
    """Return the largest size of about the same proportions that fits, None where none does."""
    pixels = (most - least_bytes(model, None)) / _PIXEL_BYTES
    if pixels <= 0:
        return None
    factor = math.sqrt(pixels / (size[0] * size[1]))
    width, height = (int(side * factor) // SIDE_STEP * SIDE_STEP for side in size)
    return (width, height) if width and height else None


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
