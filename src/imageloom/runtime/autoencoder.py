"""One use of an autoencoder: whole or in tiles, and afterwards as it was."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from diffusers import AutoencoderKL


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
