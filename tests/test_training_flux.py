"""The trainer with a Flux of random weights: a flow-matching transformer over packed latents."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from PIL import Image

from imageloom.domain.catalog import Model
from imageloom.domain.errors import InvalidParams
from imageloom.domain.work import GenerationWork, LoraUse, TrainingPicture
from imageloom.images import Picture
from imageloom.runtime.training import open_trainer

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

from imageloom.runtime.folders import describe_folder  # noqa: E402
from imageloom.runtime.stock import StockPipeline  # noqa: E402  # needs torch
from imageloom.runtime.torch_device import TorchDevice, choose_device  # noqa: E402
from imageloom.runtime.training.base import Base  # noqa: E402
from imageloom.runtime.training.checkpoint import read_tensors  # noqa: E402
from imageloom.runtime.training.plan import Size  # noqa: E402
from test_training_runtime import (  # noqa: E402  # needs torch
    TINY,
    Heard,
    Trained,
    _work,
    loaded_layers,
    pictures,
    train,
    without_warnings,
)

__all__ = ["pictures"]  # a fixture

PROMPT = "a dress"
SIDE = 256
# A double block has 4 layers of attention and 2 more, for the picture and for the text; a single
# one 3 and 2.
LAYERS = 2 * (4 + 2) + 2 * (3 + 2)


@pytest.fixture(scope="module")
def device() -> TorchDevice:
    return choose_device("cpu", threads=1)


@pytest.fixture(scope="module", params=["schnell", "dev"])
def flux(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A Flux that takes no guidance, and one that is told it and shifts its timesteps."""
    folder = tmp_path_factory.mktemp("models") / f"tiny-{request.param}"
    random_flux(distilled=request.param == "dev").save_pretrained(folder)
    model = describe_folder(folder, name=folder.name)
    return msgspec.structs.replace(model, steps=2, guidance_scale=3.5)


def random_flux(*, distilled: bool) -> Any:
    """A `FluxPipeline` with random weights; `distilled` to be told its guidance."""
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        FluxPipeline,
        FluxTransformer2DModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=16,
        axes_dims_rope=(4, 4, 8),
        guidance_embeds=distilled,
    )
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 4, 4),
        norm_num_groups=2,
        latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        scaling_factor=0.36,
        shift_factor=0.11,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    clip = CLIPTextConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=890,
        max_position_embeddings=77,
        bos_token_id=888,
        eos_token_id=889,
        pad_token_id=889,
    )
    t5 = T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=300)
    tiny = StockPipeline.load(TINY, choose_device("cpu", threads=1))._text_to_image
    return FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=distilled),
        vae=vae,
        text_encoder=CLIPTextModel(clip),
        tokenizer=tiny.tokenizer,
        text_encoder_2=T5EncoderModel(t5),
        tokenizer_2=_words(),
        transformer=transformer,
    )


def _words() -> Any:
    """A tokenizer of T5's kind that knows letters."""
    from transformers import T5TokenizerFast

    pieces = ["<pad>", "</s>", "<unk>", "▁", *map(chr, range(97, 123))]
    return T5TokenizerFast(vocab=[(piece, -1.0) for piece in pieces], extra_ids=0)


@pytest.fixture(scope="module")
def trained(
    flux: Model,
    pictures: tuple[TrainingPicture, ...],
    device: TorchDevice,
    tmp_path_factory: pytest.TempPathFactory,
) -> Trained:
    """Twelve steps of two pictures, checkpoints after 5, 10 and 12."""
    folder = tmp_path_factory.mktemp("trained")
    named = tuple(
        msgspec.structs.replace(picture, caption=f"zwx, {picture.caption}") for picture in pictures
    )
    work = _work(
        named,
        folder,
        model=flux,
        resolution=SIDE,
        epochs=4,
        learning_rate=2e-2,
        checkpoint_every=5,
        sample_prompts=(PROMPT,),
    )
    return Trained(work, train(work, device))


def test_the_loss_falls(trained: Trained) -> None:
    judged = [one["held_out_loss"] for one in trained.heard.checkpoints]
    assert judged == sorted(judged, reverse=True)
    assert judged[-1] < 0.98 * judged[0]


