"""The settings for speed: each beside the plain path, the same picture within what it says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from imageloom.core.meters import Meters
from imageloom.domain.speed import Speed
from imageloom.domain.work import LoraUse
from imageloom.images import Picture
from imageloom.settings import Settings
from imageloom.worker.device import (
    COMPILING_TIMEOUT,
    STOP_TIMEOUT,
    DeviceOptions,
    DeviceProcess,
    _environment,
)

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

from diffusers.image_processor import VaeImageProcessor  # noqa: E402  # needs torch

from imageloom.runtime.denoiser import Denoiser, load_drawing  # noqa: E402
from imageloom.runtime.fast_path import FastPath  # noqa: E402
from imageloom.runtime.folders import describe_folder  # noqa: E402
from imageloom.runtime.pil import decoded_picture, to_picture  # noqa: E402
from imageloom.runtime.relief import Relief  # noqa: E402
from imageloom.runtime.stock import StockPipeline  # noqa: E402
from imageloom.runtime.torch_device import TorchDevice, choose_device  # noqa: E402
from test_denoiser import (  # noqa: E402, F401  # fixtures are found by their names
    LEVELS,
    TINY,
    adapters,
    alone,
    begun,
    device,
    difference,
    drawn_by_stock,
    loaded,
    mixed,
    start,
    stock,
    tiny,
)
from test_runtime import work  # noqa: E402
from test_training_flux import random_flux  # noqa: E402


def with_speed(**chosen: Any) -> TorchDevice:
    return choose_device("cpu", threads=1, speed=Speed(**chosen))


def drawn(denoiser: Denoiser, works: list[Any]) -> list[Picture]:
    """Pictures of tasks whose rows share every pass, and need not be exact."""
    rows = [row for asked in works for row in begun(denoiser, asked)]
    for row in rows:
        row.exact = False
    live = list(rows)
    while live:
        denoiser.step(live)
        live = [row for row in live if not row.done]
    return [denoiser.finish(row) for row in rows]


@contextmanager
def lanes_seen(denoiser: Denoiser) -> Iterator[list[int]]:
    """The lanes of each pass through a denoiser's network."""
    seen: list[int] = []
    handle = denoiser._family.network.register_forward_pre_hook(
        lambda _, args: seen.append(len(args[0]))
    )
    yield seen
    handle.remove()


def plain_tasks(count: int) -> list[Any]:
    return [work(seeds=(number,), steps=3) for number in range(count)]


# Fused projections


@pytest.fixture(scope="module")
def fused() -> Denoiser:
    return loaded(TINY, with_speed(fused_projections=True))


def test_fused_projections_draw_the_same_pictures(tiny: Denoiser, fused: Denoiser) -> None:  # noqa: F811
    calls = []
    for name, layer in fused._family.network.named_modules():
        if name.endswith(("to_qkv", "to_kv")):
            layer.register_forward_hook(lambda *_: calls.append(1))
    pictures = drawn(fused, plain_tasks(3))
    assert calls
    row = begun(fused, plain_tasks(1)[0])[0]
    row.exact = False
    assert fused.setup(row).device["projections"] == "fused"
    assert max(map(difference, pictures, drawn(tiny, plain_tasks(3)))) <= LEVELS


def test_with_an_adapter_or_exact_the_projections_are_apart(
    tiny: Denoiser,  # noqa: F811
    fused: Denoiser,
    adapters: list[LoraUse],  # noqa: F811
) -> None:
    works = mixed(adapters)[:4]
    drawn(fused, plain_tasks(1))
    assert drawn(fused, works) == drawn(tiny, works)
    assert alone(fused, works[1]) == alone(tiny, works[1])


def test_fused_projections_take_no_memory_of_their_own(fused: Denoiser) -> None:
    for name, layer in fused._family.network.named_modules():
        if name.endswith("attn1"):
            assert layer.to_q.weight.data_ptr() == layer.to_qkv.weight.data_ptr()


def test_parts_that_take_turns_leave_the_joined_weights_behind(tiny: Denoiser) -> None:  # noqa: F811
    relief = Relief("tiny")
    found = load_drawing(TINY, with_speed(fused_projections=True), relief=relief)
    assert isinstance(found, Denoiser)
    relief.offload()
    assert drawn(found, plain_tasks(2)) == drawn(tiny, plain_tasks(2))
    assert not any("to_qkv" in name for name in found._family.network.state_dict())


def test_a_flux_with_fused_projections_draws_the_same_picture(
    device: TorchDevice,  # noqa: F811
    tmp_path: Path,
) -> None:
    folder = tmp_path / "flux"
    random_flux(distilled=True).save_pretrained(folder, safe_serialization=True)
    model = describe_folder(folder, name="mine")
    asked = [work(model=model, seeds=(1,)), work(model=model, seeds=(2,))]
    fused = loaded(model, with_speed(fused_projections=True))
    pictures = drawn(fused, asked)
    assert max(map(difference, pictures, drawn(loaded(model, device), asked))) <= LEVELS


# Compiled networks


@pytest.fixture(scope="module")
def compiled() -> Iterator[Denoiser]:
    """Compiled as far as torch's own compiler, which takes a minute here, would begin."""
    denoiser = loaded(TINY, with_speed())
    config = torch._dynamo.config
    before = (config.recompile_limit, config.suppress_errors)
    chosen = Speed(compile="blocks", fused_projections=True)
    denoiser._fast = FastPath(denoiser._family.network, chosen, backend="aot_eager")
    yield denoiser
    torch._dynamo.reset()
    config.recompile_limit, config.suppress_errors = before


