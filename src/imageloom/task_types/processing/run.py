"""Processing on the device: one picture a unit of work, with progress where there are tiles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, assert_never, cast

import msgspec
import numpy as np

from imageloom.domain.catalog import Model
from imageloom.domain.work import InputImage, ProcessingWork
from imageloom.images import (
    Picture,
    adjust,
    crop,
    crop_to_ratio,
    enlarge,
    lay_on,
    parse_color,
    resize,
    with_alpha,
)
from imageloom.runtime.cutout import CutOut
from imageloom.runtime.grabcut import cut_out_by_border
from imageloom.runtime.matting import unmix
from imageloom.runtime.residency import Residency
from imageloom.runtime.segmenters import load_segmenter
from imageloom.runtime.units import Attempt
from imageloom.runtime.upscalers import load_upscaler
from imageloom.task_types.processing.params import Operation

_WHITE = (255, 255, 255)


def open_units(work: bytes, attempt: Attempt, residency: Residency) -> ProcessingUnits:
    """Return the processing of one picture; its model is loaded when it is first needed."""
    decoded = msgspec.msgpack.decode(work, type=ProcessingWork)
    return ProcessingUnits(decoded, attempt, residency)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    """A finished picture, and how its subject was found where one was looked for."""

    picture: Picture
    method: str | None = None
    confidence: float | None = None


class ProcessingUnits:
    """The work on one picture."""

    def __init__(self, work: ProcessingWork, attempt: Attempt, residency: Residency) -> None:
        self._work = work
        self._attempt = attempt
        self._residency = residency

    def step(self) -> bool:
        """Do the operation and deliver the picture. Raises: Dropped, InvalidInput."""
        result = self._result()
        self._attempt.deliver(
            index=0,
            picture=result.picture,
            method=result.method,
            confidence=result.confidence,
        )
        return True

    def _result(self) -> _Result:
        work, options = self._work, self._work.options
        picture = _picture(work.image)
        operation = cast("Operation", work.operation)
        match operation:
            case "upscale":
                return _Result(picture=self._enlarge(picture, options["scale"]))
            case "remove-background":
                return self._cut_out(picture)
            case "replace-background":
                return self._before_background(picture)
            case "resize":
                return _Result(
                    picture=resize(
                        picture,
                        options["width"],
                        options["height"],
                        fit=options["fit"],
                        color=_color(options),
                    )
                )
            case "crop":
                return _Result(picture=_cropped(picture, options))
            case "convert":
                color = _color(options)
                return _Result(picture=picture if color is None else lay_on(picture, color))
            case "adjust":
                factors = {
                    name: options[name]
                    for name in ("brightness", "contrast", "saturation", "sharpness")
                    if options[name] is not None
                }
                return _Result(picture=adjust(picture, **factors))
            case _:
                assert_never(operation)

    def _enlarge(self, picture: Picture, scale: int) -> Picture:
        model = self._model()
        if model.family == "lanczos":
            return enlarge(picture, scale)
        upscaler = self._residency.get(model, load_upscaler)
        return upscaler.enlarge(picture, scale, between_tiles=self._attempt.between_steps)

    def _cut_out(self, picture: Picture) -> _Result:
        """Return the subject alone; what is a cut-out already keeps its outline."""
        if _is_cut_out(picture):
            return _Result(picture=picture, method="alpha", confidence=1.0)
        opaque = lay_on(picture, _WHITE)
        found = self._find_subject(opaque)
        return _Result(
            picture=with_alpha(_without_fringe(opaque, found.alpha), found.alpha),
            method=found.method,
            confidence=found.confidence,
        )

    def _before_background(self, picture: Picture) -> _Result:
        subject = self._cut_out(picture)
        background = self._work.background
        ground: Picture | tuple[int, int, int]
        if background is None:
            ground = parse_color(self._work.options["background_color"])
        else:
            ground = _picture(background)
        return _Result(
            picture=lay_on(subject.picture, ground),
            method=subject.method,
            confidence=subject.confidence,
        )

    def _find_subject(self, picture: Picture) -> CutOut:
        model = self._model()
        if model.family == "grabcut":
            return cut_out_by_border(picture)
        return self._residency.get(model, load_segmenter).cut_out(picture)

    def _model(self) -> Model:
        if self._work.model is None:
            raise TypeError(f"{self._work.operation} needs a model")
        return self._work.model


def _without_fringe(picture: Picture, alpha: bytes) -> Picture:
    shape = (picture.height, picture.width)
    pixels = np.frombuffer(picture.rgb, np.uint8).reshape(*shape, 3)
    clean = unmix(pixels, np.frombuffer(alpha, np.uint8).reshape(shape))
    return Picture(width=picture.width, height=picture.height, rgb=clean.tobytes())


def _cropped(picture: Picture, options: dict[str, Any]) -> Picture:
    if options["aspect_ratio"] is not None:
        across, _, down = options["aspect_ratio"].partition(":")
        return crop_to_ratio(picture, int(across), int(down), options["gravity"] or "center")
    return crop(
        picture,
        options["left"] or 0,
        options["top"] or 0,
        options["width"],
        options["height"],
    )


def _is_cut_out(picture: Picture) -> bool:
    """Whether most of the picture's border is transparent."""
    if picture.alpha is None:
        return False
    width, alpha = picture.width, picture.alpha
    border = alpha[:width] + alpha[-width:] + alpha[::width] + alpha[width - 1 :: width]
    return 2 * sum(value < 128 for value in border) >= len(border)


def _picture(image: InputImage) -> Picture:
    return Picture(width=image.width, height=image.height, rgb=image.rgb, alpha=image.alpha)


def _color(options: dict[str, Any]) -> tuple[int, int, int] | None:
    color = options["background_color"]
    return None if color is None else parse_color(color)