def test_a_resumed_training_equals_the_undisturbed_one(
    trained: Trained, device: TorchDevice, tmp_path: Path
) -> None:
    begun = trained.heard.checkpoints[1]
    heard = train(
        msgspec.structs.replace(trained.work, folder=str(tmp_path), resume=begun["path"]), device
    )
    assert [step["step"] for step in heard.steps] == [11, 12]
    assert [step["loss"] for step in heard.steps] == [
        step["loss"] for step in trained.heard.steps[10:]
    ]
    (last,) = heard.checkpoints
    assert last["held_out_loss"] == trained.heard.checkpoints[-1]["held_out_loss"]
    for kind in ("path", "adapter_path"):
        there = Path(trained.heard.checkpoints[-1][kind])
        assert Path(last[kind]).read_bytes() == there.read_bytes()


def test_every_trained_layer_loads_in_a_stock_pipeline_and_draws_the_same(
    trained: Trained, device: TorchDevice
) -> None:
    tensors, metadata = read_tensors(trained.adapter)
    assert len(tensors) == 2 * LAYERS
    assert all(tensor.any() for tensor in tensors.values())
    assert json.loads(metadata["lora_adapter_metadata"])["transformer.lora_alpha"] == 8.0
    model = StockPipeline.load(trained.work.model, device)
    plain, ours = drawn(model), drawn(model, trained.adapter)
    pipeline = model._text_to_image
    with without_warnings("transformer"):
        pipeline.load_lora_weights(str(trained.adapter), adapter_name="mine")
    loaded = loaded_layers(pipeline, "mine")
    assert loaded.keys() == tensors.keys()
    assert all(torch.equal(parameter, tensors[name]) for name, parameter in loaded.items())
    assert drawn(model) == ours == trained.heard.pictures[-1]["picture"] != plain


def drawn(model: StockPipeline, adapter: Path | None = None) -> Picture:
    """What a generation draws."""
    uses = ()
    if adapter is not None:
        uses = (LoraUse(name="mine", path=str(adapter), sha256="mine", weight=1.0),)
    asked = GenerationWork(
        model=model._model,
        prompt=PROMPT,
        negative_prompt=None,
        width=SIDE,
        height=SIDE,
        steps=model._model.steps,
        guidance_scale=model._model.guidance_scale,
        strength=0.6,
        seeds=(5,),
        image=None,
        loras=uses,
    )
    return model.draw(asked, seed=5, between_steps=lambda _: None)


def test_the_transformer_is_asked_as_the_pipeline_asks_it(flux: Model, device: TorchDevice) -> None:
    """One step of the pipeline, from noise to a picture, is one answer times the step's length."""
    base = Base(flux, device)
    with torch.no_grad():
        row = base.begin(PROMPT, side=SIDE, steps=1, seed=3)
        base.step(row)
        found = base.drawn_example(row, PROMPT)
        pipeline = base._pipeline
        noise, _ = pipeline.prepare_latents(
            1, 4, SIDE, SIDE, torch.float32, device.device, torch.Generator().manual_seed(3)
        )
        start = base._family.unpacked(noise, size=(SIDE, SIDE))
        told = None if found.told is None else torch.tensor([flux.guidance_scale])
        example = dataclasses.replace(found, told=told)
        answer = base.answer(start, torch.tensor([1000.0]), [example])
    assert torch.allclose(start - answer, found.latents, atol=1e-5)


def test_a_picture_is_encoded_as_the_pipeline_decodes_it(
    flux: Model, device: TorchDevice, pictures: tuple[TrainingPicture, ...]
) -> None:
    base = Base(flux, device)
    path, size = Path(pictures[0].path), Size(width=SIDE, height=SIDE)
    with torch.no_grad():
        example = base.example(path, PROMPT, size=size, flip=False)
        vae = base._pipeline.vae
        raw = example.latents / vae.config.scaling_factor + vae.config.shift_factor
        with Image.open(path) as image:
            pixels = base._pipeline.image_processor.preprocess(
                image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
            )
        assert torch.allclose(raw, vae.encode(pixels).latent_dist.mode(), atol=1e-4)


def test_training_its_text_encoders_is_refused_by_name(
    trained: Trained, device: TorchDevice
) -> None:
    work = msgspec.structs.replace(trained.work, text_encoders=True)
    with pytest.raises(InvalidParams, match=r"config\.text_encoders: 'tiny-\w+' is of the family"):
        open_trainer(work, Heard(), device)
