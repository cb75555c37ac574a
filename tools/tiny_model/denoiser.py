"""Train the UNet and both text encoders together on the autoencoder's latents.

    python denoiser.py --work /tmp/tiny --minutes 75
    python denoiser.py --work /tmp/tiny --minutes 40 --resume

v-prediction with zero terminal SNR: a flat background is the latent's mean, which a denoiser that
predicts noise cannot set. Half of every batch comes from each half of the noise schedule, and a
tenth of the captions are emptied for classifier-free guidance.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from architecture import (
    BOS,
    EOS,
    TIME_IDS,
    build_autoencoder,
    build_scheduler,
    build_text_encoders,
    build_unet,
    encode_text,
)
from muon import Muon
from parallel import agreed_share, average_gradients, rate_factor, spawn
from torch import nn

EMPTY_SHARE = 0.1
SAVE_EVERY_S = 240.0


def train(rank: int, workers: int, options: argparse.Namespace) -> None:
    """Train until the minutes are over; worker 0 reports and saves."""
    torch.manual_seed(options.seed)
    model = _build(options.work)
    ema = copy.deepcopy(model).requires_grad_(False)
    saved = _load(options.out, model, ema) if options.resume else {}
    step = int(saved.get("step", 0))
    latents, tokens = _data(options.work)
    loss_of = denoising_loss(build_scheduler().alphas_cumprod)
    parameters = list(model.parameters())
    inside, rest = _split(model)
    if options.optimiser == "adamw":
        inside, rest = [], parameters
    muon = Muon(inside, rank=rank, workers=workers)
    adamw = torch.optim.AdamW(rest, lr=options.rate, betas=(0.9, 0.99), weight_decay=1e-2)
    if saved:
        muon.load_state_dict(saved["muon"])
        adamw.load_state_dict(saved["adamw"])
    torch.manual_seed(options.seed * 1000 + step * 2 + rank)
    start, saved_at, share, losses = time.time(), time.time(), 0.0, []
    begun = step
    while share < 1:
        share = agreed_share(start, options.minutes * 60, workers)
        factor = rate_factor(step - begun, share, warm_up=100, flat_until=options.flat)
        adamw.param_groups[0]["lr"] = options.rate * factor
        rows = torch.randint(len(latents), (options.batch // workers,))
        z = latents[rows].float()
        words = tokens[rows, torch.randint(tokens.shape[1], (len(rows),))].long()
        loss, error = loss_of(model, z, _some_emptied(words))
        loss.backward()
        average_gradients(parameters, workers)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        adamw.step()
        muon.step(options.rate * factor)
        model.zero_grad(set_to_none=True)
        step += 1
        losses.append(error)
        if rank == 0:
            _follow(ema, model, min(0.999, (1 + step) / (20 + step)))
            if step % 100 == 0:
                recent, elapsed = float(np.mean(losses[-100:])), time.time() - start
                print(f"{step} {elapsed:.0f} s v-mse {recent:.4f}", flush=True)
            if time.time() - saved_at > SAVE_EVERY_S or share >= 1:
                saved_at = time.time()
                optimisers = {"adamw": adamw.state_dict(), "muon": muon.state_dict()}
                _save(options.out, model, ema, {"step": step, **optimisers})
    if rank == 0:
        print(f"done: {step} steps, {step * options.batch} samples of {options.batch} a step")


def denoising_loss(
    alphas: torch.Tensor,
) -> Callable[[nn.ModuleDict, torch.Tensor, torch.Tensor], tuple[torch.Tensor, float]]:
    """Return the training loss for a schedule of cumulative alphas [1000].

    The loss maps (model, latents [n, 4, 16, 16], tokens [n, 40]) to the weighted v-MSE and, for
    the report, the unweighted one. The weight of a sample is min(SNR, 5) / (SNR + 1) + 0.15.
    """
    alphas = alphas.clone().float()
    alphas[-1] = 0.0  # diffusers leaves 2^-24

    def loss(
        model: nn.ModuleDict, z: torch.Tensor, words: torch.Tensor
    ) -> tuple[torch.Tensor, float]:
        half = len(z) // 2
        t = torch.cat([torch.randint(0, 500, (half,)), torch.randint(500, 1000, (len(z) - half,))])
        noise = torch.randn_like(z)
        level = alphas[t]
        a, s = level.sqrt()[:, None, None, None], (1 - level).sqrt()[:, None, None, None]
        noisy = (a * z + s * noise).contiguous(memory_format=torch.channels_last)
        states, pooled = encode_text(model["first"], model["second"], words)
        extra = {"text_embeds": pooled, "time_ids": torch.tensor([TIME_IDS]).expand(len(z), -1)}
        v = model["unet"](
            noisy, t, encoder_hidden_states=states, added_cond_kwargs=extra, return_dict=False
        )[0]
        error = (v - (a * noise - s * z)).square().mean(dim=(1, 2, 3))
        snr = level / (1 - level).clamp(min=1e-8)
        weight = snr.clamp(max=5) / (snr + 1) + 0.15
        return (weight * error).mean(), float(error.detach().mean())

    return loss


def _build(work: Path) -> nn.ModuleDict:
    unet = build_unet().to(memory_format=torch.channels_last)
    first, second = build_text_encoders()
    taught = torch.load(work / "text.pt", weights_only=True)
    first.load_state_dict(taught["first"])
    second.load_state_dict(taught["second"])
    return nn.ModuleDict({"unet": unet, "first": first, "second": second})


def _data(work: Path) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = torch.from_numpy(np.load(work / "tokens.npy"))
    return torch.load(work / "latents.pt", weights_only=True), tokens


def encode_pictures(work: Path, *, workers: int) -> None:
    """Write the latents of all training pictures, fp16 [n, 4, 16, 16]."""
    pictures = np.load(work / "train.npz")["pictures"]
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        parts = pool.map(_encode, [work] * workers, np.array_split(pictures, workers))
        latents = torch.from_numpy(np.concatenate(list(parts)))
    torch.save(latents, work / "latents.pt")
    print(f"{len(latents)} latents, standard deviation {float(latents.float().std()):.3f}")


@torch.no_grad()
def _encode(work: Path, pictures: np.ndarray) -> np.ndarray:
    model = build_autoencoder()
    model.load_state_dict(torch.load(work / "autoencoder.pt", weights_only=True)["model"])
    batches = torch.from_numpy(pictures).permute(0, 3, 1, 2).split(64)
    parts = [model.quant_conv(model.encoder(b.float() / 127.5 - 1))[:, :4].half() for b in batches]
    return torch.cat(parts).numpy()


def _some_emptied(words: torch.Tensor) -> torch.Tensor:
    empty = torch.full_like(words[0], EOS)
    empty[0] = BOS
    gone = torch.rand(len(words)) < EMPTY_SHARE
    return torch.where(gone[:, None], empty, words)


@torch.no_grad()
def _follow(ema: nn.Module, model: nn.Module, keep: float) -> None:
    torch._foreach_lerp_(list(ema.parameters()), list(model.parameters()), 1 - keep)


def _split(model: nn.ModuleDict) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Return the UNet's inner matrices and convolutions, and all other parameters."""
    inside, rest = [], []
    for name, weight in model.named_parameters():
        inner = name.startswith("unet.") and not name.startswith(("unet.conv_in", "unet.conv_out"))
        (inside if inner and weight.ndim > 1 else rest).append(weight)
    return inside, rest


