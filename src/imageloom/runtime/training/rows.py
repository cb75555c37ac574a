"""What goes through the denoiser in one pass of a training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imageloom.runtime.training.base import Example


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Noisy latents, and what the model should answer to them.

    `noisy` and `target` float32 [n, c, h, w]; `timesteps` [n]; `weights` float32 [n] of the
    losses. The first `pictures` rows are pictures that are trained on.
    """

    examples: Sequence[Example]
    noisy: Tensor
    timesteps: Tensor
    target: Tensor
    weights: Tensor
    pictures: int


def joined(pictures: Rows, others: Rows) -> Rows:
    """Return both in one; their latents have one shape. No row of `others` is a picture."""
    return Rows(
        examples=[*pictures.examples, *others.examples],
        noisy=torch.cat([pictures.noisy, others.noisy]),
        timesteps=torch.cat([pictures.timesteps, others.timesteps]),
        target=torch.cat([pictures.target, others.target]),
        weights=torch.cat([pictures.weights, others.weights]),
        pictures=pictures.pictures,
    )
