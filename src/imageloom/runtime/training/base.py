"""The frozen base model of a training: what it makes of captions and pictures, what it draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from imageloom.domain.catalog import Model
from imageloom.domain.errors import InvalidInput, InvalidParams
from imageloom.images import Picture
from imageloom.runtime.autoencoder import scaled
from imageloom.runtime.families import Lane, Prompt, Start, View, open_family
from imageloom.runtime.rows import Row
from imageloom.runtime.schedulers import make_scheduler, step_options
from imageloom.runtime.stock import load_pipeline, module_bytes
from imageloom.runtime.torch_device import TorchDevice
from imageloom.runtime.training.cost import RECOMPUTED
from imageloom.runtime.training.objective import Objective, objective_of
from imageloom.runtime.training.plan import Size

_ENCODERS = ("text_encoder", "text_encoder_2")
# What a guidance-distilled model is told while it learns: no guidance, as the pictures have none.
_GUIDANCE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """A picture as the denoiser takes it.

    `latents` float32 [1 or 2, c, h, w], the second one mirrored, scaled as the denoiser expects
    them. `caption` is the text. `told` are the numbers of the family, float32 [1, ...], or None.
    `size` is the picture's width and height in pixels.
    """

    latents: Tensor
    caption: str
    told: Tensor | None
    size: tuple[int, int]


class Base:
    """A diffusers pipeline whose weights are never changed, in a copy of its own.

    What is trained is added to its networks.
    """

    def __init__(self, model: Model, device: TorchDevice) -> None:
        """Read local weights onto the device.

        Raises: ModelNotInstalled, BadWeights; InvalidParams for a network of no known family.
        """
        self._model = model
        self._device = device
        self._pipeline = load_pipeline(model, device)
        self._remembered: dict[str, Prompt] = {}
        family = open_family(model, self._pipeline, device)
        if family is None:
            raise InvalidParams(
                f"base_model: the network of {model.name!r} takes other inputs than those of its "
                f"family {model.family}; it draws, but cannot be trained here",
                param="base_model",
            )
        self._family = family
        if model.family in RECOMPUTED:
            family.network.enable_gradient_checkpointing()  # type: ignore[operator]  # diffusers'
        for part in (family.network_name, "vae", *_ENCODERS):
            module = getattr(self._pipeline, part, None)
            if module is not None:
                module.requires_grad_(False)

    def objective(self) -> Objective:
        """Return what the denoiser was trained to do. Raises: InvalidParams."""
        scheduler, device = self._pipeline.scheduler, self._device.device
        return objective_of(self._model.family, scheduler, device)

    def networks(self, *, text_encoders: bool) -> dict[str, nn.Module]:
        """Return what is trained, by its name in the pipeline."""
        parts = (self._family.network_name, *(_ENCODERS if text_encoders else ()))
        found = {part: getattr(self._pipeline, part, None) for part in parts}
        return {part: network for part, network in found.items() if network is not None}

    @property
    def weight_bytes(self) -> int:
        """Return what is loaded, and what was added to it, in bytes."""
        return module_bytes(self._pipeline)

    def remember(self, text: str) -> None:
        """Encode a prompt for good: it is not encoded again, whatever the encoders learn."""
        (self._remembered[text],) = self._prompts([text])

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
        scale = max(size.width / image.width, size.height / image.height)
        left = (image.width - size.width / scale) / 2
        top = (image.height - size.height / scale) / 2
        box = (left, top, image.width - left, image.height - top)
        cropped = image.resize((size.width, size.height), Image.Resampling.LANCZOS, box=box)
        pixels = torch.frombuffer(bytearray(cropped.tobytes()), dtype=torch.uint8)
        pixels = pixels.view(1, size.height, size.width, 3).permute(0, 3, 1, 2) / 127.5 - 1
        sides = [pixels, pixels.flip(3)] if flip else [pixels]
        view = View(
            size=(size.width, size.height),
            original=image.size,
            corner=(round(left * scale), round(top * scale)),
        )
        return self._seen(torch.cat([self._encoded(side) for side in sides]), caption, view)

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
        family, size = self._family, examples[0].size
        prompts = self._prompts([example.caption for example in examples])
        lanes = tuple(
            Lane(prompt=prompt, told=example.told, size=size)
            for prompt, example in zip(prompts, examples, strict=True)
        )
        return family.unpacked(family.predict(family.packed(noisy), timesteps, lanes), size=size)

    def begin(self, caption: str, *, side: int, steps: int, seed: int) -> Row:
        """Return a square picture of a prompt before its first denoising step.

        Drawn with what is trained as it is then, to the bits of the stock pipeline.
        """
        size, scale = (side, side), self._model.guidance_scale
        texts = ["", caption] if self._family.uses_guidance(scale) else [caption]
        # Each in a pass of its own, as for a generation: others beside it change its last bits.
        prompts = [self._prompts([text])[0] for text in texts]
        told = self._family.told(View.whole(size), guidance_scale=scale)
        start = Start(
            width=side,
            height=side,
            steps=steps,
            image=None,
            strength=1.0,
            scheduler=make_scheduler(None, self._pipeline.scheduler),
            generator=torch.Generator("cpu").manual_seed(seed),
        )
        lanes = tuple(Lane(prompt=each, told=told, size=size) for each in prompts)
        latents, timesteps = self._family.begin(start)
        return Row(
            seed=seed,
            size=size,
            lanes=lanes,
            guided=len(lanes) == 2,
            guidance_scale=scale,
            scheduler=start.scheduler,
            step_options=step_options(start.scheduler, start.generator),
            timesteps=list(timesteps),
            latents=latents,
            adapters=None,
            exact=False,
        )

    def step(self, row: Row) -> None:
        """Do one denoising step of a picture."""
        row.advance(self._family.predict(row.latents_seen(), row.timesteps_seen(), row.lanes))

    def finish(self, row: Row) -> Picture:
        """Return a picture that is done."""
        return self._family.decode(row.latents, size=row.size)

    def drawn_example(self, row: Row, caption: str) -> Example:
        """Return a picture that is done as the denoiser takes it, not decoded."""
        latents = self._family.unpacked(row.latents, size=row.size)
        return self._seen(latents.float(), caption, View.whole(row.size))

    def _seen(self, latents: Tensor, caption: str, view: View) -> Example:
        told = self._family.told(view, guidance_scale=_GUIDANCE)
        return Example(latents=latents, caption=caption, told=told, size=view.size)

    def _prompts(self, texts: Sequence[str]) -> list[Prompt]:
        """Return prompts as the denoiser takes them.

        Those that are remembered come from there, the others through the encoders in one pass.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._remembered]
        found = dict(self._remembered)
        if new:
            found |= zip(new, self._family.encode_prompts(new), strict=True)
        return [found[text] for text in texts]

    def _encoded(self, pixels: Tensor) -> Tensor:
        vae = self._pipeline.vae
        if vae.dtype != torch.float32:
            vae.to(torch.float32)  # in half precision, SDXL's own overflows
        latents: Tensor = vae.encode(pixels.to(self._device.device)).latent_dist.mode()
        return scaled(latents, vae.config)
