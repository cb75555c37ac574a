"""Real networks of a few hundred weights, as the files that a user would bring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper
from safetensors.torch import save_file

from imageloom.domain.catalog import Model
from imageloom.images import Picture


def compact_weights(
    *, scale: int, channels: int = 3, seed: int | None = 0
) -> dict[str, torch.Tensor]:
    """The weights of a Real-ESRGAN Compact that sees 3 pixels far.

    It adds what it computes to its input, enlarged by repeating pixels; without a seed all
    weights are zero, so that repeated pixels are its exact answer.
    """
    features = 4
    weights = {
        "body.0.weight": torch.zeros(features, channels, 3, 3),
        "body.0.bias": torch.zeros(features),
        "body.1.weight": torch.zeros(features),
        "body.2.weight": torch.zeros(features, features, 3, 3),
        "body.2.bias": torch.zeros(features),
        "body.3.weight": torch.zeros(features),
        "body.4.weight": torch.zeros(channels * scale * scale, features, 3, 3),
        "body.4.bias": torch.zeros(channels * scale * scale),
    }
    if seed is not None:
        generator = torch.Generator().manual_seed(seed)
        for tensor in weights.values():
            tensor.normal_(0, 0.15, generator=generator)
    return weights


def compact(
    folder: Path, *, scale: int, channels: int = 3, seed: int | None = 0, name: str = "compact"
) -> Model:
    """Write a Compact and return its entry."""
    path = folder / f"{name}.safetensors"
    save_file(compact_weights(scale=scale, channels=channels, seed=seed), path)
    return upscaler(path)


def upscaler(path: Path, *, family: str = "spandrel") -> Model:
    """The entry of an upscaler at `path`."""
    kind = "folder" if path.is_dir() else "file"
    return Model(
        name="mine", kind="upscaler", source=f"{kind}:{path}", family=family, licence="mine"
    )


def swin2sr(folder: Path, *, scale: int = 2, **config: Any) -> Model:
    """Write a Swin2SR with random weights and return its entry."""
    from transformers import Swin2SRConfig, Swin2SRForImageSuperResolution

    small = {"embed_dim": 8, "depths": [2], "num_heads": [2], "window_size": 4, "mlp_ratio": 1.0}
    settings = {"image_size": 16, "upsampler": "pixelshuffledirect", **small, **config}
    torch.manual_seed(0)
    Swin2SRForImageSuperResolution(Swin2SRConfig(upscale=scale, **settings)).save_pretrained(folder)
    return upscaler(folder, family="swin2sr")


def brightness_graph(
    *,
    gain: float = 1,
    middle: float = 0.0,
    sigmoid: bool = False,
    size: tuple[int | str, int | str] = (32, 48),
    dtype: int = TensorProto.FLOAT,
    channels: int | str = 3,
    classes: int = 1,
    opset: int = 20,
) -> onnx.ModelProto:
    """A graph that answers gain * (mean of the channels - middle), perhaps as a sigmoid."""
    kind = helper.tensor_dtype_to_np_dtype(dtype)

    def constant(name: str, value: float) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(np.array(value, kind), name)

    axes = onnx.numpy_helper.from_array(np.array([1], np.int64), "axes")
    nodes = [
        helper.make_node("ReduceMean", ["picture", "axes"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["mean", "middle"], ["centred"]),
        helper.make_node("Mul", ["centred", "gain"], ["scaled"]),
        helper.make_node("Sigmoid" if sigmoid else "Identity", ["scaled"], ["one"]),
        helper.make_node("Concat", ["one"] * classes, ["mask"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "brightness",
        [helper.make_tensor_value_info("picture", dtype, [1, channels, *size])],
        [helper.make_tensor_value_info("mask", dtype, [1, classes, *size])],
        [axes, constant("middle", middle), constant("gain", gain)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


# The network then sees what the picture has, 0 to 1.
PLAIN = {"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "resample": 0}


def segmenter(
    folder: Path, graph: onnx.ModelProto, sidecar: object | None = PLAIN, *, name: str = "mask"
) -> Model:
    """Write a graph, and what to do before it, and return its entry."""
    path = folder / f"{name}.onnx"
    onnx.save(graph, path)
    if sidecar is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(sidecar))
    return Model(
        name="mine", kind="segmenter", source=f"file:{path}", family="onnx", licence="mine"
    )


def photograph(width: int, height: int, *, seed: int = 0) -> Picture:
    """Noise over slow colours: nothing in it repeats."""
    generator = np.random.default_rng(seed)
    down, right = np.mgrid[0:height, 0:width]
    slow = np.stack([down / height, right / width, (down + right) / (height + width)], axis=2)
    noisy = slow * 200 + generator.integers(0, 56, (height, width, 3))
    return Picture(width=width, height=height, rgb=noisy.astype(np.uint8).tobytes())


def pixels(picture: Picture) -> np.ndarray:
    """The colours of a picture, [height, width, 3]."""
    return np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)
