"""Train an adapter: cache, then one optimiser step a unit, and a checkpoint every so often.

All that is random in step `s` comes from (seed, s), so a checkpoint holds no random state, and a
training that goes on from one is the training that was never stopped.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import operator
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from imageloom.domain.errors import BadWeights, InvalidInput, InvalidParams
from imageloom.domain.seeds import picture_seed
from imageloom.domain.work import TrainingPicture, TrainingWork
from imageloom.runtime.rows import Row
from imageloom.runtime.torch_device import TorchDevice
from imageloom.runtime.training import cost, plan
from imageloom.runtime.training.adapter import Adapter
from imageloom.runtime.training.base import Base, Example
from imageloom.runtime.training.checkpoint import State, read_state, write_state, write_tensors
from imageloom.runtime.training.keeping import Kept, rows_of_kept
from imageloom.runtime.training.layouts import to_kohya
from imageloom.runtime.training.objective import learning_rate, spread
from imageloom.runtime.training.ordinary import prompts_beside, prompts_to_keep
from imageloom.runtime.training.plan import (
    JUDGED_TIMESTEPS,
    KEPT_STEPS,
    KEPT_TIMESTEPS,
    PICTURES_PER_HALFWAY,
    PICTURES_PER_KEPT,
    SAMPLE_STEPS,
)
from imageloom.runtime.training.rows import Rows, joined
from imageloom.runtime.units import Attempt

# The longest gradient that a step follows, so that one odd picture does not throw the adapter.
CLIP_NORM = 1.0
WEIGHT_DECAY = 1e-2
# All kept answers together count twice as much as the pictures do.
KEPT_WEIGHT = 2.0 * PICTURES_PER_KEPT
# At half its weight an adapter aims this far from the base model to the pictures, and a picture
# counts so much more there. Without it, half the weight gave 3 % of the change in pixels; what a
# denoiser draws tips over rather than blends, so an aim of 0.55 gave 37 % and one of 0.7 57 %.
HALFWAY_AIM = 0.66
HALFWAY_WEIGHT = 2.0 * PICTURES_PER_HALFWAY


class Trainer:
    """The units of one training: pictures are cached, then every unit is one optimiser step.

    A checkpoint adds units after its step: one for each held-out picture, one for each denoising
    step of a sample and one that decodes it, and one that writes. Its sample `i` is delivered as
    index `number * len(sample_prompts) + i`, where checkpoints are numbered from 0 through the
    whole training, whatever was resumed.

    `save` puts another unit first: it writes, but neither judges nor draws. Where it comes between
    a step and the checkpoint planned after it, who goes on from it makes that checkpoint first.
    """

    def __init__(
        self,
        work: TrainingWork,
        attempt: Attempt,
        device: TorchDevice,
        *,
        load: Callable[[Callable[[], Base]], Base] = operator.call,
    ) -> None:
        """Load the base model and begin, or go on from `work.resume`.

        `load` returns what its argument makes, wherever it has it made.
        Raises: InvalidParams, InvalidInput, ModelNotInstalled, BadWeights; what `load` raises.
        """
        plan.check_trainable(
            work.model,
            resolution=work.resolution,
            text_encoders=work.text_encoders,
            layout=work.layout,
        )
        self._work = work
        self._attempt = attempt
        self._device = _for_training(device)
        self._side = plan.training_side(work.model, work.resolution)
        self._seen = [picture for picture in work.pictures if not picture.held_out]
        self._held_out = [picture for picture in work.pictures if picture.held_out]
        self._sizes = [_bucket_of(picture, side=self._side) for picture in self._seen]
        self._steps_per_epoch = len(self._batches(0))
        self._base = load(lambda: Base(work.model, self._device))
        self._objective = self._base.objective()
        networks = self._base.networks(text_encoders=work.text_encoders)
        self._adapter = Adapter(networks, work)
        self._optimiser = torch.optim.AdamW(
            [self._adapter.parameters], weight_decay=WEIGHT_DECAY, fused=True
        )
        self._resumed = None if work.resume is None else _read(work.resume, work)
        self._step = 0 if self._resumed is None else self._resumed.step
        self._examples: list[Example] = []
        self._judged: list[Example] = []
        self._kept: list[Kept] = []
        self._owed = False if self._resumed is None else self._resumed.owed
        self._save_asked = False
        self._units = self._all_units()

    @property
    def steps(self) -> int:
        """Return the optimiser steps of the whole training."""
        return self._steps_per_epoch * self._work.epochs

    @property
    def memory_bytes(self) -> int:
        """Return what the training takes of the device: what is loaded, and room for a step."""
        rows = cost.rows_of_step(
            batch_size=self._work.batch_size,
            gradient_accumulation=self._work.gradient_accumulation,
            keeping=bool(prompts_to_keep([picture.caption for picture in self._seen])),
        )
        step = cost.step_bytes(
            self._work.model,
            pixels=max(size.width * size.height for size in self._sizes),
            rows=rows,
            parameter_bytes=self._device.dtype.itemsize,
        )
        adapter = self._adapter.parameters
        # The base has the adapter's own numbers; beside them are gradient and moments.
        beside = adapter.numel() * (cost.ADAPTER_BYTES - adapter.element_size())
        return self._base.weight_bytes + beside + step

    def step(self) -> bool:
        """Do one unit; True when it was the last.

        Raises: Dropped on cancel; InvalidParams where the loss is no number any more.
        """
        try:
            if self._save_asked:
                self._write_checkpoint(name="saved", held_out_loss=None, planned=False)
                self._save_asked = False
            else:
                next(self._units)
        except StopIteration:
            return True
        self._between_steps()
        return False

    def save(self) -> None:
        """Write a checkpoint as the next unit; nothing before the first step, or a resumed one."""
        self._save_asked = bool(self._optimiser.state)

    def close(self) -> None:
        """Leave what is under way."""
        self._units.close()

    def _all_units(self) -> Generator[None]:
        yield from self._cache()
        if self._resumed is not None:
            self._go_on_from(self._resumed)
        if self._owed:
            yield from self._checkpoint()
        for epoch in range(self._step // self._steps_per_epoch, self._work.epochs):
            done = self._step - epoch * self._steps_per_epoch
            for batches in self._batches(epoch)[done:]:
                self._step += 1
                self._train(batches, epoch=epoch + 1)
                last = self._step == self.steps
                self._owed = last or self._step % self._work.checkpoint_every == 0
                yield
                if self._owed:
                    yield from self._checkpoint()

    def _cache(self) -> Iterator[None]:
        """Encode every picture once, and every caption unless the text encoders are trained."""
        for picture, size in zip(self._seen, self._sizes, strict=True):
            self._examples.append(self._example(picture, size, flip=self._work.flip))
            yield
        for picture in self._held_out:
            size = _bucket_of(picture, side=self._side)
            self._judged.append(self._example(picture, size, flip=False))
            yield
        self._base.settle_decoder()
        captions = [picture.caption for picture in self._seen]
        kept = (*prompts_to_keep(captions), *prompts_beside(captions))
        if not self._work.text_encoders:
            for text in ("", *self._work.sample_prompts, *kept):
                self._base.remember(text)
                yield
            self._base.release_encoders()
        yield

        for index, caption in enumerate(kept):
            yield from self._keep(index, caption)

    def _keep(self, index: int, caption: str) -> Iterator[None]:
        """Keep the base model's answers to a prompt, before the adapter has changed any.

        And its answers to no prompt at the same places: guidance takes these from every picture.
        """
        seed = plan.derived_seed(self._work.seed, "draw", index)
        row = yield from self._drawn(caption, steps=KEPT_STEPS, seed=seed)
        generator = self._generator("keep", index)
        with torch.no_grad(), self._precision():
            example = self._base.drawn_example(row, caption)
            latents = example.latents.expand(KEPT_TIMESTEPS, -1, -1, -1)
            shares = spread(KEPT_TIMESTEPS, generator=generator)
            timesteps = self._objective.timesteps(shares, latents).to(self._device.device)
            noise = torch.randn(latents.shape, generator=generator).to(self._device.device)
            noisy = self._objective.noised(latents, noise, timesteps)
            asked = [example]
            if cost.guided_evaluations(self._work.model) > 1:
                asked.append(dataclasses.replace(example, caption=""))
            for one in asked:
                answers = self._base.answer(noisy, timesteps, [one] * KEPT_TIMESTEPS).float()
                self._kept += [
                    Kept(example=one, noisy=row, timestep=timestep, answer=answer)
                    for row, timestep, answer in zip(noisy, timesteps, answers, strict=True)
                ]
        yield

    def _example(self, picture: TrainingPicture, size: plan.Size, *, flip: bool) -> Example:
        if not self._work.text_encoders:
            self._base.remember(picture.caption)
        return self._base.example(Path(picture.path), picture.caption, size=size, flip=flip)

    def _batches(self, epoch: int) -> list[plan.Step]:
        return plan.steps_of_epoch(
            self._sizes,
            batch_size=self._work.batch_size,
            gradient_accumulation=self._work.gradient_accumulation,
            seed=self._work.seed,
            epoch=epoch,
        )

    def _train(self, batches: plan.Step, *, epoch: int) -> None:
        """Do optimiser step `self._step` on the batches, whose pictures count alike."""
        began = time.perf_counter()
        generator = self._generator("step", self._step)
        count = sum(len(numbers) for numbers in batches)
        parameters = self._adapter.parameters
        assert parameters.grad is not None  # noqa: S101  # made with the adapter, for mypy
        parameters.grad.zero_()
        total = torch.zeros((), device=self._device.device)
        for rows in self._rows_of_step(batches, generator):
            with torch.enable_grad():
                losses = self._losses(rows) * rows.weights
                (losses.sum() / count).backward()  # type: ignore[no-untyped-call]
            total += losses[: rows.pictures].detach().sum() / count
        if self._kept:
            self._train_halfway(count, generator)
        norm = parameters.grad.norm()
        found, length = torch.stack([total, norm]).tolist()
        rate = self._rate()
        if not (math.isfinite(found) and math.isfinite(length)):
            raise InvalidParams(
                f"config.learning_rate: the loss at step {self._step} is no number any more; "
                f"found {self._work.learning_rate:g}, try {self._work.learning_rate / 10:g}",
                param="config.learning_rate",
            )
        parameters.grad.mul_(min(1.0, CLIP_NORM / max(length, 1e-12)))
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.step()
        self._attempt.report_step(
            step=self._step,
            steps=self.steps,
            epoch=epoch,
            loss=found,
            learning_rate=rate,
            images_per_second=count / (time.perf_counter() - began),
        )

    def _rows_of_step(self, batches: plan.Step, generator: torch.Generator) -> Iterator[Rows]:
        """Yield what goes through the denoiser together: the batches, and what is kept beside."""
        count = sum(len(numbers) for numbers in batches)
        shares = spread(count, generator=generator)
        parts = torch.split(shares, [len(numbers) for numbers in batches])
        all_rows = [
            self._picture_rows([self._examples[number] for number in numbers], part, generator)
            for numbers, part in zip(batches, parts, strict=True)
        ]
        due = self._due(PICTURES_PER_KEPT)
        if self._kept and due:
            rows = rows_of_kept(self._draw_kept(due, generator), weight=KEPT_WEIGHT)
            if all_rows[-1].noisy.shape[1:] == rows.noisy.shape[1:]:
                rows = joined(all_rows.pop(), rows)  # one pass of six rows is less than two
            all_rows.append(rows)
        yield from all_rows

    def _picture_rows(
        self, examples: list[Example], shares: Tensor, generator: torch.Generator
    ) -> Rows:
        """Return the pictures under noise of the generator, each mirrored or not."""
        views = [0] * len(examples)
        if self._work.flip:
            views = torch.randint(0, 2, (len(examples),), generator=generator).tolist()
        latents = torch.stack([e.latents[view] for e, view in zip(examples, views, strict=True)])
        noise = torch.randn(latents.shape, generator=generator)
        if self._work.noise_offset:
            # Lets a model learn how bright a whole picture is, which plain noise hardly hides.
            shift = torch.randn((*latents.shape[:2], 1, 1), generator=generator)
            noise += self._work.noise_offset * shift
        return self._noised(examples, latents, noise, shares)

    def _noised(
        self, examples: Sequence[Example], latents: Tensor, noise: Tensor, shares: Tensor
    ) -> Rows:
        device = self._device.device
        noise, timesteps = noise.to(device), self._objective.timesteps(shares, latents).to(device)
        return Rows(
            examples=examples,
            noisy=self._objective.noised(latents, noise, timesteps),
            timesteps=timesteps,
            target=self._objective.target(latents, noise, timesteps),
            weights=self._objective.weights(timesteps, min_snr_gamma=self._work.min_snr_gamma),
            pictures=len(examples),
        )

    def _due(self, pictures_per_one: int) -> int:
        """Return how many belong to this step of what comes once for so many pictures."""
        pictures = self._work.batch_size * self._work.gradient_accumulation
        before = (self._step - 1) * pictures // pictures_per_one
        return self._step * pictures // pictures_per_one - before

    def _draw_kept(self, count: int, generator: torch.Generator) -> list[Kept]:
        numbers = torch.randint(0, len(self._kept), (count,), generator=generator)
        return [self._kept[number] for number in numbers.tolist()]

    def _train_halfway(self, count: int, generator: torch.Generator) -> None:
        """Teach the adapter at half its weight to aim between the base model and the pictures."""
        due = self._due(PICTURES_PER_HALFWAY)
        numbers = torch.randint(0, len(self._examples), (due,), generator=generator)
        shares = torch.rand(len(numbers), generator=generator)
        for number, share in zip(numbers.tolist(), shares, strict=True):
            rows = self._picture_rows([self._examples[number]], share[None], generator)
            with torch.no_grad(), self._adapter.weighing(0.0), self._precision():
                base = self._base.answer(rows.noisy, rows.timesteps, rows.examples).float()
            aim = base.lerp(rows.target, HALFWAY_AIM)
            rows = dataclasses.replace(
                rows, target=aim, weights=torch.full_like(rows.weights, HALFWAY_WEIGHT)
            )
            kept = rows_of_kept(self._draw_kept(1, generator), weight=PICTURES_PER_HALFWAY)
            if kept.noisy.shape == rows.noisy.shape:
                rows = joined(rows, kept)
            with torch.enable_grad(), self._adapter.weighing(0.5):
                losses = self._losses(rows) * rows.weights
                (losses.sum() / count).backward()  # type: ignore[no-untyped-call]

    def _losses(self, rows: Rows) -> Tensor:
        """Return the mean squared error of each row, shape [n]."""
        with self._precision():
            answer = self._base.answer(rows.noisy, rows.timesteps, rows.examples)
        errors = functional.mse_loss(answer.float(), rows.target, reduction="none")
        return errors.mean((1, 2, 3))

    def _rate(self) -> float:
        return learning_rate(
            self._step,
            steps=self.steps,
            peak=self._work.learning_rate,
            warmup_steps=self._work.warmup_steps,
            schedule=self._work.schedule,
        )

    def _checkpoint(self) -> Iterator[None]:
        """Judge, draw samples, write both files and tell of them."""
        losses: list[float] = []
        for index, example in enumerate(self._judged):
            losses.append(self._held_out_loss(index, example))
            yield
        number = (self._step - 1) // self._work.checkpoint_every
        for index in range(len(self._work.sample_prompts)):
            place = number * len(self._work.sample_prompts) + index
            yield from self._draw_sample(index, place=place)
        self._owed = False
        self._write_checkpoint(
            name="checkpoint",
            held_out_loss=sum(losses) / len(losses) if losses else None,
            planned=True,
        )
        yield

    def _write_checkpoint(self, *, name: str, held_out_loss: float | None, planned: bool) -> None:
        folder, adapter = Path(self._work.folder), self._adapter.tensors()
        path = folder / f"{name}-{self._step:06d}.safetensors"
        adapter_path = folder / f"{name}-adapter-{self._step:06d}.safetensors"
        write_state(path, self._state(adapter))
        published = adapter, self._adapter.metadata()
        if self._work.layout == "kohya":
            published = to_kohya(*published)
        write_tensors(adapter_path, *published)
        self._attempt.report_checkpoint(
            step=self._step,
            path=str(path),
            adapter_path=str(adapter_path),
            held_out_loss=held_out_loss,
            last=self._step == self.steps,
            planned=planned,
        )

    def _held_out_loss(self, index: int, example: Example) -> float:
        """Return the loss of a picture that is not trained on, with noise that never changes."""
        shares = (torch.arange(JUDGED_TIMESTEPS) + 0.5) / JUDGED_TIMESTEPS
        latents = example.latents[:1].expand(JUDGED_TIMESTEPS, -1, -1, -1)
        noise = torch.randn(latents.shape, generator=self._generator("held-out", index))
        with torch.no_grad():
            judged = self._noised([example] * JUDGED_TIMESTEPS, latents, noise, shares)
            losses = self._losses(judged) * judged.weights
        return float(losses.mean())

    def _draw_sample(self, index: int, *, place: int) -> Iterator[None]:
        seed = picture_seed(self._work.seed, index)
        steps = min(self._work.model.steps, SAMPLE_STEPS)
        row = yield from self._drawn(self._work.sample_prompts[index], steps=steps, seed=seed)
        with torch.no_grad(), self._precision():
            picture = self._base.finish(row)
        self._attempt.deliver(index=place, picture=picture, seed=seed)
        yield

    def _drawn(self, caption: str, *, steps: int, seed: int) -> Generator[None, None, Row]:
        """Draw a square picture with what is trained as it is, a denoising step a unit."""
        with torch.no_grad(), self._precision():
            row = self._base.begin(caption, side=self._side, steps=steps, seed=seed)
        while not row.done:
            with torch.no_grad(), self._precision():
                self._base.step(row)
            yield
        return row

    def _state(self, adapter: dict[str, Tensor]) -> State:
        moments = self._optimiser.state[self._adapter.parameters]
        return State(
            step=self._step,
            fingerprint=_fingerprint(self._work),
            owed=self._owed,
            adapter=adapter,
            first_moment=moments["exp_avg"],
            second_moment=moments["exp_avg_sq"],
        )

    def _go_on_from(self, state: State) -> None:
        device = self._device.device
        self._adapter.load(state.adapter)
        self._optimiser.state[self._adapter.parameters] = {
            "step": torch.tensor(float(state.step), device=device),
            "exp_avg": state.first_moment.to(device),
            "exp_avg_sq": state.second_moment.to(device),
        }

    def _precision(self) -> AbstractContextManager[object]:
        if self._device.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self._device.device.type, dtype=self._device.dtype)

    def _generator(self, purpose: str, number: int) -> torch.Generator:
        """Return random numbers of one purpose; of the CPU, so the same on every device."""
        seed = plan.derived_seed(self._work.seed, purpose, number)
        return torch.Generator("cpu").manual_seed(seed)

    def _between_steps(self) -> None:
        self._attempt.between_steps(self._step / self.steps)


def _for_training(device: TorchDevice) -> TorchDevice:
    """Return the device with a dtype whose gradients do not underflow: bf16 or fp32, not fp16.

    Without channels last: what it gains a step with its way back is not measured.
    """
    dtype = device.dtype if device.dtype == torch.bfloat16 else torch.float32
    speed = msgspec.structs.replace(device.speed, channels_last=False)
    return dataclasses.replace(device, dtype=dtype, speed=speed)


def _bucket_of(picture: TrainingPicture, *, side: int) -> plan.Size:
    try:
        with Image.open(picture.path) as image:
            size = plan.Size(width=image.width, height=image.height)
    except OSError as exc:
        name = Path(picture.path).name
        raise InvalidInput(f"Invalid input: the picture {name} cannot be read") from exc
    return plan.bucket(size, side=side)


def _read(path: str, work: TrainingWork) -> State:
    state = read_state(Path(path))
    if state.fingerprint != _fingerprint(work):
        raise BadWeights("the checkpoint to go on from is of another training")
    return state


def _fingerprint(work: TrainingWork) -> str:
    """Return what tells a training from others, wherever its files lie."""
    pictures = tuple(msgspec.structs.replace(picture, path="") for picture in work.pictures)
    bare = msgspec.structs.replace(work, pictures=pictures, folder="", resume=None)
    return hashlib.sha256(msgspec.json.encode(bare)).hexdigest()
