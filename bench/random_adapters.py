"""Adapters with random weights, as files that requests name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from imageloom.domain.work import LoraUse


def write_adapters(unet: Any, folder: Path, *, ranks: Sequence[int]) -> list[LoraUse]:
    """Write adapters of a UNet's transformers, one of each rank."""
    uses = []
    for rank in ranks:
        generator, tensors = torch.Generator().manual_seed(rank), {}
        for path, layer in unet.named_modules():
            if isinstance(layer, torch.nn.Linear) and "transformer_blocks" in path:
                out, into = layer.weight.shape
                down, up = torch.randn(rank, into, generator=generator), torch.zeros(out, rank)
                tensors[f"unet.{path}.lora_A.weight"] = down / rank
                tensors[f"unet.{path}.lora_B.weight"] = up.normal_(0, 0.02, generator=generator)
        file = folder / f"{rank}.safetensors"
        save_file(tensors, file)
        uses.append(LoraUse(name=str(rank), path=str(file), sha256=str(rank), weight=1.0))
    return uses
