"""Read a LoRA adapter: a safetensors file in the layout of diffusers and peft, or of kohya.

The file is a stranger's until it has been checked, and no pickle is ever opened. Every tensor is
either understood or the file is refused: half an adapter would be applied in silence otherwise.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from imageloom.domain.errors import BadWeights

Part = Literal["down", "up", "alpha"]

_PARTS: Final[Mapping[str, Part]] = {
    ".lora_A.weight": "down",
    ".lora_B.weight": "up",
    # kohya
    ".lora_down.weight": "down",
    ".lora_up.weight": "up",
    ".alpha": "alpha",
    # what diffusers wrote before it had peft
    ".lora.down.weight": "down",
    ".lora.up.weight": "up",
    ".lora_linear_layer.down.weight": "down",
    ".lora_linear_layer.up.weight": "up",
    "_lora.down.weight": "down",
    "_lora.up.weight": "up",
}
_DTYPES: Final = frozenset({"F16", "BF16", "F32", "F64"})
# Where diffusers keeps rank and alpha, as "unet.r", "unet.lora_alpha" and so on.
_METADATA: Final = "lora_adapter_metadata"
_LAYER_NAME: Final = re.compile(r"\^?[\w.]+\$?")


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterLimits:
    """How large an adapter may be; sizes are in bytes."""

    file: int = 2_000_000_000
    header: int = 10_000_000
    tensors: int = 50_000
    rank: int = 512


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """What is added to one layer of a model: scale * up(down(x)).

    `down` is [rank, in] and `up` [out, rank]; of a convolution [rank, in, height, width] and
    [out, rank, 1, 1]. On the CPU, finite, in the dtype of the file.
    """

    down: Tensor
    up: Tensor
    scale: float

    @property
    def shape(self) -> list[int]:
        """The shape of the weight that the layer was trained for."""
        return [self.up.shape[0], *self.down.shape[1:]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """Layers by name: `unet.mid_block...to_q` in peft's layout, `lora_unet_...` in kohya's."""

    name: str
    layers: Mapping[str, Layer]


def read_adapter(path: Path, *, name: str, limits: AdapterLimits | None = None) -> Adapter:
    """Return the adapter in a file; `name` is what the user calls it.

    Raises: BadWeights where the file is not a LoRA in safetensors, or over the limits.
    """
    try:
        return Adapter(name=name, layers=_read(path, limits or AdapterLimits()))
    except (OSError, SafetensorError) as exc:
        raise BadWeights(
            f"the adapter {name!r} cannot be read: {_reason(exc)}; it takes a whole .safetensors "
            "file"
        ) from exc
    except _Unfit as exc:
        raise BadWeights(f"the adapter {name!r} cannot be used: {exc}") from exc


class _Unfit(Exception):
    """What is wrong with a file, to be told with the adapter's name."""


def _read(path: Path, limits: AdapterLimits) -> dict[str, Layer]:
    _check_header(path, limits)
    with safe_open(path, framework="pt") as file:
        keys = file.keys()
        if len(keys) > limits.tensors:
            raise _Unfit(f"it has {len(keys)} tensors, the limit is {limits.tensors}")
        tensors = _grouped({key: _tensor(file, key) for key in keys})
        config = _config(file.metadata() or {})
    if not tensors:
        raise _Unfit("it has no layers")
    return {
        name: _layer(name, parts, config, limits=limits) for name, parts in sorted(tensors.items())
    }


def _check_header(path: Path, limits: AdapterLimits) -> None:
    """Refuse what is no safetensors file by its first 8 bytes, the length of the header."""
    size = path.stat().st_size
    if size > limits.file:
        raise _Unfit(f"it has {size} bytes, the limit is {limits.file}")
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
    if length > size - 8:
        raise _Unfit(
            f"it is not safetensors, or cut short: it has {size} bytes, and its header would take "
            f"{length}"
        )
    if length > limits.header:
        raise _Unfit(f"its header takes {length} bytes, the limit is {limits.header}")


def _tensor(file: Any, key: str) -> Tensor:
    dtype = file.get_slice(key).get_dtype()
    if dtype not in _DTYPES:
        raise _Unfit(f"{_short(key)} is {dtype}; only {', '.join(sorted(_DTYPES))} will do")
    tensor: Tensor = file.get_tensor(key)
    if tensor.dtype is torch.float64:
        tensor = tensor.float()
    if not torch.isfinite(tensor).all():
        raise _Unfit(f"{_short(key)} has values that are no finite numbers")
    return tensor


