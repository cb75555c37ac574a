"""Cut a subject out with a user's own segmentation network in an .onnx file.

The network gets the whole picture at its own size and answers with one number for every pixel: how
surely it belongs to the subject. Run by onnxruntime, on the GPU where its CUDA provider is there.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from imageloom.domain.catalog import Model
from imageloom.domain.errors import BadWeights, OutOfMemory
from imageloom.images import Picture
from imageloom.runtime.cutout import CutOut
from imageloom.runtime.torch_device import TorchDevice
from imageloom.runtime.weights import SIDECAR, locate, parts_of_file

Mask = NDArray[np.float32]  # [height, width], 0 to 1: how surely a pixel is the subject's

_SIDE = 1024  # where neither the graph nor the sidecar says a size: what BiRefNet and RMBG expect
# Source: the channel means and deviations of ImageNet's training pictures, as in torchvision.
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_DEVIATION = (0.229, 0.224, 0.225)
_DTYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
# A resize inside the network overshoots 0 and 1 a little; logits are whole numbers away.
_OVERSHOOT = 0.05
_CERTAIN_BACKGROUND = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Preparation:
    """How a picture becomes the network's input: (rgb * `rescale` - `mean`) / `deviation`."""

    width: int
    height: int
    rescale: float = 1 / 255
    mean: tuple[float, float, float] = _IMAGENET_MEAN
    deviation: tuple[float, float, float] = _IMAGENET_DEVIATION
    resample: Image.Resampling = Image.Resampling.BILINEAR


class Segmenter:
    """A loaded network; `preparation` is what it gets."""

    def __init__(
        self, session: Any, preparation: Preparation, *, name: str, weight_bytes: int
    ) -> None:
        self._session = session
        self._name = name
        self._output = _mask_output(session, name=name)
        self.preparation = preparation
        self.weight_bytes = weight_bytes

    def cut_out(self, picture: Picture) -> CutOut:
        """Return where the subject of `picture` is; its own alpha is not looked at.

        The confidence is the mean of |2p - 1| over all pixels whose p, the chance of being the
        subject's, is above 0.05: 1 for a mask of clear yes, 0 for one that cannot tell. Certain
        background is left out, so that a small subject counts as much as a large one. Where no
        pixel reaches one half, nothing was found: everything is opaque and the confidence 0.
        Raises: BadWeights where the network fails or answers with no mask; OutOfMemory.
        """
        mask = self._mask(picture)
        if mask.max() < 0.5:
            return CutOut(
                alpha=b"\xff" * (picture.width * picture.height), confidence=0, method=self._name
            )
        confidence = float(np.abs(2 * mask[mask > _CERTAIN_BACKGROUND] - 1).mean(dtype=np.float64))
        shrinks = mask.shape[0] > picture.height and mask.shape[1] > picture.width
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        full = cv2.resize(mask, (picture.width, picture.height), interpolation=how)
        alpha = np.clip(full * 255 + 0.5, 0, 255).astype(np.uint8)
        return CutOut(alpha=alpha.tobytes(), confidence=confidence, method=self._name)

    def _mask(self, picture: Picture) -> Mask:
        node = self._session.get_inputs()[0]
        values = prepare(picture, self.preparation).astype(_DTYPES[node.type])
        answer = self._run({node.name: values})
        # A batch of one, perhaps a channel of one, then the picture.
        if answer.ndim not in (3, 4) or any(side != 1 for side in answer.shape[:-2]):
            raise BadWeights(
                f"the segmenter {self._name!r} answers with the shape {list(answer.shape)}; one "
                "mask, [1, 1, height, width] or [1, height, width], is needed"
            )
        return to_chances(answer.reshape(answer.shape[-2:]).astype(np.float32), name=self._name)

    def _run(self, inputs: dict[str, NDArray[Any]]) -> NDArray[Any]:
        try:
            answer: NDArray[Any] = self._session.run([self._output], inputs)[0]
        except _onnx_errors() as exc:
            if "allocate memory" in str(exc):
                raise OutOfMemory(
                    f"CUDA out of memory, or the machine's: the segmenter {self._name!r} does not "
                    "fit beside what is loaded; use a smaller model"
                ) from exc
            raise BadWeights(
                f"the segmenter {self._name!r} failed on a picture of {self.preparation.width} x "
                f"{self.preparation.height}: {type(exc).__name__}; the worker's log has the details"
            ) from exc
        return answer


