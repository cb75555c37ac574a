"""Enlarge pictures with a user's own super-resolution network.

Two families: `spandrel`, one .safetensors file of any architecture that spandrel recognises, and
`swin2sr`, a folder in transformers layout. Both become an `Upscaler`, which gives exactly the scale
that was asked for, whatever the network's own is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import structlog
import torch
from PIL import Image
from torch import Tensor

from imageloom.domain.catalog import Model
from imageloom.domain.errors import BadWeights
from imageloom.images import Picture
from imageloom.runtime.networks import Network, load_spandrel, load_swin2sr
from imageloom.runtime.tiling import Pixels, Values, enlarge_in_tiles
from imageloom.runtime.torch_device import TorchDevice
from imageloom.runtime.weights import locate

_log = structlog.get_logger("imageloom.upscalers")

# Input pixels of a tile's side, each tried when the one before was too large for the device: what a
# network needs per pixel differs a hundredfold between architectures, and only trying tells it.
_SIDES = (512, 384, 256, 192, 128, 96)
_SIDE_ON_CPU = 256  # with 64 channels at four times the size, 270 MB for one layer
# Windowed transformers see the picture in squares of 8 or 16; tiles begin where a square begins.
_WINDOW = 16


class Upscaler:
    """A loaded network; `factor` is its own scale."""

    def __init__(self, network: Network, device: TorchDevice, *, name: str) -> None:
        self._network = network
        self._name = name
        self._device = device.device
        on_gpu = device.device.type != "cpu"
        self._side = _SIDES[0] if on_gpu else _SIDE_ON_CPU
        self.factor = network.factor
        network.module.eval()
        # Not bf16: its 8 bits between 0.5 and 1 are coarser than the levels of a picture.
        self._keep_as(torch.float16 if on_gpu and network.half else torch.float32)

    def enlarge(
        self, picture: Picture, scale: int, *, between_tiles: Callable[[float], None]
    ) -> Picture:
        """Return `picture` with exactly `scale` times the width and height.

        `between_tiles` gets the share that is done, growing to 1, after every tile; what it raises
        ends the work and passes through. The alpha of a cut-out is enlarged by Lanczos; what is
        transparent takes the colours beside it first, so that none of it bleeds into the edge.
        Same picture, scale, device and versions: same bytes, while the same tiles fit.
        Raises: BadWeights where the network does not answer with a picture of the right size;
        torch.OutOfMemoryError when even the smallest tile does not fit.
        """
        torch.manual_seed(0)  # AuraSR adds noise
        pixels = np.frombuffer(picture.rgb, np.uint8).reshape(picture.height, picture.width, 3)
        alpha = None
        if picture.alpha is not None:
            opacity = np.frombuffer(picture.alpha, np.uint8).reshape(pixels.shape[:2])
            pixels = spread_colours(pixels, opacity)
            alpha = _resize(opacity, picture.width * scale, picture.height * scale).tobytes()
        if self._network.channels == 1:
            enlarged = self._enlarge_luma(pixels, scale, between_tiles)
        else:
            enlarged = self._enlarge_pixels(pixels, scale, between_tiles)
        return Picture(
            width=picture.width * scale,
            height=picture.height * scale,
            rgb=enlarged.tobytes(),
            alpha=alpha,
        )

    def _enlarge_luma(
        self, pixels: Pixels, scale: int, between_tiles: Callable[[float], None]
    ) -> Pixels:
        """Enlarge the brightness by the network and the colours, where eyes are dull, by Lanczos.

        Networks of one channel are trained on the brightness.
        """
        luma, blue, red = Image.fromarray(pixels).convert("YCbCr").split()
        enlarged = self._enlarge_pixels(np.asarray(luma)[:, :, None], scale, between_tiles)
        size = (luma.width * scale, luma.height * scale)
        parts = [Image.fromarray(enlarged[:, :, 0])]
        parts += [part.resize(size, Image.Resampling.LANCZOS) for part in (blue, red)]
        return np.asarray(Image.merge("YCbCr", parts).convert("RGB"))

    def _enlarge_pixels(
        self, pixels: Pixels, scale: int, between_tiles: Callable[[float], None]
    ) -> Pixels:
        height, width = pixels.shape[0] * scale, pixels.shape[1] * scale
        passes = number_of_passes(self.factor, scale)
        report = _Report(passes=passes, factor=self.factor, between_tiles=between_tiles)
        # An area of 2 x 2 or 4 x 4 pixels becomes one while it is still a tile: the larger picture
        # is never in memory.
        shrink = self.factor // scale if self.factor % scale == 0 else 1
        for number in range(passes):
            if number > 0 and number == passes - 1:
                # Of a scale that is no power of ours, no more than the last pass needs.
                pixels = _resize(pixels, *(-(-side // self.factor) for side in (width, height)))
            pixels = self._one_pass(pixels, shrink, report)
            report.begin_next_pass()
        return _resize(pixels, width, height)

    def _one_pass(self, pixels: Pixels, shrink: int, report: _Report) -> Pixels:
        while True:
            try:
                return enlarge_in_tiles(
                    pixels,
                    lambda tile: self._enlarge_tile(tile, shrink),
                    factor=self.factor // shrink,
                    side=self._side,
                    step=math.lcm(_WINDOW, self._network.multiple_of),
                    between_tiles=report,
                )
            except torch.OutOfMemoryError:
                if self._side == _SIDES[-1]:
                    raise
            # Outside of the handler: what it has caught still holds the tile's memory.
            self._side = next(side for side in _SIDES if side < self._side)
            _log.info("smaller_tiles", model=self._name, side=self._side)
            torch.cuda.empty_cache()

    def _enlarge_tile(self, tile: Pixels, shrink: int) -> Values:
        with torch.inference_mode():
            values = torch.from_numpy(tile.astype(np.float32) / 255).permute(2, 0, 1)[None]
            values = values.to(self._device)
            answer = self._network.run(values.to(self._dtype))
            if self._dtype is torch.float16 and not answer.isfinite().all():
                _log.info("float32", model=self._name, reason="overflow in fp16")
                self._keep_as(torch.float32)
                answer = self._network.run(values)
            self._refuse_unusable(answer, values)
            answer = answer.float().clamp(0, 1)
            if shrink > 1:
                answer = torch.nn.functional.avg_pool2d(answer, shrink)
            enlarged: Values = answer[0].permute(1, 2, 0).cpu().numpy()
            return enlarged

    def _keep_as(self, dtype: torch.dtype) -> None:
        module = self._network.module.to(device=self._device, dtype=dtype)
        self._dtype = dtype
        self.weight_bytes = sum(
            tensor.numel() * tensor.element_size()
            for tensor in (*module.parameters(), *module.buffers())
        )

    def _refuse_unusable(self, answer: Tensor, values: Tensor) -> None:
        expected = (*values.shape[:2], *(side * self.factor for side in values.shape[2:]))
        if tuple(answer.shape) != expected:
            raise BadWeights(
                f"the upscaler {self._name!r} made {tuple(answer.shape)} of a tile of "
                f"{tuple(values.shape)}; {expected} was expected"
            )
        if not answer.isfinite().all():
            raise BadWeights(f"the upscaler {self._name!r} gives numbers that are not finite")


class _Report:
    """Turns the share of one pass that is done into that of all, and never goes back."""

    def __init__(self, *, passes: int, factor: int, between_tiles: Callable[[float], None]) -> None:
        # Every pass has the factor squared times the pixels of the one before.
        self._costs = [factor ** (2 * number) for number in range(passes)]
        self._pass = 0
        self._reached = 0.0
        self._between_tiles = between_tiles

    def __call__(self, share: float) -> None:
        done = sum(self._costs[: self._pass]) + share * self._costs[self._pass]
        # A pass that began again with smaller tiles has been further.
        self._reached = max(self._reached, done / sum(self._costs))
        self._between_tiles(self._reached)

    def begin_next_pass(self) -> None:
        self._pass += 1


def number_of_passes(factor: int, scale: int) -> int:
    """Return how often a network must run so that `factor` (2 or more) reaches `scale`."""
    passes = 1
    while factor**passes < scale:
        passes += 1
    return passes


def spread_colours(pixels: Pixels, alpha: Pixels) -> Pixels:
    """Return `pixels` with the colours of what is opaque spread over what is transparent.

    `pixels` is [height, width, 3], `alpha` [height, width]. Opaque pixels stay as they are; of
    others, alpha says how much of their own colour stays. Without any opacity nothing changes.
    Source: Gortler et al. 1996, "The Lumigraph", pull-push.
    """
    if alpha.min() == 255 or alpha.max() == 0:
        return pixels
    weight = alpha.astype(np.float32)[:, :, None] / 255
    levels = [np.concatenate([pixels * weight, weight], axis=2)]
    while max(levels[-1].shape[:2]) > 1:
        height, width = levels[-1].shape[:2]
        half = (-(-width // 2), -(-height // 2))
        levels.append(cv2.resize(levels[-1], half, interpolation=cv2.INTER_AREA))
    coarsest = levels.pop()
    spread = coarsest[:, :, :3] / coarsest[:, :, 3:]
    for finer in reversed(levels):
        height, width = finer.shape[:2]
        spread = cv2.resize(spread, (width, height), interpolation=cv2.INTER_LINEAR)
        spread = finer[:, :, :3] + (1 - finer[:, :, 3:]) * spread.reshape(height, width, 3)
    filled: Pixels = np.clip(spread + 0.5, 0, 255).astype(np.uint8)
    return filled


def load_upscaler(model: Model, device: TorchDevice) -> Upscaler:
    """Read local weights onto the device. Families: `spandrel`, `swin2sr`.

    Raises: ModelNotInstalled, BadWeights.
    """
    path = locate(model)
    if model.family == "spandrel":
        network = load_spandrel(path, name=model.name)
    elif model.family == "swin2sr":
        network = load_swin2sr(path, name=model.name)
    else:
        raise BadWeights(
            f"the upscaler {model.name!r} has the family {model.family!r}; "
            "spandrel and swin2sr are loaded"
        )
    if network.factor < 2:
        raise BadWeights(
            f"the network of {model.name!r} does not enlarge (its scale is {network.factor}); "
            "an upscaler must"
        )
    return Upscaler(network, device, name=model.name)


def _resize(pixels: Pixels, width: int, height: int) -> Pixels:
    """Return [height, width] or [height, width, 1 or 3] at another size, by Lanczos."""
    if pixels.shape[:2] == (height, width):
        return pixels
    single = pixels.ndim == 3 and pixels.shape[2] == 1
    image = Image.fromarray(pixels[:, :, 0] if single else pixels)
    resized = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    return resized[:, :, None] if single else resized
