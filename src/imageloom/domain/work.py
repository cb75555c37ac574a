"""What the device gets for one attempt, by task type: everything it needs, and no more.

Values that cross the pipe inside a `Run` message, so they are made and read without torch.
"""

from __future__ import annotations

from typing import Any

import msgspec

from imageloom.domain.catalog import Model


class InputImage(msgspec.Struct, frozen=True, kw_only=True):
    """A picture to start from: row-major RGB, and alpha where it is a cut-out."""

    width: int
    height: int
    rgb: bytes
    alpha: bytes | None = None


class GenerationWork(msgspec.Struct, frozen=True, kw_only=True):
    """What the device needs for one generation task. `width` and `height` are what it draws."""

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
