"""The frozen base model of a training: what it makes of captions and pictures, and what it draws.

Stable Diffusion 1 and XL differ in three places, all here: how many text encoders there are, what
else the UNet is told, and by which names the pipeline takes prepared prompts.
"""

from __future__ import annotations

import gc
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from imageloom.domain.catalog import Model
from imageloom.domain.errors import InvalidInput
from imageloom.images import Picture
from imageloom.runtime.stock import BetweenSteps, load_pipeline
from imageloom.runtime.torch_device import TorchDevice
from imageloom.runtime.training.plan import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A caption as the UNet takes it: `tokens` [1, n, d], and for SDXL `pooled` [1, p]."""

    tokens: Tensor
    pooled: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A picture as the UNet takes it.

    `latents` float32 [1 or 2, c, h, w], the second one mirrored, scaled as the denoiser expects
    them. `time_ids` float32 [1, 6] are SDXL's original size, crop and target size, else None.
    """

    latents: Tensor
    caption: Caption
    time_ids: Tensor | None


class Base:
    """A diffusers pipeline whose weights are never changed, in a copy of its own."""

    def __init__(self, model: Model, device: TorchDevice) -> None:
        """Read local weights onto the device. Raises: ModelNotInstalled, BadWeights."""
        self._model = model
        self._device = device
        self._pipeline = load_pipeline(model, device)
        self.unet = self._pipeline.unet
        self.scheduler = self._pipeline.scheduler
        for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
            module = getattr(self._pipeline, part, None)
            if module is not None:
                module.requires_grad_(False)

    def caption(self, text: str) -> Caption:
        """Return what the text encoders make of a prompt, in the dtype of the weights."""
        arguments = {"do_classifier_free_guidance": False, "num_images_per_prompt": 1}
        found = self._pipeline.encode_prompt(text, device=self._device.device, **arguments)
        if self._model.family == "sdxl":
            return Caption(tokens=found[0], pooled=found[2])
        return Caption(tokens=found[0], pooled=None)

    def example(self, path: Path, caption: Caption, *, size: Size, flip: bool) -> Example:
        """Return a picture file scaled to cover `size`, cropped in its middle and encoded.

        The latents are the mean of what the autoencoder answers: they are kept for all epochs, and
        one fixed draw would only add one fixed noise. Raises: InvalidInput.
        """
        try:
            with Image.open(path) as opened:
                image = opened.convert("RGB")
        except OSError as exc:
            raise InvalidInput(f"Invalid input: the picture {path.name} cannot be read") from exc
        original = Size(width=image.width, height=image.height)
        scale = max(size.width / original.width, size.height / original.height)
        left = (original.width - size.width / scale) / 2
        top = (original.height - size.height / scale) / 2
        box = (left, top, original.width - left, original.height - top)
        cropped = image.resize((size.width, size.height), Image.Resampling.LANCZOS, box=box)
        pixels = torch.frombuffer(bytearray(cropped.tobytes()), dtype=torch.uint8)
        pixels = pixels.view(1, size.height, size.width, 3).permute(0, 3, 1, 2) / 127.5 - 1
        views = [pixels, pixels.flip(3)] if flip else [pixels]
        return Example(
            latents=torch.cat([self._encoded(view) for view in views]),
            caption=caption,
            time_ids=self._time_ids(original, size, crop=(round(top * scale), round(left * scale))),
        )

    def release_encoders(self) -> None:
        """Give the memory of the text encoders back: every caption has been seen."""
        for part in ("text_encoder", "text_encoder_2"):
            if hasattr(self._pipeline, part):
                setattr(self._pipeline, part, None)
        # Drawing decodes in the precision of the other weights, as generation does.
        self._pipeline.vae.to(self._device.dtype)
        gc.collect()
        if self._device.device.type == "cuda":
            torch.cuda.empty_cache()

    def answer(self, noisy: Tensor, timesteps: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return the UNet's prediction for noisy latents [n, c, h, w] of `n` examples."""
        tokens = torch.cat([example.caption.tokens for example in examples])
        extra: dict[str, Any] = {}
        pooled = [e.caption.pooled for e in examples if e.caption.pooled is not None]
        time_ids = [example.time_ids for example in examples if example.time_ids is not None]
        if pooled:
            extra["added_cond_kwargs"] = {
                "text_embeds": torch.cat(pooled),
                "time_ids": torch.cat(time_ids),
            }
        answer: Tensor = self.unet(
            noisy,
            timesteps,
            encoder_hidden_states=tokens,
            return_dict=False,
            **extra,
        )[0]
        return answer

    def draw(
        self,
        caption: Caption,
        empty: Caption,
        *,
        side: int,
        steps: int,
        seed: int,
        between_steps: BetweenSteps,
    ) -> Picture:
        """Draw one square picture with the UNet as it is now, as `StockPipeline.draw` does."""
        drawn = self._drawn(caption, empty, side, steps, seed, between_steps, output_type="pil")
        image = drawn.convert("RGB")
        return Picture(width=image.width, height=image.height, rgb=image.tobytes())

    def drawn_example(
        self,
        caption: Caption,
        empty: Caption,
        *,
        side: int,
        steps: int,
        seed: int,
        between_steps: BetweenSteps,
    ) -> Example:
        """Return a square picture that the UNet draws, before it is decoded."""
        drawn = self._drawn(caption, empty, side, steps, seed, between_steps, output_type="latent")
        size = Size(width=side, height=side)
        return Example(
            latents=drawn.float()[None],
            caption=caption,
            time_ids=self._time_ids(size, size, crop=(0, 0)),
        )

    def _drawn(
        self,
        caption: Caption,
        empty: Caption,
        side: int,
        steps: int,
        seed: int,
        between_steps: BetweenSteps,
        *,
        output_type: str,
    ) -> Any:
        def after_step(
            pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]
        ) -> dict[str, Any]:
            between_steps((step + 1) / max(1, pipe.num_timesteps))
            return tensors

        arguments: dict[str, Any] = {}
        if self._model.family == "sdxl":
            told = (self._model.native_size or side,) * 2
            arguments = {
                "pooled_prompt_embeds": caption.pooled,
                "negative_pooled_prompt_embeds": empty.pooled,
                "original_size": told,
                "target_size": told,
            }
        return self._pipeline(
            prompt_embeds=caption.tokens,
            negative_prompt_embeds=empty.tokens,
            num_inference_steps=steps,
            guidance_scale=self._model.guidance_scale,
            width=side,
            height=side,
            generator=torch.Generator("cpu").manual_seed(seed),
            callback_on_step_end=after_step,
            output_type=output_type,
            **arguments,
        ).images[0]

    def _encoded(self, pixels: Tensor) -> Tensor:
        vae = self._pipeline.vae
        if vae.dtype != torch.float32:
            vae.to(torch.float32)  # in half precision, SDXL's own overflows
        latents: Tensor = vae.encode(pixels.to(self._device.device)).latent_dist.mode()
        config: Mapping[str, Any] = vae.config
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            shape = (1, -1, 1, 1)
            mean, std = (
                torch.tensor(config[name], device=latents.device).view(shape)
                for name in ("latents_mean", "latents_std")
            )
            latents = (latents - mean) / std
        scaled: Tensor = latents * config["scaling_factor"]
        return scaled

    def _time_ids(self, original: Size, size: Size, *, crop: tuple[int, int]) -> Tensor | None:
        if self._model.family != "sdxl":
            return None
        told = [original.height, original.width, *crop, size.height, size.width]
        if self._model.native_size is not None:
            # Drawing tells such a model one size always; so does training.
            native = self._model.native_size
            told = [native, native, 0, 0, native, native]
        return torch.tensor([told], dtype=torch.float32, device=self._device.device)
