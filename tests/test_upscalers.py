"""Upscalers with real networks of a few hundred weights, made here."""

from __future__ import annotations

import importlib.util
import itertools
import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

from safetensors.torch import load_file, save_file  # noqa: E402  # needs torch

from imageloom.domain.errors import BadWeights, InvalidParams, ModelNotInstalled  # noqa: E402
from imageloom.images import Picture  # noqa: E402
from imageloom.runtime.model_files import describe_path  # noqa: E402
from imageloom.runtime.networks import Network  # noqa: E402
from imageloom.runtime.tiling import OVERLAP, enlarge_in_tiles, spans  # noqa: E402
from imageloom.runtime.torch_device import TorchDevice, choose_device  # noqa: E402
from imageloom.runtime.units import Dropped  # noqa: E402
from imageloom.runtime.upscalers import (  # noqa: E402
    Upscaler,
    load_upscaler,
    number_of_passes,
    spread_colours,
)
from tiny_models import (  # noqa: E402
    compact,
    compact_weights,
    photograph,
    pixels,
    swin2sr,
    upscaler,
)

SMALL = photograph(37, 53)


@pytest.fixture(scope="module")
def device() -> TorchDevice:
    return choose_device("cpu", threads=1)


def ignore(_share: float) -> None:
    pass


def repeated(picture: Picture, scale: int) -> bytes:
    return pixels(picture).repeat(scale, axis=0).repeat(scale, axis=1).tobytes()


def made_of(run: Callable[[torch.Tensor], torch.Tensor], device: TorchDevice) -> Upscaler:
    """An upscaler around any function that doubles."""
    network = Network(
        module=torch.nn.Identity(), run=run, factor=2, channels=3, multiple_of=1, half=True
    )
    return Upscaler(network, device, name="mine")


