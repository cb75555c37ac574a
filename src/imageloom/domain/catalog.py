"""The model catalog as data: which base models a task may name, and how each is loaded.

A variant is one entry; code that tells models apart lives in `runtime`, by family. Entries that a
user adds (`imageloom models add`) are rows of the store in the same shape and win over these.
"""

from __future__ import annotations

from typing import Literal

import msgspec

# What a model is for: drawing (`base`), enlarging, or telling a subject from its background.
Kind = Literal["base", "upscaler", "segmenter"]


class Model(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Named weights, or a method that needs none.

    `source` is `builtin:NAME` (inside this package), `hub:REPOSITORY` (with `revision`, a commit
    hash), `folder:PATH` or `file:PATH`. Base models are in diffusers layout with safetensors.
    `family` names the code that loads the model. An upscaler enlarges `scale` times in one pass.

    For base models: `default_size` is the side in
    pixels that a request gets unless it says otherwise. A `native_size` says that the model draws
    only near that side; larger pictures are drawn there and enlarged.
    """

    name: str
    source: str
    family: str
    licence: str
    kind: Kind = "base"
    description: str = ""
    revision: str | None = None
    variant: str | None = None
    default_size: int = 1024
    native_size: int | None = None
    steps: int = 30
    guidance_scale: float = 7.5
    strength: float = 0.6
    scale: int | None = None
    size_bytes: int = 0


def is_method(model: Model) -> bool:
    """Return whether the model is code of this package alone, without weights."""
    return model.kind != "base" and model.source.startswith("builtin:")


BUILTIN: tuple[Model, ...] = (
    Model(
        name="imageloom-tiny",
        source="builtin:imageloom-tiny",
        family="sdxl",
        licence="Apache-2.0",
        description="Embedded model that draws garments and people wearing them; for trying out",
        default_size=256,
        native_size=64,
        steps=20,
        guidance_scale=3.0,
        strength=0.6,
        size_bytes=16_000_000,
    ),
    Model(
        name="sd-xl-base",
        source="hub:stabilityai/stable-diffusion-xl-base-1.0",
        revision="462165984030d82259a11f4367a4eed129e94a7b",
        variant="fp16",
        family="sdxl",
        licence="CreativeML Open RAIL++-M",
        description="Stable Diffusion XL 1.0",
        size_bytes=6_940_000_000,
    ),
    Model(
        name="sd-xl-turbo",
        source="hub:stabilityai/sdxl-turbo",
        revision="71153311d3dbb46851df1931d3ca6e939de83304",
        variant="fp16",
        family="sdxl",
        licence="Stability AI Community",
        description="SDXL distilled to one to four steps, without guidance",
        default_size=512,
        steps=4,
        guidance_scale=0.0,
        size_bytes=6_940_000_000,
    ),
    Model(
        name="sd-1.5",
        source="hub:stable-diffusion-v1-5/stable-diffusion-v1-5",
        revision="451f4fe16113bff5a5d2269ed5ad43b0592e9a14",
        variant="fp16",
        family="sd1",
        licence="CreativeML Open RAIL-M",
        description="Stable Diffusion 1.5",
        default_size=512,
        size_bytes=2_740_000_000,
    ),
    Model(
        name="flux-schnell",
        source="hub:black-forest-labs/FLUX.1-schnell",
        revision="741f7c3ce8b383c54771c7003378a50191e9efe9",
        family="flux",
        licence="Apache-2.0",
        description="FLUX.1 distilled to four steps, without guidance",
        steps=4,
        guidance_scale=0.0,
        size_bytes=33_700_000_000,
    ),
    Model(
        name="z-image-turbo",
        source="hub:Tongyi-MAI/Z-Image-Turbo",
        revision="f332072aa78be7aecdf3ee76d5c247082da564a6",
        family="z-image",
        licence="Apache-2.0",
        description="Z-Image distilled to nine steps, without guidance",
        steps=9,
        guidance_scale=0.0,
        size_bytes=20_500_000_000,
    ),
    Model(
        name="lanczos",
        source="builtin:lanczos",
        family="lanczos",
        kind="upscaler",
        licence="Apache-2.0",
        description="Enlarges by Lanczos and sharpens with care; needs no weights",
    ),
    Model(
        name="grabcut",
        source="builtin:grabcut",
        family="grabcut",
        kind="segmenter",
        licence="Apache-2.0",
        description="Cuts a subject out by the colours of the border; needs no weights",
    ),
)
