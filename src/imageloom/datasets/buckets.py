"""The sizes that pictures are trained at: few, so that those of nearly one shape make a batch."""

from __future__ import annotations

import math

LONGEST_SHAPE = 2.0  # longest side by shortest; a longer picture is cropped in its middle
_GRID = 8  # pixels of one latent
_WIDE_GRID = 16  # of two, which some models pack in one token


def trained_size(width: int, height: int, *, side: int) -> tuple[int, int]:
    """Return the width and height that a picture of that shape is trained at.

    Multiples of 8, and of 16 from a side of 256 on, on a grid of about a sixteenth of `side`, at
    most `side` squared in area. Shapes longer than 2 : 1 get 2 : 1. Of two sizes equally near in
    shape it is the larger.
    """
    grid = max(_GRID, side // 16 // _WIDE_GRID * _WIDE_GRID)
    shape = min(max(width / height, 1 / LONGEST_SHAPE), LONGEST_SHAPE)
    least, most = side / math.sqrt(LONGEST_SHAPE), side * math.sqrt(LONGEST_SHAPE)
    across = range(max(1, math.floor(least / grid)) * grid, math.floor(most) + 1, grid)
    sizes = [(each, side * side // each // grid * grid) for each in across]
    return min(sizes, key=lambda size: _preference(size, shape))


def _preference(size: tuple[int, int], shape: float) -> tuple[float, int]:
    width, height = size
    return round(abs(math.log(width / height / shape)), 6), -width * height
