"""Model families that we step and train: what their networks are told, and how they are called.

One file a family. Whatever is not here is drawn by the stock pipeline, one picture at a time.
"""

from __future__ import annotations

from typing import Any

from diffusers import FluxPipeline, StableDiffusionPipeline, StableDiffusionXLPipeline

from imageloom.domain.catalog import Model
from imageloom.runtime.families.family import Family, Lane, Prompt, Start, View
from imageloom.runtime.families.flux import Flux
from imageloom.runtime.families.stable_diffusion import StableDiffusion
from imageloom.runtime.torch_device import TorchDevice

__all__ = ["Family", "Lane", "Prompt", "Start", "View", "open_family"]


def open_family(model: Model, pipeline: Any, device: TorchDevice) -> Family | None:
    """Return the family of a loaded diffusers pipeline, None where it is none that we know.

    It works on `device`, wherever parts of the pipeline are now.

    By the class of the pipeline, not by its bases: a subclass may do anything between two steps.
    """
    kind = type(pipeline)
    if kind in (StableDiffusionPipeline, StableDiffusionXLPipeline):
        config = pipeline.unet.config
        # Four latent channels and no guidance embedding: inpainting networks, and those distilled
        # to take guidance as an input, are called in other ways.
        if config.in_channels == config.out_channels and config.time_cond_proj_dim is None:
            return StableDiffusion(pipeline, device, native_size=model.native_size)
    if kind is FluxPipeline:
        return Flux(pipeline, device.device)
    return None
