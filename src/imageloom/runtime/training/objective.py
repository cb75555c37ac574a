"""The loss of a denoiser, and the learning rate: the mathematics of a training step.

Diffusion: x_t = alpha_t x_0 + sigma_t noise, with alpha_t^2 + sigma_t^2 = 1 and
SNR_t = (alpha_t / sigma_t)^2. Flow: x_t = (1 - sigma) x_0 + sigma noise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, Protocol, Self

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from imageloom.domain.errors import InvalidParams

Prediction = Literal["epsilon", "v_prediction"]


class Objective(Protocol):
    """What a denoiser learns: to answer `target` to `noised`."""

    def timesteps(self, shares: Tensor, latents: Tensor) -> Tensor:
        """Return the timesteps [n] below which a share [n] of those that a training sees lies.

        For latents [..., h, w]. On the device of `shares`, in the dtype that the denoiser takes.
        """
        ...

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return x_t of latents [n, c, h, w] for timesteps [n]."""
        ...

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the model should answer, shape [n, c, h, w]."""
        ...

    def weights(self, timesteps: Tensor, *, min_snr_gamma: float | None) -> Tensor:
        """Return how much each timestep counts, shape [n]."""
        ...


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

    def timesteps(self, shares: Tensor, latents: Tensor) -> Tensor:
        """Return int64 timesteps, each as likely as any other."""
        of = len(self.alpha)
        return (shares * of).long().clamp(max=of - 1)

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Rectified flow, between a picture and noise on a straight line.

    Source: Esser et al. 2024 (arXiv:2403.03206).
    """

    scheduler: Any
    count: int

    @classmethod
    def of(cls, scheduler: Any) -> Self:
        """Read it from a diffusers scheduler. Raises: InvalidParams where it is of another kind."""
        if not isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
            raise InvalidParams(
                f"base_model: its scheduler is {type(scheduler).__name__}; only models with "
                "FlowMatchEulerDiscreteScheduler are trained here",
                param="base_model",
            )
        return cls(scheduler=scheduler, count=scheduler.config.num_train_timesteps)

    def timesteps(self, shares: Tensor, latents: Tensor) -> Tensor:
        """Return float32 timesteps, sigma times 1000, most of them in the middle.

        They are moved towards noise as in drawing: for some models the further the more tokens a
        picture has. Source: Esser et al. 2024, logit-normal (section 3.1) and shift (5.3.2).
        """
        sigma = torch.special.ndtri(shares).sigmoid()
        config = self.scheduler.config
        if config.use_dynamic_shifting:
            height, width = latents.shape[-2:]
            mu = calculate_shift(
                height * width // 4,
                config.base_image_seq_len,
                config.max_image_seq_len,
                config.base_shift,
                config.max_shift,
            )
            shifted: Tensor = self.scheduler.time_shift(mu, 1.0, sigma)
        else:
            shifted = config.shift * sigma / (1 + (config.shift - 1) * sigma)
        return shifted * self.count

    def noised(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        return latents.lerp(noise, self._sigma(timesteps))

    def target(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return the velocity from the picture to the noise."""
        return noise - latents

    def weights(self, timesteps: Tensor, *, min_snr_gamma: float | None) -> Tensor:
        """Return all 1: gamma has no meaning here, which timesteps are drawn is the weight."""
        return torch.ones_like(timesteps)

    def _sigma(self, timesteps: Tensor) -> Tensor:
        return (timesteps / self.count).view(-1, 1, 1, 1)


def objective_of(family: str, scheduler: Any, device: torch.device) -> Objective:
    """Return what the denoisers of a family were trained to do, by their scheduler.

    Raises: InvalidParams where it is of another kind.
    """
    return Flow.of(scheduler) if family == "flux" else Diffusion.of(scheduler, device)


def spread(count: int, *, generator: torch.Generator) -> Tensor:
    """Return `count` numbers from 0 to 1, one from each of as many equal ranges.

    float32 on the CPU. All are equally likely, and the loss of a step varies less than with
    timesteps at independent ones.
    """
    return (torch.arange(count) + torch.rand(count, generator=generator)) / count


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
