"""Drawing with LoRA adapters: against diffusers' own way, and leaving no trace."""

from __future__ import annotations

import gc
import json
import pickle
import re
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from imageloom.domain.catalog import BUILTIN
from imageloom.domain.errors import BadWeights
from imageloom.domain.work import GenerationWork, InputImage, LoraUse
from imageloom.images import Picture

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

from peft import LoraConfig, get_peft_model_state_dict  # noqa: E402  # needs torch
from safetensors.torch import save, save_file  # noqa: E402

from imageloom.runtime import adapter_use  # noqa: E402
from imageloom.runtime.adapters import AdapterLimits, read_adapter  # noqa: E402
from imageloom.runtime.folders import describe_folder  # noqa: E402
from imageloom.runtime.stock import StockPipeline  # noqa: E402
from imageloom.runtime.torch_device import TorchDevice, choose_device  # noqa: E402
from imageloom.runtime.units import Dropped  # noqa: E402
from test_runtime import _random_sd1  # noqa: E402  # needs torch

TINY = next(model for model in BUILTIN if model.name == "imageloom-tiny")
ATTENTION = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
CONVOLUTION = "unet.down_blocks.1.resnets.0.conv1"
TEXT = "text_encoder_2.text_model.encoder.layers.1.mlp.fc2"


@pytest.fixture(scope="module")
def device() -> TorchDevice:
    return choose_device("cpu", threads=1)


@pytest.fixture(scope="module")
def tiny(device: TorchDevice) -> StockPipeline:
    return StockPipeline.load(TINY, device)


@pytest.fixture
def reference(device: TorchDevice) -> StockPipeline:
    """A pipeline of its own, for diffusers to put adapters into."""
    return StockPipeline.load(TINY, device)


@pytest.fixture(scope="module")
def layers(tiny: StockPipeline) -> dict[str, Any]:
    """Every layer of the tiny model that an adapter may change, by its own name."""
    return changeable(tiny, "unet", "text_encoder", "text_encoder_2")


