"""Small pictures of rows in the making: what a row would become, by a linear map to colours."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final, Self

import torch
from torch import Tensor
from torch.nn import functional

from imageloom.images import Picture

# Smooth noise of this many latents a side, of which this many are independent. On the embedded
# model's pictures the map is then 0.08 of 1 off a channel on average; with white noise 0.13.
_SIDE: Final = 32
_INDEPENDENT: Final = 8
_RIDGE: Final = 1e-3

Decode = Callable[[Tensor, tuple[int, int]], Picture]


class ColourMap:
    """The colour of each latent, as a linear function of its channels."""

    def __init__(self, weights: Tensor) -> None:
        """`weights` [c + 1, 3] give red, green and blue, 0 to 1; the last row is added."""
        self._weights = weights

    @classmethod
    def fitted(cls, decode: Decode, *, like: Tensor, factor: int) -> Self:
        """Return the map that is nearest to what an autoencoder makes of smooth noise.

        `decode` takes latents [1, c, h, w] and a width and height in pixels, which are `factor`
        times those of the latents. One decoding of 32 x 32 latents.
        """
        channels = like.shape[1]
        noise = torch.randn(
            1, channels, _INDEPENDENT, _INDEPENDENT, generator=torch.Generator().manual_seed(0)
        )
        smooth = functional.interpolate(noise, size=(_SIDE, _SIDE), mode="bicubic")
        picture = decode(smooth.to(like.device, like.dtype), (_SIDE * factor, _SIDE * factor))
        pixels = torch.frombuffer(bytearray(picture.rgb), dtype=torch.uint8)
        image = pixels.view(picture.height, picture.width, 3).permute(2, 0, 1)[None].float() / 255
        colours = functional.adaptive_avg_pool2d(image, (_SIDE, _SIDE))
        known = _with_one(smooth)
        squares = known.T @ known + _RIDGE * torch.eye(channels + 1)
        return cls(torch.linalg.solve(squares, known.T @ colours[0].flatten(1).T))

    def picture(self, latents: Tensor) -> Picture:
        """Return latents [1, c, h, w] as a picture of a pixel each."""
        height, width = latents.shape[-2:]
        colours = _with_one(latents.float().cpu()) @ self._weights
        rgb = (colours.clamp(0, 1) * 255).round().to(torch.uint8)
        return Picture(width=width, height=height, rgb=rgb.numpy().tobytes())


def estimate(scheduler: Any, latents: Tensor, answer: Tensor, timestep: Tensor) -> Tensor:
    """Return the latents that a row would end with if the network's answer were the whole truth.

    `latents` are those before the step, as the network saw them, `answer` what it said of them.
    Source: Ho et al. 2020 (arXiv:2006.11239), equation 15; Salimans and Ho 2022 (arXiv:2202.00512),
    section 4, for the velocity; Esser et al. 2024 (arXiv:2403.03206), equation 13, for flows.
    """
    if not hasattr(scheduler, "alphas_cumprod"):
        steps = scheduler.config.num_train_timesteps
        return latents - float(timestep / steps) * answer
    place = int(timestep.round().clamp(0, len(scheduler.alphas_cumprod) - 1))
    alpha = float(scheduler.alphas_cumprod[place])
    signal, noise = math.sqrt(alpha), math.sqrt(1 - alpha)
    match scheduler.config.prediction_type:
        case "v_prediction":
            return signal * latents - noise * answer
        case "sample":
            return answer
        case _:
            return (latents - noise * answer) / signal


def _with_one(latents: Tensor) -> Tensor:
    """Return latents [1, c, h, w] as [h w, c + 1], the last of them one."""
    flat = latents[0].flatten(1).T
    return torch.cat([flat, torch.ones(len(flat), 1)], dim=1)
