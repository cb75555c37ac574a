"""Flux: a flow-matching transformer over packed latents, steered by CLIP and T5.

Latents travel packed, 2 x 2 of them in one token, as in the stock pipeline of diffusers, whose
lines these follow in their order.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image
from torch import Tensor, nn

from imageloom.images import Picture
from imageloom.runtime.autoencoder import unscaled
from imageloom.runtime.families.family import Lane, Prompt, Start, View
from imageloom.runtime.pil import decoded_picture, to_pil


class Flux:
    """The parts of a `FluxPipeline`."""

    network_name = "transformer"

    def __init__(self, pipeline: Any, device: torch.device) -> None:
        self._pipeline = pipeline
        self._device = device
        self._from_picture: Any | None = None
        self.network: nn.Module = pipeline.transformer

    @property
    def prompt_layers(self) -> tuple[nn.Linear, ...]:
        """Return what takes T5's tokens to the transformer's; from there on pictures join them."""
        return (self._pipeline.transformer.context_embedder,)

    def encode_prompts(self, texts: Sequence[str]) -> tuple[Prompt, ...]:
        tokens, pooled, _ = self._pipeline.encode_prompt(
            prompt=list(texts), prompt_2=None, device=self._device, num_images_per_prompt=1
        )
        return Prompt.of_each(tokens, pooled)

    def no_prompt(self, prompt: Prompt) -> Prompt:
        return prompt

    def uses_guidance(self, guidance_scale: float) -> bool:
        return False  # distilled: it is told the guidance, or has none

    def told(self, view: View, *, guidance_scale: float) -> Tensor | None:
        """Return the guidance [1], where the model takes one."""
        if not self._pipeline.transformer.config.guidance_embeds:
            return None
        return torch.full([1], guidance_scale, device=self._device, dtype=torch.float32)

    def begin(self, start: Start) -> tuple[Tensor, Tensor]:
        pipeline = self._with(start.scheduler, from_picture=start.image is not None)
        size = (start.width, start.height)
        timesteps = self._set_timesteps(start)
        channels = self._pipeline.transformer.config.in_channels // 4
        if start.image is None:
            start.scheduler.set_begin_index(0)
            latents, _ = pipeline.prepare_latents(
                1, channels, *size[::-1], self._dtype, self._device, start.generator
            )
            return latents, timesteps
        image = pipeline.image_processor.preprocess(
            to_pil(start.image), height=start.height, width=start.width
        ).to(torch.float32)
        timesteps, _ = pipeline.get_timesteps(start.steps, start.strength, self._device)
        latents, _ = pipeline.prepare_latents(
            image,
            timesteps[:1],
            1,
            channels,
            *size[::-1],
            self._dtype,
            self._device,
            start.generator,
        )
        return latents, timesteps

    def predict(self, latents: Tensor, timesteps: Tensor, lanes: tuple[Lane, ...]) -> Tensor:
        guidance = [lane.told for lane in lanes if lane.told is not None]
        tokens = torch.cat([lane.prompt.tokens for lane in lanes])
        text_ids = torch.zeros(tokens.shape[1], 3, device=self._device, dtype=tokens.dtype)
        pooled = [lane.prompt.pooled for lane in lanes if lane.prompt.pooled is not None]
        answer: Tensor = self.network(
            hidden_states=latents.to(self._dtype),
            # Those of a training are in float32, as its latents are.
            timestep=timesteps.to(latents.dtype) / 1000,
            guidance=torch.cat(guidance) if guidance else None,
            pooled_projections=torch.cat(pooled),
            encoder_hidden_states=tokens,
            txt_ids=text_ids,
            img_ids=self._image_ids(lanes[0].size),
            return_dict=False,
        )[0]
        return answer

    def decode(self, latents: Tensor, *, size: tuple[int, int]) -> Picture:
        vae = self._pipeline.vae
        unpacked = self.unpacked(latents, size=size)
        decoded = vae.decode(unscaled(unpacked, vae.config), return_dict=False)[0]
        return decoded_picture(decoded)

    def packed(self, latents: Tensor) -> Tensor:
        """Return latents [n, c, h, w] as tokens [n, h w / 4, 4 c]."""
        found: Tensor = self._pipeline._pack_latents(latents, *latents.shape)  # noqa: SLF001
        return found

    def unpacked(self, latents: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Return tokens as latents [n, c, h, w] of a picture of that width and height."""
        width, height = size
        factor = self._pipeline.vae_scale_factor
        found: Tensor = self._pipeline._unpack_latents(latents, height, width, factor)  # noqa: SLF001
        return found

    @property
    def _dtype(self) -> torch.dtype:
        found: torch.dtype = self._pipeline.transformer.dtype
        return found

    def _with(self, scheduler: Any, *, from_picture: bool) -> Any:
        if from_picture and self._from_picture is None:
            # The class's own `from_pipe` would turn the weights that both share to float32.
            self._from_picture = AutoPipelineForImage2Image.from_pipe(self._pipeline)
        pipeline: Any = copy.copy(self._from_picture if from_picture else self._pipeline)
        pipeline.scheduler = scheduler
        return pipeline

    def _set_timesteps(self, start: Start) -> Tensor:
        """Set a scheduler's steps, denser near noise the more tokens a picture has."""
        scheduler, factor = start.scheduler, self._pipeline.vae_scale_factor * 2
        tokens = (start.height // factor) * (start.width // factor)
        sigmas = None
        if not scheduler.config.get("use_flow_sigmas"):
            sigmas = np.linspace(1.0, 1 / start.steps, start.steps)
        steps = start.steps if sigmas is None else None
        scheduler.set_timesteps(
            steps, device=self._device, sigmas=sigmas, mu=_shift(tokens, scheduler.config)
        )
        found: Tensor = scheduler.timesteps
        return found

    def _image_ids(self, size: tuple[int, int]) -> Tensor:
        """Return the place of every token [n, 3], as 0, row and column."""
        width, height = size
        factor = self._pipeline.vae_scale_factor * 2
        found: Tensor = self._pipeline._prepare_latent_image_ids(  # noqa: SLF001
            1, height // factor, width // factor, self._device, self._dtype
        )
        return found


def _shift(tokens: int, config: Any) -> float:
    """Return how far the timesteps move towards noise: linear in the number of tokens.

    Source: Esser et al. 2024 (arXiv:2403.03206), section 5.3.2; the constants are the model's.
    """
    low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    least, most = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (most - least) / (high - low)
    return float(tokens * slope + (least - slope * low))
