"""Run a network that enlarges over a picture of any size, tile by tile, without seams.

Neighbouring tiles overlap. What is near an inner edge of a tile was computed without knowing what
lies beyond it, so that it counts nothing; then the two tiles fade into one another. One row of
tiles is kept as float, the finished picture as bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # [height, width, channels]
Values = NDArray[np.float32]  # the same shape, 0 to 1

# Input pixels that two neighbouring tiles share. A quarter at either end counts nothing, the half
# between fades: a network that sees at most 8 pixels far gives the same picture tiled or not.
OVERLAP = 32
# More than two tiles would meet in one place with smaller ones.
SMALLEST_SIDE = 3 * OVERLAP


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The pixels `start` to `stop` (exclusive) of one axis of the input, which one tile covers."""

    start: int
    stop: int


def spans(length: int, *, side: int, step: int = 1) -> tuple[Span, ...]:
    """Return what covers an axis of `length` pixels, in order, neighbours sharing `OVERLAP`.

    At most `side` (at least `SMALLEST_SIDE`) pixels each, about equal; every start is a multiple of
    `step`, so that windows of that size lie as they do in the whole picture. The shared part and
    `side` grow to multiples of `step`.
    """
    overlap = _up_to_multiple(OVERLAP, step)
    side = max(_up_to_multiple(side, step), 3 * overlap)
    if length <= side:
        return (Span(start=0, stop=length),)
    number = _divide_up(length - overlap, side - overlap)
    stride = _up_to_multiple(_divide_up(length - overlap, number), step)
    number = _divide_up(length - overlap, stride)
    return tuple(
        Span(start=index * stride, stop=min(index * stride + stride + overlap, length))
        for index in range(number)
    )


def enlarge_in_tiles(
    pixels: Pixels,
    enlarge: Callable[[Pixels], Values],
    *,
    factor: int,
    side: int,
    step: int = 1,
    between_tiles: Callable[[float], None],
) -> Pixels:
    """Return `pixels` enlarged `factor` times.

    `enlarge` gets one tile and returns it with `factor` times the height and width. `between_tiles`
    gets the share of tiles that are done, 0 to 1, after each; what it raises passes through.
    """
    height, width, channels = pixels.shape
    rows, columns = spans(height, side=side, step=step), spans(width, side=side, step=step)
    row_weights, column_weights = _weights(rows, factor), _weights(columns, factor)
    finished = np.empty((height * factor, width * factor, channels), np.uint8)
    above = np.zeros((0, width * factor, channels), np.float32)
    done = 0
    for row_number, row in enumerate(rows):
        strip = np.zeros(((row.stop - row.start) * factor, *finished.shape[1:]), np.float32)
        for column, weights in zip(columns, column_weights, strict=True):
            tile = enlarge(pixels[row.start : row.stop, column.start : column.stop])
            strip[:, column.start * factor : column.stop * factor] += tile * weights[:, None]
            done += 1
            between_tiles(done / (len(rows) * len(columns)))
        strip *= row_weights[row_number][:, None, None]
        strip[: len(above)] += above
        last = row_number == len(rows) - 1
        complete = len(strip) if last else (rows[row_number + 1].start - row.start) * factor
        start = row.start * factor
        finished[start : start + complete] = _bytes(strip[:complete])
        above = strip[complete:].copy()
    return finished


def _weights(axis: tuple[Span, ...], factor: int) -> list[Values]:
    """Return how much every output pixel of each span counts; over all spans they sum to 1."""
    weights = [np.ones((span.stop - span.start) * factor, np.float32) for span in axis]
    for number, (before, after) in enumerate(pairwise(axis)):
        shared = (before.stop - after.start) * factor
        rising = np.clip(((np.arange(shared) + 0.5) / shared - 0.25) * 2, 0, 1).astype(np.float32)
        weights[number][-shared:] = 1 - rising
        weights[number + 1][:shared] = rising
    return weights


def _bytes(values: Values) -> Pixels:
    values *= 255
    values += 0.5
    return np.clip(values, 0, 255, out=values).astype(np.uint8)


def _divide_up(amount: int, by: int) -> int:
    return -(-amount // by)


def _up_to_multiple(amount: int, step: int) -> int:
    return _divide_up(amount, step) * step
