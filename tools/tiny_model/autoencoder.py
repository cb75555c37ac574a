"""Train the autoencoder, then whiten its latents.

    python autoencoder.py --data /tmp/tiny/train.npz --out /tmp/tiny/autoencoder.pt --minutes 25

After training, the two 1 x 1 convolutions beside the latent take up a linear map that gives the
latents zero mean, unit variance and no correlation between channels, so that the scaling factor
is 1; the log-variance is set to -12, so that sampling equals the mean.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from architecture import build_autoencoder
from diffusers import AutoencoderKL
from parallel import agreed_share, average_gradients, rate_factor, spawn
from torch.nn import functional

NOISE = 0.06  # of the latent's standard deviation: the denoiser is never exact


def train(rank: int, workers: int, options: argparse.Namespace) -> None:
    """Train until the minutes are over; worker 0 reports and saves."""
    torch.manual_seed(options.seed)
    model = build_autoencoder()
    if options.resume and options.out.exists():
        model.load_state_dict(torch.load(options.out, weights_only=True)["model"])
    pictures = torch.from_numpy(np.load(options.data)["pictures"]).permute(0, 3, 1, 2)
    held_out, pictures = pictures[:256], pictures[256:]
    torch.manual_seed(options.seed + 100 + rank)
    model.to(memory_format=torch.channels_last)  # 13 % faster than contiguous here
    parameters = list(model.parameters())
    optimiser = torch.optim.AdamW(parameters, lr=options.rate, betas=(0.9, 0.98), weight_decay=1e-4)
    start, seconds, step, share = time.time(), options.minutes * 60, 0, 0.0
    while share < 1:
        share = agreed_share(start, seconds, workers)
        factor = rate_factor(step, share, warm_up=50, flat_until=0.5)
        optimiser.param_groups[0]["lr"] = options.rate * factor
        batch = pictures[torch.randint(len(pictures), (options.batch // workers,))]
        loss = reconstruction_loss(model, as_input(varied(batch)))
        loss.backward()
        average_gradients(parameters, workers)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        if rank == 0 and (step in (20, 50, 100) or step % 200 == 0):
            quality = psnr(model, held_out[:128])
            elapsed = time.time() - start
            print(f"{step} {elapsed:.0f} s loss {loss.item():.4f} psnr {quality:.2f}", flush=True)
            if step % 1000 == 0:
                torch.save({"model": model.state_dict()}, options.out)
    if rank == 0:
        whiten(model, pictures[:2048])
        torch.save({"model": model.state_dict()}, options.out)
        samples = step * options.batch
        print(f"final psnr {psnr(model, held_out):.2f}, {step} steps, {samples} pictures")


def reconstruction_loss(model: AutoencoderKL, x: torch.Tensor) -> torch.Tensor:
    """Return L1 + MSE + L1 of neighbour differences, with noise on the latent."""
    z = model.quant_conv(model.encoder(x))[:, :4]
    spread = z.detach().std(dim=(0, 2, 3), keepdim=True)
    noisy = z + NOISE * spread * torch.randn_like(z)
    y = model.decoder(model.post_quant_conv(noisy))
    edges = sum(functional.l1_loss(y.diff(dim=d), x.diff(dim=d)) for d in (2, 3))
    keep_small = 1e-4 * z.square().mean() + (z.abs() - 6).relu().mean()
    return functional.l1_loss(y, x) + functional.mse_loss(y, x) + 0.5 * edges + keep_small


@torch.no_grad()
def psnr(model: AutoencoderKL, pictures: torch.Tensor) -> float:
    """Return the mean over pictures of the peak signal to noise ratio in dB, without noise."""
    errors = []
    for part in pictures.split(64):
        x = as_input(part)
        z = model.quant_conv(model.encoder(x))[:, :4]
        y = model.decoder(model.post_quant_conv(z)).clamp(-1, 1)
        errors.append((y - x).square().mean(dim=(1, 2, 3)))
    return float((10 * torch.log10(4 / torch.cat(errors))).mean())


@torch.no_grad()
def whiten(model: AutoencoderKL, pictures: torch.Tensor) -> None:
    """Fold a whitening of the latents into the convolutions beside them, in place."""
    parts = [model.quant_conv(model.encoder(as_input(p)))[:, :4] for p in pictures.split(64)]
    z = torch.cat(parts)
    flat = z.permute(1, 0, 2, 3).reshape(4, -1).double()
    mean = flat.mean(dim=1)
    values, vectors = torch.linalg.eigh(torch.cov(flat))
    # The symmetric square root keeps each channel as near to itself as whitening allows.
    to_white = vectors @ torch.diag(values.rsqrt()) @ vectors.T
    from_white = vectors @ torch.diag(values.sqrt()) @ vectors.T
    inner, outer = model.quant_conv, model.post_quant_conv
    weight, bias = inner.weight[:4, :, 0, 0].double(), inner.bias[:4].double()
    inner.weight[:4, :, 0, 0] = (to_white @ weight).float()
    inner.bias[:4] = (to_white @ (bias - mean)).float()
    inner.weight[4:] = 0
    inner.bias[4:] = -12
    weight = outer.weight[:, :, 0, 0].double()
    outer.bias += (weight @ mean).float()
    outer.weight[:, :, 0, 0] = (weight @ from_white).float()


def as_input(pictures: torch.Tensor) -> torch.Tensor:
    """Return pictures uint8 [n, 3, 64, 64] as floats in -1 to 1, channels last."""
    return (pictures.float() / 127.5 - 1).contiguous(memory_format=torch.channels_last)


def varied(batch: torch.Tensor) -> torch.Tensor:
    """Change a quarter of the batch, so that foreign pictures survive the autoencoder too."""
    quarter = len(batch) // 4
    changed = batch[:quarter].flip(3)[:, torch.randperm(3)]
    changed = changed.roll((int(torch.randint(64, ())), int(torch.randint(64, ()))), (2, 3))
    return torch.cat([changed, batch[quarter:]])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("/tmp/tiny/train.npz"))
    parser.add_argument("--out", type=Path, default=Path("/tmp/tiny/autoencoder.pt"))
    parser.add_argument("--minutes", type=float, default=25)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    spawn(train, options.workers, options)


if __name__ == "__main__":
    main()
