"""What an operator may choose between bits, memory and speed; no torch: for both ends of the pipe.

The plain path is always there beside the fast one: see docs/engine.md.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
# Not at all; the transformer blocks, which all have one shape; or the network as a whole.
Compile = Literal["off", "blocks", "whole"]


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """How models are kept and their networks run.

    `dtype` is that of weights, `auto` the best that the device has. `channels_last` is the memory
    format of UNets. `fused_projections` makes queries, keys and values in one product.
    `kept_prompts` are the texts whose embeddings stay on the device, by model.
    """

    dtype: Dtype = "auto"
    channels_last: bool = True
    fused_projections: bool = False
    compile: Compile = "off"
    kept_prompts: int = 64
