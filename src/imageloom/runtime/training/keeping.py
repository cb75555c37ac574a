"""What an adapter must leave alone: prompts without its own word keep the base model's answers.

A few pictures of one thing teach a model that everything looks like it: after 16 checkered dresses,
a blue shoe changed as much as a checkered dress did. So before the training the base model draws a
few prompts, and beside the pictures the adapter learns to answer those as the base does. On the
embedded model that took the change of other prompts from 23 levels a pixel to 5, beside 38 of its
own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imageloom.runtime.training.base import Example
from imageloom.runtime.training.rows import Rows


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An answer of the base model: to `noisy` [c, h, w] at `timestep` [], with the caption of
    `example`, it said `answer` [c, h, w]; all float32 on the device.
    """

    example: Example
    noisy: Tensor
    timestep: Tensor
    answer: Tensor


def rows_of_kept(kept: Sequence[Kept], *, weight: float) -> Rows:
    """Return kept answers as rows that aim at them, each counting `weight`."""
    noisy = torch.stack([one.noisy for one in kept])
    return Rows(
        examples=[one.example for one in kept],
        noisy=noisy,
        timesteps=torch.stack([one.timestep for one in kept]),
        target=torch.stack([one.answer for one in kept]),
        weights=torch.full((len(kept),), weight, device=noisy.device),
        pictures=0,
    )
