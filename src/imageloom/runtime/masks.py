"""Masks and arrays of pictures: their types and the few shape operations that cutting out needs."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]


def shrink(rgb: Bytes, side: int) -> Bytes:
    """Return `rgb` with its longer side at most `side`, by averaging; as it is when it fits."""
    height, width = rgb.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return rgb
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA), np.uint8)


def blurred(values: Floats, sigma: float) -> Floats:
    """Return `values` under a Gaussian of that many pixels."""
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma), np.float32)


def highest_around(values: Floats, radius: int) -> Floats:
    """Return the highest of `values` within `radius` of each pixel."""
    return np.asarray(cv2.dilate(values, _disc(radius)), np.float32)


def dilated(mask: Mask, radius: int) -> Mask:
    """Return the pixels within `radius` of `mask`."""
    return np.asarray(cv2.dilate(mask.astype(np.uint8), _disc(radius)) > 0)


def eroded(mask: Mask, radius: int) -> Mask:
    """Return the pixels of `mask` that are further than `radius` from the rest of the picture."""
    return np.asarray(cv2.erode(mask.astype(np.uint8), _disc(radius)) > 0)


def _disc(radius: int) -> Bytes:
    size = (2 * radius + 1, 2 * radius + 1)
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, size), np.uint8)


def through_gaps(mask: Mask, seeds: Mask, *, radius: int) -> Mask:
    """Return what of `mask` is reached from `seeds` by ways wider than twice `radius`.

    A narrower gap in an edge is noise, not a way in.
    """
    wide = touching(eroded(mask, radius) | (seeds & mask), seeds)
    return dilated(wide, radius) & mask


def touching(mask: Mask, seeds: Mask) -> Mask:
    """Return the connected parts of `mask` that hold one of `seeds`."""
    count, parts = cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)
    keep = np.zeros(count, np.bool_)
    keep[np.unique(parts[seeds & mask])] = True
    keep[0] = False
    return np.asarray(keep[parts])


def large_parts(mask: Mask, *, least: float) -> Mask:
    """Return the connected parts of `mask` that have at least that many pixels."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=4)
    keep = stats[:, cv2.CC_STAT_AREA] >= least
    keep[0] = False
    return np.asarray(keep[parts])
