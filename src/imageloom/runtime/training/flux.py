"""Flux in a training: a flow-matching transformer over packed latents, steered by CLIP and T5.

Latents are packed, 2 x 2 of them in one token, only on their way through the transformer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from imageloom.domain.catalog import Model
from imageloom.runtime.training.family import Caption
from imageloom.runtime.training.objective import Flow
from imageloom.runtime.training.plan import Size

# What a guidance-distilled model is told while it learns: no guidance, as the pictures have none.
_GUIDANCE = 1.0


class Flux:
    """The parts of a `FluxPipeline`."""

    denoiser = "transformer"

    def __init__(self, model: Model, pipeline: Any) -> None:
        """Save memory for time: 27 GB a picture of 1024 pixels would not fit beside the weights.

        Source: Korthikanti et al. 2022 (arXiv:2205.05198), 34 bytes a token and channel of a
        block, for 57 blocks of 3072 channels and 4608 tokens.
        """
        self._pipeline = pipeline
        pipeline.transformer.enable_gradient_checkpointing()

    def objective(self) -> Flow:
        return Flow.of(self._pipeline.scheduler)

    def captions(self, texts: Sequence[str]) -> Caption:
        tokens, pooled, _ = self._pipeline.encode_prompt(
            prompt=list(texts), prompt_2=None, device=self._device, num_images_per_prompt=1
        )
        return Caption(tokens=tokens, pooled=pooled)

    def told(self, original: Size, size: Size, *, crop: tuple[int, int]) -> Tensor | None:
        """Return the guidance [1], where the model takes one."""
        if not self._pipeline.transformer.config.guidance_embeds:
            return None
        return torch.full([1], _GUIDANCE, dtype=torch.float32, device=self._device)

    def answer(
        self, noisy: Tensor, timesteps: Tensor, caption: Caption, told: Tensor | None
    ) -> Tensor:
        pipeline, (height, width) = self._pipeline, noisy.shape[2:]
        packed = pipeline._pack_latents(noisy, *noisy.shape)  # noqa: SLF001  # as the pipeline does
        text_ids = torch.zeros(caption.tokens.shape[1], 3, device=self._device)
        image_ids = pipeline._prepare_latent_image_ids(  # noqa: SLF001
            len(noisy), height // 2, width // 2, self._device, torch.float32
        )
        answer: Tensor = pipeline.transformer(
            hidden_states=packed.to(pipeline.transformer.dtype),
            timestep=timesteps / pipeline.scheduler.config.num_train_timesteps,
            guidance=told,
            pooled_projections=caption.pooled,
            encoder_hidden_states=caption.tokens,
            txt_ids=text_ids,
            img_ids=image_ids,
            return_dict=False,
        )[0]
        return self._unpacked(answer, height=height, width=width)

    def arguments(self, wanted: Caption, unwanted: Caption, *, side: int) -> dict[str, Any]:
        """Return them without `unwanted`: the guidance is a number that the model is told."""
        return {"prompt_embeds": wanted.tokens, "pooled_prompt_embeds": wanted.pooled}

    def unpacked(self, drawn: Tensor, *, side: int) -> Tensor:
        latent = side // self._pipeline.vae_scale_factor
        return self._unpacked(drawn[None], height=latent, width=latent)[0]

    def _unpacked(self, packed: Tensor, *, height: int, width: int) -> Tensor:
        """Return tokens [n, h w / 4, 4 c] as latents [n, c, h, w]."""
        pipeline, factor = self._pipeline, self._pipeline.vae_scale_factor
        found: Tensor = pipeline._unpack_latents(  # noqa: SLF001
            packed, height * factor, width * factor, factor
        )
        return found

    @property
    def _device(self) -> torch.device:
        found: torch.device = self._pipeline.transformer.device
        return found
