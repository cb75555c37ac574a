"""Read from a model folder what the catalog needs to know about it; no torch needed."""

from __future__ import annotations

import json
from pathlib import Path

from imageloom.domain.catalog import Model
from imageloom.domain.errors import BadWeights, InvalidParams

# What each pipeline class is to us: its family, and how it is used unless a request says otherwise.
_FAMILIES: dict[str, tuple[str, int]] = {
    "StableDiffusionXLPipeline": ("sdxl", 1024),
    "StableDiffusionPipeline": ("sd1", 512),
    "FluxPipeline": ("flux", 1024),
    "ZImagePipeline": ("z-image", 1024),
}


def describe_folder(folder: Path, *, name: str) -> Model:
    """Return a catalog entry for a folder in diffusers layout.

    Raises: InvalidParams where there is no such folder; BadWeights where it is not loadable.
    """
    if not folder.is_dir():
        raise InvalidParams(f"path: there is no folder {folder}", param="path")
    check_folder(folder, name=name)
    class_name = json.loads((folder / "model_index.json").read_text("utf-8"))["_class_name"]
    family, size = _FAMILIES.get(class_name, ("stock", 1024))
    return Model(
        name=name,
        source=f"folder:{folder}",
        family=family,
        licence="as its owner says",
        description=f"{class_name} from a local folder",
        default_size=_drawn_side(folder) or size,
        size_bytes=sum(path.stat().st_size for path in folder.glob("*/*.safetensors")),
    )


def _drawn_side(folder: Path) -> int | None:
    """Return the side in pixels that a UNet was made for, None where its configs do not say.

    Its latents' side, doubled by each level of the VAE but the first.
    """
    try:
        unet = json.loads((folder / "unet" / "config.json").read_text("utf-8"))
        vae = json.loads((folder / "vae" / "config.json").read_text("utf-8"))
        side = int(unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return side if 64 <= side <= 2048 and side % 8 == 0 else None


def check_swin2sr(folder: Path, *, name: str) -> int:
    """Return how many times the Swin2SR network of a folder in transformers layout enlarges.

    Raises: BadWeights where it holds no such network, or no safetensors.
    """
    config = folder / "config.json"
    if not config.is_file():
        raise BadWeights(
            f"the model {name!r} has no config.json; it must be a folder in transformers layout"
        )
    try:
        entries = json.loads(config.read_text("utf-8"))
    except ValueError as exc:
        raise BadWeights(f"the config.json of {name!r} is not JSON") from exc
    found = entries.get("model_type") if isinstance(entries, dict) else None
    if found != "swin2sr":
        raise BadWeights(
            f"the config.json of {name!r} is of the model type {found!r}; of networks in "
            "transformers layout, only swin2sr is loaded"
        )
    if not any(folder.glob("*.safetensors")):
        raise BadWeights(
            f"the model {name!r} has no .safetensors weights; pickles are never loaded"
        )
    scale = entries.get("upscale", 2)  # transformers' own default
    if not isinstance(scale, int) or scale < 2:
        raise BadWeights(
            f"the config.json of {name!r} has the upscale {scale!r}; an upscaler needs 2 or more"
        )
    return scale


def check_folder(folder: Path, *, name: str) -> None:
    """Make sure that a folder holds a diffusers pipeline of safetensors without code of its own.

    Raises: BadWeights, which says what is missing or unwanted.
    """
    index = folder / "model_index.json"
    if not index.is_file():
        raise BadWeights(
            f"the model {name!r} has no model_index.json; it must be a folder in diffusers layout"
        )
    try:
        entries = json.loads(index.read_text("utf-8"))
    except ValueError as exc:
        raise BadWeights(f"the model_index.json of {name!r} is not JSON") from exc
    if not isinstance(entries, dict) or not isinstance(entries.get("_class_name"), str):
        # A list here names a Python file of the repository, which we never run.
        raise BadWeights(f"the model {name!r} brings its own pipeline code; that is never run")
    for part, value in entries.items():
        if part.startswith("_") or not isinstance(value, list):
            continue
        if value[0] not in (None, "diffusers", "transformers"):
            raise BadWeights(
                f"the part {part!r} of the model {name!r} comes from {value[0]!r}; "
                "only diffusers and transformers are loaded"
            )
    if not any(folder.glob("*/*.safetensors")):
        raise BadWeights(
            f"the model {name!r} has no .safetensors weights; pickles are never loaded"
        )
