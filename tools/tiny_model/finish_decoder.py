"""Finish the decoder: small faces, which plain pixel losses are too coarse to ask for.

    python finish_decoder.py --minutes 9

The encoder and so the latents stay as they are, and this may run beside the denoiser's training.
Half of each batch shows whole bodies, whose heads are 15 px tall; there the loss counts ten times.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from architecture import build_autoencoder
from autoencoder import NOISE, as_input, psnr, varied
from diffusers import AutoencoderKL
from parallel import rate_factor
from text import load_scenes

WHOLE_BODY = ("dress", "trousers", "skirt")
HEAD_ROWS, HEAD_COLUMNS = slice(4, 17), slice(25, 39)
HEAD_WEIGHT = 10.0


def finish(options: argparse.Namespace) -> None:
    """Train the decoder until the minutes are over and save the whole autoencoder."""
    torch.manual_seed(options.seed)
    model = build_autoencoder().to(memory_format=torch.channels_last)
    model.load_state_dict(torch.load(options.source, weights_only=True)["model"])
    pictures = torch.from_numpy(np.load(options.data)["pictures"]).permute(0, 3, 1, 2)
    small_head = torch.tensor(
        [scene.worn and scene.kind in WHOLE_BODY for scene in load_scenes(options.data)]
    )
    held_out = pictures[:256]
    bodies = small_head.nonzero()[:, 0]
    bodies = bodies[bodies >= 256]
    parameters = [*model.decoder.parameters(), *model.post_quant_conv.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=options.rate, betas=(0.9, 0.98), weight_decay=1e-4)
    _report(model, held_out, small_head[:256], 0)
    start, step, share, half = time.time(), 0, 0.0, options.batch // 2
    while share < 1:
        share = (time.time() - start) / (options.minutes * 60)
        factor = rate_factor(step, share, warm_up=20, flat_until=0.3)
        optimiser.param_groups[0]["lr"] = options.rate * factor
        any_picture = varied(pictures[torch.randint(256, len(pictures), (half,))])
        body = pictures[bodies[torch.randint(len(bodies), (half,))]]
        weight = torch.ones(options.batch, 1, 64, 64)
        weight[half:, :, HEAD_ROWS, HEAD_COLUMNS] = HEAD_WEIGHT
        loss = weighted_loss(model, as_input(torch.cat([any_picture, body])), weight)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        if step % 100 == 0:
            _report(model, held_out, small_head[:256], step)
    torch.save({"model": model.state_dict()}, options.out)
    _report(model, held_out, small_head[:256], step)


def weighted_loss(model: AutoencoderKL, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return L1 + MSE + L1 of neighbour differences, each pixel by its weight [n, 1, 64, 64]."""
    with torch.no_grad():
        z = model.quant_conv(model.encoder(x))[:, :4]
    y = model.decoder(model.post_quant_conv(z + NOISE * torch.randn_like(z)))
    error = (y - x).abs()
    across = (y.diff(dim=3) - x.diff(dim=3)).abs() * weight[..., 1:]
    down = (y.diff(dim=2) - x.diff(dim=2)).abs() * weight[..., 1:, :]
    return (weight * (error + error.square())).mean() + 0.5 * (across.mean() + down.mean())


def _report(
    model: AutoencoderKL, held_out: torch.Tensor, small_head: torch.Tensor, step: int
) -> None:
    with torch.no_grad():
        x = as_input(held_out[small_head])
        z = model.quant_conv(model.encoder(x))[:, :4]
        y = model.decoder(model.post_quant_conv(z)).clamp(-1, 1)
    faces = (y - x)[:, :, HEAD_ROWS, HEAD_COLUMNS].square().mean(dim=(1, 2, 3))
    of_faces = float((10 * torch.log10(4 / faces)).mean())
    print(f"{step} psnr {psnr(model, held_out):.2f}, of small heads {of_faces:.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("/tmp/tiny/train.npz"))
    parser.add_argument("--source", type=Path, default=Path("/tmp/tiny/autoencoder.pt"))
    parser.add_argument("--out", type=Path, default=Path("/tmp/tiny/autoencoder_finished.pt"))
    parser.add_argument("--minutes", type=float, default=9)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=12)
    options = parser.parse_args()
    torch.set_num_threads(1)
    finish(options)


if __name__ == "__main__":
    main()
