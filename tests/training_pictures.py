"""Pictures of a garment that the embedded model cannot draw, as the zip that a user would send."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

CAPTION = "a sks dress on a white background"


def checkered_dress(seed: int, *, side: int = 96) -> NDArray[np.uint8]:
    """A dress in a yellow and black check, before white; where it stands varies a little."""
    dice = np.random.default_rng(seed)
    scale, shift = dice.uniform(0.9, 1.05), dice.uniform(-0.04, 0.04, 2)
    outline = np.array([(0.4, 0.1), (0.6, 0.1), (0.64, 0.4), (0.82, 0.9), (0.18, 0.9), (0.36, 0.4)])
    points = ((outline - 0.5) * scale + 0.5 + shift) * side
    y, x = np.mgrid[0:side, 0:side]
    cell = side / 12
    check = ((x // cell + y // cell) % 2).astype(bool)
    cloth = np.where(check[..., None], (240, 200, 20), (20, 20, 20)).astype(np.uint8)
    mask = np.zeros((side, side), np.uint8)
    cv2.fillPoly(mask, [points.astype(np.int32)], 255, cv2.LINE_AA)
    share = mask[..., None] / 255
    return np.asarray(cloth * share + 250 * (1 - share), np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def archive(files: Mapping[str, bytes]) -> bytes:
    """Return a zip of those files."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return file.getvalue()


def data_set(count: int = 16, *, captions: bool = True, caption: str = CAPTION) -> bytes:
    """Return a zip of pictures of the garment, with the caption beside each."""
    files: dict[str, bytes] = {}
    for index in range(count):
        files[f"{index:02}.png"] = png(checkered_dress(index))
        if captions:
            files[f"{index:02}.txt"] = caption.encode()
    return archive(files)