def prepare(picture: Picture, preparation: Preparation) -> NDArray[np.float32]:
    """Return the network's input for `picture`, float32 [1, 3, height, width], stretched."""
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    size = (preparation.width, preparation.height)
    values = np.asarray(image.resize(size, preparation.resample), np.float32)
    values = values * np.float32(preparation.rescale) - np.array(preparation.mean, np.float32)
    values /= np.array(preparation.deviation, np.float32)
    return np.ascontiguousarray(values.transpose(2, 0, 1)[None])


def to_chances(answer: Mask, *, name: str) -> Mask:
    """Return a network's answer as chances, 0 to 1; outside of them it is taken for logits.

    Not stretched from its least to its greatest value, as is often done: that finds a subject in
    every picture, however empty, and makes one odd pixel change all others.
    Raises: BadWeights where a number is not finite.
    """
    if not np.isfinite(answer).all():
        raise BadWeights(f"the segmenter {name!r} gives numbers that are not finite")
    if answer.min() < -_OVERSHOOT or answer.max() > 1 + _OVERSHOOT:
        # Beyond 80, float32 cannot tell the result from 0 or 1, and exp overflows at 89.
        chances: Mask = np.reciprocal(1 + np.exp(-np.clip(answer, -80, 80)), dtype=np.float32)
        return chances
    return np.clip(answer, 0, 1)


def load_segmenter(model: Model, device: TorchDevice) -> Segmenter:
    """Read local weights onto the device. Family: `onnx`.

    Raises: ModelNotInstalled, BadWeights.
    """
    if model.family != "onnx":
        raise BadWeights(
            f"the segmenter {model.name!r} has the family {model.family!r}; onnx is loaded"
        )
    path = locate(model)
    session = _open_session(path, device, name=model.name)
    return Segmenter(
        session,
        read_preparation(
            path.parent / SIDECAR, _input_size(session, name=model.name), name=model.name
        ),
        name=model.name,
        weight_bytes=sum(part.stat().st_size for part in parts_of_file(path)),
    )


def read_preparation(
    sidecar: Path, size: tuple[int | None, int | None], *, name: str
) -> Preparation:
    """Return what a `preprocessor_config.json` says, ImageNet's values where there is none.

    `size` is the height and width that the graph itself fixes; they win over the file's.
    Raises: BadWeights, which names the field.
    """
    try:
        entries = json.loads(sidecar.read_text("utf-8")) if sidecar.is_file() else {}
    except ValueError as exc:
        raise BadWeights(f"the {SIDECAR} of {name!r} is not JSON") from exc
    if not isinstance(entries, dict):
        raise BadWeights(f"the {SIDECAR} of {name!r} is {type(entries).__name__}, not an object")
    height, width = size
    if height is None or width is None:
        open_height, open_width = _size_in(entries, name=name)
        height, width = height or open_height, width or open_width
    scales = entries.get("do_rescale", True)
    normalizes = entries.get("do_normalize", True)
    return Preparation(
        height=height,
        width=width,
        rescale=_number(entries, "rescale_factor", 1 / 255, name=name) if scales else 1.0,
        mean=_three(entries, "image_mean", _IMAGENET_MEAN, name=name) if normalizes else (0, 0, 0),
        deviation=(
            _three(entries, "image_std", _IMAGENET_DEVIATION, name=name)
            if normalizes
            else (1, 1, 1)
        ),
        resample=_resampling(entries, name=name),
    )


def _size_in(entries: dict[str, Any], *, name: str) -> tuple[int, int]:
    size = entries.get("size", _SIDE)
    height, width = (
        (size.get("height"), size.get("width")) if isinstance(size, dict) else (size, size)
    )
    if not isinstance(height, int) or not isinstance(width, int):
        raise _unfit(name, "size", size, '{"height": 1024, "width": 1024} or one number')
    if not (16 <= height <= 4096 and 16 <= width <= 4096):
        raise _unfit(name, "size", size, "16 to 4096 pixels")
    return height, width


