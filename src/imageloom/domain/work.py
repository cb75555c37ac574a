"""What the device gets for one attempt, by task type: everything it needs, and no more.

Values that cross the pipe inside a `Run` message, so they are made and read without torch.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from imageloom.domain.catalog import Model


class InputImage(msgspec.Struct, frozen=True, kw_only=True):
    """A picture to start from: row-major RGB, and alpha where it is a cut-out."""

    width: int
    height: int
    rgb: bytes
    alpha: bytes | None = None


class LoraUse(msgspec.Struct, frozen=True, kw_only=True):
    """One adapter of a generation task: a local safetensors file, and how strongly it acts."""

    name: str
    path: str
    sha256: str
    weight: float


class GenerationWork(msgspec.Struct, frozen=True, kw_only=True):
    """What the device needs for one generation task. `width` and `height` are what it draws.

    `scheduler` is one of `domain.schedulers`, None for the model's own. With `exact`, a picture has
    the same bits whatever else is drawn beside it. After every `preview_every` steps a small
    picture of each is told, None for never.
    """

    model: Model
    prompt: str
    negative_prompt: str | None
    width: int
    height: int
    steps: int
    guidance_scale: float
    strength: float
    seeds: tuple[int, ...]
    image: InputImage | None
    loras: tuple[LoraUse, ...] = ()
    scheduler: str | None = None
    exact: bool = False
    preview_every: int | None = None


class ProcessingWork(msgspec.Struct, frozen=True, kw_only=True):
    """What the device needs for one picture of a processing task.

    `options` are the stored parameters of the operation, `background` what a subject is put
    before, already at the picture's size.
    """

    operation: str
    options: dict[str, Any]
    model: Model | None
    image: InputImage
    background: InputImage | None = None


class TrainingPicture(msgspec.Struct, frozen=True, kw_only=True):
    """One picture of a data set: a local file, upright RGB, already checked."""

    path: str
    caption: str
    held_out: bool = False


class TrainingWork(msgspec.Struct, frozen=True, kw_only=True):
    """What the device needs for one training. Numbers are of optimiser steps.

    `folder` is the attempt's own: checkpoints are written there. `resume` is a checkpoint of an
    earlier attempt to go on from.
    """

    model: Model
    pictures: tuple[TrainingPicture, ...]
    epochs: int
    learning_rate: float
    batch_size: int
    gradient_accumulation: int
    rank: int
    alpha: float
    resolution: int
    seed: int
    schedule: Literal["constant", "cosine"]
    warmup_steps: int
    min_snr_gamma: float | None
    noise_offset: float
    flip: bool
    text_encoders: bool
    checkpoint_every: int
    sample_prompts: tuple[str, ...]
    layout: Literal["diffusers", "kohya"]
    folder: str
    resume: str | None = None
