"""One use of an autoencoder: whole or in tiles, afterwards as it was, and its scale of latents."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor


def can_tile(vae: Any) -> bool:
    """Whether `in_tiles` has an effect."""
    return isinstance(vae, AutoencoderKL)


@contextmanager
def in_tiles(vae: Any, *, size: tuple[int, int], cuts: int) -> Iterator[None]:
    """Let an autoencoder cut each side of a picture of `size` pixels in so many overlapping tiles.

    Tiles are blended over a quarter of their side; each is normalised by itself, so that colours
    differ a little from those of the whole. With 1 nothing changes.
    """
    if cuts == 1 or not can_tile(vae):
        yield
        return
    before = (vae.use_tiling, vae.tile_latent_min_size, vae.tile_sample_min_size)
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    side = math.ceil(max(size) / factor / cuts)
    vae.use_tiling, vae.tile_latent_min_size, vae.tile_sample_min_size = True, side, side * factor
    try:
        yield
    finally:
        vae.use_tiling, vae.tile_latent_min_size, vae.tile_sample_min_size = before


@contextmanager
def own_dtype(vae: Any) -> Iterator[None]:
    """Give an autoencoder its dtype back that works in float32 where half precision overflows.

    The pipelines do so themselves, but not where something raises in between.
    """
    dtype = getattr(vae, "dtype", None)
    try:
        yield
    finally:
        if dtype is not None and vae.dtype != dtype:
            vae.to(dtype)


def scaled(latents: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Return latents [n, c, h, w] as a network takes them, of what an autoencoder encoded.

    `config` is the autoencoder's: it has a shift, or a mean and a deviation for each channel.
    """
    if (known := _of_channels(config, latents)) is not None:
        mean, deviation = known
        latents = (latents - mean) / deviation
    return (latents - (config.get("shift_factor") or 0)) * float(config["scaling_factor"])


def unscaled(latents: Tensor, config: Mapping[str, Any]) -> Tensor:
    """Undo `scaled`, in the order of the stock pipelines."""
    factor = float(config["scaling_factor"])
    if (known := _of_channels(config, latents)) is not None:
        mean, deviation = known
        return latents * deviation / factor + mean
    return latents / factor + (config.get("shift_factor") or 0)


def _of_channels(config: Mapping[str, Any], latents: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return the mean and the deviation of each channel [1, c, 1, 1], None without them."""
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    if mean is None or deviation is None:
        return None
    shape = (1, -1, 1, 1)
    return (
        torch.tensor(mean).view(shape).to(latents.device, latents.dtype),
        torch.tensor(deviation).view(shape).to(latents.device, latents.dtype),
    )