def _three(
    entries: dict[str, Any], field: str, default: tuple[float, float, float], *, name: str
) -> tuple[float, float, float]:
    value = entries.get(field, default)
    good = len(value) == 3 if isinstance(value, list | tuple) else False
    if not good or not all(isinstance(part, int | float) for part in value):
        raise _unfit(name, field, value, "a list of three numbers")
    if field == "image_std" and not all(part > 0 for part in value):
        raise _unfit(name, field, value, "three numbers above 0")
    red, green, blue = value
    return float(red), float(green), float(blue)


def _number(entries: dict[str, Any], field: str, default: float, *, name: str) -> float:
    value = entries.get(field, default)
    if not isinstance(value, int | float) or value <= 0:
        raise _unfit(name, field, value, "a number above 0")
    return float(value)


def _resampling(entries: dict[str, Any], *, name: str) -> Image.Resampling:
    value = entries.get("resample", Image.Resampling.BILINEAR)
    try:
        return Image.Resampling(value)
    except ValueError as exc:
        raise _unfit(name, "resample", value, "a number of Pillow's, 0 to 5") from exc


def _unfit(name: str, field: str, value: object, would_do: str) -> BadWeights:
    return BadWeights(f"the {SIDECAR} of {name!r} has the {field} {value!r}; {would_do} would do")


def _open_session(path: Path, device: TorchDevice, *, name: str) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # fatal: what fails is raised as well
    options.intra_op_num_threads = torch.get_num_threads()  # as the operator has set
    options.inter_op_num_threads = 1
    providers: list[Any] = ["CPUExecutionProvider"]
    if (
        device.device.type == "cuda"
        and "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    ):
        settings = {
            "device_id": device.device.index or 0,
            # Takes what it needs, beside torch; by default it doubles.
            "arena_extend_strategy": "kSameAsRequested",
            # Trying all algorithms out takes seconds and may choose others from run to run.
            "cudnn_conv_algo_search": "HEURISTIC",
        }
        providers.insert(0, ("CUDAExecutionProvider", settings))
    try:
        return onnxruntime.InferenceSession(path, options, providers=providers)
    except _onnx_errors() as exc:
        raise BadWeights(
            f"{path.name} of the segmenter {name!r} is no ONNX graph that onnxruntime "
            f"{onnxruntime.__version__} runs: {_first_line(exc, path)}"
        ) from exc


def _onnx_errors() -> tuple[type[Exception], ...]:
    """Return what onnxruntime raises: classes of no common base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.EPFail,
        state.EngineError,
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoSuchFile,
        state.NotImplemented,
        state.RuntimeException,
    )


def _first_line(exc: Exception, path: Path) -> str:
    """Return what went wrong in one line; whose folder the file is in is nobody's business."""
    return str(exc).partition("\n")[0].replace(str(path), path.name)[:300]


def _input_size(session: Any, *, name: str) -> tuple[int | None, int | None]:
    """Return the height and width that the graph fixes; None for one that it leaves open."""
    inputs = session.get_inputs()
    if len(inputs) != 1:
        names = ", ".join(node.name for node in inputs)
        raise BadWeights(
            f"the segmenter {name!r} has {len(inputs)} inputs ({names}); one picture is all it gets"
        )
    node = inputs[0]
    if node.type not in _DTYPES:
        raise BadWeights(
            f"the input of the segmenter {name!r} is {node.type}; tensor(float) or "
            "tensor(float16) would do"
        )
    channels = node.shape[1] if len(node.shape) == 4 else None
    if len(node.shape) != 4 or (isinstance(channels, int) and channels != 3):
        raise BadWeights(
            f"the input of the segmenter {name!r} has the shape {node.shape}; "
            "[1, 3, height, width] would do"
        )
    height, width = (side if isinstance(side, int) else None for side in node.shape[2:])
    return height, width


def _mask_output(session: Any, *, name: str) -> str:
    """Return the name of the first output that may be a mask."""
    outputs = session.get_outputs()
    for node in outputs:
        if len(node.shape) not in (3, 4):
            continue
        channels = node.shape[1] if len(node.shape) == 4 else 1
        if isinstance(channels, int) and channels != 1:
            raise BadWeights(
                f"the segmenter {name!r} tells {channels} classes apart (its output {node.name} "
                f"has the shape {node.shape}); one mask of the subject is needed"
            )
        found: str = node.name
        return found
    shapes = ", ".join(f"{node.name} {node.shape}" for node in outputs)
    raise BadWeights(
        f"the segmenter {name!r} has no output of the shape [1, 1, height, width]; it has {shapes}"
    )
