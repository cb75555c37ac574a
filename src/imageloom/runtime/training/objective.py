"""The loss of a denoiser, and the learning rate: the mathematics of a training step.

x_t = alpha_t x_0 + sigma_t noise, with alpha_t^2 + sigma_t^2 = 1 and SNR_t = (alpha_t / sigma_t)^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import Tensor

from imageloom.domain.errors import InvalidParams

Prediction = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Diffusion:
    """What a model was trained to undo: alpha and sigma by timestep, float32 on the device."""

    alpha: Tensor
    sigma: Tensor
    prediction: Prediction

    @classmethod
    def of(cls, scheduler: Any, device: torch.device) -> Self:
        """Read it from a diffusers scheduler. Raises: InvalidParams where it predicts neither
        noise nor velocity.
        """
        prediction = scheduler.config.prediction_type
        if prediction not in ("epsilon", "v_prediction"):
            raise InvalidParams(
                f"base_model: it predicts {prediction!r}; only models that predict epsilon or "
                "v_prediction are trained here",
                param="base_model",
            )
        kept = scheduler.alphas_cumprod.to(torch.float32).clone()
        if scheduler.config.get("rescale_betas_zero_snr"):
            kept[-1] = 0  # some schedulers keep 2^-24 there, so as not to divide by zero
        return cls(
            alpha=kept.sqrt().to(device), sigma=(1 - kept).sqrt().to(device), prediction=prediction
        )

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return x_t of latents [n, c, h, w] for timesteps [n]."""
        alpha, sigma = self._at(timesteps)
        return alpha * latents + sigma * noise

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the model should answer, shape [n, c, h, w].

        Source: for velocity, Salimans and Ho 2022 (arXiv:2202.00512): alpha noise - sigma x_0.
        """
        if self.prediction == "epsilon":
            return noise
        alpha, sigma = self._at(timesteps)
        return alpha * noise - sigma * latents

    def weights(self, timesteps: Tensor, *, min_snr_gamma: float | None) -> Tensor:
        """Return how much each timestep counts, shape [n]: all 1 without gamma.

        Source: Hang et al. 2023 (arXiv:2303.09556), min(SNR, gamma) of the loss on x_0, that is
        over SNR for epsilon, and over SNR + 1 for velocity.
        """
        if min_snr_gamma is None:
            return torch.ones_like(timesteps, dtype=torch.float32)
        alpha, sigma = self.alpha[timesteps], self.sigma[timesteps]
        snr = (alpha / sigma) ** 2
        if self.prediction == "v_prediction":
            return snr.clamp(max=min_snr_gamma) / (snr + 1)
        return (min_snr_gamma / snr).clamp(max=1)

    def _at(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        shape = (-1, 1, 1, 1)
        return self.alpha[timesteps].view(shape), self.sigma[timesteps].view(shape)


def spread_timesteps(count: int, *, of: int, generator: torch.Generator) -> Tensor:
    """Return `count` timesteps from 0 to `of` - 1, one from each of as many equal ranges.

    int64 on the CPU. Each is as likely as any other, and the loss of a step varies less than with
    independent ones.
    """
    spread = torch.arange(count) + torch.rand(count, generator=generator)
    return (spread * (of / count)).long().clamp(max=of - 1)


def learning_rate(
    step: int,
    *,
    steps: int,
    peak: float,
    warmup_steps: int,
    schedule: Literal["constant", "cosine"],
) -> float:
    """Return the rate of optimiser step `step`, from 1: up to `peak`, then as `schedule` says."""
    if step <= warmup_steps:
        return peak * step / warmup_steps
    if schedule == "constant":
        return peak
    done = (step - warmup_steps - 1) / (steps - warmup_steps)
    return peak * (1 + math.cos(math.pi * done)) / 2
