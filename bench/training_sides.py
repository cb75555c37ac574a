"""The two sides of bench/training.py: our trainer, and a diffusers loop as it is often written."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from diffusers import AutoPipelineForText2Image, DDPMScheduler
from peft import LoraConfig
from PIL import Image
from torch.nn import functional

from imageloom.domain.catalog import Model
from imageloom.domain.work import TrainingPicture, TrainingWork
from imageloom.runtime.torch_device import TorchDevice
from imageloom.runtime.training.adapter import TARGETS
from imageloom.runtime.training.trainer import Trainer
from imageloom.runtime.weights import locate

PICTURES, RATE = 16, 1e-3
# Only ordinary words, so that no answers of the base are kept: the plain loop keeps none.
ORDINARY, OWN = "a red dress on a white background", "a zwx red dress on a white background"


@dataclass(frozen=True, slots=True, kw_only=True)
class Setup:
    """What both sides train, and on what; `paths` are pictures, `side` is in pixels."""

    model: Model
    device: TorchDevice
    paths: Sequence[Path]
    folder: Path
    batch: int
    rank: int
    side: int


class Side(Protocol):
    """One of the two."""

    def step(self) -> None:
        """Do one optimiser step."""
        ...


class Ours:
    """Our trainer, past its caching; `inside()` counts what it spends in torch's own work."""

    def __init__(self, setup: Setup, caption: str) -> None:
        self._told = 0
        self._stopwatch = Stopwatch(setup.device.device)
        paths = setup.paths
        work = TrainingWork(
            model=setup.model,
            pictures=tuple(TrainingPicture(path=str(path), caption=caption) for path in paths),
            epochs=100_000,
            learning_rate=RATE,
            batch_size=setup.batch,
            gradient_accumulation=1,
            rank=setup.rank,
            alpha=setup.rank,
            resolution=setup.side,
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
            folder=str(setup.folder),
        )
        self._trainer = Trainer(work, self, setup.device)
        while not self._told:
            self._trainer.step()
        watched = self._stopwatch.watched
        self._trainer._base.answer = watched(self._trainer._base.answer)  # type: ignore[method-assign]  # noqa: SLF001  # a bench looks inside
        optimiser = self._trainer._optimiser  # noqa: SLF001
        optimiser.step = watched(optimiser.step)  # type: ignore[method-assign]

    def step(self) -> None:
        """Do one optimiser step."""
        with self._watched_backward():
            self._trainer.step()

    def inside(self) -> float:
        """Return the seconds in forward, backward and optimiser since this was last asked."""
        return self._stopwatch.taken()

    @contextmanager
    def _watched_backward(self) -> Iterator[None]:
        plain = torch.Tensor.backward
        torch.Tensor.backward = self._stopwatch.watched(plain)  # type: ignore[method-assign]
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
    """A LoRA training as it is usually written: nothing kept from step to step.

    As in diffusers' `train_text_to_image_lora_sdxl.py`: frozen weights in the device's dtype but
    for the autoencoder, which stays float32; LoRA weights in float32, under autocast.
    """

    def __init__(self, setup: Setup) -> None:
        self._setup = setup
        self._device = setup.device.device
        self._pipe: Any = AutoPipelineForText2Image.from_pretrained(
            locate(setup.model),
            dtype=setup.device.dtype,
            use_safetensors=True,
            local_files_only=True,
        ).to(self._device)
        self._pipe.vae.to(torch.float32)
        for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
            getattr(self._pipe, part).requires_grad_(False)
        self._pipe.unet.add_adapter(
            LoraConfig(
                r=setup.rank,
                lora_alpha=setup.rank,
                init_lora_weights="gaussian",
                target_modules=list(TARGETS["unet"]),
            )
        )
        self._scheduler = DDPMScheduler.from_config(self._pipe.scheduler.config)
        self._parameters = [p for p in self._pipe.unet.parameters() if p.requires_grad]
        for parameter in self._parameters:
            parameter.data = parameter.data.float()
        self._optimiser = torch.optim.AdamW(self._parameters, lr=RATE, weight_decay=1e-2)
        self._next = 0

    def step(self) -> None:
        """Do one optimiser step."""
        setup, device = self._setup, self._device
        rows = [(self._next + row) % PICTURES for row in range(setup.batch)]
        self._next += setup.batch
        with torch.no_grad():
            pixels = torch.stack([_pixels(setup.paths[row], setup.side) for row in rows])
            vae = self._pipe.vae
            latents = vae.encode(pixels.to(device)).latent_dist.sample() * vae.config.scaling_factor
            tokens, _, pooled, _ = self._pipe.encode_prompt(
                [ORDINARY] * setup.batch, device=device, do_classifier_free_guidance=False
            )
        noise = torch.randn_like(latents)
        count = self._scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, count, (setup.batch,), device=device)
        noisy = self._scheduler.add_noise(latents, noise, timesteps)
        told = [setup.side, setup.side, 0, 0, setup.side, setup.side]
        with torch.enable_grad():
            with self._precision():
                answer = self._pipe.unet(
                    noisy,
                    timesteps,
                    encoder_hidden_states=tokens,
                    added_cond_kwargs={
                        "text_embeds": pooled,
                        "time_ids": torch.tensor([told] * setup.batch, device=device).float(),
                    },
                ).sample
            target = noise
            if self._scheduler.config.prediction_type == "v_prediction":
                target = self._scheduler.get_velocity(latents, noise, timesteps)
            loss = functional.mse_loss(answer.float(), target.float())
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimiser.step()
        self._optimiser.zero_grad()
        loss.item()

    def _precision(self) -> AbstractContextManager[object]:
        if self._setup.device.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.type, dtype=self._setup.device.dtype)


class Stopwatch:
    """Adds up what some calls take: on a GPU from when it begins their work to when it ends it."""

    def __init__(self, device: torch.device) -> None:
        self._on_gpu = device.type == "cuda"
        self._seconds = 0.0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, timed."""

        def timed(*args: Any, **kwargs: Any) -> Any:
            began = self._mark()
            try:
                return function(*args, **kwargs)
            finally:
                ended = self._mark()
                if self._on_gpu:
                    self._events.append((began, ended))
                else:
                    self._seconds += ended - began

        return timed

    def taken(self) -> float:
        """Return the seconds since this was last asked; the device must be done."""
        seconds = self._seconds + sum(a.elapsed_time(b) for a, b in self._events) / 1000
        self._seconds = 0.0
        self._events.clear()
        return seconds

    def _mark(self) -> Any:
        if not self._on_gpu:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event


def draw_pictures(folder: Path, *, side: int) -> list[Path]:
    """Write square gradients: what a picture shows is no part of any figure."""
    paths = []
    for index in range(PICTURES):
        ramp = Image.linear_gradient("L").resize((side, side)).rotate(index * 90 / PICTURES)
        path = folder / f"{index:02d}.png"
        Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180))).save(path)
        paths.append(path)
    return paths


def _pixels(path: Path, side: int) -> torch.Tensor:
    with Image.open(path) as image:
        small = image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    flat = torch.frombuffer(bytearray(small.tobytes()), dtype=torch.uint8)
    return flat.view(side, side, 3).permute(2, 0, 1) / 127.5 - 1
