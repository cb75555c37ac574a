"""How fast a training goes: beside a plain diffusers loop, and where its time is spent.

    python bench/training.py [--turns 4] [--steps 25]

Both sides train the embedded model at the same rank, batch, precision and size, on the same
pictures, in alternating turns in one process with one torch thread. The plain loop does what
diffusers' example script for LoRA does at each step: open and scale the pictures, encode them and
their captions, add noise, predict, step AdamW. Takes about a minute.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns of torchvision; nobody needs that

import torch
from diffusers import AutoPipelineForText2Image, DDPMScheduler
from peft import LoraConfig
from PIL import Image
from torch.nn import functional

from imageloom.domain.catalog import BUILTIN
from imageloom.domain.work import TrainingPicture, TrainingWork
from imageloom.runtime.torch_device import TorchDevice, choose_device
from imageloom.runtime.training.adapter import TARGETS
from imageloom.runtime.training.trainer import Trainer
from imageloom.runtime.weights import locate

MODEL = next(model for model in BUILTIN if model.name == "imageloom-tiny")
PICTURES, BATCH, RANK, SIDE, RATE = 16, 4, 8, 64, 1e-3
TARGET_OVERHEAD = 5.0  # percent of a step that is not forward, backward or optimiser
TARGET_GAIN = 1.3  # plain loop's time by ours
# Only ordinary words, so that no answers of the base are kept: the plain loop keeps none.
ORDINARY, OWN = "a red dress on a white background", "a zwx red dress on a white background"


def main() -> None:
    """Run both sides in turns and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=4, help="pairs of turns")
    parser.add_argument("--steps", type=int, default=25, help="optimiser steps of a turn")
    options = parser.parse_args()
    device = choose_device("cpu", threads=1)
    print(_machine())
    with tempfile.TemporaryDirectory(prefix="il-") as folder:
        paths = _draw(Path(folder))
        ours = Ours(paths, ORDINARY, Path(folder), device)
        keeping = Ours(paths, OWN, Path(folder), device)
        plain = Plain(paths)
        sides: list[Callable[[], float]] = [ours.step, plain.step, keeping.step]
        for side in sides:
            _turn(side, 3)  # measured warm
        ours.inside = 0.0
        times = [[_turn(side, options.steps) for side in sides] for _ in range(options.turns)]
    overhead = (1 - ours.inside / sum(turn[0] for turn in times)) * 100
    _report(times, options.steps, overhead)


def _report(times: list[list[float]], steps: int, overhead: float) -> None:
    print(f"\nmilliseconds a step of {BATCH} pictures, turns of {steps} steps, ABAB")
    print("  imageloom    plain loop    gain    imageloom, keeping")
    for ours, plain, keeping in times:
        print(
            f"  {ours / steps * 1000:9.1f} {plain / steps * 1000:13.1f} {plain / ours:7.2f} "
            f"{keeping / steps * 1000:13.1f}"
        )
    gain = statistics.median(plain / ours for ours, plain, _ in times)
    print(f"  gain, median   {gain:5.2f} x   target {TARGET_GAIN} x   {_word(gain >= TARGET_GAIN)}")
    print(
        f"\nloop overhead  {overhead:5.1f} %   target {TARGET_OVERHEAD:.0f} %   "
        f"{_word(overhead <= TARGET_OVERHEAD)}   all but forward, backward and optimiser"
    )
    print(f"\nload           {_load()} at the end")


