"""Pictures as PIL has them, which diffusers takes and gives."""

from __future__ import annotations

from PIL import Image

from imageloom.domain.work import InputImage
from imageloom.images import Picture


def to_picture(image: Image.Image) -> Picture:
    """Return a PIL image as a picture."""
    rgb = image.convert("RGB")
    return Picture(width=rgb.width, height=rgb.height, rgb=rgb.tobytes())


def to_pil(image: InputImage) -> Image.Image:
    """Return an input as a PIL image."""
    return Image.frombytes("RGB", (image.width, image.height), image.rgb)
