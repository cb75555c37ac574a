"""Rows: pictures in the making, each with everything that is its own, and how one takes a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from imageloom.runtime.adapter_use import AdapterSet
from imageloom.runtime.families import Lane
from imageloom.runtime.previews import estimate


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """One picture of one task. `latents` [1, ...] change with every denoising step.

    `lanes` are its entries in a forward pass: without and with the prompt where it is `guided`. One
    without guidance has one lane, or that one twice where it is `exact` (see `invariance`).
    `timesteps` are all that it goes through, `position` the index of the next. After every
    `preview_every` steps, `estimate` is what it may become, until somebody has looked.
    """

    seed: int
    size: tuple[int, int]
    lanes: tuple[Lane, ...]
    guided: bool
    guidance_scale: float
    scheduler: Any
    step_options: dict[str, Any]
    timesteps: list[Tensor]
    latents: Tensor
    adapters: AdapterSet | None
    exact: bool
    preview_every: int | None = None
    position: int = 0
    estimate: Tensor | None = None

    @property
    def done(self) -> bool:
        """Whether every denoising step is behind it."""
        return self.position == len(self.timesteps)

    @property
    def preview_due(self) -> bool:
        """Whether its next step leaves an estimate; the last leaves the picture itself."""
        if self.preview_every is None or self.remaining == 1:
            return False
        return (self.position + 1) % self.preview_every == 0

    @property
    def remaining(self) -> int:
        """How many forward passes are still to come."""
        return len(self.timesteps) - self.position

    @property
    def share_done(self) -> float:
        """How much of its denoising is behind it, 0 to 1."""
        return self.position / len(self.timesteps)

    @property
    def fits(self) -> tuple[object, ...]:
        """What rows of one forward pass have in common.

        The size too: packed latents of 512 x 1024 have the shape of those of 1024 x 512.
        """
        tokens = self.lanes[0].prompt.tokens
        return self.size, self.latents.shape, self.latents.dtype, tokens.shape, self.exact

    @property
    def work(self) -> int:
        """Lanes x pixels of one forward pass."""
        width, height = self.size
        return len(self.lanes) * width * height

    def latents_seen(self) -> Tensor:
        """Return its latents as its scheduler has the network see them, once for each lane."""
        latents = torch.cat([self.latents] * len(self.lanes))
        if hasattr(self.scheduler, "scale_model_input"):
            latents = self.scheduler.scale_model_input(latents, self.timesteps[self.position])
        return latents

    def timesteps_seen(self) -> Tensor:
        """Return its timestep, once for each lane.

        Schedulers have whole numbers or fractions, networks take both.
        """
        return torch.stack([self.timesteps[self.position].float()] * len(self.lanes))

    def advance(self, answer: Tensor) -> None:
        """Take the network's answer to its lanes, and go on to its next timestep.

        Source: Ho and Salimans 2022 (arXiv:2207.12598), with the scale that diffusers counts from
        1.
        """
        timestep = self.timesteps[self.position]
        if self.guided:
            without, prompted = answer.chunk(2)
            answer = without + self.guidance_scale * (prompted - without)
        else:
            answer = answer[:1]
        if self.preview_due:
            self.estimate = estimate(self.scheduler, self.latents_seen()[:1], answer, timestep)
        self.latents = self.scheduler.step(
            answer, timestep, self.latents, **self.step_options, return_dict=False
        )[0]
        self.position += 1
