"""Rows of many tasks in one forward pass: each is the picture that it would have been alone."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from imageloom.domain.catalog import BUILTIN, Model
from imageloom.domain.schedulers import SCHEDULERS, schedulers_of
from imageloom.domain.work import GenerationWork, InputImage, LoraUse
from imageloom.images import Picture

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

from safetensors.torch import save_file  # noqa: E402  # needs torch

from imageloom.device.ticks import MOST_LANES, choose_rows, step_rows  # noqa: E402
from imageloom.runtime import lane_adapters  # noqa: E402
from imageloom.runtime.denoiser import Denoiser, load_drawing  # noqa: E402
from imageloom.runtime.folders import describe_folder  # noqa: E402
from imageloom.runtime.lane_adapters import LaneAdapters  # noqa: E402
from imageloom.runtime.rows import Row  # noqa: E402
from imageloom.runtime.schedulers import make_scheduler  # noqa: E402
from imageloom.runtime.stock import StockPipeline  # noqa: E402
from imageloom.runtime.torch_device import TorchDevice, choose_device  # noqa: E402
from test_adapters_runtime import matrices  # noqa: E402
from test_runtime import _random_sd1, work  # noqa: E402
from test_training_flux import random_flux  # noqa: E402
from tiny_models import photograph  # noqa: E402

TINY = next(model for model in BUILTIN if model.name == "imageloom-tiny")
# The stock pipelines have their UNets in another memory format, and so other last bits.
LEVELS = 1  # of 255


@pytest.fixture(scope="module")
def device() -> TorchDevice:
    return choose_device("cpu", threads=1)


@pytest.fixture(scope="module")
def tiny(device: TorchDevice) -> Denoiser:
    return loaded(TINY, device)


@pytest.fixture(scope="module")
def stock(device: TorchDevice) -> StockPipeline:
    return StockPipeline.load(TINY, device)


@pytest.fixture(scope="module")
def adapters(stock: StockPipeline, tmp_path_factory: pytest.TempPathFactory) -> list[LoraUse]:
    """Three adapters of different ranks, one with convolutions and one with a text encoder."""
    pipeline = stock._text_to_image
    layers = {
        f"{part}.{path}": module
        for part in ("unet", "text_encoder")
        for path, module in getattr(pipeline, part).named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }
    attention = [name for name in layers if "attn" in name and name.startswith("unet")]
    names = [attention, [name for name in layers if name.startswith("unet")], list(layers)]
    folder, uses = tmp_path_factory.mktemp("adapters"), []
    for number, (chosen, rank) in enumerate(zip(names, (4, 8, 3), strict=True)):
        path = folder / f"{number}.safetensors"
        save_file(matrices(layers, chosen, rank=rank, seed=number, strength=0.05), path)
        uses.append(LoraUse(name=str(number), path=str(path), sha256=path.name, weight=0.8))
    return uses


def loaded(model: Model, device: TorchDevice) -> Denoiser:
    denoiser = load_drawing(model, device)
    assert isinstance(denoiser, Denoiser)
    return denoiser


def begun(denoiser: Denoiser, asked: GenerationWork) -> list[Row]:
    return list(denoiser.begin(asked, denoiser.read_adapters(asked.loras)))


def alone(denoiser: Denoiser, asked: GenerationWork) -> Picture:
    (row,) = begun(denoiser, asked)
    while not row.done:
        denoiser.step([row])
    return denoiser.finish(row)


def difference(one: Picture, other: Picture) -> int:
    return max(abs(a - b) for a, b in zip(one.rgb, other.rgb, strict=True))


def drawn_by_stock(pipeline: StockPipeline, asked: GenerationWork) -> Picture:
    own = pipeline._text_to_image.scheduler
    for each in (pipeline._text_to_image, pipeline._image_to_image):
        if each is not None:
            each.scheduler = make_scheduler(asked.scheduler, own)
    try:
        return pipeline.draw(asked, seed=asked.seeds[0], between_steps=lambda _: None)
    finally:
        for each in (pipeline._text_to_image, pipeline._image_to_image):
            if each is not None:
                each.scheduler = own


def start() -> InputImage:
    picture = photograph(64, 64)
    return InputImage(width=64, height=64, rgb=picture.rgb)


# Alone: what the stock pipeline draws


@pytest.mark.parametrize("scheduler", [None, *schedulers_of("sdxl")])
@pytest.mark.parametrize("kind", ["text", "picture"])
def test_a_row_alone_is_what_the_stock_pipeline_draws(
    tiny: Denoiser, stock: StockPipeline, scheduler: str | None, kind: str
) -> None:
    image = start() if kind == "picture" else None
    asked = work(scheduler=scheduler, image=image, steps=6)
    drawn_by_stock(stock, msgspec.structs.replace(asked, image=image, steps=1, strength=1.0))
    assert difference(alone(tiny, asked), drawn_by_stock(stock, asked)) <= LEVELS


@pytest.mark.parametrize(
    "changes",
    [{"guidance_scale": 1.0}, {"negative_prompt": None}, {"width": 96}, {"seeds": (11,)}],
)
def test_whatever_is_asked_is_what_the_stock_pipeline_draws(
    tiny: Denoiser, stock: StockPipeline, changes: Mapping[str, Any]
) -> None:
    asked = work(**changes)
    assert difference(alone(tiny, asked), drawn_by_stock(stock, asked)) <= LEVELS


def test_adapters_are_what_the_stock_path_draws_with_them(
    tiny: Denoiser, stock: StockPipeline, adapters: list[LoraUse]
) -> None:
    asked = work(loras=tuple(adapters))
    ours = alone(tiny, asked)
    assert difference(ours, drawn_by_stock(stock, asked)) <= LEVELS
    assert difference(ours, alone(tiny, work())) > 20


def test_stable_diffusion_1_is_what_the_stock_pipeline_draws(
    device: TorchDevice, tmp_path: Path
) -> None:
    folder = tmp_path / "sd1"
    _random_sd1().save_pretrained(folder, safe_serialization=True)  # type: ignore[attr-defined]
    model = describe_folder(folder, name="mine")
    denoiser, stock = loaded(model, device), StockPipeline.load(model, device)
    for changes in ({}, {"image": start()}, {"scheduler": "euler"}):
        asked = work(model=model, **changes)
        assert difference(alone(denoiser, asked), drawn_by_stock(stock, asked)) <= LEVELS


@pytest.mark.parametrize("distilled", [False, True])
def test_flux_is_what_the_stock_pipeline_draws_in_company_too(
    device: TorchDevice, tmp_path: Path, distilled: bool
) -> None:
    folder = tmp_path / "flux"
    random_flux(distilled=distilled).save_pretrained(folder, safe_serialization=True)
    model = describe_folder(folder, name="mine")
    denoiser, stock = loaded(model, device), StockPipeline.load(model, device)
    works = [
        work(model=model, seeds=(number,), steps=3 + number, guidance_scale=2.0 + number, **changes)
        for number, changes in enumerate(({}, {"image": start()}, {"scheduler": "flow-euler"}))
    ]
    solo = [alone(denoiser, asked) for asked in works]
    for asked, picture in zip(works, solo, strict=True):
        assert difference(picture, drawn_by_stock(stock, asked)) <= LEVELS
    rows = [row for asked in works for row in begun(denoiser, asked)]
    live = list(rows)
    while live:
        denoiser.step(live)
        live = [row for row in live if not row.done]
    assert [denoiser.finish(row) for row in rows] == solo


@pytest.mark.parametrize("family", ["flux", "sd1"])
def test_other_families_take_sets_of_adapters_a_row_too(
    device: TorchDevice, tmp_path: Path, family: str
) -> None:
    folder = tmp_path / family
    pipeline: Any = random_flux(distilled=False) if family == "flux" else _random_sd1()
    pipeline.save_pretrained(folder, safe_serialization=True)
    model = describe_folder(folder, name="mine")
    denoiser, stock = loaded(model, device), StockPipeline.load(model, device)
    part = "transformer" if family == "flux" else "unet"
    layers = {
        f"{part}.{path}": module
        for path, module in getattr(stock._text_to_image, part).named_modules()
        if isinstance(module, torch.nn.Linear) and "attn" in path
    }
    uses = []
    for number, rank in enumerate((2, 4)):
        path = tmp_path / f"{number}.safetensors"
        save_file(matrices(layers, list(layers), rank=rank, seed=number, strength=0.3), path)
        uses.append(LoraUse(name=str(number), path=str(path), sha256=path.name, weight=0.8))
    sets: list[tuple[LoraUse, ...]] = [(), (uses[0],), (uses[1],), tuple(uses)]
    works = [
        work(model=model, seeds=(5,), steps=3 + number, loras=loras)
        for number, loras in enumerate(sets)
    ]
    solo = [alone(denoiser, asked) for asked in works]
    for asked, picture in zip(works, solo, strict=True):
        assert difference(picture, drawn_by_stock(stock, asked)) <= LEVELS
    waiting = [row for asked in works for row in begun(denoiser, asked)]
    rows, live = list(waiting), []
    while waiting or live:
        live += [waiting.pop(0)] if waiting else []
        denoiser.step(live)
        live = [row for row in live if not row.done]
    assert [denoiser.finish(row) for row in rows] == solo
    assert len({picture.rgb for picture in solo}) == len(solo)


def test_flux_rows_of_as_many_tokens_but_other_sides_do_not_ride_together(
    device: TorchDevice, tmp_path: Path
) -> None:
    folder = tmp_path / "flux"
    random_flux(distilled=False).save_pretrained(folder, safe_serialization=True)
    model = describe_folder(folder, name="mine")
    denoiser = loaded(model, device)
    wide, high = (
        begun(denoiser, work(model=model, width=width, height=height, guidance_scale=0.0))[0]
        for width, height in ((128, 64), (64, 128))
    )
    assert wide.latents.shape == high.latents.shape
    assert wide.fits != high.fits


def test_a_pipeline_of_no_known_family_is_drawn_by_stock(
    device: TorchDevice, tmp_path: Path
) -> None:
    folder = tmp_path / "inpainting"
    pipeline: Any = _random_sd1()
    from diffusers import UNet2DConditionModel

    pipeline.unet = UNet2DConditionModel(**{**pipeline.unet.config, "in_channels": 9})
    pipeline.save_pretrained(folder, safe_serialization=True)
    model = describe_folder(folder, name="mine")
    assert isinstance(load_drawing(model, device), StockPipeline)


# In company


def mixed(adapters: list[LoraUse]) -> list[GenerationWork]:
    """Tasks that differ in everything that rows of one pass may differ in."""
    names = [None, *schedulers_of("sdxl")]
    one, two, three = adapters
    sets: list[tuple[LoraUse, ...]] = [(), (one,), (two,), (), (one, two), (three,)]
    return [
        work(
            prompt=f"a dress number {number}",
            negative_prompt=None if number % 2 else "blurry",
            steps=3 + number % 4,
            guidance_scale=(4.0, 1.0, 7.5)[number % 3],
            seeds=(number,),
            image=start() if number % 4 == 3 else None,
            scheduler=names[number % len(names)],
            loras=sets[number % len(sets)],
        )
        for number in range(12)
    ]


@pytest.fixture(scope="module")
def solo(tiny: Denoiser, adapters: list[LoraUse]) -> list[Picture]:
    return [alone(tiny, asked) for asked in mixed(adapters)]


@pytest.mark.parametrize("order", range(3))
def test_any_company_and_order_leaves_every_bit_of_a_picture(
    tiny: Denoiser, adapters: list[LoraUse], solo: list[Picture], order: int
) -> None:
    dice = random.Random(order)
    waiting = list(enumerate(mixed(adapters)))
    dice.shuffle(waiting)
    cancelled = {number for number, _ in waiting if dice.random() < 0.2}
    live: list[tuple[int, Row]] = []
    finished = {}
    while waiting or live:
        for number, asked in waiting[: dice.randint(0 if live else 1, 3)]:
            live += [(number, row) for row in begun(tiny, asked)]
            waiting = [each for each in waiting if each[0] != number]
        chosen = dice.sample(live, dice.randint(1, min(len(live), 7)))
        tiny.step([row for _, row in chosen])
        for number, row in list(live):
            if row.done:
                finished[number] = tiny.finish(row)
            if row.done or (number in cancelled and row.position == 2):
                live.remove((number, row))
    assert all(number in finished for number in range(12) if number not in cancelled)
    different = [number for number, picture in finished.items() if picture != solo[number]]
    assert different == []


def test_rows_that_need_not_be_exact_are_the_same_picture(
    tiny: Denoiser, adapters: list[LoraUse], solo: list[Picture]
) -> None:
    rows = [begun(tiny, asked)[0] for asked in mixed(adapters)]
    for row in rows:
        row.exact = False
    live = list(rows)
    while live:
        tiny.step(live[:8])
        live = [row for row in live[8:] + live[:8] if not row.done]
    pictures = [tiny.finish(row) for row in rows]
    assert max(map(difference, pictures, solo)) <= LEVELS


def test_the_base_is_as_if_no_adapter_had_been_there(
    tiny: Denoiser, device: TorchDevice, adapters: list[LoraUse]
) -> None:
    weights = {name: value.clone() for name, value in tiny._pipeline.unet.state_dict().items()}
    before = alone(tiny, work())
    rows = [row for asked in mixed(adapters)[:4] for row in begun(tiny, asked)]
    tiny.step(rows)
    assert alone(tiny, work()) == before
    after = tiny._pipeline.unet.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in weights.items())


def test_lanes_of_many_sets_are_multiplied_at_once(tiny: Denoiser, adapters: list[LoraUse]) -> None:
    rows = [begun(tiny, asked)[0] for asked in mixed(adapters)]
    acting = LaneAdapters()
    acting.act(rows, exact=False)
    assert acting._stacked
    acting.act([], exact=False)
    assert acting._spans == ()


def test_what_a_network_makes_of_prompts_alone_is_made_once(tiny: Denoiser) -> None:
    rows = begun(tiny, work(seeds=(1, 2)))
    tiny.step(rows)
    made = dict(tiny._memo._kept)
    assert len(made) == 14  # two of each cross-attention
    tiny.step(rows)
    assert all(tiny._memo._kept[layer] is answer for layer, answer in made.items())
    joined = [*rows, *begun(tiny, work(seeds=(3,), prompt="a green hat"))]
    tiny.step(joined)
    assert all(len(tiny._memo._kept[layer]) == 6 for layer in made)


# What goes wrong


def test_adapters_that_ran_out_of_memory_act_at_the_next_try(
    tiny: Denoiser, adapters: list[LoraUse], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [begun(tiny, asked)[0] for asked in mixed(adapters)]
    acting = LaneAdapters()

    def run_out(*_: object) -> None:
        raise torch.OutOfMemoryError

    with monkeypatch.context() as patch:
        patch.setattr(lane_adapters, "_together", run_out)
        with pytest.raises(torch.OutOfMemoryError):
            acting.act(rows, exact=False)
    acting.act(rows, exact=False)
    assert acting._handles
    acting.act([], exact=False)


class _Starved(Denoiser):
    """A denoiser on a device that has memory for two rows."""

    def step(self, rows: Any) -> None:
        if len(rows) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        super().step(rows)


def test_a_pass_that_does_not_fit_is_halved_and_remembered(
    tiny: Denoiser, device: TorchDevice
) -> None:
    starved = _Starved(TINY, tiny._pipeline, tiny._family, device)
    rows = begun(starved, work(seeds=tuple(range(6))))
    stepped = step_rows(starved, rows)
    assert list(stepped.values()) == [None] * len(stepped)
    assert 0 < len(stepped) <= 2
    assert starved.most_rows(rows[0]) == len(stepped)


def test_a_row_that_fails_costs_nobody_else(tiny: Denoiser) -> None:
    rows = begun(tiny, work(seeds=(1, 2, 3)))
    rows[1].timesteps = []
    stepped = step_rows(tiny, rows)
    assert [stepped[row] is None for row in rows] == [True, False, True]
    assert [row.position for row in rows] == [1, 0, 1]


def test_what_fails_in_mid_pass_takes_no_row_a_step_too_far(tiny: Denoiser) -> None:
    first, second = begun(tiny, work(seeds=(1, 2), steps=3))
    for _ in range(2):
        tiny.step([first, second])

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    second.scheduler.step = fail
    stepped = step_rows(tiny, [first, second])
    assert (first.done, stepped[first]) == (True, None)
    assert isinstance(stepped[second], ZeroDivisionError)


class _Asked:
    """The work of an attempt, as far as choosing rows goes."""

    def __init__(self, denoiser: Denoiser, rows: list[Row]) -> None:
        self.denoiser, self.rows = denoiser, rows


def test_a_pass_takes_a_row_of_each_in_turn_until_it_is_full(tiny: Denoiser) -> None:
    many = _Asked(tiny, begun(tiny, work(seeds=tuple(range(16)))))
    few = _Asked(tiny, begun(tiny, work(seeds=(50, 51))))
    other = _Asked(tiny, begun(tiny, work(seeds=(60,), width=96)))
    lead: Any = many
    everybody: Any = [many, few, other]
    chosen = choose_rows(lead, everybody)
    assert {row.seed for row in chosen} >= {50, 51}
    assert 60 not in {row.seed for row in chosen}
    assert sum(len(row.lanes) for row in chosen) == MOST_LANES


def test_every_scheduler_is_for_one_kind_of_model() -> None:
    named = {name for family in ("sdxl", "flux") for name in schedulers_of(family)}
    assert named == set(SCHEDULERS)
    assert schedulers_of("stock") == ()