class Ours:
    """Our trainer, past its caching; `inside` counts seconds in forward, backward, optimiser."""

    def __init__(self, paths: list[Path], caption: str, folder: Path, device: TorchDevice) -> None:
        self.inside = 0.0
        self._told = 0
        work = TrainingWork(
            model=MODEL,
            pictures=tuple(TrainingPicture(path=str(path), caption=caption) for path in paths),
            epochs=100_000,
            learning_rate=RATE,
            batch_size=BATCH,
            gradient_accumulation=1,
            rank=RANK,
            alpha=RANK,
            resolution=SIDE,
            seed=1,
            schedule="constant",
            warmup_steps=0,
            min_snr_gamma=None,
            noise_offset=0.0,
            flip=False,
            text_encoders=False,
            checkpoint_every=10_000_000,
            sample_prompts=(),
            layout="diffusers",
            folder=str(folder),
        )
        self._trainer = Trainer(work, self, device)
        while not self._told:
            self._trainer.step()
        self._trainer._base.answer = self._timed(self._trainer._base.answer)  # type: ignore[method-assign]  # noqa: SLF001  # a bench looks inside
        optimiser = self._trainer._optimiser  # noqa: SLF001
        optimiser.step = self._timed(optimiser.step)  # type: ignore[method-assign]

    def step(self) -> float:
        """Do one optimiser step and return its seconds."""
        with self._timed_backward():
            began = time.perf_counter()
            self._trainer.step()
            return time.perf_counter() - began

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.inside += time.perf_counter() - began

        return timed

    @contextmanager
    def _timed_backward(self) -> Iterator[None]:
        plain = torch.Tensor.backward
        torch.Tensor.backward = self._timed(plain)  # type: ignore[method-assign]
        try:
            yield
        finally:
            torch.Tensor.backward = plain  # type: ignore[method-assign]

    def between_steps(self, progress: float) -> None:
        pass

    def deliver(self, **told: Any) -> None:
        pass

    def report_step(self, **told: Any) -> None:
        self._told += 1

    def report_checkpoint(self, **told: Any) -> None:
        pass


class Plain:
    """A LoRA training as it is usually written: nothing kept from step to step."""

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self._pipe: Any = AutoPipelineForText2Image.from_pretrained(
            locate(MODEL), dtype=torch.float32, use_safetensors=True, local_files_only=True
        )
        for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
            getattr(self._pipe, part).requires_grad_(False)
        self._pipe.unet.add_adapter(
            LoraConfig(
                r=RANK,
                lora_alpha=RANK,
                init_lora_weights="gaussian",
                target_modules=list(TARGETS["unet"]),
            )
        )
        self._scheduler = DDPMScheduler.from_config(self._pipe.scheduler.config)
        self._parameters = [p for p in self._pipe.unet.parameters() if p.requires_grad]
        self._optimiser = torch.optim.AdamW(self._parameters, lr=RATE, weight_decay=1e-2)
        self._next = 0

    def step(self) -> float:
        """Do one optimiser step and return its seconds."""
        began = time.perf_counter()
        rows = [(self._next + row) % PICTURES for row in range(BATCH)]
        self._next += BATCH
        with torch.no_grad():
            pixels = torch.stack([_pixels(self._paths[row]) for row in rows])
            vae = self._pipe.vae
            latents = vae.encode(pixels).latent_dist.sample() * vae.config.scaling_factor
            tokens, _, pooled, _ = self._pipe.encode_prompt(
                [ORDINARY] * BATCH, do_classifier_free_guidance=False
            )
        noise = torch.randn_like(latents)
        timesteps = torch.randint(0, self._scheduler.config.num_train_timesteps, (BATCH,))
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        told = torch.tensor([[SIDE, SIDE, 0, 0, SIDE, SIDE]] * BATCH, dtype=torch.float32)
        with torch.enable_grad():
            answer = self._pipe.unet(
                noisy,
                timesteps,
                encoder_hidden_states=tokens,
                added_cond_kwargs={"text_embeds": pooled, "time_ids": told},
            ).sample
            target = self._scheduler.get_velocity(latents, noise, timesteps)
            loss = functional.mse_loss(answer.float(), target.float())
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        self._optimiser.zero_grad()
        loss.item()
        return time.perf_counter() - began


def _turn(step: Callable[[], float], steps: int) -> float:
    return sum(step() for _ in range(steps))


def _draw(folder: Path) -> list[Path]:
    """Write gradients of 256 px: what a picture shows is no part of any figure."""
    paths = []
    for index in range(PICTURES):
        ramp = Image.linear_gradient("L").rotate(index * 90 / PICTURES)
        path = folder / f"{index:02d}.png"
        Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180))).save(path)
        paths.append(path)
    return paths


def _pixels(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    flat = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
    return flat.view(SIDE, SIDE, 3).permute(2, 0, 1) / 127.5 - 1


def _word(good: bool) -> str:
    return "PASS" if good else "FAIL"


def _machine() -> str:
    packages = ("torch", "diffusers", "peft")
    return (
        f"machine    {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, one torch thread\n"
        f"versions   {', '.join(f'{name} {version(name)}' for name in packages)}\n"
        f"model      {MODEL.name}, rank {RANK}, batch {BATCH}, {SIDE} px, float32\n"
        f"load       {_load()} at the start"
    )


def _load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


main()
