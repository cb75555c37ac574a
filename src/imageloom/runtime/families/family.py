"""What every family says of itself: from words and pictures to a network's inputs, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import torch
from torch import Tensor, nn

from imageloom.domain.work import InputImage
from imageloom.images import Picture


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A text as the network takes it: `tokens` [1, n, d], `pooled` [1, p] where there is one."""

    tokens: Tensor
    pooled: Tensor | None

    @classmethod
    def of_each(cls, tokens: Tensor, pooled: Tensor | None) -> tuple[Self, ...]:
        """Return the prompts of texts that were encoded together, [m, n, d] and [m, p]."""
        return tuple(
            cls(
                tokens=tokens[row : row + 1],
                pooled=None if pooled is None else pooled[row : row + 1],
            )
            for row in range(len(tokens))
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lane:
    """What one entry of a forward pass is told beside its latents and its timestep.

    `told` are the numbers of the family: SDXL's six time ids [1, 6], Flux's guidance [1], or none.
    `size` is the picture's width and height in pixels.
    """

    prompt: Prompt
    told: Tensor | None
    size: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a picture of `size` shows: `original`, scaled to cover it and cut off left of and above
    `corner`. Width and height, left and top, in pixels.
    """

    size: tuple[int, int]
    original: tuple[int, int]
    corner: tuple[int, int]

    @classmethod
    def whole(cls, size: tuple[int, int]) -> Self:
        """Return the view of a picture that nothing was cut off."""
        return cls(size=size, original=size, corner=(0, 0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """How a picture begins. `width` and `height` in pixels; `strength` has a meaning with `image`.

    `scheduler` is the row's own diffusers scheduler, `generator` the CPU's random numbers of its
    seed.
    """

    width: int
    height: int
    steps: int
    image: InputImage | None
    strength: float
    scheduler: Any
    generator: torch.Generator


class Family(Protocol):
    """One kind of model. Methods run on the network's device, and in its dtype.

    A training asks `predict` in float32, whatever the weights are in, and `encode_prompts` and
    `predict` with gradients. `network_name` is what the pipeline calls its network.
    """

    network_name: str
    network: nn.Module

    @property
    def prompt_layers(self) -> tuple[nn.Linear, ...]:
        """The layers of the network whose input are the tokens of prompts and nothing else."""
        ...

    def encode_prompts(self, texts: Sequence[str]) -> tuple[Prompt, ...]:
        """Return what the text encoders make of each text, all in one pass."""
        ...

    def no_prompt(self, prompt: Prompt) -> Prompt | None:
        """Return what guidance leads away from without a negative prompt; None for the empty text.

        Its tensors have the shapes of those of `prompt`.
        """
        ...

    def uses_guidance(self, guidance_scale: float) -> bool:
        """Whether a picture takes two lanes, without and with its prompt, instead of one."""
        ...

    def told(self, view: View, *, guidance_scale: float) -> Tensor | None:
        """Return the numbers that the network gets beside a picture, float32 [1, ...], or none."""
        ...

    def begin(self, start: Start) -> tuple[Tensor, Tensor]:
        """Return latents [1, ...] at their first timestep, and the timesteps to go through [n].

        Sets the scheduler of `start`, and draws from its generator as the stock pipeline does.
        """
        ...

    def predict(self, latents: Tensor, timesteps: Tensor, lanes: tuple[Lane, ...]) -> Tensor:
        """Return the network's answer [n, ...] to latents [n, ...] at timesteps [n].

        All lanes are of one size.
        """
        ...

    def packed(self, latents: Tensor) -> Tensor:
        """Return latents [n, c, h, w] as the network has them."""
        ...

    def unpacked(self, latents: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Undo `packed`; `size` is the picture's, in pixels."""
        ...

    def decode(self, latents: Tensor, *, size: tuple[int, int]) -> Picture:
        """Return the picture of finished latents [1, ...]; `size` in pixels."""
        ...
