"""Image processing: one operation on one picture or a list of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pydantic import BaseModel

from imageloom.domain.catalog import Kind, Model
from imageloom.domain.errors import InvalidInput, InvalidParams, UnknownModel
from imageloom.domain.forecast import Effort
from imageloom.domain.work import InputImage, LoraUse, ProcessingWork
from imageloom.images import Picture, Transparency, fit_picture, resized_size
from imageloom.settings import Limits
from imageloom.task_types.parsing import parse_params
from imageloom.task_types.processing.params import OPERATIONS, ProcessingParams
from imageloom.task_types.spec import Work, input_urls

_BACKGROUND = "background_image_url"
_WHAT_MODELS_DO = {"upscaler": "enlarge", "segmenter": "tell a subject from its background"}


class Processing:
    """The task type `processing`."""

    name = "processing"
    draws_rows = False
    summary = "Upscale, cut out, resize, crop, convert or adjust pictures"
    example: Mapping[str, Any] = {
        "operation": "upscale",
        "scale": 2,
        "input_image_url": "https://example.com/dress.jpg",
    }
    url_fields = ("input_image_url", "input_image_urls", _BACKGROUND)
    asides: tuple[str, ...] = ()
    transparency: Transparency = "keep"

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of a request: that of one of the operations."""
        return {"oneOf": [params.model_json_schema() for params in OPERATIONS.values()]}

    def parse(self, body: Mapping[str, Any]) -> ProcessingParams:
        """Return a request's parameters. Raises: InvalidParams, naming the field."""
        operation = body.get("operation")
        known = ", ".join(OPERATIONS)
        if operation is None:
            raise InvalidParams(f"operation: is required, one of {known}", param="operation")
        if not isinstance(operation, str) or operation not in OPERATIONS:
            raise InvalidParams(
                f"operation: there is no operation {str(operation)[:60]!r}; use one of {known}",
                param="operation",
            )
        return parse_params(OPERATIONS[operation], body)

    def model_name(self, params: BaseModel, *, defaults: Mapping[Kind, str]) -> str | None:
        """Return the model that the request names, else the default of its operation."""
        asked = _typed(params)
        if asked.model_kind is None:
            return None
        named: str | None = getattr(asked, "model", None)
        return named or defaults[asked.model_kind]

    def prepare(self, params: BaseModel, *, model: Model | None, limits: Limits) -> dict[str, Any]:
        """Return the parameters with the model filled in.

        Raises: InvalidParams where the result would be too large; UnknownModel where the model is
        for something else.
        """
        asked = _typed(params)
        stored = asked.model_dump(mode="json")
        if model is not None and asked.model_kind is not None:
            if model.kind != asked.model_kind:
                raise UnknownModel(
                    f"model: {model.name!r} is a model of the kind {model.kind}; it does not "
                    f"{_WHAT_MODELS_DO[asked.model_kind]}",
                    param="model",
                )
            stored["model"] = model.name
        if stored.get("width") and stored.get("height"):
            pixels = stored["width"] * stored["height"]
            if pixels > limits.output_pixels:
                raise InvalidParams(
                    f"width: width x height is {pixels} pixels, over the limit of "
                    f"{limits.output_pixels}",
                    param="width",
                )
        return stored

    def output_count(self, params: Mapping[str, Any]) -> int:
        """Return how many pictures a task makes: as many as it gets."""
        return len(self.parts(params))

    def effort(self, params: Mapping[str, Any], *, model: Model | None) -> Effort:
        """Return how much work it is, in pictures: how large they are shows when they are read."""
        kind = [params["operation"], *([model.name] if model else [])]
        if params["operation"] == "upscale":
            kind.append(f"x{params['scale']}")
        return Effort(pace="/".join((self.name, *kind)), units=self.output_count(params))

    def parts(self, params: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
        """Return one run on the device per picture."""
        named = input_urls(self.url_fields, params)
        around = tuple(name for name in named if name == _BACKGROUND)
        return tuple((name, *around) for name in named if name != _BACKGROUND)

    def build_work(
        self,
        params: Mapping[str, Any],
        *,
        model: Model | None,
        inputs: Mapping[str, Picture],
        limits: Limits,
        loras: tuple[LoraUse, ...] = (),  # processing has no adapters
    ) -> Work:
        """Return the device's share of one picture.

        Raises: InvalidInput where this picture would become too large.
        """
        background = inputs.get(_BACKGROUND)
        (picture,) = (picture for name, picture in inputs.items() if name != _BACKGROUND)
        _check_result(params, picture, limits)
        if background is not None:
            background = fit_picture(background, picture.width, picture.height)
        elsewhere = {"operation", "model", *self.url_fields}
        work = ProcessingWork(
            operation=params["operation"],
            options={name: value for name, value in params.items() if name not in elsewhere},
            model=model,
            image=_image(picture),
            background=None if background is None else _image(background),
        )
        return Work(
            message=msgspec.msgpack.encode(work),
            output_format=params["output_format"],
            quality=params.get("quality"),
        )


def _check_result(params: Mapping[str, Any], picture: Picture, limits: Limits) -> None:
    """Refuse what would come out too large, before any of it is made."""
    size = (picture.width, picture.height)
    match params["operation"]:
        case "upscale":
            param = "scale"
            size = (size[0] * params["scale"], size[1] * params["scale"])
        case "resize":
            param = "height" if params["width"] is None else "width"
            size = resized_size(size, params["width"], params["height"], fit=params["fit"])
        case _:
            return
    if size[0] * size[1] > limits.output_pixels:
        raise InvalidInput(
            f"{param}: the picture of {picture.width} x {picture.height} would become "
            f"{size[0]} x {size[1]}; at most {limits.output_pixels / 1e6:g} megapixels are made",
            param=param,
        )


def _image(picture: Picture) -> InputImage:
    return InputImage(
        width=picture.width, height=picture.height, rgb=picture.rgb, alpha=picture.alpha
    )


def _typed(params: BaseModel) -> ProcessingParams:
    if not isinstance(params, ProcessingParams):
        raise TypeError(f"processing takes ProcessingParams, not {type(params).__name__}")
    return params
