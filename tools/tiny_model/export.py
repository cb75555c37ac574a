"""Assemble the pipeline folder in diffusers layout: safetensors only, fp16, at most 8 MB.

    python export.py --work /tmp/tiny --out ../../src/imageloom/runtime/embedded/imageloom-tiny

Parts that are not trained yet are exported with their initial weights. The folder is written
beside its place and renamed, so that a reader never sees half of it.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from architecture import build_autoencoder, build_scheduler, build_text_encoders, build_unet
from diffusers import StableDiffusionXLPipeline
from tokenizer import MAX_LENGTH
from torch import nn
from transformers import CLIPTokenizer

LIMIT_BYTES = 8_000_000


def assemble(work: Path) -> StableDiffusionXLPipeline:
    """Return the fp32 pipeline made of the newest weights in the working folder."""
    torch.manual_seed(0)
    autoencoder, unet = build_autoencoder(), build_unet()
    first, second = build_text_encoders()
    for name in ("autoencoder.pt", "autoencoder_finished.pt"):
        _load(autoencoder, work / name, "model")
    for part, name in ((unet, "unet"), (first, "first"), (second, "second")):
        _load(part, work / "denoiser.pt", f"ema_{name}")
    tokenizer = CLIPTokenizer.from_pretrained(work / "tokenizer", model_max_length=MAX_LENGTH)
    return StableDiffusionXLPipeline(
        vae=autoencoder,
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=build_scheduler(),
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )


def export(work: Path, out: Path) -> int:
    """Write the fp16 folder and return its size in bytes.

    Raises: ValueError when the folder would be over 8 MB; nothing is replaced then.
    """
    fresh, old = out.with_name(out.name + ".new"), out.with_name(out.name + ".old")
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    assemble(work).to(torch.float16).save_pretrained(fresh, safe_serialization=True)
    size = sum(path.stat().st_size for path in fresh.rglob("*") if path.is_file())
    if size > LIMIT_BYTES:
        raise ValueError(f"the folder takes {size} bytes, more than {LIMIT_BYTES}")
    if out.exists():
        out.rename(old)
    fresh.rename(out)
    shutil.rmtree(old, ignore_errors=True)
    return size


def _load(part: nn.Module, path: Path, key: str) -> None:
    if path.exists():
        part.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)[key])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("/tmp/tiny"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    print(f"{export(options.work, options.out):,} bytes in {options.out}")


if __name__ == "__main__":
    main()
