"""The trainer with the embedded model: what it learns, keeps, and goes on from."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from imageloom.domain.catalog import BUILTIN, Model
from imageloom.domain.errors import BadWeights, InvalidInput, InvalidParams
from imageloom.domain.work import GenerationWork, LoraUse, TrainingPicture, TrainingWork
from imageloom.images import Picture
from imageloom.runtime.training import open_trainer
from imageloom.runtime.training.ordinary import ORDINARY, prompts_beside, prompts_to_keep
from imageloom.runtime.training.plan import Size, bucket, count_steps, steps_of_epoch

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

from diffusers import UNet2DConditionModel  # noqa: E402  # needs torch

from imageloom.runtime.folders import describe_folder  # noqa: E402
from imageloom.runtime.stock import StockPipeline  # noqa: E402
from imageloom.runtime.torch_device import TorchDevice, choose_device  # noqa: E402
from imageloom.runtime.training import trainer  # noqa: E402
from imageloom.runtime.training.adapter import Adapter  # noqa: E402
from imageloom.runtime.training.base import Base  # noqa: E402
from imageloom.runtime.training.checkpoint import read_state, read_tensors, write_tensors  # noqa: E402
from imageloom.runtime.training.layouts import to_kohya  # noqa: E402
from imageloom.runtime.training.objective import (  # noqa: E402
    Diffusion,
    Flow,
    learning_rate,
    spread,
)
from imageloom.runtime.units import Dropped, Savable  # noqa: E402
from test_runtime import _random_sd1  # noqa: E402

TINY = next(model for model in BUILTIN if model.name == "imageloom-tiny")
LAYERS = 84  # linear layers of the tiny model's transformers
TEXT_LAYERS = 30  # and of its text encoders, two layers deep and three


@dataclass
class Heard:
    """An attempt that remembers what it was told, and is cancelled at a step if asked to."""

    key: str = "t/1"
    cancel_at: float = math.inf
    steps: list[dict[str, Any]] = field(default_factory=list)
    checkpoints: list[dict[str, Any]] = field(default_factory=list)
    pictures: list[dict[str, Any]] = field(default_factory=list)

    def between_steps(self, progress: float) -> None:
        if len(self.steps) >= self.cancel_at:
            raise Dropped("t/1")

    def deliver(self, **told: Any) -> None:
        self.pictures.append(told)

    def report_step(self, **told: Any) -> None:
        self.steps.append(told)

    def report_checkpoint(self, **told: Any) -> None:
        assert Path(told["path"]).is_file()
        assert Path(told["adapter_path"]).is_file()
        self.checkpoints.append(told)


@pytest.fixture(scope="module")
def device() -> TorchDevice:
    return choose_device("cpu", threads=1)


@pytest.fixture(scope="module", autouse=True)
def few_prompts_kept() -> Iterator[None]:
    """Four prompts are kept in the place of dozens: what is done with them is the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "prompts_to_keep", lambda captions: prompts_to_keep(captions)[:3])
        patch.setattr(trainer, "prompts_beside", lambda captions: prompts_beside(captions)[:1])
        yield


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainingPicture, ...]:
    """Six checkered squares, two of them wide, and one that is held out."""
    folder = tmp_path_factory.mktemp("pictures")
    made = []
    for index in range(7):
        wide = index in (2, 3)
        y, x = np.mgrid[0:96, 0 : 160 if wide else 96]
        checks = (x // 12 + y // 12) % 2 * (90 + 20 * index)
        rgb = np.stack([checks, checks // 2, 255 - checks], axis=-1).astype(np.uint8)
        path = folder / f"{index}.png"
        Image.fromarray(rgb).save(path)
        caption = f"a checkered dress number {index}" if index else "a dress"
        made.append(TrainingPicture(path=str(path), caption=caption, held_out=index == 6))
    return tuple(made)


@pytest.fixture
def work(pictures: tuple[TrainingPicture, ...], tmp_path: Path) -> TrainingWork:
    return _work(pictures, tmp_path)


def _work(pictures: tuple[TrainingPicture, ...], folder: Path, **changes: Any) -> TrainingWork:
    plain = TrainingWork(
        model=TINY,
        pictures=pictures,
        epochs=3,
        learning_rate=2e-3,
        batch_size=2,
        gradient_accumulation=1,
        rank=4,
        alpha=8.0,
        resolution=64,
        seed=5,
        schedule="cosine",
        warmup_steps=2,
        min_snr_gamma=5.0,
        noise_offset=0.0,
        flip=False,
        text_encoders=False,
        checkpoint_every=4,
        sample_prompts=("zwx, a dress",),
        layout="diffusers",
        folder=str(folder),
    )
    return msgspec.structs.replace(plain, **changes)


def train(work: TrainingWork, device: TorchDevice, heard: Heard | None = None) -> Heard:
    heard = heard or Heard()
    units = open_trainer(work, heard, device)
    while not units.step():
        pass
    return heard


@dataclass(frozen=True)
class Trained:
    work: TrainingWork
    heard: Heard

    @property
    def adapter(self) -> Path:
        return Path(self.heard.checkpoints[-1]["adapter_path"])


@pytest.fixture(scope="module")
def named_pictures(pictures: tuple[TrainingPicture, ...]) -> tuple[TrainingPicture, ...]:
    return tuple(
        msgspec.structs.replace(picture, caption=f"zwx, {picture.caption}") for picture in pictures
    )


@pytest.fixture(scope="module")
def trained(
    named_pictures: tuple[TrainingPicture, ...],
    device: TorchDevice,
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    """Nine steps, three an epoch: flips, a noise offset, checkpoints after 4, 8 and 9."""
    folder = tmp_path_factory.mktemp("trained")
    work = _work(named_pictures, folder, flip=True, noise_offset=0.05)
    return Trained(work, train(work, device))


@pytest.fixture(scope="module")
def trained_with_text(
    named_pictures: tuple[TrainingPicture, ...],
    device: TorchDevice,
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    """Six steps of the UNet and both text encoders, checkpoints after 4 and 6."""
    folder = tmp_path_factory.mktemp("trained-with-text")
    work = _work(named_pictures, folder, text_encoders=True, epochs=2)
    return Trained(work, train(work, device))


@pytest.fixture(params=["trained", "trained_with_text"])
def either(request: pytest.FixtureRequest) -> Trained:
    """A training without and with the text encoders."""
    found: Trained = request.getfixturevalue(request.param)
    return found


def test_every_step_is_told_once_and_in_order(trained: Trained) -> None:
    told = trained.heard.steps
    assert [step["step"] for step in told] == list(range(1, 10))
    assert [step["epoch"] for step in told] == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert {step["steps"] for step in told} == {9}
    assert all(math.isfinite(step["loss"]) and step["images_per_second"] > 0 for step in told)


def test_checkpoints_come_every_so_often_and_at_the_end(trained: Trained) -> None:
    told = trained.heard.checkpoints
    assert [(one["step"], one["last"]) for one in told] == [(4, False), (8, False), (9, True)]
    assert all(one["held_out_loss"] > 0 for one in told)
    assert not list(Path(trained.work.folder).glob("*.part"))


def test_each_checkpoint_shows_each_prompt_with_its_own_seed(trained: Trained) -> None:
    told = trained.heard.pictures
    assert [(one["index"], one["seed"]) for one in told] == [(0, 5), (1, 5), (2, 5)]
    assert all((one["picture"].width, one["picture"].height) == (64, 64) for one in told)
    assert told[0]["picture"] != told[2]["picture"]


def test_a_resumed_training_equals_the_undisturbed_one_tensor_for_tensor(
    either: Trained, device: TorchDevice, tmp_path: Path
) -> None:
    begun = either.heard.checkpoints[0]
    heard = train(
        msgspec.structs.replace(either.work, folder=str(tmp_path), resume=begun["path"]), device
    )
    steps = len(either.heard.steps)
    assert [step["step"] for step in heard.steps] == list(range(begun["step"] + 1, steps + 1))
    assert [step["loss"] for step in heard.steps] == [
        step["loss"] for step in either.heard.steps[begun["step"] :]
    ]
    assert heard.pictures == either.heard.pictures[1:]
    for one, other in zip(heard.checkpoints, either.heard.checkpoints[1:], strict=True):
        assert one["held_out_loss"] == other["held_out_loss"]
        for kind in ("path", "adapter_path"):
            assert Path(one[kind]).read_bytes() == Path(other[kind]).read_bytes()


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was asked for, and the planned ones told until then."""

    path: Path
    told: dict[str, Any]
    planned: int


def train_saving(work: TrainingWork, device: TorchDevice, heard: Heard) -> list[Saved]:
    """Do a training that is saved after every unit from its first step on."""
    units = open_trainer(work, heard, device)
    assert isinstance(units, Savable)
    found: list[Saved] = []
    while not units.step():
        before = [len(heard.steps), len(heard.pictures)]
        units.save()
        assert not units.step()
        assert [len(heard.steps), len(heard.pictures)] == before
        if heard.steps:
            told = heard.checkpoints.pop()
            path = Path(work.folder) / f"{len(found)}.saved"
            Path(told["path"]).rename(path)  # the next one at this step has its name
            found.append(Saved(path=path, told=told, planned=len(heard.checkpoints)))
    return found


def checkpoints(heard: Heard) -> list[dict[str, Any]]:
    """Return what was told of checkpoints, with the bytes in the place of the paths."""
    return [
        {
            **told,
            "path": Path(told["path"]).read_bytes(),
            "adapter_path": Path(adapter).read_bytes(),
        }
        for told in heard.checkpoints
        for adapter in [told["adapter_path"]]
    ]


def test_a_training_saved_at_any_unit_goes_on_as_if_it_had_not_been(
    work: TrainingWork, device: TorchDevice, tmp_path: Path
) -> None:
    def into(name: str, resume: Path | None = None) -> TrainingWork:
        (tmp_path / name).mkdir()
        path = resume and str(resume)
        return msgspec.structs.replace(work, model=quick, folder=str(tmp_path / name), resume=path)

    quick = msgspec.structs.replace(TINY, steps=5)  # of each sample
    calm, disturbed = train(into("calm"), device), Heard()
    found = train_saving(into("disturbed"), device, disturbed)
    assert [step["loss"] for step in disturbed.steps] == [step["loss"] for step in calm.steps]
    assert disturbed.pictures == calm.pictures
    assert checkpoints(disturbed) == checkpoints(calm)
    assert {(one.told["planned"], one.told["held_out_loss"]) for one in found} == {(False, None)}
    by_place = {(saved.told["step"], saved.planned): saved for saved in found}
    # Between checkpoints; in the middle of one, whose sample is drawn; after it; in the last one.
    for place in ((2, 0), (4, 0), (4, 1), (9, 2)):
        saved = by_place[place]
        heard = train(into(f"from {place}", saved.path), device)
        assert [step["loss"] for step in heard.steps] == [
            step["loss"] for step in calm.steps[saved.told["step"] :]
        ]
        assert heard.pictures == calm.pictures[saved.planned :]
        assert checkpoints(heard) == checkpoints(calm)[saved.planned :]


def test_a_training_without_a_step_has_nothing_to_save(
    work: TrainingWork, device: TorchDevice
) -> None:
    heard = Heard()
    units = open_trainer(work, heard, device)
    assert isinstance(units, Savable)
    units.save()
    units.step()
    assert heard.checkpoints == []


def test_a_checkpoint_of_another_training_is_refused(trained: Trained, device: TorchDevice) -> None:
    other = msgspec.structs.replace(
        trained.work, seed=6, resume=trained.heard.checkpoints[0]["path"]
    )
    with pytest.raises(BadWeights, match="another training"):
        open_trainer(other, Heard(), device)


def test_a_file_that_is_no_checkpoint_is_refused(trained: Trained, device: TorchDevice) -> None:
    other = msgspec.structs.replace(trained.work, resume=str(trained.adapter))
    with pytest.raises(BadWeights, match="cannot be read"):
        open_trainer(other, Heard(), device)


def test_a_checkpoint_holds_the_adapter_and_both_moments(trained: Trained) -> None:
    state = read_state(Path(trained.heard.checkpoints[-1]["path"]))
    numbers = sum(tensor.numel() for tensor in state.adapter.values())
    assert state.step == 9
    assert state.first_moment.shape == state.second_moment.shape == (numbers,)
    adapter, _ = read_tensors(trained.adapter)
    assert adapter.keys() == state.adapter.keys()
    assert all(torch.equal(adapter[name], state.adapter[name]) for name in adapter)


def test_a_network_that_takes_other_inputs_is_refused_by_name(
    work: TrainingWork, device: TorchDevice, tmp_path: Path
) -> None:
    folder = tmp_path / "guided"
    pipeline: Any = _random_sd1()
    pipeline.unet = UNet2DConditionModel(**{**pipeline.unet.config, "time_cond_proj_dim": 8})
    pipeline.save_pretrained(folder)
    model = describe_folder(folder, name="mine")
    with pytest.raises(InvalidParams, match="base_model: the network of 'mine' takes other inputs"):
        open_trainer(msgspec.structs.replace(work, model=model), Heard(), device)


def test_a_cancel_leaves_at_the_next_step(work: TrainingWork, device: TorchDevice) -> None:
    heard = Heard(cancel_at=2)
    with pytest.raises(Dropped):
        train(work, device, heard)
    assert len(heard.steps) == 2


def loaded_layers(pipeline: Any, adapter: str) -> dict[str, Any]:
    """The matrices of an adapter that diffusers has loaded, by their names in our files."""
    found = {}
    for part in ("unet", "transformer", "text_encoder", "text_encoder_2"):
        network = getattr(pipeline, part, None)
        for name, parameter in network.named_parameters() if network is not None else ():
            if f".lora_A.{adapter}." in name or f".lora_B.{adapter}." in name:
                bare = name.replace(f".{adapter}.", ".").removeprefix("text_model.")
                level = "text_model." if part.startswith("text_encoder") else ""
                found[f"{part}.{level}{bare}"] = parameter
    return found


@contextmanager
def without_warnings(*networks: str) -> Iterator[None]:
    """Fail where diffusers or transformers warns of anything but an adapter of these alone."""
    told: list[str] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())

    listener = Listener(logging.WARNING)
    loggers = [logging.getLogger(name) for name in ("diffusers", "transformers")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.addHandler(listener)
            logger.setLevel(logging.WARNING)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(listener)
            logger.setLevel(level)
    absent = [f"prefix='{part}'" for part in ("text_encoder", "text_encoder_2")]
    allowed = [part for part in absent if part.split("'")[1] not in networks]
    assert [text for text in told if not any(part in text for part in allowed)] == []


def stock_picture(pipeline: Any, *, seed: int) -> Picture:
    image = pipeline(
        prompt="zwx, a dress",
        negative_prompt="",
        num_inference_steps=TINY.steps,
        guidance_scale=TINY.guidance_scale,
        width=64,
        height=64,
        original_size=(64, 64),
        target_size=(64, 64),
        generator=torch.Generator("cpu").manual_seed(seed),
    ).images[0]
    return Picture(width=image.width, height=image.height, rgb=image.tobytes())


@pytest.mark.parametrize("part", ["unet", "text_encoder", "text_encoder_2"])
def test_an_adapter_at_weight_zero_answers_as_the_base_does(
    trained_with_text: Trained, device: TorchDevice, part: str
) -> None:
    base = Base(TINY, device)
    path = Path(trained_with_text.work.pictures[0].path)
    example = base.example(path, "zwx, a dress", size=Size(width=64, height=64), flip=False)
    asked = (example.latents, torch.tensor([500]), [example])
    with torch.no_grad():
        before = base.answer(*asked)
        networks = base.networks(text_encoders=True)
        adapter = Adapter({part: networks[part]}, trained_with_text.work)
        assert torch.equal(base.answer(*asked), before)
        adapter.load(read_tensors(trained_with_text.adapter)[0])
        assert not torch.allclose(base.answer(*asked), before, atol=1e-3)
        with adapter.weighing(0.0):
            assert torch.equal(base.answer(*asked), before)


def drawn(model: StockPipeline, adapter: Path) -> Picture:
    """What a generation draws with the adapter."""
    asked = GenerationWork(
        model=TINY,
        prompt="zwx, a dress",
        negative_prompt="",
        width=64,
        height=64,
        steps=TINY.steps,
        guidance_scale=TINY.guidance_scale,
        strength=0.6,
        seeds=(5,),
        image=None,
        loras=(LoraUse(name="mine", path=str(adapter), sha256="mine", weight=1.0),),
    )
    return model.draw(asked, seed=5, between_steps=lambda _: None)


def levels_apart(one: Picture, other: Picture) -> int:
    """Return the most that a channel of a pixel differs, of 255."""
    values = [np.frombuffer(each.rgb, np.uint8).astype(np.int64) for each in (one, other)]
    return int(np.abs(values[0] - values[1]).max())


@pytest.mark.parametrize("layout", ["diffusers", "kohya"])
def test_every_trained_layer_loads_in_a_stock_pipeline_and_draws_the_same(
    either: Trained, device: TorchDevice, tmp_path: Path, layout: str
) -> None:
    path, (tensors, metadata) = either.adapter, read_tensors(either.adapter)
    if layout == "kohya":
        path = tmp_path / "kohya.safetensors"
        write_tensors(path, *to_kohya(tensors, metadata))
    model = StockPipeline.load(TINY, device)
    ours = drawn(model, path)
    pipeline = model._text_to_image
    with without_warnings(*{name.split(".")[0] for name in tensors}):
        pipeline.load_lora_weights(str(path), adapter_name="mine")
    loaded = loaded_layers(pipeline, "mine")
    assert loaded.keys() == tensors.keys()
    text = either.work.text_encoders
    assert len(tensors) == 2 * (LAYERS + (TEXT_LAYERS if text else 0))
    for name, parameter in loaded.items():
        assert torch.equal(parameter, tensors[name])
    told = either.heard.pictures[-1]["picture"]
    assert stock_picture(pipeline, seed=5) == told
    # Generation keeps its UNets in channels-last memory format: a rounding apart, at most.
    assert levels_apart(ours, told) <= 1


def test_captions_teach_the_text_encoders(trained_with_text: Trained) -> None:
    tensors, metadata = read_tensors(trained_with_text.adapter)
    moved = {name for name, tensor in tensors.items() if ".lora_B." in name and tensor.any()}
    # The last layer of SDXL's first encoder is computed, and read by nothing.
    unread = {
        name for name in tensors if name.startswith("text_encoder.text_model.encoder.layers.1.")
    }
    assert moved == {name for name in tensors if ".lora_B." in name} - unread
    entries = json.loads(metadata["lora_adapter_metadata"])
    for part in ("unet", "text_encoder", "text_encoder_2"):
        assert (entries[f"{part}.r"], entries[f"{part}.lora_alpha"]) == (4, 8.0)
        named = {
            name.removesuffix(".lora_B.weight") for name in moved if name.startswith(f"{part}.")
        }
        assert all(name.endswith(tuple(entries[f"{part}.target_modules"])) for name in named)


def test_every_layer_has_its_alpha_in_kohya_s_layout(trained_with_text: Trained) -> None:
    kohya, metadata = to_kohya(*read_tensors(trained_with_text.adapter))
    assert len(kohya) == 3 * (LAYERS + TEXT_LAYERS)
    parts = {name.split("_text_model_")[0] for name in kohya if not name.startswith("lora_unet_")}
    assert parts == {"lora_te1", "lora_te2"}
    assert {kohya[name].item() for name in kohya if name.endswith(".alpha")} == {8.0}
    assert json.loads(metadata["imageloom_adapter"])["imageloom.base_model"] == "imageloom-tiny"


def test_what_is_no_lora_has_no_kohya_layout() -> None:
    with pytest.raises(BadWeights, match="not of a LoRA"):
        to_kohya({"unet.conv_in.weight": torch.zeros(2, 2)}, {})


def test_equal_tensors_give_equal_bytes(tmp_path: Path) -> None:
    tensors = {"b": torch.arange(3.0), "a": torch.ones(2, dtype=torch.float16)}
    notes = {f"key {number}": "é" for number in range(20)}
    first, second = tmp_path / "1.safetensors", tmp_path / "2.safetensors"
    write_tensors(first, tensors, notes)
    write_tensors(second, dict(reversed(tensors.items())), dict(reversed(notes.items())))
    assert first.read_bytes() == second.read_bytes()
    read, metadata = read_tensors(first)
    assert metadata == notes
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


def test_a_loss_that_is_no_number_names_the_learning_rate(
    work: TrainingWork, device: TorchDevice
) -> None:
    wild = msgspec.structs.replace(work, learning_rate=1e30, warmup_steps=0, sample_prompts=())
    heard = Heard()
    with pytest.raises(InvalidParams, match=r"config.learning_rate: .* found 1e\+30, try 1e\+29"):
        train(wild, device, heard)
    assert heard.checkpoints == []


@pytest.mark.parametrize("name", ["z-image-turbo", "lanczos"])
def test_models_that_cannot_be_trained_are_refused_without_weights(
    work: TrainingWork, device: TorchDevice, name: str
) -> None:
    model = next(model for model in BUILTIN if model.name == name)
    with pytest.raises(InvalidParams, match=r"base_model: .* cannot be trained here"):
        open_trainer(msgspec.structs.replace(work, model=model), Heard(), device)


def test_a_picture_that_cannot_be_read_is_named(
    work: TrainingWork, device: TorchDevice, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    other = TrainingPicture(path=str(broken), caption="zwx, a dress")
    with pytest.raises(InvalidInput, match=r"broken\.png"):
        open_trainer(msgspec.structs.replace(work, pictures=(other,)), Heard(), device)


@pytest.fixture(scope="module")
def tiny_sd1(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A Stable Diffusion 1 with random weights, which predicts noise."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    vae = AutoencoderKL(block_out_channels=(4, 4, 4, 4), norm_num_groups=2,
                        down_block_types=("DownEncoderBlock2D",) * 4,
                        up_block_types=("UpDecoderBlock2D",) * 4)  # fmt: skip
    tokenizer = StockPipeline.load(TINY, choose_device("cpu", threads=1))._text_to_image.tokenizer
    text = CLIPTextModel(
        CLIPTextConfig(hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                       num_attention_heads=2, vocab_size=890, max_position_embeddings=40,
                       bos_token_id=888, eos_token_id=889, pad_token_id=889)
    )  # fmt: skip
    pipeline = StableDiffusionPipeline(
        unet=unet, vae=vae, text_encoder=text, tokenizer=tokenizer, scheduler=DDIMScheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("models") / "tiny-sd1"
    pipeline.save_pretrained(folder, safe_serialization=True)
    return Model(name="tiny-sd1", source=f"folder:{folder}", family="sd1", licence="mine", steps=2)


def test_stable_diffusion_1_is_trained_and_its_adapter_loads(
    work: TrainingWork, device: TorchDevice, tiny_sd1: Model
) -> None:
    work = msgspec.structs.replace(work, model=tiny_sd1, epochs=1, text_encoders=True)
    heard = train(work, device)
    tensors, metadata = read_tensors(Path(heard.checkpoints[-1]["adapter_path"]))
    assert {name.split(".")[0] for name in tensors} == {"unet", "text_encoder"}
    assert all(tensor.any() for tensor in tensors.values())
    kohya, _ = to_kohya(tensors, metadata)
    assert any(name.startswith("lora_te_text_model_") for name in kohya)
    pipeline = StockPipeline.load(tiny_sd1, device)._text_to_image
    for name, layout in (("ours", tensors), ("kohya", kohya)):
        with without_warnings("unet", "text_encoder"):
            pipeline.load_lora_weights(layout, adapter_name=name)
        assert loaded_layers(pipeline, name).keys() == tensors.keys()
        pipeline.unload_lora_weights()


def test_prompts_are_kept_with_the_adapters_own_words_taken_out() -> None:
    captions = ["a zwx dress on a white background", "Red zwx, a dress on a background"]
    kept = prompts_to_keep(captions)
    assert kept[: len(ORDINARY)] == ORDINARY
    assert kept[len(ORDINARY) :] == ("a dress on a white background", "Red a dress on a background")


def test_an_adapter_without_a_word_of_its_own_may_change_everything() -> None:
    assert prompts_to_keep(["a red hat", "a pair of shoes"]) == ()


@pytest.mark.parametrize(
    ("native_size", "told"), [(None, [80, 200, 0, 32, 64, 96]), (64, [64, 64, 0, 0, 64, 64])]
)
def test_a_cropped_picture_is_told_as_sdxl_learnt_it_unless_it_is_told_one_size(
    device: TorchDevice, tmp_path: Path, native_size: int | None, told: list[int]
) -> None:
    """Original height and width, what is cut off above and at the left, height and width."""
    path = tmp_path / "wide.png"
    Image.new("RGB", (200, 80)).save(path)
    base = Base(msgspec.structs.replace(TINY, native_size=native_size), device)
    example = base.example(path, "a dress", size=Size(width=96, height=64), flip=False)
    assert example.told is not None
    assert example.told.tolist() == [told]


@pytest.mark.parametrize(
    ("size", "side", "found"),
    [
        (Size(width=800, height=800), 64, Size(width=64, height=64)),
        (Size(width=1600, height=800), 64, Size(width=88, height=40)),
        (Size(width=300, height=3000), 64, Size(width=40, height=96)),
        (Size(width=1024, height=1024), 1024, Size(width=1024, height=1024)),
        (Size(width=3000, height=2000), 1024, Size(width=1216, height=832)),
    ],
)
def test_buckets_have_the_shape_of_the_picture(size: Size, side: int, found: Size) -> None:
    assert bucket(size, side=side) == found


@pytest.mark.parametrize("side", [64, 72, 256, 512, 768, 1024, 2048])
def test_buckets_are_multiples_of_8_and_within_the_area(side: int) -> None:
    for width in range(100, 2000, 130):
        found = bucket(Size(width=width, height=700), side=side)
        assert found.width % 8 == found.height % 8 == 0
        assert 0.6 * side * side <= found.width * found.height <= side * side


@pytest.mark.parametrize(("batch", "accumulation"), [(1, 1), (4, 1), (3, 2), (16, 4)])
def test_an_epoch_shows_every_picture_once_in_batches_of_one_size(
    batch: int, accumulation: int
) -> None:
    sizes = [Size(width=64, height=64 + 8 * (number % 3)) for number in range(17)]
    epochs = [
        steps_of_epoch(
            sizes, batch_size=batch, gradient_accumulation=accumulation, seed=1, epoch=epoch
        )
        for epoch in range(3)
    ]
    for steps in epochs:
        batches = [numbers for step in steps for numbers in step]
        assert sorted(number for numbers in batches for number in numbers) == list(range(17))
        assert all(len({sizes[number] for number in numbers}) == 1 for numbers in batches)
        assert max(map(len, batches)) <= batch
    assert sum(map(len, epochs)) == count_steps(
        sizes, batch_size=batch, gradient_accumulation=accumulation, epochs=3
    )
    assert epochs[0] != epochs[1]


def test_the_rate_warms_up_and_falls() -> None:
    def rate(step: int, schedule: Any) -> float:
        return learning_rate(step, steps=12, peak=1.0, warmup_steps=2, schedule=schedule)

    assert [rate(step, "constant") for step in (1, 2, 3, 12)] == [0.5, 1, 1, 1]
    cosine = [rate(step, "cosine") for step in range(1, 13)]
    assert cosine[:3] == [0.5, 1, 1]
    assert cosine[2:] == sorted(cosine[2:], reverse=True)
    assert 0 < cosine[-1] < 0.03


def test_timesteps_are_spread_and_each_is_possible() -> None:
    generator = torch.Generator().manual_seed(0)
    alpha = torch.linspace(0.9, 0.1, 8)
    diffusion = Diffusion(alpha=alpha, sigma=(1 - alpha**2).sqrt(), prediction="epsilon")
    drawn = torch.stack(
        [diffusion.timesteps(spread(4, generator=generator), alpha) for _ in range(200)]
    )
    assert (drawn // 2 == torch.arange(4)).all()
    assert sorted(set(drawn.flatten().tolist())) == list(range(8))


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_min_snr_bounds_the_weight_of_the_loss_on_the_picture(prediction: Any) -> None:
    alpha = torch.tensor([0.99, 0.9, 0.5, 0.0])
    diffusion = Diffusion(alpha=alpha, sigma=(1 - alpha**2).sqrt(), prediction=prediction)
    timesteps = torch.arange(4)
    weights = diffusion.weights(timesteps, min_snr_gamma=5.0)
    snr = alpha**2 / (1 - alpha**2)
    # An error of 1 in the prediction is one of sigma / alpha, or of sigma, in the picture.
    on_picture = weights * (snr if prediction == "epsilon" else snr + 1)
    assert torch.allclose(on_picture, snr.clamp(max=5))
    assert diffusion.weights(timesteps, min_snr_gamma=None).tolist() == [1, 1, 1, 1]


def test_velocity_gives_the_picture_back() -> None:
    alpha = torch.tensor([0.8, 0.0])
    diffusion = Diffusion(alpha=alpha, sigma=(1 - alpha**2).sqrt(), prediction="v_prediction")
    picture, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    timesteps = torch.arange(2)
    noisy = diffusion.noised(picture, noise, timesteps)
    velocity = diffusion.target(picture, noise, timesteps)
    shape = (2, 1, 1, 1)
    found = diffusion.alpha.view(shape) * noisy - diffusion.sigma.view(shape) * velocity
    assert torch.allclose(found, picture, atol=1e-6)


@pytest.fixture
def scheduler() -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler


def test_a_flow_leads_straight_from_the_picture_to_noise(scheduler: Any) -> None:
    flow = Flow.of(scheduler())
    picture, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    timesteps = torch.tensor([0.0, 250.0, 1000.0])
    noisy = flow.noised(picture, noise, timesteps)
    assert torch.equal(noisy[0], picture[0])
    assert torch.equal(noisy[2], noise[2])
    velocity = flow.target(picture, noise, timesteps)
    assert torch.allclose(noisy[1] - 0.25 * velocity[1], picture[1], atol=1e-6)
    assert flow.weights(timesteps, min_snr_gamma=5.0).tolist() == [1, 1, 1]


def test_a_flow_is_seen_most_in_the_middle_and_shifted_as_it_draws(scheduler: Any) -> None:
    shares = torch.linspace(0.1, 0.9, 9)
    small, large = torch.zeros(16, 32, 32), torch.zeros(16, 128, 128)  # 256 tokens and 4096
    plain = Flow.of(scheduler()).timesteps(shares, small)
    assert plain[4] == 500
    # Of the timesteps that are seen, 60 % lie in the middle third and a little around it.
    assert 299 < plain[1] < 302
    assert 698 < plain[7] < 701
    moved = Flow.of(scheduler(shift=3.0)).timesteps(shares, small)
    assert torch.allclose(moved, 1000 * 3 * plain / (1000 + 2 * plain))
    dynamic = Flow.of(scheduler(use_dynamic_shifting=True))
    for latents, mu in ((small, 0.5), (large, 1.15)):
        sigma = dynamic.timesteps(shares, latents) / 1000
        stretched = math.exp(mu) / (math.exp(mu) + 1000 / plain - 1)
        assert torch.allclose(sigma, stretched, atol=1e-6)
