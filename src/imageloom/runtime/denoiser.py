"""A model whose denoising steps are ours: rows of any tasks go through its network together.

A row keeps what is its own (scheduler, timestep, guidance, prompt, adapters, random numbers), so it
may join and leave between any two steps, and its picture is the one that it would have been alone.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog
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
from imageloom.runtime.families import Family, Lane, Prompt, Start, open_family
from imageloom.runtime.invariance import LaneWise
from imageloom.runtime.lane_adapters import LaneAdapters
from imageloom.runtime.previews import ColourMap, estimate
from imageloom.runtime.rows import Row
from imageloom.runtime.schedulers import make_scheduler, step_options
from imageloom.runtime.setup import setup_of
from imageloom.runtime.stock import StockPipeline, load_pipeline, module_bytes, usable_strength
from imageloom.runtime.torch_device import TorchDevice

_log = structlog.get_logger("imageloom.device")

# Prompts of the latest tasks: of SDXL one takes 0.6 MB, of Flux 4 MB.
KEPT_PROMPTS: Final = 64

Adapters = list[tuple[Fitted, float]]


def load_drawing(model: Model, device: TorchDevice) -> Denoiser | StockPipeline:
    """Return a base model ready to draw: stepped by us where its family is known, else stock.

    Raises: ModelNotInstalled, BadWeights.
    """
    pipeline = load_pipeline(model, device)
    family = open_family(model, pipeline)
    if family is None:
        return StockPipeline(model, pipeline)
    return Denoiser(model, pipeline, family)


@dataclass(frozen=True, slots=True)
class _LaneInput:
    row: Row
    lane: Lane


class Denoiser:
    """A loaded pipeline of a known family."""

    def __init__(self, model: Model, pipeline: Any, family: Family) -> None:
        self._pipeline = pipeline
        self._family = family
        self._adapters = PipelineAdapters(pipeline, model_name=model.name)
        self._acting = LaneAdapters()
        self._lane_wise = LaneWise(family.network)
        self._prompts: OrderedDict[tuple[object, ...], Prompt] = OrderedDict()
        self._base_bytes = module_bytes(pipeline)
        self._most_rows: dict[object, int] = {}
        self._colours: ColourMap | None = None

    @property
    def weight_bytes(self) -> int:
        """The bytes of the base and of the adapters that are kept beside it."""
        return self._base_bytes + self._adapters.weight_bytes

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
        lanes = self._lanes(work, adapters)
        # On a CPU it costs nothing measurable, so all have it there.
        exact = work.exact or self._pipeline.device.type == "cpu"
        for seed in work.seeds:
            generator = torch.Generator("cpu").manual_seed(seed)
            scheduler = make_scheduler(work.scheduler, self._pipeline.scheduler)
            latents, timesteps = self._family.begin(
                Start(
                    width=work.width,
                    height=work.height,
                    steps=work.steps,
                    image=work.image,
                    strength=usable_strength(work.strength, work.steps),
                    scheduler=scheduler,
                    generator=generator,
                )
            )
            yield Row(
                seed=seed,
                size=(work.width, work.height),
                lanes=lanes * 2 if exact and len(lanes) == 1 else lanes,
                guided=len(lanes) == 2,
                guidance_scale=work.guidance_scale,
                scheduler=scheduler,
                step_options=step_options(scheduler, generator),
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
        return self._most_rows.get(row.fits)

    def remember_too_many(self, rows: Sequence[Row]) -> None:
        """Note that so many rows of one kind do not fit in memory, and give blocks back."""
        self._most_rows[rows[0].fits] = max(1, len(rows) // 2)
        _log.warning("out_of_memory", rows=len(rows), from_now_on=self._most_rows[rows[0].fits])
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def step(self, rows: Sequence[Row]) -> None:
        """Do one denoising step of rows that fit together (`Row.fits`), in one forward pass.

        Where it raises, every row is before its step or behind it.
        """
        sizes = [len(row.lanes) for row in rows]
        lanes = [_LaneInput(row, lane) for row in rows for lane in row.lanes]
        inputs = torch.cat([_scaled(row) for row in rows])
        timesteps = torch.stack([_timestep(row) for row in rows for _ in row.lanes])
        exact = rows[0].exact

        def call(numbers: Sequence[int]) -> Tensor:
            chosen = [lanes[number] for number in numbers]
            self._acting.act([lane.row for lane in chosen], exact=exact)
            whole = len(numbers) == len(lanes)
            return self._family.predict(
                inputs if whole else inputs[numbers],
                timesteps if whole else timesteps[numbers],
                tuple(lane.lane for lane in chosen),
            )

        if exact:
            answers = self._lane_wise.run(call, len(rows), shape=rows[0].fits)
        else:
            answers = call(range(len(lanes)))
        for row, answer in zip(rows, torch.split(answers, sizes), strict=True):
            _advance(row, answer)

    def finish(self, row: Row) -> Picture:
        """Return the picture of a row that is done; decoded alone, for its bits."""
        return self._family.decode(row.latents, size=row.size)

    def preview(self, row: Row) -> Picture | None:
        """Return what a row may become, a pixel for each latent; None where there is no news."""
        if row.estimate is None:
            return None
        family = self._family
        latents, row.estimate = family.unpacked(row.estimate, size=row.size), None
        if self._colours is None:
            self._colours = ColourMap.fitted(
                lambda drawn, size: family.decode(family.packed(drawn), size=size),
                like=latents,
                factor=row.size[0] // latents.shape[-1],
            )
        return self._colours.picture(latents)

    def setup(self, row: Row) -> Setup:
        """Return how a row is drawn."""
        return setup_of(self._pipeline, row.scheduler, path="rows")

    def _lanes(self, work: GenerationWork, adapters: Adapters) -> tuple[Lane, ...]:
        key = acting_key(work.loras)
        with applied(adapters):
            prompt = self._prompt(work.prompt, key)
            prompts = [prompt]
            if self._family.uses_guidance(work.guidance_scale):
                zeros = self._family.no_prompt(prompt) if work.negative_prompt is None else None
                prompts.insert(0, zeros or self._prompt(work.negative_prompt or "", key))
        return tuple(
            self._family.lane(
                each,
                width=work.width,
                height=work.height,
                guidance_scale=work.guidance_scale,
            )
            for each in prompts
        )

    def _prompt(self, text: str, adapters: ActingKey) -> Prompt:
        key = (text, adapters)
        if key not in self._prompts:
            self._prompts[key] = self._family.encode_prompt(text)
            if len(self._prompts) > KEPT_PROMPTS:
                self._prompts.popitem(last=False)
        self._prompts.move_to_end(key)
        return self._prompts[key]


def _scaled(row: Row) -> Tensor:
    """Return a row's latents as its scheduler has the network see them, once for each lane."""
    latents = torch.cat([row.latents] * len(row.lanes))
    if hasattr(row.scheduler, "scale_model_input"):
        latents = row.scheduler.scale_model_input(latents, row.timesteps[row.position])
    return latents


def _timestep(row: Row) -> Tensor:
    """Return the row's timestep; schedulers have whole numbers or fractions, networks take both."""
    return row.timesteps[row.position].float()


def _advance(row: Row, answer: Tensor) -> None:
    """Take the network's answer to a row's lanes, and go on to its next timestep.

    Source: Ho and Salimans 2022 (arXiv:2207.12598), with the scale that diffusers counts from 1.
    """
    if row.guided:
        without, prompted = answer.chunk(2)
        answer = without + row.guidance_scale * (prompted - without)
    else:
        answer = answer[:1]
    if row.preview_due:
        seen = _scaled(row)[:1]
        row.estimate = estimate(row.scheduler, seen, answer, row.timesteps[row.position])
    row.latents = row.scheduler.step(
        answer,
        row.timesteps[row.position],
        row.latents,
        **row.step_options,
        return_dict=False,
    )[0]
    row.position += 1
