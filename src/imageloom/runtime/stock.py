"""The stock path: a diffusers pipeline draws one picture, always correct for every family.

Its denoising loop is diffusers' own; between its steps we report progress, and leave by raising
through it, which keeps the pipeline usable (setting its interrupt flag would go on through the
remaining timesteps and decode a half-denoised picture).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Self

import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image
from diffusers.utils import logging as diffusers_logging
from transformers.utils import logging as transformers_logging

from imageloom.domain.catalog import Model
from imageloom.domain.errors import BadWeights, InvalidParams
from imageloom.domain.messages import Setup
from imageloom.domain.work import GenerationWork
from imageloom.images import Picture
from imageloom.runtime.adapter_use import PipelineAdapters, applied
from imageloom.runtime.autoencoder import can_tile, in_tiles, own_dtype
from imageloom.runtime.parts import weight_bytes
from imageloom.runtime.pil import to_picture, to_pil
from imageloom.runtime.relief import Relief
from imageloom.runtime.setup import setup_of
from imageloom.runtime.torch_device import TorchDevice
from imageloom.runtime.weights import locate

BetweenSteps = Callable[[float], None]


def load_pipeline(model: Model, device: TorchDevice, *, offloaded: bool = False) -> Any:
    """Return diffusers' pipeline of local weights, a copy of the caller's own.

    It is on the device, unless it is `offloaded`: then on the host.
    Raises: ModelNotInstalled, BadWeights; torch.OutOfMemoryError.
    """
    folder = locate(model)
    diffusers_logging.set_verbosity_error()
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    try:
        pipeline = AutoPipelineForText2Image.from_pretrained(
            folder,
            dtype=device.dtype,
            variant=model.variant,
            use_safetensors=True,
            local_files_only=True,
        )
    except (OSError, ValueError, KeyError) as exc:
        raise BadWeights(
            f"the weights of the model {model.name!r} cannot be loaded: {type(exc).__name__}; "
            "the worker's log has the details"
        ) from exc
    pipeline.set_progress_bar_config(disable=True)
    return pipeline if offloaded else pipeline.to(device.device)


def module_bytes(pipeline: Any) -> int:
    """Return the bytes of a pipeline's weights."""
    return sum(
        weight_bytes(component)
        for component in pipeline.components.values()
        if isinstance(component, torch.nn.Module)
    )


class StockPipeline:
    """A loaded model: text to image, and image to image on the same weights."""

    def __init__(self, model: Model, text_to_image: Any, relief: Relief | None = None) -> None:
        self._model = model
        self._relief = relief or Relief(model.name)
        self._text_to_image = text_to_image
        self._image_to_image: Any | None = None
        self._adapters = PipelineAdapters(text_to_image, model_name=model.name)
        self._base_bytes = module_bytes(text_to_image)
        self.weight_bytes = self._base_bytes

    @classmethod
    def load(cls, model: Model, device: TorchDevice) -> Self:
        """Read local weights onto the device. Raises: ModelNotInstalled, BadWeights."""
        return cls(model, load_pipeline(model, device))

    def setup(self, size: tuple[int, int]) -> Setup:
        """Return how pictures of a size in pixels are drawn."""
        pipeline = self._text_to_image
        return setup_of(
            pipeline,
            pipeline.scheduler,
            path="stock",
            device=pipeline.device,
            also=self._relief.tiles(size),
        )

    def draw(self, work: GenerationWork, *, seed: int, between_steps: BetweenSteps) -> Picture:
        """Draw one picture of `work` with that seed.

        `between_steps` gets the share of this picture that is done, 0 to 1, after every denoising
        step; what it raises ends the picture. Same work, seed, device and versions: same bytes.
        Adapters act on this picture alone; they stay in memory for the next one.
        Raises: InvalidParams where the family cannot do what was asked; BadWeights where an
        adapter cannot be used.
        """
        pipeline, arguments = self._arguments(work)
        accepted = inspect.signature(pipeline.__call__).parameters
        if work.image is not None and "image" not in accepted:
            raise InvalidParams(
                f"the model {self._model.name!r} cannot start from a picture",
                param="input_image_url",
            )

        def after_step(
            pipe: Any, step: int, _timestep: Any, tensors: dict[str, Any]
        ) -> dict[str, Any]:
            between_steps((step + 1) / max(1, pipe.num_timesteps))
            return tensors  # diffusers pops from it: None would raise

        adapters = self._adapters.load(work.loras)
        self.weight_bytes = self._base_bytes + self._adapters.weight_bytes
        vae, size = getattr(pipeline, "vae", None), (work.width, work.height)

        def whole() -> Picture:
            cuts = self._relief.cuts("decode", size)
            with applied(adapters), in_tiles(vae, size=size, cuts=cuts), own_dtype(vae):
                result = pipeline(
                    **{name: value for name, value in arguments.items() if name in accepted},
                    # On the CPU whatever the device: a seed means the same noise everywhere.
                    generator=torch.Generator("cpu").manual_seed(seed),
                    callback_on_step_end=after_step,
                    output_type="pil",
                )
            return to_picture(result.images[0])

        return self._relief.relieved(
            whole, coding="decode" if can_tile(vae) else None, size=size, offload=False
        )

    def _arguments(self, work: GenerationWork) -> tuple[Any, dict[str, Any]]:
        arguments: dict[str, Any] = {
            "prompt": work.prompt,
            "negative_prompt": work.negative_prompt,
            "num_inference_steps": work.steps,
            "guidance_scale": work.guidance_scale,
            "width": work.width,
            "height": work.height,
        }
        if self._model.native_size is not None and self._model.family == "sdxl":
            # SDXL is told a size; one that it never saw in training changes what it draws.
            native = (self._model.native_size, self._model.native_size)
            arguments |= {"original_size": native, "target_size": native}
        if work.image is None:
            return self._text_to_image, arguments
        if self._image_to_image is None:
            self._image_to_image = _image_to_image(self._text_to_image, self._model)
        arguments |= {
            "image": to_pil(work.image),
            "strength": usable_strength(work.strength, work.steps),
        }
        return self._image_to_image, arguments


def usable_strength(strength: float, steps: int) -> float:
    """Return the strength, raised where it would leave no step at all.

    diffusers runs int(steps * strength) steps and fails with an IndexError at none.
    """
    if int(steps * strength) >= 1:
        return strength
    least = 1 / steps
    return least if int(steps * least) >= 1 else least * (1 + 1e-9)


def _image_to_image(text_to_image: Any, model: Model) -> Any:
    try:
        pipeline = AutoPipelineForImage2Image.from_pipe(text_to_image)
    except ValueError as exc:
        raise InvalidParams(
            f"the model {model.name!r} cannot start from a picture", param="input_image_url"
        ) from exc
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
