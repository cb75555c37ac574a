"""Where a mapped parameter gets its value: the run's input, or what another step made.

`input.NAME`, `steps.NAME.images`, `steps.NAME.images[2]`, and `.seed`, `.width`, `.height` of one
picture. `output.` before `images` and `.url` behind it may stand there, for both mean the same.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

# How a stored parameter names a picture that a step made; a reader sees a fresh URL instead.
OUTPUT_SCHEME: Final = "output:"
_WRAPPED = re.compile(r"\$?\{+\s*(.*?)\s*\}+|\$\.?(.*)")
_IMAGES = re.compile(
    r"(?:outputs?\.)?(?:images|image_urls|outputs?)"
    r"(?:(?:\[(?P<index>\d{1,4}|\*)\]|\.(?P<dotted>\d{1,4}))(?:\.(?P<field>url|seed|width|height))?)?"
)
_FIRST = re.compile(r"(?:outputs?\.)?(?:image_url|image|url)")


@dataclass(frozen=True, slots=True, kw_only=True)
class InputValue:
    """A value of the run's input."""

    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPictures:
    """What a step made: all of it, in order, or the picture at `index`."""

    step: str
    index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureField:
    """A number of one picture that a step made: its `seed`, `width` or `height`."""

    step: str
    index: int
    field: str


Source = InputValue | StepPictures | PictureField


def parse_source(text: str, *, steps: Collection[str]) -> Source:
    """Return what a mapping means; `steps` are the names that it may use.

    Raises: ValueError, which says what is wrong with it and what would do.
    """
    path = text.strip()
    if (wrapped := _WRAPPED.fullmatch(path)) is not None:
        path = wrapped[1] or wrapped[2] or ""
    if path.startswith(("input.", "inputs.")):
        name = path.partition(".")[2]
        if name:
            return InputValue(name=name)
    path = path.removeprefix("steps.")
    # The longest name first: a step may be called `a` and another `a.b`.
    for step in sorted(steps, key=len, reverse=True):
        if path == step:
            return StepPictures(step=step)
        if path.startswith(f"{step}."):
            return _of_step(step, path[len(step) + 1 :], text)
    raise ValueError(
        f"{text[:80]!r} names no step that comes before; use input.NAME, or steps.NAME.images[0] "
        f"with one of {', '.join(sorted(steps)) or 'no step: this one depends on none'}"
    )


def _of_step(step: str, path: str, text: str) -> Source:
    if _FIRST.fullmatch(path):
        return StepPictures(step=step, index=0)
    found = _IMAGES.fullmatch(path)
    if found is None:
        raise ValueError(
            f"{text[:80]!r} is not understood; use steps.{step}.images, steps.{step}.images[0] or "
            f"steps.{step}.images[0].seed"
        )
    number = found["index"] or found["dotted"]
    index = None if number in (None, "*") else int(number)
    if found["field"] in (None, "url"):
        return StepPictures(step=step, index=index)
    if index is None:
        raise ValueError(f"{text[:80]!r} means several numbers; say which picture, as in images[0]")
    return PictureField(step=step, index=index, field=found["field"])
