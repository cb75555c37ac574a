"""Turn a path that an operator names into a catalog entry, or say why it is no model.

What torch is needed for is imported where it is used: a folder in diffusers layout can be added on
a machine without it.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from imageloom.domain.catalog import Model
from imageloom.domain.errors import BadWeights, InvalidParams
from imageloom.images import Picture
from imageloom.runtime.folders import check_swin2sr, describe_folder
from imageloom.runtime.weights import parts_of_file

ACCEPTED = (
    "a folder in diffusers layout, a folder of a Swin2SR network in transformers layout, a "
    ".safetensors file of a super-resolution network or an .onnx file of a segmentation network"
)
_PICKLES = frozenset({".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth", ".t7"})
_LICENCE = "as its owner says"


def describe_path(path: Path, *, name: str) -> Model:
    """Return a catalog entry for the model at `path`, its weights read once to try them.

    Raises: InvalidParams where there is nothing, or nothing that could be a model; BadWeights where
    there is a model that is never loaded, or does not work.
    """
    if path.is_dir():
        return _describe_directory(path, name=name)
    if not path.is_file():
        raise InvalidParams(f"path: there is nothing at {path}; give {ACCEPTED}", param="path")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _describe_spandrel(path, name=name)
    if suffix == ".onnx":
        return _describe_onnx(path, name=name)
    if suffix in _PICKLES:
        raise BadWeights(
            f"{path.name} is a pickle, which can run any code when it is read; it is never loaded. "
            "Ask its author for .safetensors, or convert it on a machine that you can lose"
        )
    raise InvalidParams(
        f"path: {path.name} is no model that is known; give {ACCEPTED}", param="path"
    )


def _describe_directory(folder: Path, *, name: str) -> Model:
    if (folder / "model_index.json").is_file():
        return describe_folder(folder, name=name)
    if (folder / "config.json").is_file():
        return _describe_swin2sr(folder, name=name)
    inside = sorted(
        file.name for file in folder.iterdir() if file.suffix.lower() in (".safetensors", ".onnx")
    )
    hint = f" It holds {inside[0]}; name that file." if inside else ""
    raise BadWeights(
        f"the folder {folder} has neither a model_index.json nor a config.json; give {ACCEPTED}."
        + hint
    )


def _describe_swin2sr(folder: Path, *, name: str) -> Model:
    entry = Model(
        name=name,
        kind="upscaler",
        source=f"folder:{folder}",
        family="swin2sr",
        licence=_LICENCE,
        description="Swin2SR from a local folder",
        scale=check_swin2sr(folder, name=name),
        size_bytes=_size(folder.glob("*.safetensors")),
    )
    _try_upscaler(entry)
    return entry


def _describe_spandrel(path: Path, *, name: str) -> Model:
    entry = Model(
        name=name,
        kind="upscaler",
        source=f"file:{path}",
        family="spandrel",
        licence=_LICENCE,
        description=f"Super-resolution by {path.name}",
        size_bytes=_size([path]),
    )
    return msgspec.structs.replace(entry, scale=_try_upscaler(entry))


def _try_upscaler(entry: Model) -> int:
    """Return the scale of an upscaler that has enlarged a small picture here."""
    from imageloom.runtime.torch_device import choose_device
    from imageloom.runtime.upscalers import load_upscaler

    upscaler = load_upscaler(entry, choose_device("cpu", threads=1))
    grey = Picture(width=16, height=16, rgb=bytes([128]) * (16 * 16 * 3))
    try:
        upscaler.enlarge(grey, 2, between_tiles=lambda _share: None)
    except (RuntimeError, ValueError, IndexError, AssertionError) as exc:
        raise BadWeights(
            f"the upscaler {entry.name!r} was loaded, but fails on a picture of 16 x 16 with "
            f"{type(exc).__name__}: {exc}"
        ) from exc
    return upscaler.factor


def _describe_onnx(path: Path, *, name: str) -> Model:
    from imageloom.runtime.segmenters import load_segmenter
    from imageloom.runtime.torch_device import choose_device

    entry = Model(
        name=name,
        kind="segmenter",
        source=f"file:{path}",
        family="onnx",
        licence=_LICENCE,
        description=f"Segmentation by {path.name}",
        size_bytes=_size(parts_of_file(path)),
    )
    load_segmenter(entry, choose_device("cpu", threads=1))
    return entry


def _size(files: Iterable[Path]) -> int:
    return sum(file.stat().st_size for file in files)
