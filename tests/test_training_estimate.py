"""What a training is said to take before it begins, and on what that rests."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from imageloom.domain.adapters import Pace
from imageloom.domain.catalog import BUILTIN, Model
from imageloom.runtime.training import cost
from imageloom.runtime.training.cost import Amount
from imageloom.runtime.training.estimate import Device, estimate

MODELS = {model.name: model for model in BUILTIN}
TINY, SDXL, SD1 = (MODELS[name] for name in ("imageloom-tiny", "sd-xl-base", "sd-1.5"))
CPU = Device(name="x86_64", memory_bytes=None)
H100 = Device(name="NVIDIA H100 80GB HBM3", memory_bytes=85_000_000_000)
T4 = Device(name="Tesla T4", memory_bytes=15_800_000_000)

# 14 pictures seen and 2 held out, 30 epochs one by one, no prompts kept, no samples.
PLAIN = Amount(
    steps=420,
    pictures=420,
    cached=16,
    held_out=2,
    kept=0,
    checkpoints=9,
    samples=0,
    sample_steps=20,
    guided=2,
    trained=2.1,
    pixels=1024 * 1024,
    batch_size=1,
    gradient_accumulation=1,
    rank=16,
)
SMALL = replace(PLAIN, pixels=64 * 64, batch_size=4, steps=105)
PACE = Pace(device="x86_64", side=64, batch_size=4, keeping=False, images_per_second=40.0)


def minutes(
    model: Model,
    amount: Amount,
    *,
    paces: list[Pace] = (),
    devices: list[Device] = (),  # type: ignore[assignment]
) -> float:
    found = estimate(model, amount, paces=paces, devices=devices).minutes
    assert found is not None
    return found


def test_work_is_caching_steps_and_checkpoints() -> None:
    assert cost.evaluations(PLAIN) == pytest.approx(16 * 0.7 + 420 * 2.1 + 9 * 2 * 4)
    sampled = replace(PLAIN, samples=3)
    drawn = 9 * 3 * (20 * 2 + 1.5)
    assert cost.evaluations(sampled) - cost.evaluations(PLAIN) == pytest.approx(drawn)
    kept = replace(PLAIN, kept=15)
    more = 15 * (5 + 5) * 2 + 420 * (2.1 + 0.25)
    assert cost.evaluations(kept) - cost.evaluations(PLAIN) == pytest.approx(more)


@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        (TINY, 3_940_000),
        (msgspec.structs.replace(TINY, size_bytes=7_860_000), 3_940_000),  # as files, in 16 bits
        (SDXL, 3_470_000_000),
        (msgspec.structs.replace(SDXL, size_bytes=13_880_000_000), 3_470_000_000),  # float32
        (SD1, 1_070_000_000),
        (msgspec.structs.replace(SDXL, size_bytes=500_000_000), None),  # of no known shape
        (msgspec.structs.replace(SDXL, size_bytes=0), None),
        (MODELS["flux-schnell"], 16_870_000_000),
        (MODELS["z-image-turbo"], None),
    ],
)
def test_architecture_is_known_by_family_and_size(model: Model, parameters: int | None) -> None:
    found = cost.architecture_of(model)
    assert (found.parameters if found else None) == parameters


def test_memory_of_the_embedded_model_is_what_was_measured() -> None:
    kept = replace(SMALL, kept=15)
    for batch, measured in ((1, 120e6), (4, 136e6), (16, 232e6)):
        amount = replace(kept, batch_size=batch)
        found = estimate(TINY, amount, paces=[], devices=[CPU]).memory_bytes
        assert found == pytest.approx(measured, rel=0.1)


def test_memory_grows_with_weights_rank_pixels_and_batch() -> None:
    def needed(model: Model = SDXL, device: Device = H100, **changes: int) -> int:
        found = estimate(model, replace(PLAIN, **changes), paces=[], devices=[device])
        assert found.memory_bytes is not None
        return found.memory_bytes

    weights = 2 * 3_470_000_000
    adapter = 16 * 16 * 2_659_840
    step = 1.3 * 8_510 * 1024 * 1024
    assert needed() == pytest.approx(weights + adapter + step + 90e6, rel=1e-6)
    assert needed(rank=32) - needed() == adapter
    assert needed(batch_size=2) - needed() == pytest.approx(step, rel=1e-6)
    assert needed() - needed(pixels=512 * 512) == pytest.approx(step * 0.75, rel=1e-6)
    assert needed(kept=15) - needed() == pytest.approx(step, rel=1e-6)  # a row beside the picture
    assert needed(device=CPU) > 1.5 * needed()
    assert needed(SD1) < needed()


def test_flux_trades_time_for_memory_and_asks_once() -> None:
    flux = MODELS["flux-schnell"]
    assert cost.trained_evaluations(flux) == cost.trained_evaluations(SDXL) + 1
    assert (cost.guided_evaluations(flux), cost.guided_evaluations(SDXL)) == (1, 2)
    found = estimate(flux, replace(PLAIN, trained=3.1), paces=[], devices=[H100])
    assert found.memory_bytes == pytest.approx(38e9, rel=0.03)  # weights 33.7, a step 2.7
    assert found.minutes == pytest.approx(
        cost.evaluations(replace(PLAIN, trained=3.1)) * 66.3e6 * PLAIN.pixels / 58e12 / 60, rel=0.05
    )


def test_measured_pace_counts_before_any_arithmetic() -> None:
    found = estimate(TINY, SMALL, paces=[PACE], devices=[CPU])
    seconds = cost.evaluations(SMALL) / 2.1 / 40
    assert found.minutes == pytest.approx(seconds / 60, rel=0.05)
    assert found.based_on.startswith(
        "time measured by 1 training of imageloom-tiny on x86_64; memory computed"
    )


def test_pace_is_scaled_by_pixels_and_by_what_a_step_does() -> None:
    plain = minutes(TINY, SMALL, paces=[PACE])
    quarter = replace(SMALL, pixels=32 * 32)
    assert minutes(TINY, quarter, paces=[PACE]) == pytest.approx(plain / 4, rel=0.05)
    # One that kept prompts did more for each picture, so its evaluations were quicker.
    keeping = replace(PACE, keeping=True)
    assert minutes(TINY, SMALL, paces=[keeping]) == pytest.approx(plain * 2.1 / 4.45, rel=0.05)


def test_likest_paces_count_and_of_them_the_median() -> None:
    far = replace(PACE, side=128, images_per_second=1.0)
    wild = [replace(PACE, images_per_second=pace) for pace in (38.0, 4.0, 40.0, 41.0, 42.0)]
    found = estimate(TINY, SMALL, paces=[far, *wild], devices=[CPU])
    assert found.minutes == minutes(TINY, SMALL, paces=[PACE])
    assert "5 trainings" in found.based_on


@pytest.mark.parametrize(
    "other",
    [
        replace(PACE, device="NVIDIA H100 80GB HBM3"),
        replace(PACE, side=256),
        replace(PACE, batch_size=32),
    ],
)
def test_pace_of_another_device_or_kind_does_not_count(other: Pace) -> None:
    found = estimate(TINY, SMALL, paces=[other], devices=[CPU])
    assert found.based_on.startswith("time computed, at 0.04 TFLOP/s for x86_64")


def test_arithmetic_is_of_the_slowest_device() -> None:
    flop = cost.evaluations(PLAIN) * 6.45e6 * PLAIN.pixels
    assert minutes(SDXL, PLAIN, devices=[H100]) == pytest.approx(flop / 58e12 / 60, rel=0.05)
    slow = estimate(SDXL, PLAIN, paces=[], devices=[H100, CPU])
    assert slow.minutes == pytest.approx(flop / 40e9 / 60, rel=0.05)
    assert "for x86_64" in slow.based_on


@pytest.mark.parametrize(
    ("model", "devices", "why"),
    [
        (SDXL, [], "no worker is alive"),
        (SDXL, [T4], "on Tesla T4"),
        (TINY, [H100], "on NVIDIA H100"),  # too small to be bound by its arithmetic
        (msgspec.structs.replace(SDXL, size_bytes=1), [H100], "no known shape"),
    ],
)
def test_unknown_time_is_none_and_says_why(model: Model, devices: list[Device], why: str) -> None:
    found = estimate(model, PLAIN, paces=[], devices=devices)
    assert found.minutes is None
    assert why in found.based_on.split(";")[0]


def test_unknown_shape_has_no_memory() -> None:
    unlike = msgspec.structs.replace(SDXL, size_bytes=1)
    found = estimate(unlike, PLAIN, paces=[], devices=[T4])
    assert (found.memory_bytes, found.warnings) == (None, ())
    assert found.based_on.endswith("no memory: its shape is not known")


def test_warning_where_no_worker_has_the_memory() -> None:
    def warnings(*devices: Device) -> tuple[str, ...]:
        return estimate(SDXL, PLAIN, paces=[], devices=devices).warnings

    (told,) = warnings(T4)
    assert told.startswith("about 19.3 GB of memory are needed, and no live worker has more")
    assert "15.8 GB" in told
    assert warnings(T4, H100) == warnings(T4, CPU) == warnings() == ()
