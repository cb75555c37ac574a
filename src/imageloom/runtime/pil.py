"""Pictures as PIL has them, which diffusers takes and gives, and as an autoencoder answers them."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from imageloom.domain.work import InputImage
from imageloom.images import Picture


def to_picture(image: Image.Image) -> Picture:
    """Return a PIL image as a picture."""
    rgb = image.convert("RGB")
    return Picture(width=rgb.width, height=rgb.height, rgb=rgb.tobytes())


def decoded_picture(pixels: Tensor, *, denormalize: bool = True) -> Picture:
    """Return what an autoencoder answered, [1, 3, h, w] in -1 to 1, as a picture.

    The bytes are those of diffusers' `postprocess`, in its order of rounding; it does this on the
    host in float32, where a picture of 1024 px takes 15 to 30 ms for which a GPU waits. Without
    `denormalize` the answer is in 0 to 1 already.
    """
    image = pixels[0]
    if denormalize:
        image = (image * 0.5 + 0.5).clamp(0, 1)
    levels = image.float().mul(255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu()
    height, width, _ = levels.shape
    return Picture(width=width, height=height, rgb=levels.numpy().tobytes())


def to_pil(image: InputImage) -> Image.Image:
    """Return an input as a PIL image."""
    return Image.frombytes("RGB", (image.width, image.height), image.rgb)