@pytest.fixture(scope="module")
def attention(layers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of the UNet's attention, as trainings make it."""
    names = [name for name in layers if re.search(r"attn\d\.to_", name)]
    path = tmp_path_factory.mktemp("adapters") / "attention.safetensors"
    save_file(matrices(layers, names), path)
    return path


@pytest.fixture(scope="module")
def broad(layers: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter of every layer there is, convolutions and text encoders too."""
    path = tmp_path_factory.mktemp("adapters") / "broad.safetensors"
    # diffusers has no rule for the adapter of a projection after the second text encoder.
    names = [name for name in layers if name != "text_encoder_2.text_projection"]
    save_file(matrices(layers, names, seed=1, strength=0.04), path)
    return path


def changeable(pipeline: StockPipeline, *components: str) -> dict[str, Any]:
    return {
        f"{component}.{path}": module
        for component in components
        for path, module in getattr(pipeline._text_to_image, component).named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)
    }


def matrices(
    layers: Mapping[str, Any],
    names: Sequence[str],
    *,
    rank: int = 4,
    seed: int = 0,
    strength: float = 0.1,
) -> dict[str, Any]:
    """Random matrices for these layers, by the names of peft."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in names:
        out, *rest = layers[name].weight.shape
        down = torch.randn(rank, *rest, generator=generator) / rank
        up = torch.randn(out, rank, *[1] * (len(rest) - 1), generator=generator) * strength
        tensors |= {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}
    return tensors


def use(path: Path, weight: float = 1.0, *, name: str = "mine", sha256: str = "") -> LoraUse:
    return LoraUse(name=name, path=str(path), sha256=sha256 or path.name, weight=weight)


def draw(pipeline: StockPipeline, *loras: LoraUse, **changes: object) -> Picture:
    return pipeline.draw(work(*loras, **changes), seed=7, between_steps=lambda _: None)


def work(*loras: LoraUse, **changes: object) -> GenerationWork:
    plain = GenerationWork(
        model=TINY,
        prompt="a red dress on a white background",
        negative_prompt="blurry",
        width=64,
        height=64,
        steps=3,
        guidance_scale=4.0,
        strength=0.7,
        seeds=(7,),
        image=None,
        loras=loras,
    )
    return msgspec.structs.replace(plain, **changes)


def difference(one: Picture, other: Picture) -> int:
    return max(abs(a - b) for a, b in zip(one.rgb, other.rgb, strict=True))


def written(folder: Path, tensors: Mapping[str, Any], **metadata: str) -> Path:
    path = folder / "adapter.safetensors"
    save_file(dict(tensors), path, metadata or None)
    return path


# What diffusers makes of the same file


def test_an_adapter_of_every_layer_draws_what_diffusers_draws(
    tiny: StockPipeline, reference: StockPipeline, broad: Path
) -> None:
    ours = draw(tiny, use(broad))
    assert difference(ours, draw(tiny)) > 20
    reference._text_to_image.load_lora_weights(str(broad))
    assert difference(ours, draw(reference)) <= 1


def test_an_adapter_that_peft_trained_and_diffusers_saved_keeps_its_alpha(
    tiny: StockPipeline, reference: StockPipeline, tmp_path: Path
) -> None:
    from diffusers.training_utils import _collate_lora_metadata

    pipeline = reference._text_to_image
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "proj_in"]
    config = LoraConfig(
        r=4,
        lora_alpha=6,
        target_modules=targets,
        alpha_pattern={"to_v": 2},
        init_lora_weights=False,
    )
    torch.manual_seed(0)
    pipeline.unet.add_adapter(config)
    for name, parameter in pipeline.unet.named_parameters():
        if ".lora_" in name:
            parameter.data.normal_(std=0.1)
    pipeline.save_lora_weights(
        tmp_path,
        unet_lora_layers=get_peft_model_state_dict(pipeline.unet),
        **_collate_lora_metadata({"unet": pipeline.unet}),
    )
    file = tmp_path / "pytorch_lora_weights.safetensors"
    ours = draw(tiny, use(file, sha256="peft"))
    assert difference(ours, draw(tiny)) > 20
    assert difference(ours, draw(reference)) <= 1
    scales = {layer.scale for layer in read_adapter(file, name="mine").layers.values()}
    assert scales == {1.5, 0.5}


@pytest.mark.parametrize("naming", ["diffusers", "sgm"])
def test_the_kohya_layout_draws_what_diffusers_draws(
    tiny: StockPipeline,
    reference: StockPipeline,
    layers: dict[str, Any],
    tmp_path: Path,
    naming: str,
) -> None:
    file = written(tmp_path, kohya(layers, naming))
    ours = draw(tiny, use(file, sha256=naming))
    assert difference(ours, draw(tiny)) > 20
    reference._text_to_image.load_lora_weights(str(file))
    assert difference(ours, draw(reference)) <= 1


# Of the research code's UNet, where this model has four blocks on the way down.
SGM = {
    "down_blocks.0.resnets.0.conv1": "input_blocks.1.0.in_layers.2",
    "down_blocks.1.resnets.0.conv_shortcut": "input_blocks.3.0.skip_connection",
    "down_blocks.1.attentions.0.proj_in": "input_blocks.3.1.proj_in",
    "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q": (
        "input_blocks.3.1.transformer_blocks.0.attn1.to_q"
    ),
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "mid_block.attentions.0.transformer_blocks.0.attn2.to_out.0": (
        "middle_block.1.transformer_blocks.0.attn2.to_out.0"
    ),
    "mid_block.resnets.1.conv2": "middle_block.2.out_layers.3",
    "up_blocks.0.attentions.1.transformer_blocks.0.ff.net.2": (
        "output_blocks.1.1.transformer_blocks.0.ff.net.2"
    ),
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.resnets.0.time_emb_proj": "output_blocks.2.0.emb_layers.1",
    "up_blocks.2.resnets.1.conv1": "output_blocks.5.0.in_layers.2",
}


def kohya(layers: dict[str, Any], naming: str) -> dict[str, Any]:
    """An adapter of UNet and both text encoders in kohya's layout, with alpha 2 of rank 4."""
    names = {f"unet.{ours}": theirs for ours, theirs in SGM.items()}
    # diffusers tells the layout of a text encoder by its last attention layer: it must be there.
    texts = [name for name in layers if "layers.0.self_attn" in name or name == TEXT]
    tensors = {}
    for key, tensor in matrices(layers, [*names, *texts], strength=0.3).items():
        layer, end = key.rsplit(".lora_", 1)
        component, _, path = layer.partition(".")
        if component == "unet":
            known = f"lora_unet_{names[layer] if naming == 'sgm' else path}"
        else:
            number = 2 if component.endswith("2") else 1
            known = f"lora_te{number}_text_model.{path.removeprefix('text_model.')}"
        known = known.replace(".", "_")
        tensors[f"{known}.lora_{'down' if end[0] == 'A' else 'up'}.weight"] = tensor
        tensors[f"{known}.alpha"] = torch.tensor(2.0)
    return tensors


@pytest.mark.parametrize("end", [".lora", ".lora_linear_layer", "_lora"])
def test_what_diffusers_once_wrote_is_the_same_adapter(
    attention: Path, tmp_path: Path, end: str
) -> None:
    today = read_adapter(attention, name="mine").layers
    tensors = {}
    for name, layer in today.items():
        old = re.sub(r"\.to_(\w+)(\.0)?$", r".processor.to_\1", name) if end == "_lora" else name
        tensors |= {f"{old}{end}.down.weight": layer.down, f"{old}{end}.up.weight": layer.up}
    then = read_adapter(written(tmp_path, tensors), name="mine").layers
    assert then.keys() == today.keys()
    assert all(torch.equal(then[name].up, today[name].up) for name in today)


# Several at once


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`")
def test_two_adapters_draw_what_diffusers_draws_with_both(
    tiny: StockPipeline, reference: StockPipeline, attention: Path, broad: Path
) -> None:
    pipeline = reference._text_to_image
    pipeline.load_lora_weights(str(attention), adapter_name="a")
    pipeline.load_lora_weights(str(broad), adapter_name="b")
    pipeline.set_adapters(["a", "b"], adapter_weights=[0.7, -0.5])
    assert draw(tiny, use(attention, 0.7), use(broad, -0.5)) == draw(reference)


def test_the_order_of_adapters_is_irrelevant(
    tiny: StockPipeline, attention: Path, broad: Path
) -> None:
    one = draw(tiny, use(attention, 0.7), use(broad, 0.5))
    other = draw(tiny, use(broad, 0.5), use(attention, 0.7))
    assert difference(one, other) <= 1


def test_an_adapter_named_twice_acts_with_the_sum_of_its_weights(
    tiny: StockPipeline, attention: Path
) -> None:
    twice = draw(tiny, use(attention, 0.75), use(attention, 0.25))
    assert difference(twice, draw(tiny, use(attention))) <= 1


def test_every_weight_draws_another_picture(tiny: StockPipeline, attention: Path) -> None:
    pictures = [draw(tiny, use(attention, weight)).rgb for weight in (-4, -0.5, 0, 0.5, 1, 4)]
    assert len(set(pictures)) == 6


def test_a_weight_of_zero_is_no_adapter(tiny: StockPipeline, broad: Path) -> None:
    assert draw(tiny, use(broad, 0)) == draw(tiny)


def test_a_weight_of_zero_is_no_adapter_even_where_its_numbers_overflow(
    tiny: StockPipeline, tmp_path: Path
) -> None:
    file = written(tmp_path, good(A=torch.full((4, 96), 3e38), B=torch.full((96, 4), 3e38)))
    assert draw(tiny, use(file, 0, sha256="huge")) == draw(tiny)


def test_every_layer_of_an_adapter_acts(
    tiny: StockPipeline, broad: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    acted = set()
    change = adapter_use.change

    def noting(term: adapter_use.Term, x: Any) -> Any:
        acted.add(id(term))
        return change(term, x)

    monkeypatch.setattr(adapter_use, "change", noting)
    draw(tiny, use(broad))
    [(fitted, _)] = tiny._adapters.load([use(broad)])
    assert len(fitted.terms) == len(read_adapter(broad, name="mine").layers)
    assert acted == {id(term) for term in fitted.terms}


def test_layers_of_the_text_encoders_alone_change_the_picture(
    tiny: StockPipeline, layers: dict[str, Any], tmp_path: Path
) -> None:
    file = written(tmp_path, matrices(layers, [TEXT], strength=1))
    assert draw(tiny, use(file, sha256="text")) != draw(tiny)


@pytest.mark.parametrize("layout", ["peft", "kohya"])
def test_stable_diffusion_1_draws_what_diffusers_draws(
    device: TorchDevice, tmp_path: Path, layout: str
) -> None:
    _random_sd1().save_pretrained(tmp_path / "sd1")
    model = describe_folder(tmp_path / "sd1", name="sd1")
    ours, theirs = (StockPipeline.load(model, device) for _ in range(2))
    layers = changeable(ours, "unet", "text_encoder")
    tensors = matrices(layers, list(layers), strength=0.3)
    if layout == "kohya":
        tensors = {_kohya_sd1(key): tensor for key, tensor in tensors.items()}
    file = written(tmp_path, tensors)
    picture = draw(ours, use(file))
    assert difference(picture, draw(ours)) > 20
    theirs._text_to_image.load_lora_weights(str(file))
    assert picture == draw(theirs)


def _kohya_sd1(key: str) -> str:
    name, end = key.rsplit(".lora_", 1)
    name = name.replace("text_encoder.", "te_text_model.").replace(".", "_")
    return f"lora_{name}.lora_{'down' if end[0] == 'A' else 'up'}.weight"


# No trace


def test_the_next_picture_is_that_of_a_fresh_pipeline(
    tiny: StockPipeline, reference: StockPipeline, broad: Path
) -> None:
    changed = draw(tiny, use(broad))
    assert draw(tiny) == draw(reference) != changed
    grey = InputImage(width=64, height=64, rgb=bytes([128]) * 64 * 64 * 3)
    assert draw(tiny, use(broad), image=grey) != draw(tiny, image=grey)
    assert draw(tiny, image=grey) == draw(reference, image=grey)


@pytest.mark.parametrize("left_by", [Dropped("t/1"), RuntimeError("a kernel failed")])
def test_leaving_in_the_middle_takes_the_adapters_off(
    tiny: StockPipeline, broad: Path, layers: dict[str, Any], left_by: Exception
) -> None:
    before = draw(tiny)
    weights = {name: module.weight.clone() for name, module in layers.items()}

    def leave(_progress: float) -> None:
        raise left_by

    with pytest.raises(type(left_by)):
        tiny.draw(work(use(broad)), seed=7, between_steps=leave)
    assert draw(tiny) == before
    assert all(torch.equal(module.weight, weights[name]) for name, module in layers.items())
    assert not any(module._forward_hooks for module in layers.values())


def test_an_adapter_that_does_not_fit_changes_nothing(
    tiny: StockPipeline, broad: Path, tmp_path: Path
) -> None:
    before = draw(tiny)
    bad = written(tmp_path, {"unet.x.lora_A.weight": torch.ones(1, 1)})
    with pytest.raises(BadWeights):
        draw(tiny, use(broad), use(bad, sha256="bad"))
    assert draw(tiny) == before


# Kept in memory


def test_an_adapter_is_read_once(
    reference: StockPipeline, attention: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw(reference, use(attention), steps=1)
    monkeypatch.setattr(adapter_use, "read_adapter", None)
    draw(reference, use(attention, 0.5, name="the same by another name"), steps=1)


def test_adapters_count_in_the_memory_of_their_model(
    reference: StockPipeline, attention: Path
) -> None:
    before = reference.weight_bytes
    draw(reference, use(attention), steps=1)
    # The file has the same tensors, and a header of some kilobytes.
    added = reference.weight_bytes - before
    assert 0 < attention.stat().st_size - added < 20_000


def test_the_least_recently_used_adapter_is_let_go_and_its_memory_freed(
    reference: StockPipeline, attention: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_use, "KEPT", 2)
    adapters = reference._adapters
    first, second = (adapters.load([use(attention, sha256=name)])[0][0] for name in "ab")
    freed = [weakref.ref(fitted.terms[0].down) for fitted in (first, second)]
    adapters.load([use(attention, sha256="a")])
    adapters.load([use(attention, sha256="c")])
    del first, second
    gc.collect()
    assert [reference() is None for reference in freed] == [False, True]


def test_more_adapters_than_fit_are_all_there_for_their_own_request(
    reference: StockPipeline, attention: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter_use, "KEPT_BYTES", 1)
    asked = [use(attention, 0.2, sha256=name) for name in "abc"]
    assert len(reference._adapters.load(asked)) == 3
    assert list(reference._adapters._kept) == ["a", "b", "c"]
    reference._adapters.load(asked[:1])
    assert list(reference._adapters._kept) == ["a"]


# Bad files

GOOD = {f"{ATTENTION}.lora_A.weight": (4, 96), f"{ATTENTION}.lora_B.weight": (96, 4)}


def good(**changes: Any) -> dict[str, Any]:
    """A small adapter; `A` and `B` replace its matrices, by None to leave one out."""
    tensors = {key: torch.ones(shape) for key, shape in GOOD.items()}
    for end, tensor in changes.items():
        tensors[f"{ATTENTION}.lora_{end}.weight"] = tensor
    return {key: tensor for key, tensor in tensors.items() if tensor is not None}


def of_config(**entries: object) -> bytes:
    return save(good(), {"lora_adapter_metadata": json.dumps(entries)})


WHOLE = save(good())
NAN = torch.ones(4, 96).index_fill_(1, torch.tensor([5]), float("nan"))
BAD_FILES: dict[str, tuple[bytes, str]] = {
    "empty file": (b"", "not safetensors, or cut short: it has 0 bytes"),
    "pickle": (pickle.dumps({"unet": [1.0] * 100}), "not safetensors"),
    "zip of pickles": (b"PK\x03\x04" + bytes(500), "not safetensors"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(500), "not safetensors"),
    "text": (b"version https://git-lfs.github.com/spec/v1\n", "not safetensors"),
    "header of 1 TB": ((10**12).to_bytes(8, "little") + WHOLE[8:], "would take 1000000000000"),
    "header over the limit": ((10**7 + 1).to_bytes(8, "little") + b" " * (10**7 + 1), "limit is"),
    "cut in its header": (WHOLE[:60], "cut short"),
    "cut in its tensors": (WHOLE[:-4], "cannot be read"),
    "trailing bytes": (WHOLE + b"more", "cannot be read"),
    "header that is no JSON": ((8).to_bytes(8, "little") + b"not JSON", "cannot be read"),
    "no tensors": (save({}), "no layers"),
    "NaN": (save(good(A=NAN)), "no finite numbers"),
    "infinity": (save(good(B=torch.full((96, 4), float("-inf")))), "no finite numbers"),
    "too large for float32": (
        save(good(B=torch.full((96, 4), 1e300, dtype=torch.float64))),
        "no finite numbers",
    ),
    "whole numbers": (save(good(A=torch.ones(4, 96, dtype=torch.int8))), "is I8; only BF16"),
    "one matrix": (save(good(B=None)), "only one of its two matrices"),
    "ranks that differ": (save(good(A=torch.ones(3, 96))), "matrices of"),
    "scalars": (save(good(A=torch.tensor(1.0), B=torch.tensor(1.0))), "matrices of"),
    "rank 0": (save(good(A=torch.ones(0, 96), B=torch.ones(96, 0))), "rank 0; 1 to 512 will do"),
    "rank 513": (save(good(A=torch.ones(513, 96), B=torch.ones(96, 513))), "rank 513"),
    "DoRA": (
        save(good() | {f"{ATTENTION}.lora_magnitude_vector": torch.ones(96)}),
        "lora_magnitude_vector' is no weight of a plain LoRA",
    ),
    "a whole model": (save({"unet.conv_in.weight": torch.ones(2, 2)}), "no weight of a plain LoRA"),
    "a bias": (save(good() | {f"{ATTENTION}.lora_B.bias": torch.ones(96)}), "no weight of a plain"),
    "two layouts": (
        save(good() | {f"{ATTENTION}.lora.up.weight": torch.ones(96, 4)}),
        "twice, in two layouts",
    ),
    "several alphas": (save(good() | {f"{ATTENTION}.alpha": torch.ones(2)}), "has 2 values"),
    "configuration that is no JSON": (
        save(good(), {"lora_adapter_metadata": "{"}),
        "lora_adapter_metadata is not JSON",
    ),
    "configuration nested deeply": (
        save(good(), {"lora_adapter_metadata": "[" * 100_000}),
        "lora_adapter_metadata is not JSON",
    ),
    "configuration that is a list": (
        save(good(), {"lora_adapter_metadata": "[]"}),
        "not a JSON object",
    ),
    "alpha that is text": (of_config(**{"unet.lora_alpha": "8"}), "unet.lora_alpha is '8'"),
    "alpha that is no number": (of_config(**{"unet.lora_alpha": float("nan")}), "is nan"),
    "alphas that are a list": (of_config(**{"unet.alpha_pattern": [1]}), "an object of numbers"),
    "a regular expression": (
        of_config(**{"unet.alpha_pattern": {"(a+)+$": 1}}),
        "only names of layers will do",
    ),
    "a layer that no model has": (
        save({"lora_unet_x.lora_down.weight": torch.ones(1, 1)} | good()),
        "'lora_unet_x' has only one",
    ),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_bad_file_is_refused_by_the_adapters_name(tmp_path: Path, what: str) -> None:
    content, complaint = BAD_FILES[what]
    file = tmp_path / "secret-folder.safetensors"
    file.write_bytes(content)
    with pytest.raises(BadWeights, match=re.escape(complaint)) as caught:
        read_adapter(file, name="my-dress")
    assert caught.value.message.startswith("the adapter 'my-dress' can")
    assert "secret" not in caught.value.message
    assert len(caught.value.message) < 500


def test_a_file_that_is_gone_is_refused_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match="'my-dress' cannot be read: No such file") as caught:
        read_adapter(tmp_path / "gone", name="my-dress")
    assert str(tmp_path) not in caught.value.message


@pytest.mark.parametrize(
    ("limits", "complaint"),
    [
        (AdapterLimits(file=100), r"it has \d+ bytes, the limit is 100"),
        (AdapterLimits(header=10), "the limit is 10"),
        (AdapterLimits(tensors=1), "it has 2 tensors, the limit is 1"),
        (AdapterLimits(rank=3), "rank 4; 1 to 3 will do"),
    ],
)
def test_a_file_over_a_limit_is_refused(
    tmp_path: Path, limits: AdapterLimits, complaint: str
) -> None:
    with pytest.raises(BadWeights, match=complaint):
        read_adapter(written(tmp_path, good()), name="mine", limits=limits)


def test_content_decides_not_the_suffix(tmp_path: Path) -> None:
    file = tmp_path / "adapter.bin"
    file.write_bytes(WHOLE)
    assert list(read_adapter(file, name="mine").layers) == [ATTENTION]


UNFIT = {
    "wrong width": (
        good(A=torch.ones(4, 40)),
        (
            f"the adapter 'my-dress' does not fit the model 'imageloom-tiny': layer {ATTENTION} is "
            "[96, 40], the model has [96, 96]"
        ),
    ),
    "matrix for a convolution": (
        {
            f"{CONVOLUTION}.lora_A.weight": torch.ones(4, 48),
            f"{CONVOLUTION}.lora_B.weight": torch.ones(64, 4),
        },
        f"layer {CONVOLUTION} is [64, 48], the model has [64, 48, 3, 3]",
    ),
    "unknown layers": (
        {
            f"lora_unet_double_blocks_{n}.lora_{end}.weight": torch.ones(2, 2)
            for n in range(3)
            for end in ("down", "up")
        },
        (
            "does not fit the model 'imageloom-tiny': the model has no layer "
            "'lora_unet_double_blocks_0', nor 2 others"
        ),
    ),
    "one unknown layer among known ones": (
        good() | {"vae.x.lora_A.weight": torch.ones(2, 2), "vae.x.lora_B.weight": torch.ones(2, 2)},
        "the model has no layer 'vae.x'; an adapter works on the kind of model",
    ),
}


@pytest.mark.parametrize("what", UNFIT)
def test_an_adapter_of_another_model_is_refused_by_its_layer(
    tiny: StockPipeline, tmp_path: Path, what: str
) -> None:
    tensors, complaint = UNFIT[what]
    file = written(tmp_path, tensors)
    with pytest.raises(BadWeights, match=re.escape(complaint)):
        draw(tiny, use(file, name="my-dress", sha256=what))


def test_the_root_of_the_rank_counts_where_the_file_says_so(tmp_path: Path) -> None:
    file = tmp_path / "adapter.safetensors"
    file.write_bytes(of_config(**{"unet.lora_alpha": 8, "unet.use_rslora": True}))
    assert read_adapter(file, name="mine").layers[ATTENTION].scale == 4


@pytest.fixture(scope="module")
def gpu() -> TorchDevice:
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine: adapters on CUDA were not tried")
    return choose_device("cuda", threads=1)


@pytest.mark.gpu
def test_adapters_act_and_leave_no_trace_on_a_gpu(gpu: TorchDevice, broad: Path) -> None:
    pipeline = StockPipeline.load(TINY, gpu)
    before = draw(pipeline)
    changed = draw(pipeline, use(broad))
    assert difference(changed, before) > 20
    assert draw(pipeline) == before
    assert draw(pipeline, use(broad)) == changed
