"""Segmenters with real ONNX graphs whose exact mask is known, made here."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

import onnx  # noqa: E402
from onnx import TensorProto, helper  # noqa: E402

from imageloom.domain.catalog import Model  # noqa: E402
from imageloom.domain.errors import BadWeights, ModelNotInstalled  # noqa: E402
from imageloom.images import Picture  # noqa: E402
from imageloom.runtime.cutout import CutOut  # noqa: E402
from imageloom.runtime.model_files import describe_path  # noqa: E402
from imageloom.runtime.segmenters import (  # noqa: E402
    Preparation,
    load_segmenter,
    prepare,
    to_chances,
)
from imageloom.runtime.torch_device import TorchDevice, choose_device  # noqa: E402
from tiny_models import PLAIN, brightness_graph, photograph, pixels, segmenter  # noqa: E402

WIDTH, HEIGHT = 48, 32  # what brightness_graph fixes


@pytest.fixture(scope="module")
def device() -> TorchDevice:
    return choose_device("cpu", threads=1)


def plus(graph: onnx.ModelProto, constant: np.ndarray) -> onnx.ModelProto:
    """The graph with a tensor of weights added to its mask."""
    graph.graph.initializer.append(onnx.numpy_helper.from_array(constant, "constant"))
    graph.graph.node.append(helper.make_node("Add", ["mask", "constant"], ["sum"]))
    graph.graph.output[0].name = "sum"
    return graph


def two_greys(left: int, right: int, *, width: int = WIDTH, height: int = HEIGHT) -> Picture:
    grey = np.full((height, width, 3), left, np.uint8)
    grey[:, width // 2 :] = right
    return Picture(width=width, height=height, rgb=grey.tobytes())


def alpha_of(cut: CutOut, picture: Picture) -> np.ndarray:
    return np.frombuffer(cut.alpha, np.uint8).reshape(picture.height, picture.width)


def test_the_mask_of_known_brightness_is_the_brightness(
    tmp_path: Path, device: TorchDevice
) -> None:
    made = load_segmenter(segmenter(tmp_path, brightness_graph()), device)
    picture = two_greys(60, 200)
    cut = made.cut_out(picture)
    assert (alpha_of(cut, picture) == pixels(picture)[:, :, 0]).all()
    assert cut.method == "mine"


def test_logits_become_chances_by_the_sigmoid(tmp_path: Path, device: TorchDevice) -> None:
    picture = two_greys(60, 200)
    masks = [
        load_segmenter(segmenter(tmp_path, graph, name=f"{index}"), device).cut_out(picture)
        for index, graph in enumerate(
            brightness_graph(gain=9, middle=0.5, sigmoid=sigmoid) for sigmoid in (False, True)
        )
    ]
    assert alpha_of(masks[0], picture)[0, 0] == round(255 / (1 + math.exp(-9 * (60 / 255 - 0.5))))
    assert masks[0].alpha == masks[1].alpha
    assert masks[0].confidence == pytest.approx(masks[1].confidence)


@pytest.mark.parametrize(("width", "height"), [(37, 53), (200, 151), (1, 1)])
def test_the_alpha_has_the_pictures_own_size(
    tmp_path: Path, device: TorchDevice, width: int, height: int
) -> None:
    made = load_segmenter(segmenter(tmp_path, brightness_graph()), device)
    picture = Picture(width=width, height=height, rgb=b"\xff" * (3 * width * height))
    assert made.cut_out(picture).alpha == b"\xff" * (width * height)


def test_a_small_mask_is_enlarged_smoothly(tmp_path: Path, device: TorchDevice) -> None:
    made = load_segmenter(segmenter(tmp_path, brightness_graph()), device)
    picture = two_greys(0, 255, width=WIDTH * 10, height=HEIGHT * 10)
    row = alpha_of(made.cut_out(picture), picture)[5].astype(int)
    assert (row[0], row[-1]) == (0, 255)
    assert np.abs(np.diff(row)).max() < 60


@pytest.mark.parametrize(
    ("left", "right", "confidence"), [(0, 255, 1.0), (0, 204, 0.6), (153, 255, 0.6)]
)
def test_confidence_is_how_far_the_mask_is_from_undecided(
    tmp_path: Path, device: TorchDevice, left: int, right: int, confidence: float
) -> None:
    made = load_segmenter(segmenter(tmp_path, brightness_graph()), device)
    assert made.cut_out(two_greys(left, right)).confidence == pytest.approx(confidence, abs=1e-6)


def test_a_picture_without_a_subject_stays_opaque_with_confidence_zero(
    tmp_path: Path, device: TorchDevice
) -> None:
    made = load_segmenter(segmenter(tmp_path, brightness_graph()), device)
    cut = made.cut_out(two_greys(0, 120))
    assert (cut.alpha, cut.confidence) == (b"\xff" * (WIDTH * HEIGHT), 0)


def test_an_overshoot_of_one_is_no_logit() -> None:
    answer = np.array([[-0.01, 0.5, 1.02]], np.float32)
    assert to_chances(answer, name="mine").tolist() == [[0, 0.5, 1]]


def test_huge_logits_are_certain_and_warn_of_nothing() -> None:
    chances = to_chances(np.array([[-1e30, 1e30]], np.float32), name="mine")
    assert chances[0].tolist() == pytest.approx([0, 1])
    assert chances.dtype == np.float32


def test_without_a_sidecar_the_input_is_normalized_as_for_imagenet(
    tmp_path: Path, device: TorchDevice
) -> None:
    made = load_segmenter(segmenter(tmp_path, brightness_graph(), None), device)
    assert made.preparation == Preparation(width=WIDTH, height=HEIGHT)
    values = prepare(two_greys(124, 124), made.preparation)
    assert values.shape == (1, 3, HEIGHT, WIDTH)
    assert values[0, :, 0, 0] == pytest.approx(
        [(124 / 255 - 0.485) / 0.229, (124 / 255 - 0.456) / 0.224, (124 / 255 - 0.406) / 0.225],
        abs=1e-6,
    )


def test_a_sidecar_says_how_a_picture_is_prepared(tmp_path: Path, device: TorchDevice) -> None:
    sidecar = {
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [1.0, 2.0, 4.0],
        "rescale_factor": 0.01,
        "size": {"height": 40, "width": 24},
    }
    graph = brightness_graph(size=("height", "width"))
    made = load_segmenter(segmenter(tmp_path, graph, sidecar), device)
    values = prepare(two_greys(100, 100), made.preparation)
    assert values.shape == (1, 3, 40, 24)
    assert values[0, :, 0, 0] == pytest.approx([0.5, 0.3, 0.175])


def test_a_sidecar_may_switch_both_steps_off(tmp_path: Path, device: TorchDevice) -> None:
    sidecar = {"do_rescale": False, "do_normalize": False}
    made = load_segmenter(segmenter(tmp_path, brightness_graph(), sidecar), device)
    assert (prepare(two_greys(100, 100), made.preparation) == 100).all()


@pytest.mark.parametrize(
    ("size", "sidecar", "found"),
    [
        (("h", "w"), {}, (1024, 1024)),
        (("h", "w"), {"size": 320}, (320, 320)),
        (("h", 48), {"size": 320}, (320, 48)),
        ((32, 48), {"size": {"shortest_edge": 7}}, (32, 48)),
    ],
)
def test_the_graphs_size_wins_then_the_sidecars_then_1024(
    tmp_path: Path,
    device: TorchDevice,
    size: tuple[int | str, int | str],
    sidecar: object,
    found: tuple[int, int],
) -> None:
    made = load_segmenter(segmenter(tmp_path, brightness_graph(size=size), sidecar), device)
    assert (made.preparation.height, made.preparation.width) == found


def test_half_precision_graphs_work(tmp_path: Path, device: TorchDevice) -> None:
    graph = brightness_graph(dtype=TensorProto.FLOAT16)
    picture = two_greys(60, 200)
    cut = load_segmenter(segmenter(tmp_path, graph), device).cut_out(picture)
    assert np.abs(alpha_of(cut, picture).astype(int) - pixels(picture)[:, :, 0]).max() <= 1


def test_an_output_without_a_channel_works(tmp_path: Path, device: TorchDevice) -> None:
    graph = brightness_graph()
    graph.graph.initializer.append(helper.make_tensor("channel", TensorProto.INT64, [1], [1]))
    graph.graph.node.append(helper.make_node("Squeeze", ["mask", "channel"], ["flat"]))
    flat = helper.make_tensor_value_info("flat", TensorProto.FLOAT, [1, HEIGHT, WIDTH])
    graph.graph.output[0].CopyFrom(flat)
    picture = two_greys(60, 200)
    cut = load_segmenter(segmenter(tmp_path, graph), device).cut_out(picture)
    assert alpha_of(cut, picture)[0].tolist() == [60] * 24 + [200] * 24


def test_same_picture_gives_the_same_cut_out_and_writes_nothing(
    tmp_path: Path, device: TorchDevice, capfd: pytest.CaptureFixture[str]
) -> None:
    made = load_segmenter(segmenter(tmp_path, brightness_graph()), device)
    picture = photograph(61, 47)
    assert made.cut_out(picture) == made.cut_out(picture)
    assert capfd.readouterr() == ("", "")


def test_weights_in_a_file_of_their_own_are_found_and_counted(
    tmp_path: Path, device: TorchDevice
) -> None:
    graph = plus(brightness_graph(), np.zeros((1, 1, HEIGHT, WIDTH), np.float32))
    path = tmp_path / "mask.onnx"
    onnx.save(graph, path, save_as_external_data=True, location="mask.onnx.data")
    model = Model(
        name="mine", kind="segmenter", source=f"file:{path}", family="onnx", licence="mine"
    )
    made = load_segmenter(model, device)
    data = tmp_path / "mask.onnx.data"
    assert data.stat().st_size >= 4 * HEIGHT * WIDTH
    assert made.weight_bytes == path.stat().st_size + data.stat().st_size


def write(**graph: object) -> Callable[[Path], Model]:
    return lambda folder: segmenter(folder, brightness_graph(**graph))  # type: ignore[arg-type]


def with_sidecar(sidecar: object) -> Callable[[Path], Model]:
    return lambda folder: segmenter(folder, brightness_graph(size=("h", "w")), sidecar)


def write_bytes(data: bytes) -> Callable[[Path], Model]:
    def spoil(folder: Path) -> Model:
        model = segmenter(folder, brightness_graph())
        (folder / "mask.onnx").write_bytes(data)
        return model

    return spoil


def truncated(folder: Path) -> Model:
    model = segmenter(folder, brightness_graph())
    path = folder / "mask.onnx"
    path.write_bytes(path.read_bytes()[:-60])
    return model


def with_two_inputs(folder: Path) -> Model:
    graph = brightness_graph()
    points = helper.make_tensor_value_info("points", TensorProto.FLOAT, [1, 2])
    graph.graph.input.append(points)
    return segmenter(folder, graph)


def with_an_unknown_operator(folder: Path) -> Model:
    graph = brightness_graph()
    graph.graph.node[3].op_type = "Segment"
    return segmenter(folder, graph)


def with_a_flat_output(folder: Path) -> Model:
    graph = brightness_graph()
    graph.graph.node.append(helper.make_node("Flatten", ["mask"], ["flat"]))
    flat = helper.make_tensor_value_info("flat", TensorProto.FLOAT, [1, HEIGHT * WIDTH])
    graph.graph.output[0].CopyFrom(flat)
    return segmenter(folder, graph)


BAD_MODELS = [
    (write(channels=1), r"input .* \[1, 1, 32, 48\]; \[1, 3, height, width\] would do"),
    (write(classes=3), r"tells 3 classes apart .*mask .*\[1, 3, 32, 48\]"),
    (write(dtype=TensorProto.DOUBLE), r"tensor\(double\); tensor\(float\)"),
    (write(opset=9999), "no ONNX graph that onnxruntime"),
    (write_bytes(b""), "no ONNX graph"),
    (write_bytes(b"\x80\x04not a graph at all"), "no ONNX graph"),
    (truncated, "no ONNX graph"),
    (with_two_inputs, r"2 inputs \(picture, points\)"),
    (with_an_unknown_operator, "no ONNX graph .*Segment"),
    (with_a_flat_output, r"no output of the shape .* flat \[1, 1536\]"),
    (with_sidecar([1]), "is list, not an object"),
    (with_sidecar({"size": {"shortest_edge": 224}}), "the size {'shortest_edge': 224}"),
    (with_sidecar({"size": 100_000}), "16 to 4096 pixels"),
    (with_sidecar({"image_mean": [0.5]}), r"image_mean \[0.5\]; a list of three numbers"),
    (with_sidecar({"image_std": [1, 0, 1]}), "image_std .*above 0"),
    (with_sidecar({"rescale_factor": "a"}), "rescale_factor 'a'; a number above 0"),
    (with_sidecar({"resample": 77}), "resample 77"),
]


@pytest.mark.parametrize(("spoilt", "complaint"), BAD_MODELS)
def test_a_file_that_is_no_segmenter_is_refused_with_what_was_found(
    tmp_path: Path, device: TorchDevice, spoilt: Callable[[Path], Model], complaint: str
) -> None:
    model = spoilt(tmp_path)
    with pytest.raises(BadWeights, match=complaint):
        load_segmenter(model, device)
    with pytest.raises(BadWeights, match=complaint):
        describe_path(Path(model.source.removeprefix("file:")), name="mine")


def test_a_sidecar_that_is_not_json_is_refused(tmp_path: Path, device: TorchDevice) -> None:
    model = segmenter(tmp_path, brightness_graph())
    (tmp_path / "preprocessor_config.json").write_text("{")
    with pytest.raises(BadWeights, match=r"preprocessor_config\.json of 'mine' is not JSON"):
        load_segmenter(model, device)


def test_classes_that_only_running_shows_are_refused(tmp_path: Path, device: TorchDevice) -> None:
    graph = brightness_graph(channels="channels")
    graph.graph.node[0].CopyFrom(helper.make_node("Identity", ["picture"], ["mean"]))
    shape = [1, "channels", HEIGHT, WIDTH]
    graph.graph.output[0].CopyFrom(helper.make_tensor_value_info("mask", TensorProto.FLOAT, shape))
    made = load_segmenter(segmenter(tmp_path, graph), device)
    with pytest.raises(BadWeights, match=r"the shape \[1, 3, 32, 48\]; one mask"):
        made.cut_out(two_greys(0, 255))


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path, device: TorchDevice) -> None:
    graph = brightness_graph(gain=float("nan"))
    with pytest.raises(BadWeights, match="not finite"):
        load_segmenter(segmenter(tmp_path, graph), device).cut_out(two_greys(0, 255))


def test_a_graph_that_fails_on_a_picture_is_bad_weights(
    tmp_path: Path, device: TorchDevice
) -> None:
    graph = plus(brightness_graph(size=("height", "width")), np.zeros((1, 1, 5, 7), np.float32))
    made = load_segmenter(segmenter(tmp_path, graph, PLAIN | {"size": 64}), device)
    with pytest.raises(BadWeights, match="failed on a picture of 64 x 64"):
        made.cut_out(two_greys(0, 255))


def test_a_file_that_vanished_is_not_installed(tmp_path: Path, device: TorchDevice) -> None:
    model = segmenter(tmp_path, brightness_graph())
    (tmp_path / "mask.onnx").unlink()
    with pytest.raises(ModelNotInstalled, match="imageloom models add mine"):
        load_segmenter(model, device)


def test_a_family_that_nobody_loads_is_named(tmp_path: Path, device: TorchDevice) -> None:
    model = msgspec.structs.replace(segmenter(tmp_path, brightness_graph()), family="torch")
    with pytest.raises(BadWeights, match="'torch'; onnx is loaded"):
        load_segmenter(model, device)


def test_a_users_file_is_described_with_its_size(tmp_path: Path) -> None:
    segmenter(tmp_path, brightness_graph(), None)
    found = describe_path(tmp_path / "mask.onnx", name="cutter")
    assert (found.name, found.kind, found.family) == ("cutter", "segmenter", "onnx")
    assert found.source == f"file:{tmp_path / 'mask.onnx'}"
    assert found.size_bytes == (tmp_path / "mask.onnx").stat().st_size
