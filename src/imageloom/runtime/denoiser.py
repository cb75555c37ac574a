"""A model whose denoising steps are ours: rows of any tasks go through its network together.

A row keeps what is its own (scheduler, timestep, guidance, prompt, adapters, random numbers), so it
may join and leave between any two steps, and its picture is the one that it would have been alone.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from imageloom.domain.catalog import Model
from imageloom.domain.messages import Setup
from imageloom.domain.work import GenerationWork, LoraUse
from imageloom.images import Picture
from imageloom.runtime.adapter_use import (
    ActingKey,
    Fitted,
    PipelineAdapters,
    acting_key,
    applied,
)
from imageloom.runtime.autoencoder import in_tiles, own_dtype
from imageloom.runtime.families import Family, Lane, Prompt, Start, View, open_family
from imageloom.runtime.fast_path import FastPath
from imageloom.runtime.invariance import LaneWise
from imageloom.runtime.lane_adapters import LaneAdapters
from imageloom.runtime.parts import Part, Parts
from imageloom.runtime.previews import ColourMap
from imageloom.runtime.prompt_memo import PromptMemo
from imageloom.runtime.relief import Coding, Relief, Size
from imageloom.runtime.rows import Row
from imageloom.runtime.schedulers import make_scheduler, step_options
from imageloom.runtime.setup import setup_of
from imageloom.runtime.stock import StockPipeline, load_pipeline, module_bytes, usable_strength
from imageloom.runtime.torch_device import TorchDevice

Adapters = list[tuple[Fitted, float]]


def load_drawing(
    model: Model, device: TorchDevice, *, relief: Relief | None = None
) -> Denoiser | StockPipeline:
    """Return a base model ready to draw: stepped by us where its family is known, else stock.

    `relief` is what was done so far for the model where memory did not suffice.
    Raises: ModelNotInstalled, BadWeights; torch.OutOfMemoryError.
    """
    relief = relief or Relief(model.name)
    pipeline = load_pipeline(model, device, offloaded=relief.offloaded)
    family = open_family(model, pipeline, device)
    if family is None:
        return StockPipeline(model, pipeline.to(device.device), relief)
    return Denoiser(model, pipeline, family, device, relief)


@dataclass(frozen=True, slots=True)
class _LaneInput:
    row: Row
    lane: Lane


class Denoiser:
    """A loaded pipeline of a known family."""

    def __init__(
        self,
        model: Model,
        pipeline: Any,
        family: Family,
        device: TorchDevice,
        relief: Relief | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._family = family
        self._device = device.device
        self._relief = relief or Relief(model.name)
        self._parts = Parts(pipeline, self._device)
        self._adapters = PipelineAdapters(pipeline, model_name=model.name, device=self._device)
        self._acting = LaneAdapters()
        self._lane_wise = LaneWise(family.network)
        # Compiled code would look at what is remembered, and be made anew each time that changes.
        by_prompts = family.prompt_layers if device.speed.compile == "off" else ()
        self._memo = PromptMemo(by_prompts)
        self._prompts: OrderedDict[tuple[object, ...], Prompt] = OrderedDict()
        self._kept_prompts = device.speed.kept_prompts
        self._base_bytes = module_bytes(pipeline)
        self._colours: ColourMap | None = None
        self._fast = FastPath(family.network, device.speed)

    @property
    def weight_bytes(self) -> int:
        """The bytes on the device: of the base and of the adapters that are kept beside it."""
        base = self._parts.largest_bytes if self._relief.offloaded else self._base_bytes
        return base + self._adapters.weight_bytes

    def read_adapters(self, uses: Sequence[LoraUse]) -> Adapters:
        """Return adapters with their weights, read where they are not kept. Safe off the loop.

        Raises: BadWeights where one cannot be read or does not fit.
        """
        return self._adapters.load(uses)

    def begin(self, work: GenerationWork, adapters: Adapters) -> Iterator[Row]:
        """Yield the rows of a task, each ready for its first denoising step.

        The prompt is encoded with the first; every row is begun alone, as its company must not
        change its bits.
        """
        acting = self._adapters.as_one(work.loras, adapters, self._family.network)
        lanes = self._relief.relieved(lambda: self._lanes(work, adapters))
        # On a CPU it costs nothing measurable, so all have it there.
        exact = work.exact or self._device.type == "cpu"
        for seed in work.seeds:
            start, latents, timesteps = self._relief.relieved(
                partial(self._begun, work, seed),
                coding="encode" if work.image else None,
                size=(work.width, work.height),
            )
            yield Row(
                seed=seed,
                size=(work.width, work.height),
                lanes=lanes * 2 if exact and len(lanes) == 1 else lanes,
                guided=len(lanes) == 2,
                guidance_scale=work.guidance_scale,
                scheduler=start.scheduler,
                step_options=step_options(start.scheduler, start.generator),
                timesteps=list(timesteps),
                # An autoencoder may answer in another memory format, for which convolutions have
                # other kernels: all rows have one, so that all have the same.
                latents=latents.contiguous(),
                adapters=acting,
                exact=exact,
                preview_every=work.preview_every,
            )

    def most_rows(self, row: Row) -> int | None:
        """Return how many rows like this one fit in memory, None where that was never too many."""
        return self._relief.most_rows(row.fits)

    def remember_too_many(self, rows: Sequence[Row]) -> None:
        """Note that so many rows of one kind do not fit in memory, and give blocks back."""
        self._relief.halve(rows[0].fits, len(rows))

    def step(self, rows: Sequence[Row]) -> None:
        """Do one denoising step of rows that fit together (`Row.fits`), in one forward pass.

        Where it raises, every row is before its step or behind it. Where memory does not suffice
        for one row, more is given up for it (`Relief`); where it does not for several, who asked
        can ask for fewer.
        """
        sizes = [len(row.lanes) for row in rows]
        forward = partial(self._forward, rows)
        answers = forward() if len(rows) > 1 else self._relief.relieved(forward)
        for row, answer in zip(rows, torch.split(answers, sizes), strict=True):
            row.advance(answer)

    def finish(self, row: Row) -> Picture:
        """Return the picture of a row that is done; decoded alone, for its bits."""
        return self._decoded(row.latents, row.size)

    def preview(self, row: Row) -> Picture | None:
        """Return what a row may become, a pixel for each latent; None where there is no news."""
        if row.estimate is None:
            return None
        family = self._family
        latents, row.estimate = family.unpacked(row.estimate, size=row.size), None
        if self._colours is None:
            self._colours = ColourMap.fitted(
                lambda drawn, size: self._decoded(family.packed(drawn), size),
                like=latents,
                factor=row.size[0] // latents.shape[-1],
            )
        return self._colours.picture(latents)

    def setup(self, row: Row) -> Setup:
        """Return how a row is drawn."""
        also = self._relief.tiles(row.size)
        if not row.exact:
            also |= self._fast.named()
        return setup_of(self._pipeline, row.scheduler, path="rows", device=self._device, also=also)

    def _forward(self, rows: Sequence[Row]) -> Tensor:
        """Return the network's answers to all lanes of the rows."""
        self._bring("network")
        lanes = [_LaneInput(row, lane) for row in rows for lane in row.lanes]
        inputs = torch.cat([row.latents_seen() for row in rows])
        timesteps = torch.cat([row.timesteps_seen() for row in rows])
        exact = rows[0].exact

        def call(numbers: Sequence[int]) -> Tensor:
            chosen = [lanes[number] for number in numbers]
            self._acting.act([lane.row for lane in chosen], exact=exact)
            self._memo.about([lane.lane.prompt for lane in chosen])
            whole = len(numbers) == len(lanes)
            return self._family.predict(
                inputs if whole else inputs[numbers],
                timesteps if whole else timesteps[numbers],
                tuple(lane.lane for lane in chosen),
            )

        fast = not exact and all(row.adapters is None for row in rows)
        with self._fast.taken(wanted=fast):
            if exact:
                return self._lane_wise.run(call, len(rows), shape=rows[0].fits)
            if not fast:
                return call(range(len(lanes)))
            last = len(lanes) - 1
            padded = [min(number, last) for number in range(self._fast.lanes(len(lanes)))]
            return call(padded)[: len(lanes)]

    def _bring(self, part: Part) -> None:
        """Have a part of the model on the device."""
        if self._relief.offloaded:
            self._fast.give_up_memory()
        self._parts.bring(part, alone=self._relief.offloaded)

    def _begun(self, work: GenerationWork, seed: int) -> tuple[Start, Tensor, Tensor]:
        """Return how a picture starts, its latents there and its timesteps.

        Anew each time: to begin changes the scheduler, and draws from the generator.
        """
        start = Start(
            width=work.width,
            height=work.height,
            steps=work.steps,
            image=work.image,
            strength=usable_strength(work.strength, work.steps),
            scheduler=make_scheduler(work.scheduler, self._pipeline.scheduler),
            generator=torch.Generator("cpu").manual_seed(seed),
        )
        if work.image is None:
            return start, *self._family.begin(start)
        with self._autoencoder("encode", (work.width, work.height)):
            return start, *self._family.begin(start)

    def _decoded(self, latents: Tensor, size: Size) -> Picture:
        def decode() -> Picture:
            with self._autoencoder("decode", size):
                return self._family.decode(latents, size=size)

        return self._relief.relieved(decode, coding="decode", size=size)

    @contextmanager
    def _autoencoder(self, coding: Coding, size: Size) -> Iterator[None]:
        """Have the autoencoder on the device for one picture of that size."""
        self._bring("autoencoder")
        vae, cuts = self._pipeline.vae, self._relief.cuts(coding, size)
        with own_dtype(vae), in_tiles(vae, size=size, cuts=cuts):
            yield

    def _lanes(self, work: GenerationWork, adapters: Adapters) -> tuple[Lane, ...]:
        key = acting_key(work.loras)
        with applied(adapters):
            prompt = self._prompt(work.prompt, key)
            prompts = [prompt]
            if self._family.uses_guidance(work.guidance_scale):
                zeros = self._family.no_prompt(prompt) if work.negative_prompt is None else None
                prompts.insert(0, zeros or self._prompt(work.negative_prompt or "", key))
        size = (work.width, work.height)
        told = self._family.told(View.whole(size), guidance_scale=work.guidance_scale)
        return tuple(Lane(prompt=each, told=told, size=size) for each in prompts)

    def _prompt(self, text: str, adapters: ActingKey) -> Prompt:
        key = (text, adapters)
        if key not in self._prompts:
            self._bring("text")
            (self._prompts[key],) = self._family.encode_prompts([text])
            while len(self._prompts) > self._kept_prompts:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(key)
        return self._prompts[key]
