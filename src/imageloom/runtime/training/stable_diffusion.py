"""Stable Diffusion 1 and XL in a training.

They differ in how many text encoders there are, what else the UNet is told, and by which names the
pipeline takes prepared prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from imageloom.domain.catalog import Model
from imageloom.runtime.training.family import Caption
from imageloom.runtime.training.objective import Diffusion
from imageloom.runtime.training.plan import Size


class StableDiffusion:
    """The parts of a `StableDiffusionPipeline` or `StableDiffusionXLPipeline`."""

    denoiser = "unet"

    def __init__(self, model: Model, pipeline: Any) -> None:
        self._model = model
        self._pipeline = pipeline
        self._xl = model.family == "sdxl"

    def objective(self) -> Diffusion:
        return Diffusion.of(self._pipeline.scheduler, self._device)

    def captions(self, texts: Sequence[str]) -> Caption:
        found = self._pipeline.encode_prompt(
            list(texts),
            device=self._device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return Caption(tokens=found[0], pooled=found[2] if self._xl else None)

    def told(self, original: Size, size: Size, *, crop: tuple[int, int]) -> Tensor | None:
        """Return SDXL's original size, crop and target size [1, 6]."""
        if not self._xl:
            return None
        told = [original.height, original.width, *crop, size.height, size.width]
        if self._model.native_size is not None:
            # Drawing tells such a model one size always; so does training.
            native = self._model.native_size
            told = [native, native, 0, 0, native, native]
        return torch.tensor([told], dtype=torch.float32, device=self._device)

    def answer(
        self, noisy: Tensor, timesteps: Tensor, caption: Caption, told: Tensor | None
    ) -> Tensor:
        extra: dict[str, Any] = {}
        if self._xl:
            extra["added_cond_kwargs"] = {"text_embeds": caption.pooled, "time_ids": told}
        answer: Tensor = self._pipeline.unet(
            noisy,
            timesteps,
            encoder_hidden_states=caption.tokens,
            return_dict=False,
            **extra,
        )[0]
        return answer

    def arguments(self, wanted: Caption, unwanted: Caption, *, side: int) -> dict[str, Any]:
        arguments: dict[str, Any] = {
            "prompt_embeds": wanted.tokens,
            "negative_prompt_embeds": unwanted.tokens,
        }
        if self._xl:
            told = (self._model.native_size or side,) * 2
            arguments |= {
                "pooled_prompt_embeds": wanted.pooled,
                "negative_pooled_prompt_embeds": unwanted.pooled,
                "original_size": told,
                "target_size": told,
            }
        return arguments

    def unpacked(self, drawn: Tensor, *, side: int) -> Tensor:
        return drawn

    @property
    def _device(self) -> torch.device:
        found: torch.device = self._pipeline.unet.device
        return found
