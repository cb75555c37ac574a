"""Stable Diffusion XL with random weights: its very shape, for benches that download nothing.

What a picture shows is no part of a bench's figures, and how long it takes does not depend on what
was learnt. Weights are Gaussian, never constant: a GPU that multiplies constants draws less power
and runs faster than it ever would at work.

Source of the configuration: stabilityai/stable-diffusion-xl-base-1.0, revision 46216598, its files
`unet/config.json`, `vae/config.json`, `text_encoder/config.json`, `text_encoder_2/config.json` and
`scheduler/scheduler_config.json`. Entries that are the libraries' defaults are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from diffusers.utils import logging as diffusers_logging
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from imageloom.domain.catalog import BUILTIN, Model
from imageloom.runtime.weights import locate

# `small` is the same construction, layer for layer, of reduced widths: for trying a bench out.
Scale = Literal["full", "small"]
SIDE: Mapping[Scale, int] = {"full": 1024, "small": 64}
DEVIATION = 0.02  # of weights; what CLIP starts from, and near what a trained UNet has
TOKENS = 77

UNET: Mapping[Scale, Mapping[str, Any]] = {
    "full": {
        "sample_size": 128,
        "block_out_channels": (320, 640, 1280),
        "attention_head_dim": (5, 10, 20),  # a misnomer of diffusers: the number of heads
        "cross_attention_dim": 2048,
        "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816,
    },
    "small": {
        "sample_size": 8,
        "block_out_channels": (32, 64, 128),
        "attention_head_dim": (1, 2, 4),
        "cross_attention_dim": 96,
        "addition_time_embed_dim": 16,
        "projection_class_embeddings_input_dim": 160,
    },
}
UNET_OF_BOTH: Mapping[str, Any] = {
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "layers_per_block": 2,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
}
VAE: Mapping[Scale, Mapping[str, Any]] = {
    "full": {"sample_size": 1024, "block_out_channels": (128, 256, 512, 512)},
    "small": {"sample_size": 64, "block_out_channels": (32, 32, 64, 64)},
}
VAE_OF_BOTH: Mapping[str, Any] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "scaling_factor": 0.13025,
    "force_upcast": True,
}
# CLIP ViT-L, of which the last but one layer is used, and OpenCLIP ViT-bigG.
TEXT: Mapping[Scale, Mapping[str, Any]] = {
    "full": {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "projection_dim": 768,
    },
    "small": {
        "hidden_size": 32,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "projection_dim": 32,
    },
}
TEXT_OF_BOTH: Mapping[str, Any] = {"num_hidden_layers": 12, "hidden_act": "quick_gelu"}
TEXT_2: Mapping[Scale, Mapping[str, Any]] = {
    "full": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 20,
        "projection_dim": 1280,
    },
    "small": {
        "hidden_size": 64,
        "intermediate_size": 256,
        "num_attention_heads": 4,
        "projection_dim": 64,
    },
}
TEXT_2_OF_BOTH: Mapping[str, Any] = {"num_hidden_layers": 32, "hidden_act": "gelu"}
VOCABULARY = 49408
SCHEDULER: Mapping[str, Any] = {
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def build_sdxl(
    folder: Path,
    *,
    scale: Scale,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Model:
    """Write an SDXL with random weights into `folder`, in diffusers layout, and return its entry.

    The numbers are drawn on `device`, where a GPU takes seconds, and kept as `dtype`. The same
    device gives the same weights. The tokenizers are the embedded model's, with SDXL's length, so
    captions take as long as SDXL's do. Full scale in bf16 takes 7 GB of disk and device memory.
    """
    diffusers_logging.disable_progress_bar()
    transformers_logging.disable_progress_bar()
    torch.manual_seed(0)
    tokenizer = _tokenizer()
    with torch.device(device), _default_dtype(dtype):
        parts: dict[str, nn.Module] = {
            "unet": unet(scale),
            "vae": AutoencoderKL(**VAE_OF_BOTH, **VAE[scale]),
            "text_encoder": CLIPTextModel(_text_config(tokenizer, TEXT_OF_BOTH, TEXT[scale])),
            "text_encoder_2": CLIPTextModelWithProjection(
                _text_config(tokenizer, TEXT_2_OF_BOTH, TEXT_2[scale])
            ),
        }
    for part in parts.values():
        _draw_weights(part)
    pipeline = StableDiffusionXLPipeline(
        **parts,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=EulerDiscreteScheduler(**SCHEDULER),
        force_zeros_for_empty_prompt=True,
    )
    pipeline.save_pretrained(folder, safe_serialization=True)
    return Model(
        name=f"sdxl-{scale}",
        source=f"folder:{folder}",
        family="sdxl",
        licence="Apache-2.0",
        description=f"Random weights in the shape of SDXL, {scale}",
        default_size=SIDE[scale],
        size_bytes=sum(path.stat().st_size for path in folder.glob("*/*.safetensors")),
    )


def unet(scale: Scale) -> Any:
    """Return SDXL's UNet on torch's default device, with diffusers' first weights."""
    return UNet2DConditionModel(**UNET_OF_BOTH, **UNET[scale])


def tflop(scale: Scale) -> tuple[float, float]:
    """Return the TFLOP of one lane's step and of one decode; a product with its addition is 2."""
    told = UNET[scale]
    pooled = told["projection_class_embeddings_input_dim"] - 6 * told["addition_time_embed_dim"]
    with torch.device("meta"), torch.no_grad():
        network, vae = unet(scale), AutoencoderKL(**VAE_OF_BOTH, **VAE[scale])
        latents = torch.empty(1, 4, SIDE[scale] // 8, SIDE[scale] // 8)
        tokens = torch.empty(1, TOKENS, told["cross_attention_dim"])
        conditions = {"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)}
        with FlopCounterMode(display=False) as of_lane:
            network(latents, torch.ones(1), tokens, added_cond_kwargs=conditions)
        with FlopCounterMode(display=False) as of_decode:
            vae.decode(latents)
    return of_lane.get_total_flops() / 1e12, of_decode.get_total_flops() / 1e12


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def _tokenizer() -> CLIPTokenizer:
    tiny = next(model for model in BUILTIN if model.name == "imageloom-tiny")
    return CLIPTokenizer.from_pretrained(locate(tiny) / "tokenizer", model_max_length=TOKENS)


def _text_config(tokenizer: CLIPTokenizer, *entries: Mapping[str, Any]) -> CLIPTextConfig:
    merged: dict[str, Any] = {}
    for some in entries:
        merged |= some
    return CLIPTextConfig(
        vocab_size=VOCABULARY,
        max_position_embeddings=TOKENS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **merged,
    )


def _draw_weights(module: nn.Module) -> None:
    """Draw every matrix and kernel; norms and biases stay at one and zero."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=DEVIATION)
