"""The two files of a checkpoint: what a training goes on from, and the adapter alone.

Both are safetensors without pickle, and equal tensors give equal bytes. They appear whole or not
at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from imageloom.domain.errors import BadWeights

# diffusers reads rank and alpha of an adapter here; without it alpha is taken to be the rank.
ADAPTER_KEY = "lora_adapter_metadata"
_STATE_KEY = "imageloom_training"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """Where a training stands after `step`: the adapter and the optimiser's two moments.

    The moments are float32 [n], for the adapter's tensors laid end to end in the order of their
    names. `fingerprint` says of which training it is. `owed` says that the checkpoint planned after
    this step, with its judgement and samples, is still to come: this one was written on demand.
    """

    step: int
    fingerprint: str
    owed: bool
    adapter: Mapping[str, Tensor]
    first_moment: Tensor
    second_moment: Tensor


def write_state(path: Path, state: State) -> None:
    """Write a checkpoint."""
    tensors = {f"adapter.{name}": tensor for name, tensor in state.adapter.items()}
    tensors |= {"optimiser.first": state.first_moment, "optimiser.second": state.second_moment}
    note = {"step": state.step, "fingerprint": state.fingerprint, "owed": state.owed}
    write_tensors(path, tensors, {_STATE_KEY: json.dumps(note, sort_keys=True)})


def read_state(path: Path) -> State:
    """Return a checkpoint, on the CPU. Raises: BadWeights where the file is none."""
    try:
        tensors, metadata = read_tensors(path)
        note = json.loads(metadata[_STATE_KEY])
        first, second = tensors.pop("optimiser.first"), tensors.pop("optimiser.second")
    except (OSError, SafetensorError, KeyError, ValueError) as exc:
        raise BadWeights(f"the checkpoint {path.name} cannot be read: it is not ours") from exc
    return State(
        step=note["step"],
        fingerprint=note["fingerprint"],
        owed=note["owed"],
        adapter={name.removeprefix("adapter."): tensor for name, tensor in tensors.items()},
        first_moment=first,
        second_moment=second,
    )


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file: whole or not at all, and the same bytes for the same content."""
    content = {name: tensors[name].detach().cpu().contiguous() for name in sorted(tensors)}
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(_with_ordered_header(save(content, dict(metadata))))
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors of a safetensors file, on the CPU, and its metadata."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118  # not a dict


def _with_ordered_header(content: bytes) -> bytes:
    """Return a safetensors file with its header sorted: the library's own order varies.

    Source: the format's description: 8 bytes little-endian length, JSON, padded with spaces.
    """
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    ordered = json.dumps(header, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    ordered += b" " * (-len(ordered) % 8)
    return len(ordered).to_bytes(8, "little") + ordered + content[8 + length :]


def flat(tensors: Mapping[str, Tensor]) -> Tensor:
    """Return the tensors end to end, in the order of their names."""
    return torch.cat([tensors[name].reshape(-1) for name in sorted(tensors)])
