"""The layout of adapter files that kohya's scripts made common.

There the dots of a layer's name are underscores, as in
`lora_unet_down_blocks_1_attentions_0_proj_in.lora_down.weight`, and every layer has its alpha as a
tensor. Blocks keep diffusers' names, for SDXL too: the tools that read this layout know them
beside those of the original code.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from imageloom.domain.errors import BadWeights
from imageloom.runtime.training.checkpoint import ADAPTER_KEY

OWN_KEY = "imageloom_adapter"
_PARTS = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
# Stable Diffusion 1 has one text encoder, and its name there has no number.
_SD1_PARTS = {**_PARTS, "text_encoder": "lora_te"}
_SIDES = {"lora_A.weight": "lora_down.weight", "lora_B.weight": "lora_up.weight"}


def to_kohya(
    tensors: Mapping[str, Tensor], metadata: Mapping[str, str]
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return the tensors and metadata of an adapter file of ours in kohya's layout.

    The weights are the same objects. Raises: BadWeights where a tensor is not of a LoRA.
    """
    entries = json.loads(metadata.get(ADAPTER_KEY, "{}"))
    parts = _SD1_PARTS if entries.get("imageloom.family") == "sd1" else _PARTS
    made: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = re.fullmatch(r"(\w+)\.(.+)\.(lora_[AB]\.weight)", name)
        if found is None or found[1] not in parts:
            raise BadWeights(f"the adapter's tensor {name!r} is not of a LoRA as we write it")
        part, layer, side = found.groups()
        target = f"{parts[part]}_{layer.replace('.', '_')}"
        made[f"{target}.{_SIDES[side]}"] = tensor
        if side == "lora_A.weight":
            alpha = entries.get(f"{part}.lora_alpha", len(tensor))
            made[f"{target}.alpha"] = torch.tensor(float(alpha))
    # Not under diffusers' own key: beside alphas as tensors, it takes that for a contradiction.
    return made, {OWN_KEY: json.dumps(entries, sort_keys=True)}