def _save(
    path: Path, model: nn.ModuleDict, ema: nn.ModuleDict, progress: dict[str, object]
) -> None:
    state = dict(progress)
    for name in model:
        state[name] = model[name].state_dict()
        state[f"ema_{name}"] = ema[name].state_dict()
    fresh = path.with_suffix(".new")
    torch.save(state, fresh)
    fresh.rename(path)


def _load(path: Path, model: nn.ModuleDict, ema: nn.ModuleDict) -> dict[str, object]:
    if not path.exists():
        return {}
    state = torch.load(path, weights_only=True)
    for name in model:
        model[name].load_state_dict(state[name])
        ema[name].load_state_dict(state[f"ema_{name}"])
    return state


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=Path("/tmp/tiny"))
    parser.add_argument("--minutes", type=float, default=75)
    parser.add_argument("--rate", type=float, default=1.2e-3)
    parser.add_argument("--flat", type=float, default=0.55, help="share of the time at full rate")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=31)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--optimiser", choices=("muon", "adamw"), default="muon")
    parser.add_argument("--out", type=Path, help="checkpoint; denoiser.pt in the work folder")
    parser.add_argument("--resume", action="store_true")
    options = parser.parse_args()
    options.out = options.out or options.work / "denoiser.pt"
    if not (options.work / "latents.pt").exists():
        encode_pictures(options.work, workers=options.workers)
    spawn(train, options.workers, options)


if __name__ == "__main__":
    main()
