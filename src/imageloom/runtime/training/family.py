"""What the trainer asks of a model family: all in which one differs from another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from imageloom.runtime.training.objective import Objective
from imageloom.runtime.training.plan import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """Captions as the denoiser takes them: `tokens` [n, m, d], `pooled` [n, p] where it has one."""

    tokens: Tensor
    pooled: Tensor | None


class Family(Protocol):
    """A loaded pipeline of one kind. `denoiser` is the name of its network in the pipeline."""

    denoiser: str

    def objective(self) -> Objective:
        """Return what its denoiser was trained to do. Raises: InvalidParams where unknown."""
        ...

    def captions(self, texts: Sequence[str]) -> Caption:
        """Return what the text encoders make of prompts, in the dtype of the weights."""
        ...

    def told(self, original: Size, size: Size, *, crop: tuple[int, int]) -> Tensor | None:
        """Return the numbers that the denoiser gets beside a picture, float32 [1, ...], or none.

        `original` was scaled to cover `size` and cropped at `crop`, rows and columns.
        """
        ...

    def answer(
        self, noisy: Tensor, timesteps: Tensor, caption: Caption, told: Tensor | None
    ) -> Tensor:
        """Return the denoiser's prediction for noisy latents [n, c, h, w]."""
        ...

    def arguments(self, wanted: Caption, unwanted: Caption, *, side: int) -> dict[str, Any]:
        """Return how the pipeline is called to draw a square picture of encoded prompts."""
        ...

    def unpacked(self, drawn: Tensor, *, side: int) -> Tensor:
        """Return latents [c, h, w] of what the pipeline calls the latents of a square picture."""
        ...
