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
from torch import Tensor, nn

from imageloom.domain.catalog import Model
from imageloom.domain.errors import InvalidInput
from imageloom.images import Picture
from imageloom.runtime.stock import BetweenSteps, load_pipeline
from imageloom.runtime.torch_device import TorchDevice
from imageloom.runtime.training.plan import Size

_ENCODERS = ("text_encoder", "text_encoder_2")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """Captions as the UNet takes them: `tokens` [n, m, d], and for SDXL `pooled` [n, p]."""

    tokens: Tensor
    pooled: Tensor | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A picture as the UNet takes it.

    `latents` float32 [1 or 2, c, h, w], the second one mirrored, scaled as the denoiser expects
    them. `caption` is the text. `time_ids` float32 [1, 6] are SDXL's original size, crop and target
    size, else None.
    """

    latents: Tensor
    caption: str
    time_ids: Tensor | None


class Base:
    """A diffusers pipeline whose weights are never changed, in a copy of its own.

    What is trained is added to its networks.
    """

    def __init__(self, model: Model, device: TorchDevice) -> None:
        """Read local weights onto the device. Raises: ModelNotInstalled, BadWeights."""
        self._model = model
        self._device = device
        self._pipeline = load_pipeline(model, device)
        self._remembered: dict[str, Caption] = {}
        self.unet = self._pipeline.unet
        self.scheduler = self._pipeline.scheduler
        for part in ("unet", "vae", *_ENCODERS):
            module = getattr(self._pipeline, part, None)
            if module is not None:
                module.requires_grad_(False)

    def networks(self, *, text_encoders: bool) -> dict[str, nn.Module]:
        """Return what is trained, by its name in the pipeline."""
        parts = ("unet", *_ENCODERS) if text_encoders else ("unet",)
        found = {part: getattr(self._pipeline, part, None) for part in parts}
        return {part: network for part, network in found.items() if network is not None}

    def caption(self, text: str) -> Caption:
        """Return what the text encoders make of a prompt, in the dtype of the weights."""
        return self._captions([text])

    def remember(self, text: str) -> None:
        """Encode a prompt for good: it is not encoded again, whatever the encoders learn."""
        if text not in self._remembered:
            self._remembered[text] = self.caption(text)

    def example(self, path: Path, caption: str, *, size: Size, flip: bool) -> Example:
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
        """Give the memory of the text encoders back: every caption is remembered."""
        for part in _ENCODERS:
            if hasattr(self._pipeline, part):
                setattr(self._pipeline, part, None)
        gc.collect()
        if self._device.device.type == "cuda":
            torch.cuda.empty_cache()

    def settle_decoder(self) -> None:
        """Decode in the precision of the other weights, as generation does: all is encoded."""
        self._pipeline.vae.to(self._device.dtype)

    def answer(self, noisy: Tensor, timesteps: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return the UNet's prediction for noisy latents [n, c, h, w] of `n` examples."""
        caption = self._captions([example.caption for example in examples])
        extra: dict[str, Any] = {}
        time_ids = [example.time_ids for example in examples if example.time_ids is not None]
        if time_ids:
            extra["added_cond_kwargs"] = {
                "text_embeds": caption.pooled,
                "time_ids": torch.cat(time_ids),
            }
        answer: Tensor = self.unet(
            noisy,
            timesteps,
            encoder_hidden_states=caption.tokens,
            return_dict=False,
            **extra,
        )[0]
        return answer

    def draw(
        self,
        caption: str,
        *,
        side: int,
        steps: int,
        seed: int,
        between_steps: BetweenSteps,
    ) -> Picture:
        """Draw one square picture with what is trained as it is, as `StockPipeline.draw` does."""
        drawn = self._drawn(caption, side, steps, seed, between_steps, output_type="pil")
        image = drawn.convert("RGB")
        return Picture(width=image.width, height=image.height, rgb=image.tobytes())

    def drawn_example(
        self,
        caption: str,
        *,
        side: int,
        steps: int,
        seed: int,
        between_steps: BetweenSteps,
    ) -> Example:
        """Return a square picture of the prompt as the UNet draws it, before it is decoded."""
        drawn = self._drawn(caption, side, steps, seed, between_steps, output_type="latent")
        size = Size(width=side, height=side)
        return Example(
            latents=drawn.float()[None],
            caption=caption,
            time_ids=self._time_ids(size, size, crop=(0, 0)),
        )

    def _drawn(
        self,
        caption: str,
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

        wanted, unwanted = self.caption(caption), self.caption("")
        arguments: dict[str, Any] = {}
        if self._model.family == "sdxl":
            told = (self._model.native_size or side,) * 2
            arguments = {
                "pooled_prompt_embeds": wanted.pooled,
                "negative_pooled_prompt_embeds": unwanted.pooled,
                "original_size": told,
                "target_size": told,
            }
        return self._pipeline(
            prompt_embeds=wanted.tokens,
            negative_prompt_embeds=unwanted.tokens,
            num_inference_steps=steps,
            guidance_scale=self._model.guidance_scale,
            width=side,
            height=side,
            generator=torch.Generator("cpu").manual_seed(seed),
            callback_on_step_end=after_step,
            output_type=output_type,
            **arguments,
        ).images[0]

    def _captions(self, texts: Sequence[str]) -> Caption:
        """Return prompts as the UNet takes them, `tokens` [n, m, d] and `pooled` [n, p] or None.

        Those that are remembered come from there, the others through the encoders in one pass.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._remembered]
        found = dict(self._remembered)
        if new:
            arguments = {"do_classifier_free_guidance": False, "num_images_per_prompt": 1}
            encoded = self._pipeline.encode_prompt(new, device=self._device.device, **arguments)
            for row, text in enumerate(new):
                found[text] = Caption(
                    tokens=encoded[0][row : row + 1],
                    pooled=encoded[2][row : row + 1] if self._model.family == "sdxl" else None,
                )
        captions = [found[text] for text in texts]
        pooled = [caption.pooled for caption in captions if caption.pooled is not None]
        return Caption(
            tokens=torch.cat([caption.tokens for caption in captions]),
            pooled=torch.cat(pooled) if pooled else None,
        )

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
