"""What a training will do, known before it begins: sizes, batches, order, and how much of each.

Pure functions of numbers; torch is not needed here.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from imageloom.datasets import trained_size
from imageloom.domain.catalog import Model
from imageloom.domain.errors import InvalidParams

TRAINABLE = ("sdxl", "sd1", "flux")
# Flux packs latents two by two, and sizes are multiples of 16 pixels from here on.
FLUX_SIDE = 256
# One answer of the base model is kept for so many pictures that are trained on: see `keeping`.
PICTURES_PER_KEPT = 2
# One picture is shown at half the adapter's weight for so many, beside another such answer.
PICTURES_PER_HALFWAY = 4
# What is kept of a prompt: answers at this many timesteps of a picture drawn in so many steps.
KEPT_TIMESTEPS = 5
KEPT_STEPS = 5
# A held-out picture is judged at this many timesteps, spread over all of them.
JUDGED_TIMESTEPS = 4
# A sample shows how a training goes, and more denoising steps would not show it better.
SAMPLE_STEPS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Width and height in pixels."""

    width: int
    height: int


# One optimiser step is a list of batches; a batch is the numbers of its pictures, of one size.
Step = tuple[tuple[int, ...], ...]


def check_trainable(
    model: Model, *, resolution: int, text_encoders: bool, layout: Literal["diffusers", "kohya"]
) -> None:
    """Refuse a model that cannot be trained here, or not so. Raises: InvalidParams."""
    if model.kind != "base" or model.family not in TRAINABLE:
        raise InvalidParams(
            f"base_model: {model.name!r} is of the family {model.family}, which cannot be trained "
            f"here; use a model of one of {', '.join(TRAINABLE)}",
            param="base_model",
        )
    if model.family != "flux":
        return
    whose = f"{model.name!r} is of the family flux"
    if text_encoders:
        raise InvalidParams(
            f"config.text_encoders: {whose}, whose encoders are not trained here; leave it out",
            param="config.text_encoders",
        )
    if layout == "kohya":
        raise InvalidParams(
            f"config.layout: {whose}, whose adapters are written in the layout diffusers only",
            param="config.layout",
        )
    side = training_side(model, resolution)
    if side < FLUX_SIDE or side % 16:
        raise InvalidParams(
            f"config.resolution: {whose}, which is trained at {FLUX_SIDE} pixels or more and a "
            f"multiple of 16; found {side}",
            param="config.resolution",
        )


def training_side(model: Model, resolution: int) -> int:
    """Return the side in pixels of the square whose area every picture gets at most."""
    return resolution if model.native_size is None else min(resolution, model.native_size)


def bucket(size: Size, *, side: int) -> Size:
    """Return the size that a picture is trained at: of its shape, at most `side` squared in area.

    Multiples of 8, and of 16 from a side of 256 on, on a grid of about a sixteenth of the side, so
    that pictures of nearly one shape share a size and fit in one batch. Shapes longer than 2 : 1
    get 2 : 1.
    """
    width, height = trained_size(size.width, size.height, side=side)
    return Size(width=width, height=height)


def steps_of_epoch(
    sizes: Sequence[Size], *, batch_size: int, gradient_accumulation: int, seed: int, epoch: int
) -> list[Step]:
    """Return the optimiser steps of one epoch (from 0): every picture once, in an order of its own.

    `sizes` are those of the buckets, by picture. The order follows from (seed, epoch) alone; the
    number of steps is the same in every epoch.
    """
    order = random.Random(derived_seed(seed, "epoch", epoch))  # noqa: S311  # no secret is drawn
    numbers = list(range(len(sizes)))
    order.shuffle(numbers)
    waiting: dict[Size, list[int]] = {}
    batches: list[tuple[int, ...]] = []
    for number in numbers:
        batch = waiting.setdefault(sizes[number], [])
        batch.append(number)
        if len(batch) == batch_size:
            batches.append(tuple(waiting.pop(sizes[number])))
    batches += [tuple(batch) for batch in waiting.values()]
    order.shuffle(batches)
    return [
        tuple(batches[start : start + gradient_accumulation])
        for start in range(0, len(batches), gradient_accumulation)
    ]


def count_steps(
    sizes: Sequence[Size], *, batch_size: int, gradient_accumulation: int, epochs: int
) -> int:
    """Return the optimiser steps of a training on pictures of these bucket sizes."""
    per_size = [sizes.count(size) for size in set(sizes)]
    batches = sum(math.ceil(count / batch_size) for count in per_size)
    return math.ceil(batches / gradient_accumulation) * epochs


def derived_seed(seed: int, purpose: str, number: int) -> int:
    """Return a seed of 63 bits for one purpose of a training, independent of all others."""
    text = f"{seed}/{purpose}/{number}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big") >> 1
