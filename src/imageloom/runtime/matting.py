"""Clean, anti-aliased edges at a picture's full size: their alpha, and their colours."""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np

from imageloom.runtime.masks import Bytes, Floats, Mask, blurred, dilated, eroded, shrink

Area = tuple[slice, slice]

_TILE = 1024
_MARGIN = 24
_BAND = 3
# How far colours of one surface differ through grain and JPEG, and how far the two sides must lie
# apart before their colours tell more than the mask: in levels of 255.
_GRAIN = 3.0
_CLEAR = 12.0


def matte(rgb: Bytes, mask: Mask) -> Bytes:
    """Return the alpha of the subject under `mask`, uint8 of the size of `rgb`.

    `mask` may be smaller, of the same proportions. Its size is doubled until it is full, and at
    each size only a band of a few pixels along its edge is decided anew, so that the cost is
    mostly that of the edge; beside `rgb` it takes about 5 bytes a pixel.
    """
    height, width = rgb.shape[:2]
    alpha = mask.astype(np.uint8) * 255
    side = max(mask.shape)
    while True:
        side = min(2 * side, max(height, width)) if alpha.shape != rgb.shape[:2] else side
        image = shrink(rgb, side)
        size = (image.shape[1], image.shape[0])
        if alpha.shape != image.shape[:2]:
            alpha = cv2.resize(alpha, size, interpolation=cv2.INTER_LINEAR)
        alpha = _matte_level(image, alpha)
        if alpha.shape == rgb.shape[:2]:
            return alpha


def unmix(rgb: Bytes, alpha: Bytes) -> Bytes:
    """Return `rgb`, uint8 [height, width, 3], without the old background in half-clear pixels.

    At an outline a camera mixes both sides. Before a new background the old one's share would show
    as a fringe, so the colours of pixels with an alpha between 0 and 255 become the subject's own.
    """
    result = rgb.copy()
    for where, inner in _edge_tiles(alpha):
        result[where][inner] = _unmix_tile(rgb[where], alpha[where])[inner]
    return result


def _matte_level(image: Bytes, alpha: Bytes) -> Bytes:
    result = alpha.copy()
    for where, inner in _edge_tiles(alpha):
        result[where][inner] = _matte_tile(image[where], alpha[where])[inner]
    return result


def _edge_tiles(alpha: Bytes) -> Iterator[tuple[Area, Area]]:
    """Yield each tile with a margin in which `alpha` varies, and where in it the tile itself is."""
    height, width = alpha.shape
    for top in range(0, height, _TILE):
        for left in range(0, width, _TILE):
            y0, x0 = max(0, top - _MARGIN), max(0, left - _MARGIN)
            y1, x1 = min(height, top + _TILE + _MARGIN), min(width, left + _TILE + _MARGIN)
            part = alpha[y0:y1, x0:x1]
            if part.min() == part.max():
                continue
            inner = slice(top - y0, top - y0 + _TILE), slice(left - x0, left - x0 + _TILE)
            yield (slice(y0, y1), slice(x0, x1)), inner


def _unmix_tile(image: Bytes, alpha: Bytes) -> Bytes:
    """Return `image` with colour = share * front + (1 - share) * back solved for the front.

    Where the share is small the solution is mostly noise, and the mean colour inside counts.
    """
    colours = image.astype(np.float32)
    share = alpha.astype(np.float32)[..., None] / 255
    front = _local_mean(colours, (alpha >= 250).astype(np.float32))
    back = _local_mean(colours, (alpha <= 5).astype(np.float32))
    solved = np.clip((colours - (1 - share) * back) / np.maximum(share, 0.1), 0, 255)
    mixed = (alpha > 0) & (alpha < 255)
    colours[mixed] = (share * solved + (1 - share) * front)[mixed]
    return np.asarray(np.round(colours), np.uint8)


def _matte_tile(image: Bytes, alpha: Bytes) -> Bytes:
    """Return `alpha` with a band along its edge decided by the colours on both sides of it.

    A pixel is as opaque as it is far from the mean colour outside, measured by how far the mean
    colour inside is. Where both are alike the mask decides.
    """
    inside = alpha >= 128
    core, outer = eroded(inside, _BAND), ~dilated(inside, _BAND)
    colours = image.astype(np.float32)
    # What is too thin to have a core still counts a little: its own pixels are better than none.
    front = _local_mean(colours, core + np.float32(0.02) * inside)
    back = _local_mean(colours, outer + np.float32(0.02) * ~inside)
    span = np.linalg.norm(front - back, axis=2)
    away = np.linalg.norm(colours - back, axis=2)
    share = np.sqrt(np.maximum(away**2 - _GRAIN**2, 0)) / np.maximum(span, 1)
    trust = span**2 / (span**2 + _CLEAR**2)
    before = blurred(inside.astype(np.float32), 0.8)
    opaque = trust * np.clip(share, 0, 1) + (1 - trust) * before
    opaque[core], opaque[outer] = 1, 0
    return np.asarray(np.round(opaque * 255), np.uint8)


def _local_mean(colours: Floats, weight: Floats) -> Floats:
    weight = weight + np.float32(1e-6)
    total = blurred(weight, 2 * _BAND)
    return blurred(colours * weight[..., None], 2 * _BAND) / total[..., None]
