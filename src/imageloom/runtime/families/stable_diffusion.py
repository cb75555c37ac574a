"""Stable Diffusion 1 and XL: a UNet over latents, steered by one or two CLIP text encoders.

Every line does what the stock pipelines of diffusers do, in their order, but for the memory format
of the UNet: tests/test_denoiser.py holds pictures to theirs.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AutoPipelineForImage2Image, StableDiffusionXLPipeline
from torch import Tensor, nn

from imageloom.images import Picture
from imageloom.runtime.autoencoder import unscaled
from imageloom.runtime.families.family import Lane, Prompt, Start, View
from imageloom.runtime.pil import decoded_picture, to_pil
from imageloom.runtime.torch_device import TorchDevice


class StableDiffusion:
    """The parts of a `StableDiffusionPipeline` or `StableDiffusionXLPipeline`."""

    network_name = "unet"

    def __init__(self, pipeline: Any, device: TorchDevice, *, native_size: int | None) -> None:
        """`native_size` is the side in pixels that an XL model is told whatever it draws."""
        self._pipeline = pipeline
        self._device = device.device
        self._from_picture: Any | None = None
        self._xl = isinstance(pipeline, StableDiffusionXLPipeline)
        self._native_size = native_size
        # Channels last: a fifth faster on a CPU at eight rows, and what tensor cores want. Else
        # as things come, which is how the stock pipeline has them.
        self._format = torch.channels_last if device.speed.channels_last else torch.preserve_format
        self.network: nn.Module = pipeline.unet.to(memory_format=self._format)
        pipeline.vae.to(memory_format=self._format)  # a fifth faster too, for one picture

    @property
    def prompt_layers(self) -> tuple[nn.Linear, ...]:
        """Return the keys and values of cross-attention."""
        return tuple(
            layer
            for path, module in self.network.named_modules()
            if path.endswith("attn2")
            for layer in (module.to_k, module.to_v)
        )

    def encode_prompts(self, texts: Sequence[str]) -> tuple[Prompt, ...]:
        found = self._pipeline.encode_prompt(
            list(texts),
            device=self._device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        return Prompt.of_each(found[0], found[2] if self._xl else None)

    def no_prompt(self, prompt: Prompt) -> Prompt | None:
        if self._xl and self._pipeline.config.force_zeros_for_empty_prompt:
            pooled = prompt.pooled
            return Prompt(
                tokens=torch.zeros_like(prompt.tokens),
                pooled=None if pooled is None else torch.zeros_like(pooled),
            )
        return None

    def uses_guidance(self, guidance_scale: float) -> bool:
        return guidance_scale > 1

    def told(self, view: View, *, guidance_scale: float) -> Tensor | None:
        """Return SDXL's original size, crop and target size [1, 6], as rows and columns."""
        if not self._xl:
            return None
        if self._native_size:
            # A size that the model never saw in training changes what it draws.
            view = View.whole((self._native_size, self._native_size))
        sizes = (*view.original[::-1], *view.corner[::-1], *view.size[::-1])
        # The network takes them in float32; bfloat16 would round a side such as 1001.
        return torch.tensor([sizes], dtype=torch.float32, device=self._device)

    def begin(self, start: Start) -> tuple[Tensor, Tensor]:
        scheduler = start.scheduler
        scheduler.set_timesteps(start.steps, device=self._device)
        pipeline = self._with(scheduler, from_picture=start.image is not None)
        if start.image is None:
            _begin_at_first(scheduler)
            latents = pipeline.prepare_latents(
                1,
                self._pipeline.unet.config.in_channels,
                start.height,
                start.width,
                self._dtype,
                self._device,
                start.generator,
                None,
            )
            return latents, scheduler.timesteps
        image = pipeline.image_processor.preprocess(to_pil(start.image))
        timesteps, _ = pipeline.get_timesteps(start.steps, start.strength, self._device)
        latents = pipeline.prepare_latents(
            image, timesteps[:1], 1, 1, self._dtype, self._device, start.generator
        )
        return latents, timesteps

    def predict(self, latents: Tensor, timesteps: Tensor, lanes: tuple[Lane, ...]) -> Tensor:
        told: dict[str, Any] = {}
        pooled = [lane.prompt.pooled for lane in lanes if lane.prompt.pooled is not None]
        if pooled:
            time_ids = [lane.told for lane in lanes if lane.told is not None]
            told["added_cond_kwargs"] = {
                "text_embeds": torch.cat(pooled),
                "time_ids": torch.cat(time_ids),
            }
        answer: Tensor = self.network(
            latents.to(memory_format=self._format),
            timesteps,
            encoder_hidden_states=torch.cat([lane.prompt.tokens for lane in lanes]),
            return_dict=False,
            **told,
        )[0]
        return answer

    def packed(self, latents: Tensor) -> Tensor:
        return latents

    def unpacked(self, latents: Tensor, *, size: tuple[int, int]) -> Tensor:
        return latents

    def decode(self, latents: Tensor, *, size: tuple[int, int]) -> Picture:
        pipeline, vae = self._pipeline, self._pipeline.vae
        upcast = self._xl and vae.dtype == torch.float16 and vae.config.force_upcast
        if upcast:
            vae.to(torch.float32)  # in half precision, SDXL's own overflows
            latents = latents.float()
        decoded = vae.decode(unscaled(latents, vae.config), return_dict=False)[0]
        if upcast:
            vae.to(torch.float16)
        flagged = None
        if self._xl:
            if pipeline.watermark is not None:
                decoded = pipeline.watermark.apply_watermark(decoded)
        else:
            decoded, flagged = pipeline.run_safety_checker(decoded, self._device, self._dtype)
        return decoded_picture(decoded, denormalize=flagged is None or not flagged[0])

    @property
    def _dtype(self) -> torch.dtype:
        found: torch.dtype = self._pipeline.unet.dtype
        return found

    def _with(self, scheduler: Any, *, from_picture: bool) -> Any:
        """Return the pipeline with a row's own scheduler, which its methods look at."""
        if from_picture and self._from_picture is None:
            self._from_picture = AutoPipelineForImage2Image.from_pipe(self._pipeline)
        pipeline: Any = copy.copy(self._from_picture if from_picture else self._pipeline)
        pipeline.scheduler = scheduler
        return pipeline


def _begin_at_first(scheduler: Any) -> None:
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
