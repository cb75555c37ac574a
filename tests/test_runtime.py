"""The stock path with real diffusers pipelines: the embedded model and tiny ones made here."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from imageloom.domain.catalog import BUILTIN, Model
from imageloom.domain.errors import BadWeights, InvalidParams, ModelNotInstalled
from imageloom.domain.work import GenerationWork, InputImage
from imageloom.images import Picture
from imageloom.runtime.folders import check_folder, describe_folder

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

from imageloom.device.failures import describe_failure  # noqa: E402  # needs torch
from imageloom.runtime.residency import Residency  # noqa: E402
from imageloom.runtime.stock import StockPipeline, usable_strength  # noqa: E402
from imageloom.runtime.torch_device import TorchDevice, choose_device  # noqa: E402
from imageloom.runtime.units import Dropped  # noqa: E402
from imageloom.runtime.weights import locate  # noqa: E402

TINY = next(model for model in BUILTIN if model.name == "imageloom-tiny")


@pytest.fixture(scope="module")
def device() -> TorchDevice:
    return choose_device("cpu", threads=1)


@pytest.fixture(scope="module")
def tiny(device: TorchDevice) -> StockPipeline:
    return StockPipeline.load(TINY, device)


@pytest.fixture(scope="module")
def sd1_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Stable Diffusion 1 pipeline with random weights, as a user's local folder."""
    folder = tmp_path_factory.mktemp("models") / "tiny-sd1"
    _random_sd1().save_pretrained(folder, safe_serialization=True)
    return folder


def work(**changes: object) -> GenerationWork:
    plain = GenerationWork(
        model=TINY,
        prompt="a red dress on a white background",
        negative_prompt="blurry",
        width=64,
        height=64,
        steps=4,
        guidance_scale=4.0,
        strength=0.5,
        seeds=(7,),
        image=None,
    )
    return msgspec.structs.replace(plain, **changes)


def draw(pipeline: StockPipeline, seed: int = 7, **changes: object) -> Picture:
    return pipeline.draw(work(**changes), seed=seed, between_steps=lambda _: None)


def grey(side: int = 64) -> InputImage:
    return InputImage(width=side, height=side, rgb=bytes([128]) * side * side * 3)


def test_same_seed_gives_the_same_bytes(tiny: StockPipeline) -> None:
    assert draw(tiny, seed=11) == draw(tiny, seed=11)


def test_another_seed_gives_another_picture(tiny: StockPipeline) -> None:
    assert draw(tiny, seed=11) != draw(tiny, seed=12)


def test_same_seed_gives_the_same_bytes_from_a_picture(tiny: StockPipeline) -> None:
    assert draw(tiny, image=grey()) == draw(tiny, image=grey())


@pytest.mark.parametrize("image", [None, grey()])
def test_drawing_writes_nothing_into_the_log(
    device: TorchDevice, capfd: pytest.CaptureFixture[str], image: InputImage | None
) -> None:
    draw(StockPipeline.load(TINY, device), image=image)
    assert capfd.readouterr() == ("", "")


def test_progress_is_reported_at_every_denoising_step(tiny: StockPipeline) -> None:
    seen: list[float] = []
    tiny.draw(work(steps=5), seed=1, between_steps=seen.append)
    assert seen == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_progress_from_a_picture_ends_at_one(tiny: StockPipeline) -> None:
    seen: list[float] = []
    tiny.draw(work(steps=6, image=grey()), seed=1, between_steps=seen.append)
    assert seen == pytest.approx([1 / 3, 2 / 3, 1.0])


def test_cancel_leaves_at_the_next_step_and_the_pipeline_stays_usable(tiny: StockPipeline) -> None:
    before = draw(tiny, seed=3)
    steps = 0

    def stop_at_second(_progress: float) -> None:
        nonlocal steps
        steps += 1
        if steps == 2:
            raise Dropped("t/1")

    with pytest.raises(Dropped):
        tiny.draw(work(steps=50), seed=1, between_steps=stop_at_second)
    assert steps == 2
    assert draw(tiny, seed=3) == before


@pytest.mark.parametrize("steps", range(1, 101))
def test_usable_strength_always_leaves_a_step(steps: int) -> None:
    for strength in (1e-6, 0.001, 1 / steps, 0.5, 1.0):
        assert 1 <= int(steps * usable_strength(strength, steps)) <= steps


def test_tiny_strength_draws_instead_of_failing(tiny: StockPipeline) -> None:
    assert draw(tiny, image=grey(), strength=1e-6, steps=3).width == 64


@pytest.mark.parametrize(("width", "height"), [(48, 88), (128, 64), (64, 64)])
def test_other_proportions_are_drawn_at_the_asked_size(
    tiny: StockPipeline, width: int, height: int
) -> None:
    picture = draw(tiny, width=width, height=height)
    assert (picture.width, picture.height) == (width, height)


@pytest.mark.parametrize("prompt", ["x" * 4000, "ein rotes Kleid, 赤いドレス, 👗", "(((((:::"])
def test_any_text_is_drawn(tiny: StockPipeline, prompt: str) -> None:
    assert draw(tiny, prompt=prompt, steps=1).width == 64