def graphs() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def test_a_compiled_pass_has_one_of_few_numbers_of_lanes(
    tiny: Denoiser,  # noqa: F811
    compiled: Denoiser,
) -> None:
    with lanes_seen(compiled) as seen:
        pictures = drawn(compiled, plain_tasks(3))
        made = graphs()
        drawn(compiled, plain_tasks(4))
    assert set(seen) == {8}
    assert 0 < made == graphs()
    assert max(map(difference, pictures, drawn(tiny, plain_tasks(3)))) <= LEVELS


def test_with_an_adapter_or_exact_nothing_compiled_runs(
    tiny: Denoiser,  # noqa: F811
    compiled: Denoiser,
    adapters: list[LoraUse],  # noqa: F811
) -> None:
    works = [msgspec.structs.replace(asked, steps=3) for asked in mixed(adapters)[:3]]
    before = drawn(compiled, plain_tasks(1))
    with lanes_seen(compiled) as seen:
        made = graphs()
        assert drawn(compiled, works) == drawn(tiny, works)
        assert alone(compiled, works[1]) == alone(tiny, works[1])
    assert max(seen) < 8
    assert made == graphs()
    assert drawn(compiled, plain_tasks(1)) == before


@pytest.mark.gpu
@pytest.mark.parametrize("chosen", [{"compile": "blocks"}, {"compile": "whole"}])
def test_compiled_for_a_gpu_the_picture_is_the_same(chosen: dict[str, Any]) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine: nothing was compiled for one")
    plain, fast = (
        loaded(TINY, choose_device("cuda", threads=1, speed=Speed(dtype="float32", **each)))
        for each in ({}, chosen)
    )
    pictures = drawn(fast, plain_tasks(3))
    assert max(map(difference, pictures, drawn(plain, plain_tasks(3)))) <= LEVELS


# Numbers and their place in memory


def test_without_channels_last_a_row_is_the_stock_pipelines_to_the_bit(
    stock: StockPipeline,  # noqa: F811
) -> None:
    denoiser = loaded(TINY, with_speed(channels_last=False))
    assert drawn(denoiser, [work()]) == [drawn_by_stock(stock, work())]


def test_bfloat16_draws_nearly_the_same_picture(tiny: Denoiser) -> None:  # noqa: F811
    denoiser = loaded(TINY, with_speed(dtype="bfloat16"))
    assert denoiser._family.network.dtype == torch.bfloat16
    one, other = alone(denoiser, work(steps=8)), alone(tiny, work(steps=8))
    apart = sum(abs(a - b) for a, b in zip(one.rgb, other.rgb, strict=True)) / len(one.rgb)
    assert 0 < apart < 4  # of 255, on average


def test_a_flux_that_begins_from_a_picture_keeps_the_dtype_of_its_weights(tmp_path: Path) -> None:
    folder = tmp_path / "flux"
    random_flux(distilled=True).save_pretrained(folder, safe_serialization=True)
    model = describe_folder(folder, name="mine")
    denoiser = loaded(model, with_speed(dtype="bfloat16"))
    asked = work(model=model, steps=2)
    plain = alone(denoiser, asked)
    assert alone(denoiser, work(model=model, steps=2, image=start())) != plain
    assert denoiser._family.network.dtype == torch.bfloat16
    assert alone(denoiser, asked) == plain


def test_as_many_prompts_are_kept_as_is_said() -> None:
    denoiser = loaded(TINY, with_speed(kept_prompts=2))
    for number in range(4):
        begun(denoiser, work(prompt=f"dress {number}", guidance_scale=1.0))
    assert [text for text, _ in denoiser._prompts] == ["dress 2", "dress 3"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("denormalize", [True, False])
def test_a_decoded_picture_has_the_bytes_of_diffusers(dtype: Any, denormalize: bool) -> None:
    pixels = torch.rand(1, 3, 24, 40, generator=torch.Generator().manual_seed(0)).to(dtype)
    if denormalize:
        pixels = pixels * 3 - 1.5
    (image,) = VaeImageProcessor().postprocess(pixels, do_denormalize=[denormalize])
    assert decoded_picture(pixels, denormalize=denormalize) == to_picture(image)


# From the environment to the device process


def test_settings_reach_the_device_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = {
        "DTYPE": "float16",
        "CHANNELS_LAST": "false",
        "FUSED_PROJECTIONS": "true",
        "COMPILE": "blocks",
        "KEPT_PROMPTS": "7",
    }
    for name, value in asked.items():
        monkeypatch.setenv(f"IMAGELOOM_{name}", value)
    settings = Settings(data_dir=tmp_path)
    options = DeviceOptions(
        device="cpu", threads=1, log_format="json", speed=settings.speed, cache_dir=tmp_path
    )
    command = DeviceProcess(options, Meters())._command(3)
    (told,) = [each for each in command if each.startswith("--speed=")]
    assert msgspec.json.decode(told.removeprefix("--speed="), type=Speed) == Speed(
        dtype="float16",
        channels_last=False,
        fused_projections=True,
        compile="blocks",
        kept_prompts=7,
    )
    assert options.stop_timeout == COMPILING_TIMEOUT > STOP_TIMEOUT
    assert _environment(tmp_path)["TORCHINDUCTOR_CACHE_DIR"] == str(tmp_path / "compiled")
