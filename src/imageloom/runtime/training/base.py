"""The frozen base model of a training: what it makes of captions and pictures, what it draws."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from PIL import Image
from torch import Tensor, nn

from imageloom.domain.catalog import Model
from imageloom.domain.errors import InvalidInput
from imageloom.images import Picture
from imageloom.runtime.pil import to_picture
from imageloom.runtime.stock import BetweenSteps, load_pipeline, module_bytes
from imageloom.runtime.torch_device import TorchDevice
from imageloom.runtime.training.family import Caption, Family
from imageloom.runtime.training.flux import Flux
from imageloom.runtime.training.objective import Objective
from imageloom.runtime.training.plan import Size
from imageloom.runtime.training.stable_diffusion import StableDiffusion

_ENCODERS = ("text_encoder", "text_encoder_2")
_FAMILIES: Final[Mapping[str, Callable[[Model, Any], Family]]] = {
    "sdxl": StableDiffusion,
    "sd1": StableDiffusion,
    "flux": Flux,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A picture as the denoiser takes it.

    `latents` float32 [1 or 2, c, h, w], the second one mirrored, scaled as the denoiser expects
    them. `caption` is the text. `told` are the numbers of the family, float32 [1, ...], or None.
    """

    latents: Tensor
    caption: str
    told: Tensor | None


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
        self._family = _FAMILIES[model.family](model, self._pipeline)
        for part in (self._family.denoiser, "vae", *_ENCODERS):
            module = getattr(self._pipeline, part, None)
            if module is not None:
                module.requires_grad_(False)

    def objective(self) -> Objective:
        """Return what the denoiser was trained to do. Raises: InvalidParams."""
        return self._family.objective()

    def networks(self, *, text_encoders: bool) -> dict[str, nn.Module]:
        """Return what is trained, by its name in the pipeline."""
        parts = (self._family.denoiser, *(_ENCODERS if text_encoders else ()))
        found = {part: getattr(self._pipeline, part, None) for part in parts}
        return {part: network for part, network in found.items() if network is not None}

    @property
    def weight_bytes(self) -> int:
        """Return what is loaded, and what was added to it, in bytes."""
        return module_bytes(self._pipeline)

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
            told=self._family.told(original, size, crop=(round(top * scale), round(left * scale))),
        )

    def release_encoders(self) -> None:
        """Give the memory of the text encoders back: every caption is remembered."""
        for part in _ENCODERS:
            if hasattr(self._pipeline, part):
                setattr(self._pipeline, part, None)
        if self._device.device.type == "cuda":
            torch.cuda.empty_cache()

    def settle_decoder(self) -> None:
        """Decode in the precision of the other weights, as generation does: all is encoded."""
        self._pipeline.vae.to(self._device.dtype)

    def answer(self, noisy: Tensor, timesteps: Tensor, examples: Sequence[Example]) -> Tensor:
        """Return the denoiser's prediction for noisy latents [n, c, h, w] of `n` examples."""
        caption = self._captions([example.caption for example in examples])
        told = [example.told for example in examples if example.told is not None]
        return self._family.answer(noisy, timesteps, caption, torch.cat(told) if told else None)

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
        return to_picture(self._drawn(caption, side, steps, seed, between_steps, output_type="pil"))

    def drawn_example(
        self,
        caption: str,
        *,
        side: int,
        steps: int,
        seed: int,
        between_steps: BetweenSteps,
    ) -> Example:
        """Return a square picture of the prompt as the denoiser draws it, not decoded."""
        drawn = self._drawn(caption, side, steps, seed, between_steps, output_type="latent")
        size = Size(width=side, height=side)
        return Example(
            latents=self._family.unpacked(drawn, side=side).float()[None],
            caption=caption,
            told=self._family.told(size, size, crop=(0, 0)),
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

        return self._pipeline(
            **self._family.arguments(self.caption(caption), self.caption(""), side=side),
            num_inference_steps=steps,
            guidance_scale=self._model.guidance_scale,
            width=side,
            height=side,
            generator=torch.Generator("cpu").manual_seed(seed),
            callback_on_step_end=after_step,
            output_type=output_type,
        ).images[0]

    def _captions(self, texts: Sequence[str]) -> Caption:
        """Return prompts as the denoiser takes them.

        Those that are remembered come from there, the others through the encoders in one pass.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._remembered]
        found = dict(self._remembered)
        if new:
            encoded = self._family.captions(new)
            for row, text in enumerate(new):
                one, pooled = slice(row, row + 1), encoded.pooled
                found[text] = Caption(
                    tokens=encoded.tokens[one], pooled=None if pooled is None else pooled[one]
                )
        captions = [found[text] for text in texts]
        all_pooled = [caption.pooled for caption in captions if caption.pooled is not None]
        return Caption(
            tokens=torch.cat([caption.tokens for caption in captions]),
            pooled=torch.cat(all_pooled) if all_pooled else None,
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
        scaled: Tensor = (latents - (config.get("shift_factor") or 0)) * config["scaling_factor"]
        return scaled