def test_a_users_own_folder_is_described_and_drawn(sd1_folder: Path, device: TorchDevice) -> None:
    model = describe_folder(sd1_folder, name="mine")
    assert (model.family, model.source) == ("sd1", f"folder:{sd1_folder}")
    pipeline = StockPipeline.load(model, device)
    assert draw(pipeline, model=model).width == 64
    assert draw(pipeline, model=model, image=grey()).width == 64


def test_residency_keeps_what_fits_and_evicts_the_least_recently_used(
    sd1_folder: Path, device: TorchDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = describe_folder(sd1_folder, name="mine")
    other = msgspec.structs.replace(mine, name="other")
    monkeypatch.setattr(TorchDevice, "budget", lambda _self: int(mine.size_bytes * 1.5))
    residency = Residency(device)
    first = residency.get(mine, StockPipeline.load)
    assert residency.get(mine, StockPipeline.load) is first
    residency.get(other, StockPipeline.load)
    assert residency.names() == ("other",)


def test_a_folder_draws_at_the_side_that_its_network_was_made_for() -> None:
    folder = locate(TINY)
    assert describe_folder(folder, name="mine").default_size == TINY.native_size


def test_a_model_that_is_not_here_names_the_command_that_gets_it() -> None:
    missing = next(model for model in BUILTIN if model.name == "sd-xl-base")
    with pytest.raises(ModelNotInstalled, match="imageloom models pull sd-xl-base"):
        locate(missing)


def test_a_folder_that_vanished_is_not_installed(tmp_path: Path) -> None:
    gone = msgspec.structs.replace(TINY, name="mine", source=f"folder:{tmp_path / 'gone'}")
    with pytest.raises(ModelNotInstalled, match="mine"):
        locate(gone)


BAD_INDEXES = {
    "is not JSON": "{",
    "its own pipeline code": '{"_class_name": ["pipeline", "Mine"]}',
    "comes from 'evil_code'": '{"_class_name": "X", "unet": ["evil_code", "Net"]}',
    "no .safetensors weights": '{"_class_name": "StableDiffusionPipeline"}',
}


@pytest.mark.parametrize(("complaint", "index"), BAD_INDEXES.items())
def test_a_folder_that_must_not_be_loaded_is_refused(
    tmp_path: Path, complaint: str, index: str
) -> None:
    (tmp_path / "model_index.json").write_text(index)
    with pytest.raises(BadWeights, match=complaint):
        check_folder(tmp_path, name="mine")


def test_a_folder_with_pickles_only_is_refused(tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    (tmp_path / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"\x80\x04")
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(BadWeights, match="pickles"):
        check_folder(tmp_path, name="mine")


def test_a_device_that_is_not_here_is_named() -> None:
    with pytest.raises(InvalidParams, match="cuda:7"):
        choose_device("cuda:7", threads=1)


FAILURES = [
    (
        torch.OutOfMemoryError("CUDA out of memory. Tried"),
        "out_of_memory",
        True,
        "CUDA out of memory",
    ),
    (
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        "out_of_memory",
        True,
        "CUDA out of memory",
    ),
    (MemoryError(), "out_of_memory", True, "out of memory"),
    (ModelNotInstalled("the weights of x"), "model_not_installed", False, "the weights of x"),
    (InvalidParams("bad", param="image"), "invalid_params", False, "bad"),
    (ZeroDivisionError("secret path"), "device_fault", True, "ZeroDivisionError"),
]


@pytest.mark.parametrize(("exc", "code", "retryable", "text"), FAILURES)
def test_every_exception_becomes_a_failure_fit_for_the_user(
    exc: Exception, code: str, retryable: bool, text: str
) -> None:
    failure = describe_failure("t/1", exc)
    assert (failure.code, failure.retryable) == (code, retryable)
    assert text in failure.message
    assert "secret" not in failure.message


@pytest.fixture(scope="module")
def gpu() -> TorchDevice:
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine: the device path on CUDA was not tried")
    return choose_device("cuda", threads=1)


@pytest.mark.gpu
def test_same_seed_gives_the_same_bytes_on_a_gpu(gpu: TorchDevice) -> None:
    pipeline = StockPipeline.load(TINY, gpu)
    assert draw(pipeline, seed=11) == draw(pipeline, seed=11)


def _random_sd1() -> object:
    """A complete Stable Diffusion 1 pipeline of about a megabyte, with the tiny tokenizer."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    tokenizer = CLIPTokenizer.from_pretrained(locate(TINY) / "tokenizer")
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=40,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return StableDiffusionPipeline(
        vae=AutoencoderKL(
            block_out_channels=(16, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            norm_num_groups=8,
            latent_channels=4,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=tokenizer,
        unet=UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=8,
            norm_num_groups=8,
        ),
        scheduler=DDIMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def test_catalog_entries_are_pinned() -> None:
    for model in BUILTIN:
        assert model.source.startswith("builtin:") or len(model.revision or "") == 40, model.name


def test_a_changed_entry_is_another_model() -> None:
    changed = msgspec.structs.replace(TINY, revision="0" * 40)
    assert isinstance(changed, Model)
    assert changed != TINY
