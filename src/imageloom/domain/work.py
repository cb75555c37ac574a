"""What the device gets for one attempt, by task type: everything it needs, and no more.

Values that cross the pipe inside a `Run` message, so they are made and read without torch.
"""

from __future__ import annotations

import msgspec

from imageloom.domain.catalog import Model


class InputImage(msgspec.Struct, frozen=True, kw_only=True):
    """A picture to start from, at the size the device draws: row-major RGB."""

    width: int
    height: int
    rgb: bytes


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