def doubled(values: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.interpolate(values, scale_factor=2)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("own", [2, 3, 4])
def test_size_is_exactly_the_scale_whatever_the_networks_own(
    tmp_path: Path, device: TorchDevice, own: int, scale: int
) -> None:
    made = load_upscaler(compact(tmp_path, scale=own), device)
    enlarged = made.enlarge(SMALL, scale, between_tiles=ignore)
    assert (made.factor, enlarged.width, enlarged.height) == (own, 37 * scale, 53 * scale)


@pytest.mark.parametrize("scale", [2, 4])
@pytest.mark.parametrize("own", [2, 4])
def test_a_network_that_repeats_pixels_gives_exactly_repeated_pixels(
    tmp_path: Path, device: TorchDevice, own: int, scale: int
) -> None:
    made = load_upscaler(compact(tmp_path, scale=own, seed=None), device)
    assert made.enlarge(SMALL, scale, between_tiles=ignore).rgb == repeated(SMALL, scale)


@pytest.mark.parametrize(
    ("factor", "scale", "passes"), [(2, 2, 1), (2, 4, 2), (3, 2, 1), (3, 4, 2), (4, 2, 1)]
)
def test_a_network_runs_as_often_as_the_scale_needs(factor: int, scale: int, passes: int) -> None:
    assert number_of_passes(factor, scale) == passes


def test_a_picture_of_one_pixel_is_enlarged(tmp_path: Path, device: TorchDevice) -> None:
    dot = Picture(width=1, height=1, rgb=b"\x10\x20\x30")
    for model in (compact(tmp_path, scale=2), swin2sr(tmp_path / "swin")):
        enlarged = load_upscaler(model, device).enlarge(dot, 2, between_tiles=ignore)
        assert (enlarged.width, enlarged.height) == (2, 2)


@pytest.mark.parametrize("upsampler", ["pixelshuffle", "pixelshuffle_aux", "pixelshuffledirect"])
def test_swin2sr_gives_the_exact_size(tmp_path: Path, device: TorchDevice, upsampler: str) -> None:
    made = load_upscaler(swin2sr(tmp_path, upsampler=upsampler), device)
    enlarged = made.enlarge(SMALL, 2, between_tiles=ignore)
    assert (enlarged.width, enlarged.height) == (74, 106)


def test_swin2sr_draws_what_transformers_itself_draws(tmp_path: Path, device: TorchDevice) -> None:
    from transformers import Swin2SRForImageSuperResolution

    model = swin2sr(tmp_path)
    picture = photograph(36, 52)  # whole windows: transformers' network takes no other size
    enlarged = load_upscaler(model, device).enlarge(picture, 2, between_tiles=ignore)
    reference = Swin2SRForImageSuperResolution.from_pretrained(tmp_path)
    values = torch.from_numpy(pixels(picture).copy()).permute(2, 0, 1)[None] / 255
    expected = reference(values).reconstruction[0].permute(1, 2, 0).clamp(0, 1).numpy() * 255
    assert np.abs(pixels(enlarged) - expected).max() <= 0.51


def test_tiles_of_any_axis_cover_it_in_order_and_share_the_overlap() -> None:
    for length, side, step in itertools.product((1, 95, 97, 300, 1001), (96, 256), (1, 16, 64)):
        axis = spans(length, side=side, step=step)
        assert (axis[0].start, axis[-1].stop) == (0, length)
        assert all(span.start % step == 0 for span in axis)
        shared = {before.stop - after.start for before, after in itertools.pairwise(axis)}
        assert shared <= {max(OVERLAP, step)}
        far = [after.start - before.stop for before, after in zip(axis, axis[2:], strict=False)]
        assert all(distance >= 0 for distance in far)


def test_tiles_are_at_most_the_side_asked_for() -> None:
    assert max(span.stop - span.start for span in spans(1001, side=256, step=16)) <= 256


@pytest.mark.parametrize(("width", "height"), [(250, 300), (400, 70), (97, 97)])
def test_tiled_is_the_same_as_whole_where_the_network_sees_less_far_than_the_overlap(
    tmp_path: Path, device: TorchDevice, width: int, height: int
) -> None:
    made = load_upscaler(compact(tmp_path, scale=2), device)
    picture = photograph(width, height)
    whole = made.enlarge(picture, 2, between_tiles=ignore)
    made._side = 96
    shares: list[float] = []
    tiled = made.enlarge(picture, 2, between_tiles=shares.append)
    assert len(shares) > 1
    # Sums in another order: a value that lies on a rounding edge may fall to its other side.
    assert np.abs(pixels(tiled).astype(int) - pixels(whole)).max() <= 1
    assert (pixels(tiled) == pixels(whole)).mean() > 0.999


def test_tiles_that_disagree_fade_into_one_another() -> None:
    """Each tile is one grey of its own, which a cut between two would show as a step."""
    greys = itertools.cycle((0.2, 0.8))

    def grey(tile: np.ndarray) -> np.ndarray:
        height, width = tile.shape[:2]
        return np.full((height * 2, width * 2, 1), next(greys), np.float32)

    blank = np.zeros((90, 400, 1), np.uint8)
    result = enlarge_in_tiles(blank, grey, factor=2, side=96, between_tiles=ignore)
    assert {51, 204} <= set(result.ravel().tolist())
    steps = np.abs(np.diff(result[:, :, 0].astype(int), axis=1))
    assert steps.max() <= 153 / OVERLAP + 1


def test_progress_grows_to_one_over_tiles_and_passes(tmp_path: Path, device: TorchDevice) -> None:
    made = load_upscaler(compact(tmp_path, scale=2), device)
    made._side = 96
    shares: list[float] = []
    made.enlarge(photograph(120, 100), 4, between_tiles=shares.append)
    assert shares == sorted(set(shares))
    assert len(shares) > 10
    assert shares[-1] == pytest.approx(1)
    # The second pass has four times the pixels of the first.
    assert any(share == pytest.approx(0.2) for share in shares)


def test_cancel_passes_through_and_the_upscaler_stays_usable(
    tmp_path: Path, device: TorchDevice
) -> None:
    made = load_upscaler(compact(tmp_path, scale=2), device)
    made._side = 96
    seen = 0

    def stop_at_second(_share: float) -> None:
        nonlocal seen
        seen += 1
        if seen == 2:
            raise Dropped("t/1")

    with pytest.raises(Dropped):
        made.enlarge(photograph(300, 90), 2, between_tiles=stop_at_second)
    assert seen == 2
    assert made.enlarge(SMALL, 2, between_tiles=ignore).width == 74


def test_same_picture_gives_the_same_bytes(tmp_path: Path, device: TorchDevice) -> None:
    made = load_upscaler(compact(tmp_path, scale=2), device)
    first, second = (made.enlarge(SMALL, 2, between_tiles=ignore) for _ in range(2))
    assert first == second


def test_a_device_too_small_for_a_tile_gets_smaller_ones(device: TorchDevice) -> None:
    tried: list[int] = []

    def run(values: torch.Tensor) -> torch.Tensor:
        tried.append(max(values.shape[2:]))
        if tried[-1] > 130 and len(tried) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return doubled(values)

    picture = photograph(600, 90)
    shares: list[float] = []
    enlarged = made_of(run, device).enlarge(picture, 2, between_tiles=shares.append)
    assert enlarged.rgb == repeated(picture, 2)
    assert tried[0] > 192
    assert max(tried[5:]) <= 128
    # Two tiles were done when it began again.
    assert shares == sorted(shares)
    assert shares[1] == shares[2]


def test_a_device_too_small_for_the_smallest_tile_is_out_of_memory(device: TorchDevice) -> None:
    def run(_values: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        made_of(run, device).enlarge(SMALL, 2, between_tiles=ignore)


def test_an_overflow_of_half_precision_is_computed_again_in_full(device: TorchDevice) -> None:
    def run(values: torch.Tensor) -> torch.Tensor:
        return doubled(values * 1e6) / 1e6

    made = made_of(run, device)
    made._dtype = torch.float16  # as on a GPU
    assert made.enlarge(SMALL, 2, between_tiles=ignore).rgb == repeated(SMALL, 2)


@pytest.mark.parametrize(
    ("run", "complaint"),
    [
        (lambda values: values, "was expected"),
        (lambda values: doubled(values) * float("nan"), "not finite"),
    ],
)
def test_a_network_that_answers_nonsense_is_bad_weights(
    device: TorchDevice, run: Callable[[torch.Tensor], torch.Tensor], complaint: str
) -> None:
    with pytest.raises(BadWeights, match=complaint):
        made_of(run, device).enlarge(SMALL, 2, between_tiles=ignore)


def test_a_network_of_one_channel_enlarges_brightness_and_keeps_the_colours(
    tmp_path: Path, device: TorchDevice
) -> None:
    made = load_upscaler(compact(tmp_path, scale=2, channels=1, seed=None), device)
    red = Picture(width=20, height=30, rgb=b"\xd0\x20\x40" * 600)
    enlarged = made.enlarge(red, 2, between_tiles=ignore)
    assert (enlarged.width, enlarged.height) == (40, 60)
    assert np.abs(pixels(enlarged).astype(int) - (0xD0, 0x20, 0x40)).max() <= 2


def red_disc_on_green(side: int = 60) -> Picture:
    down, right = np.mgrid[0:side, 0:side] - side // 2
    inside = down**2 + right**2 < (side // 3) ** 2
    colours = np.where(inside[:, :, None], (220, 30, 30), (0, 255, 0)).astype(np.uint8)
    alpha = np.where(inside, 255, 0).astype(np.uint8)
    return Picture(width=side, height=side, rgb=colours.tobytes(), alpha=alpha.tobytes())


def test_a_cut_out_keeps_its_alpha_and_gets_no_colour_of_what_was_cut_away(
    tmp_path: Path, device: TorchDevice
) -> None:
    made = load_upscaler(compact(tmp_path, scale=2, seed=None), device)
    enlarged = made.enlarge(red_disc_on_green(), 2, between_tiles=ignore)
    assert enlarged.alpha is not None
    alpha = np.frombuffer(enlarged.alpha, np.uint8).reshape(120, 120)
    assert alpha[60, 60] == 255
    assert alpha[0, 0] == 0
    seen = pixels(enlarged)[alpha > 0].astype(int)
    assert np.abs(seen - (220, 30, 30)).max() <= 1


def test_colours_are_spread_from_what_is_opaque_and_that_stays() -> None:
    picture = photograph(41, 29)
    colours = pixels(picture)
    alpha = np.zeros((29, 41), np.uint8)
    alpha[10:20, 5:30] = 255
    spread = spread_colours(colours, alpha)
    assert (spread[alpha == 255] == colours[alpha == 255]).all()
    inside = colours[alpha == 255]
    assert (spread >= inside.min(axis=0)).all()
    assert (spread <= inside.max(axis=0)).all()


@pytest.mark.parametrize("opacity", [0, 255])
def test_colours_stay_where_all_is_alike(opacity: int) -> None:
    colours = pixels(SMALL)
    assert (spread_colours(colours, np.full((53, 37), opacity, np.uint8)) == colours).all()


def test_no_stand_in_for_torchvision_stays_behind(tmp_path: Path, device: TorchDevice) -> None:
    load_upscaler(compact(tmp_path, scale=2), device)
    stand_ins = [
        name
        for name, module in sys.modules.items()
        if name.partition(".")[0] == "torchvision" and module.__spec__ is None
    ]
    assert stand_ins == []


def test_without_spandrel_the_command_that_installs_it_is_named(
    tmp_path: Path, device: TorchDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = compact(tmp_path, scale=2)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(BadWeights, match="pip install --no-deps 'spandrel"):
        load_upscaler(model, device)


def write_weights(path: Path, weights: dict[str, torch.Tensor]) -> Path:
    save_file(weights, path)
    return path


def restoration(folder: Path) -> Path:
    return write_weights(folder / "x.safetensors", compact_weights(scale=1))


def wrong_channels(folder: Path) -> Path:
    return write_weights(folder / "x.safetensors", compact_weights(scale=2, channels=4))


def unknown(folder: Path) -> Path:
    return write_weights(folder / "x.safetensors", {"some.weight": torch.zeros(3)})


def half_fitting(folder: Path) -> Path:
    weights = compact_weights(scale=2)
    weights["body.2.weight"] = torch.zeros(4, 5, 3, 3)
    return write_weights(folder / "x.safetensors", weights)


def truncated(folder: Path) -> Path:
    path = write_weights(folder / "x.safetensors", compact_weights(scale=2))
    path.write_bytes(path.read_bytes()[:-40])
    return path


def empty(folder: Path) -> Path:
    path = folder / "x.safetensors"
    path.touch()
    return path


def pickled(folder: Path) -> Path:
    path = folder / "x.pth"
    path.write_bytes(pickle.dumps({"body.0.weight": 1}))
    return path


def pickle_in_disguise(folder: Path) -> Path:
    return pickled(folder).rename(folder / "x.safetensors")


BAD_FILES = [
    (restoration, "for Restoration, not for super-resolution"),
    (wrong_channels, "turns 4 channels into 4"),
    (unknown, "no architecture that spandrel .* knows"),
    (half_fitting, "do not fit it"),
    (truncated, "damaged"),
    (empty, "damaged"),
    (pickled, "pickle"),
    (pickle_in_disguise, "damaged"),
]


@pytest.mark.parametrize(("write", "complaint"), BAD_FILES)
def test_a_file_that_is_no_upscaler_is_refused_with_what_was_found(
    tmp_path: Path, device: TorchDevice, write: Callable[[Path], Path], complaint: str
) -> None:
    path = write(tmp_path)
    with pytest.raises(BadWeights, match=complaint):
        load_upscaler(upscaler(path), device)
    with pytest.raises(BadWeights, match=complaint):
        describe_path(path, name="mine")


def without_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def with_config(**changes: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        config = folder / "config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | changes))

    return change


def config_is_not_json(folder: Path) -> None:
    (folder / "config.json").write_text("{")


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def with_cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-40])


def with_a_tensor_less(folder: Path) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    del weights["swin2sr.conv_after_body.weight"]
    save_file(weights, path, metadata={"format": "pt"})


BAD_FOLDERS = [
    (without_config, "config.json"),
    (config_is_not_json, "is not JSON"),
    (with_config(model_type="bert"), "'bert'"),
    (with_config(upscale=1), "upscale 1"),
    (with_config(upsampler=""), "lack 2 of the tensors"),
    (with_config(embed_dim=12), "cannot be loaded"),
    (without_weights, "pickles are never loaded"),
    (with_cut_weights, "cannot be loaded"),
    (with_a_tensor_less, "lack 1 of the tensors .* swin2sr.conv_after_body.weight"),
]


@pytest.fixture(scope="module")
def good_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("swin2sr")
    swin2sr(folder)
    return folder


@pytest.mark.parametrize(("spoil", "complaint"), BAD_FOLDERS)
def test_a_folder_that_is_no_upscaler_is_refused_with_what_was_found(
    good_folder: Path,
    tmp_path: Path,
    device: TorchDevice,
    spoil: Callable[[Path], None],
    complaint: str,
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(good_folder, folder)
    spoil(folder)
    with pytest.raises(BadWeights, match=complaint):
        load_upscaler(upscaler(folder, family="swin2sr"), device)
    with pytest.raises(BadWeights, match=complaint):
        describe_path(folder, name="mine")


def test_a_file_that_vanished_is_not_installed(tmp_path: Path, device: TorchDevice) -> None:
    with pytest.raises(ModelNotInstalled, match="imageloom models add mine"):
        load_upscaler(upscaler(tmp_path / "gone.safetensors"), device)


def test_a_family_that_nobody_loads_is_named(tmp_path: Path, device: TorchDevice) -> None:
    model = msgspec.structs.replace(compact(tmp_path, scale=2), family="waifu")
    with pytest.raises(BadWeights, match="'waifu'; spandrel and swin2sr"):
        load_upscaler(model, device)


def test_a_users_file_is_described_with_its_scale_and_size(tmp_path: Path) -> None:
    path = Path(compact(tmp_path, scale=4).source.removeprefix("file:"))
    found = describe_path(path, name="sharp")
    assert (found.name, found.kind, found.family) == ("sharp", "upscaler", "spandrel")
    assert (found.scale, found.source) == (4, f"file:{path}")
    assert found.size_bytes == path.stat().st_size


def test_a_users_swin2sr_folder_is_described_with_its_scale_and_size(good_folder: Path) -> None:
    found = describe_path(good_folder, name="sharp")
    assert (found.kind, found.family, found.scale) == ("upscaler", "swin2sr", 2)
    assert found.source == f"folder:{good_folder}"
    assert found.size_bytes == (good_folder / "model.safetensors").stat().st_size


def test_a_network_that_fails_on_a_picture_is_not_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_arguments: object, **_more: object) -> Picture:
        raise RuntimeError("shapes cannot be multiplied")

    monkeypatch.setattr(Upscaler, "enlarge", fail)
    path = Path(compact(tmp_path, scale=2).source.removeprefix("file:"))
    with pytest.raises(BadWeights, match=r"fails on a picture .*shapes cannot be multiplied"):
        describe_path(path, name="mine")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no accelerator here")
def test_a_gpu_draws_nearly_what_a_cpu_draws(tmp_path: Path, device: TorchDevice) -> None:
    picture = photograph(700, 300)
    for model in (compact(tmp_path, scale=4), swin2sr(tmp_path / "swin")):
        on_cpu, on_gpu = (
            load_upscaler(model, here).enlarge(picture, 4, between_tiles=ignore)
            for here in (device, choose_device("cuda", threads=1))
        )
        assert np.abs(pixels(on_cpu).astype(int) - pixels(on_gpu)).max() <= 3


def test_a_path_where_nothing_is_says_what_would_do(tmp_path: Path) -> None:
    with pytest.raises(InvalidParams, match=r"nothing at .*\.onnx file"):
        describe_path(tmp_path / "gone", name="mine")


def test_a_file_of_another_kind_says_what_would_do(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InvalidParams, match=r"notes.txt is no model .*\.safetensors"):
        describe_path(tmp_path / "notes.txt", name="mine")


def test_a_folder_around_the_file_names_the_file(tmp_path: Path) -> None:
    compact(tmp_path, scale=2)
    with pytest.raises(BadWeights, match=r"compact\.safetensors; name that file"):
        describe_path(tmp_path, name="mine")
