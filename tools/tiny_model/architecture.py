"""Build the untrained parts of the tiny SDXL model, with the initial weights that train fast.

The last layer of every residual branch starts at zero: with PyTorch's default initial weights an
autoencoder this small stalls for hundreds of steps.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

TOKENS = 890
BOS, EOS = 888, 889
POSITIONS = 40
TIME_IDS = (64.0, 64.0, 0.0, 0.0, 64.0, 64.0)


def build_autoencoder() -> AutoencoderKL:
    """Return the 0.41 M parameter autoencoder, 64 px to 16 x 16 x 4."""
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=1,  # more groups erase flat colours at so few channels
        sample_size=64,
        scaling_factor=1.0,
        force_upcast=False,
        mid_block_add_attention=False,
    )
    _kaiming(model)
    _zero(model, ("conv2",))
    return model


def build_unet() -> UNet2DConditionModel:
    """Return the 3.07 M parameter denoiser."""
    model = UNet2DConditionModel(
        sample_size=16,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        mid_block_type="UNetMidBlock2DCrossAttn",
        block_out_channels=(48, 64, 96),
        layers_per_block=1,
        transformer_layers_per_block=1,
        attention_head_dim=2,  # diffusers' old name: the number of heads
        cross_attention_dim=128,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=128,
        norm_num_groups=8,
    )
    _kaiming(model)
    _zero(model, ("conv2", "conv_out", "proj_out", "to_out.0", "ff.net.2"))
    return model


def build_text_encoders() -> tuple[CLIPTextModel, CLIPTextModelWithProjection]:
    """Return both text encoders; together they give 48 + 80 values a token."""
    shared = {
        "vocab_size": TOKENS,
        "max_position_embeddings": POSITIONS,
        "hidden_act": "gelu",
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": EOS,
        "num_attention_heads": 2,
    }
    first = CLIPTextConfig(
        hidden_size=48, intermediate_size=192, num_hidden_layers=2, projection_dim=48, **shared
    )
    second = CLIPTextConfig(
        hidden_size=80, intermediate_size=320, num_hidden_layers=3, projection_dim=80, **shared
    )
    return CLIPTextModel(first), CLIPTextModelWithProjection(second)


def build_scheduler() -> EulerDiscreteScheduler:
    """Return the noise schedule: v-prediction that ends in pure noise."""
    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        steps_offset=1,
    )


def encode_text(
    first: CLIPTextModel, second: CLIPTextModelWithProjection, tokens: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return token states [n, 40, 128] and pooled [n, 80], as SDXL reads its encoders."""
    one = first(tokens, output_hidden_states=True)
    two = second(tokens, output_hidden_states=True)
    states = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], dim=-1)
    return states, two.text_embeds


def _kaiming(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            nn.init.zeros_(module.bias)


def _zero(model: nn.Module, endings: tuple[str, ...]) -> None:
    for name, module in model.named_modules():
        if name.endswith(endings) and isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.zeros_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
