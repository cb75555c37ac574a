"""What was found in a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

ProblemKind = Literal["unreadable", "tiny", "duplicate", "unused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A file that is left out, by its name in the archive. `message` says of it: `it is …`.

    unreadable, tiny and duplicate are of pictures; unused is any other file.
    """

    name: str
    kind: ProblemKind
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A picture that can be trained on.

    `name` is that in the archive, `width` and `height` are pixels of the upright picture, `sha256`
    is of its pixels, whatever format they came in.
    """

    name: str
    caption: str
    width: int
    height: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a data set holds.

    `items` are in the order of their names. `buckets` counts them by the (width, height) that
    they are trained at, the most frequent first. `sha256` follows from pixels and captions alone:
    names, order and compression do not change it. `warnings` are sentences about what is usable
    but perhaps not meant.
    """

    items: tuple[Item, ...]
    problems: tuple[Problem, ...]
    buckets: Mapping[tuple[int, int], int]
    sha256: str
    warnings: tuple[str, ...]