def _grouped(tensors: Mapping[str, Tensor]) -> dict[str, dict[Part, Tensor]]:
    layers: dict[str, dict[Part, Tensor]] = {}
    for key, tensor in tensors.items():
        name, part = _split(key)
        parts = layers.setdefault(name, {})
        if part in parts:
            raise _Unfit(f"{_short(name)} is there twice, in two layouts")
        parts[part] = tensor
    return layers


def _split(key: str) -> tuple[str, Part]:
    """Return the layer that a tensor belongs to, and which part of it the tensor is."""
    for suffix, part in _PARTS.items():
        if key.endswith(suffix):
            return _without_processor(key.removesuffix(suffix)), part
    raise _Unfit(f"{_short(key)} is no weight of a plain LoRA: DoRA, LoKr and biases are not known")


def _without_processor(name: str) -> str:
    """Return today's name of an attention layer: they were once children of a processor."""
    return name.replace(".processor.to_out", ".to_out.0").replace(".processor.to_", ".to_")


def _layer(
    name: str, parts: Mapping[Part, Tensor], config: Mapping[str, Any], *, limits: AdapterLimits
) -> Layer:
    down, up = parts.get("down"), parts.get("up")
    if down is None or up is None:
        raise _Unfit(f"{_short(name)} has only one of its two matrices")
    rank = down.shape[0] if down.ndim else 0
    if down.ndim not in (2, 4) or up.shape[1:] != (rank, *[1] * (down.ndim - 2)):
        raise _Unfit(f"{_short(name)} has matrices of {list(up.shape)} and {list(down.shape)}")
    if not 1 <= rank <= limits.rank:
        raise _Unfit(f"{_short(name)} has rank {rank}; 1 to {limits.rank} will do")
    return Layer(down=down, up=up, scale=_scale(name, parts.get("alpha"), config, rank=rank))


def _scale(name: str, alpha: Tensor | None, config: Mapping[str, Any], *, rank: int) -> float:
    """Return alpha / rank: alpha as its own tensor, or as noted in the file, else the rank.

    Source: Hu et al. 2021 (arXiv:2106.09685), 4.1; with `use_rslora` the root of the rank,
    Kalajdzievski 2023 (arXiv:2312.03732).
    """
    if alpha is not None:
        if alpha.numel() != 1:
            raise _Unfit(f"the alpha of {_short(name)} has {alpha.numel()} values; 1 will do")
        return alpha.item() / rank
    component, _, path = name.partition(".")
    noted = _number(config, f"{component}.lora_alpha", default=rank)
    for pattern, value in _patterns(config, f"{component}.alpha_pattern"):
        if _matches(path, pattern):
            noted = value
            break
    return noted / (math.sqrt(rank) if config.get(f"{component}.use_rslora") is True else rank)


def _config(metadata: Mapping[str, str]) -> dict[str, Any]:
    try:
        config = json.loads(metadata.get(_METADATA, "{}"))
    except (ValueError, RecursionError) as exc:
        raise _Unfit(f"its {_METADATA} is not JSON") from exc
    if not isinstance(config, dict):
        raise _Unfit(f"its {_METADATA} is not a JSON object")
    return config


def _patterns(config: Mapping[str, Any], key: str) -> Iterator[tuple[str, float]]:
    """Yield the layers with an alpha of their own.

    peft reads them as regular expressions. A stranger's could take for ever, and what is written
    there are names of layers, so only these are taken.
    """
    patterns = config.get(key, {})
    if not isinstance(patterns, dict):
        raise _Unfit(f"{key} is {_short(patterns)}; an object of numbers will do")
    for pattern in patterns:
        if not _LAYER_NAME.fullmatch(pattern):
            raise _Unfit(f"{key} has {_short(pattern)}; only names of layers will do")
        yield pattern, _number(patterns, pattern)


def _matches(path: str, pattern: str) -> bool:
    layer = pattern.removeprefix("^").removesuffix("$")
    return path == layer or (not pattern.startswith("^") and path.endswith(f".{layer}"))


def _number(values: Mapping[str, Any], key: str, *, default: float = 0) -> float:
    value = values.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e6:
        raise _Unfit(f"{key} is {_short(value)}; a number below 1e6 will do")
    return float(value)


def _reason(exc: OSError | SafetensorError) -> str:
    """Return what went wrong, without a path of this machine."""
    return exc.strerror or type(exc).__name__ if isinstance(exc, OSError) else str(exc)


def _short(value: object) -> str:
    """Return a value of the file as it may be shown."""
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:160]}…"
