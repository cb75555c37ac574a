"""Memory that does not suffice: the device gives up a little more each time, and nobody else pays.

There is no GPU here: hooks on the real networks raise what CUDA raises, for as long as what would
not fit is there.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from imageloom.domain.catalog import Model
from imageloom.domain.messages import Done, Errored
from imageloom.images import Picture

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

from imageloom.device.ticks import step_rows  # noqa: E402  # needs torch
from imageloom.runtime.autoencoder import own_dtype  # noqa: E402
from imageloom.runtime.denoiser import Denoiser, load_drawing  # noqa: E402
from imageloom.runtime.relief import Relief  # noqa: E402
from imageloom.runtime.residency import Residency  # noqa: E402
from imageloom.runtime.stock import StockPipeline  # noqa: E402
from imageloom.runtime.torch_device import TorchDevice, choose_device  # noqa: E402
from test_denoiser import TINY, alone, begun, difference, start  # noqa: E402
from test_device_loop import Script, pictures, run, work_off  # noqa: E402
from test_runtime import draw, work  # noqa: E402

OTHER = msgspec.structs.replace(TINY, name="other")
HALF = 8  # latents of a side of 32 px, half of what is drawn here


@pytest.fixture(scope="module")
def device() -> TorchDevice:
    return choose_device("cpu", threads=1)


@pytest.fixture
def residency(device: TorchDevice) -> Residency:
    return Residency(device)


def resident(residency: Residency, model: Model = TINY) -> Denoiser:
    found = residency.get(model, partial(load_drawing, relief=residency.relief(model)))
    assert isinstance(found, Denoiser)
    return found


def drawing(residency: Residency) -> Denoiser:
    """The embedded model, as it is while a task draws with it."""
    residency.hold(TINY)
    return resident(residency)


@contextmanager
def short_of_memory(
    module: Any, does_not_fit: Callable[[Any], bool], *, says: Exception | None = None
) -> Iterator[None]:
    """Let a network run out of memory where its first input is one that does not fit."""

    def hook(_module: Any, args: tuple[Any, ...]) -> None:
        if does_not_fit(args[0]):
            raise says or torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    handle = module.register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def rungs(logs: list[Any]) -> list[str]:
    return [each["rung"] for each in logs if each["event"] == "out_of_memory"]


def larger_than(side: int) -> Callable[[Any], bool]:
    return lambda x: x.shape[-1] > side


# The autoencoder


def test_a_picture_that_does_not_fit_the_decoder_is_decoded_in_tiles(residency: Residency) -> None:
    denoiser = drawing(residency)
    whole, small = alone(denoiser, work()), alone(denoiser, work(width=48, height=48))
    with capture_logs() as logs, short_of_memory(denoiser._pipeline.vae.decoder, larger_than(HALF)):
        in_tiles = alone(denoiser, work())
    assert rungs(logs) == ["tiles"]
    assert in_tiles != whole
    assert difference_on_average(in_tiles, whole) < 8  # of 255: the same picture, with seams
    assert alone(denoiser, work()) == in_tiles
    assert alone(denoiser, work(width=48, height=48)) == small
    # Receipts say so, and a picture that is made again elsewhere why it differs.
    tiles = [denoiser.setup(begun(denoiser, work(width=side))[0]).device for side in (64, 48)]
    assert [told.get("tiles.decode") for told in tiles] == ["2", None]


def test_each_rung_is_told() -> None:
    told: list[str] = []
    denoiser = drawing(Residency(choose_device("cpu", threads=1), relieved=told.append))
    with short_of_memory(denoiser._pipeline.vae.decoder, larger_than(HALF)):
        alone(denoiser, work())
    assert told == ["tiles"]


def test_tiles_that_are_still_too_large_are_cut_again(residency: Residency) -> None:
    denoiser = drawing(residency)
    with short_of_memory(denoiser._pipeline.vae.decoder, larger_than(HALF)):
        alone(denoiser, work(width=128))
    assert residency.relief(TINY).cuts("decode", (128, 64)) == 4


def test_a_picture_that_does_not_fit_the_encoder_is_encoded_in_tiles(residency: Residency) -> None:
    denoiser, asked = drawing(residency), work(image=start())
    whole = alone(denoiser, asked)
    says = RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")  # a library's own way to say it
    with short_of_memory(denoiser._pipeline.vae.encoder, larger_than(32), says=says):
        in_tiles = alone(denoiser, asked)
    # The random numbers of a seed are those of its first try, however many it takes.
    assert alone(denoiser, asked) == in_tiles
    assert 0 < difference_on_average(in_tiles, whole) < 8
    relief = residency.relief(TINY)
    assert (relief.cuts("encode", (64, 64)), relief.cuts("decode", (64, 64))) == (2, 1)


def test_the_stock_pipeline_decodes_in_tiles_too(device: TorchDevice) -> None:
    pipeline = StockPipeline.load(TINY, device)
    whole = draw(pipeline)
    with short_of_memory(pipeline._text_to_image.vae.decoder, larger_than(HALF)):
        in_tiles = draw(pipeline)
    assert 0 < difference_on_average(in_tiles, whole) < 8


def test_an_autoencoder_that_ran_out_has_its_dtype_again(residency: Residency) -> None:
    vae = drawing(residency)._pipeline.vae

    def decode() -> None:
        with own_dtype(vae):
            vae.to(torch.float64)
            raise torch.OutOfMemoryError

    with pytest.raises(torch.OutOfMemoryError):
        decode()
    assert vae.dtype == torch.float32


# The network


def test_one_row_that_does_not_fit_drives_others_out_and_then_parts(residency: Residency) -> None:
    denoiser, other = drawing(residency), resident(residency, OTHER)
    calm, others = alone(denoiser, work()), alone(other, work(seeds=(9,)))

    def does_not_fit(_: Any) -> bool:
        return "other" in residency.names() or denoiser._parts.present != {"network"}

    before = denoiser.weight_bytes
    with capture_logs() as logs, short_of_memory(denoiser._family.network, does_not_fit):
        assert alone(denoiser, work()) == calm
    assert rungs(logs) == ["others_evicted", "offloaded"]
    # Remembered, and of no consequence to what other models draw.
    assert alone(denoiser, work()) == calm
    assert denoiser._parts.present == {"autoencoder"}
    assert denoiser.weight_bytes < before
    residency.let_go(TINY)
    assert alone(resident(residency, OTHER), work(seeds=(9,))) == others
    residency.evict_idle()
    again = drawing(residency)
    assert alone(again, work()) == calm
    assert again._parts.present == {"autoencoder"}


def test_what_fits_in_no_way_fails_and_the_next_task_is_as_ever(residency: Residency) -> None:
    resident(residency, OTHER)
    calm = pictures(work_off(residency, Script(run("calm/1"))), "calm/1")
    denoiser = resident(residency)
    with capture_logs() as logs, short_of_memory(denoiser._family.network, lambda _: True):
        sent = work_off(residency, Script(run("big/1")))
    (failure,) = [each for each in sent if isinstance(each, Errored)]
    assert (failure.code, failure.retryable) == ("out_of_memory", True)
    assert "CUDA out of memory" in failure.message
    assert rungs(logs) == ["others_evicted", "offloaded", "nothing_left"]
    sent = work_off(residency, Script(run("next/1"), run("other/1", model=OTHER)))
    assert pictures(sent, "next/1") == calm
    assert pictures(sent, "other/1") == calm


def test_a_smaller_pass_is_tried_without_what_the_larger_one_left(residency: Residency) -> None:
    denoiser = drawing(residency)
    rows = begun(denoiser, work(seeds=(1, 2)))
    seen: list[weakref.ref[Any]] = []
    alive = []

    def too_many(x: Any) -> bool:
        alive.extend(ref() for ref in seen)
        if len(x) > 2:
            seen.append(weakref.ref(x))
        return len(x) > 2

    with short_of_memory(denoiser._family.network, too_many):
        stepped = step_rows(denoiser, rows)
    assert list(stepped.values()) == [None]
    assert alive == [None]


# Loading


def test_weights_that_do_not_fit_are_loaded_without_others_and_then_part_by_part(
    device: TorchDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = pictures(work_off(Residency(device), Script(run("x/1"))), "x/1")
    from imageloom.task_types.generation import run as generation

    def load(model: Model, device: TorchDevice, *, relief: Relief) -> Any:
        if "other" in residency.names() or not relief.offloaded:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return load_drawing(model, device, relief=relief)

    with ThreadPoolExecutor(1) as loader:
        residency = Residency(device, loader=loader)
        residency._loaded[OTHER] = resident(Residency(device), OTHER)
        monkeypatch.setattr(generation, "load_drawing", load)
        sent = work_off(residency, Script(run("x/1")))
    assert [type(each) for each in sent if isinstance(each, Done | Errored)] == [Done]
    assert pictures(sent, "x/1") == calm
    assert (residency.names(), residency.relief(TINY).offloaded) == (("imageloom-tiny",), True)


def test_weights_that_fit_in_no_way_fail_the_task(
    device: TorchDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    from imageloom.task_types.generation import run as generation

    def load(model: Model, device: TorchDevice, *, relief: Relief) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    residency = Residency(device)
    with monkeypatch.context() as patch:
        patch.setattr(generation, "load_drawing", load)
        sent = work_off(residency, Script(run("x/1")))
    (failure,) = [each for each in sent if isinstance(each, Errored)]
    assert "CUDA out of memory" in failure.message
    assert pictures(work_off(residency, Script(run("y/1"))), "y/1")


@pytest.mark.gpu
def test_parts_take_turns_on_a_gpu_and_leave_every_bit() -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine: offloading was tried without one")
    residency = Residency(choose_device("cuda", threads=1))
    denoiser = drawing(residency)
    asked = work(exact=True, image=start())
    calm = alone(denoiser, asked)
    residency.relief(TINY).offload()
    assert alone(denoiser, asked) == calm
    assert next(denoiser._family.network.parameters()).device.type == "cpu"


def difference_on_average(one: Picture, other: Picture) -> float:
    if one == other:
        return 0.0
    assert difference(one, other) > 0
    return sum(abs(a - b) for a, b in zip(one.rgb, other.rgb, strict=True)) / len(one.rgb)
