"""Image generation: text to image, and image to image where a picture is given."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from imageloom.domain.catalog import Kind, Model
from imageloom.domain.errors import InvalidParams, UnknownModel
from imageloom.domain.forecast import Effort
from imageloom.domain.schedulers import Scheduler, schedulers_of
from imageloom.domain.seeds import MAX_SEED, draw_seed, picture_seed
from imageloom.domain.work import GenerationWork, InputImage, LoraUse
from imageloom.images import Picture, Transparency, fit_picture
from imageloom.settings import Limits
from imageloom.task_types.parsing import TaskParams, parse_params
from imageloom.task_types.spec import Work, input_urls

# Parameters that a task keeps only where they were given.
_LEFT_OUT: Final = ("loras", "scheduler", "preview_every")
# In evaluations of the network, as in `runtime.training.cost`: a picture decoded, one encoded.
_DECODED: Final = 1.5
_ENCODED: Final = 0.7
SIDE_STEP: Final = 8  # the VAE of every family halves the sides three times
Side = Annotated[int, Field(ge=64, le=2048, multiple_of=SIDE_STEP)]
Prompt = Annotated[str, StringConstraints(max_length=4000)]


class Lora(BaseModel):
    """One adapter and how strongly it acts."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, max_length=64)
    weight: float = Field(1.0, ge=-4, le=4, allow_inf_nan=False)


class GenerationParams(TaskParams):
    """The body of `POST /tasks/generation`."""

    prompt: Annotated[str, StringConstraints(min_length=1, max_length=4000, pattern=r"\S")] = Field(
        description="What the picture shows"
    )
    negative_prompt: Prompt | None = Field(None, description="What the picture should not show")
    input_image_url: (
        Annotated[str, StringConstraints(min_length=1, max_length=34_000_000)] | None
    ) = Field(
        None,
        description="A picture to start from: http, https, data: or the URL of an upload. "
        "Without it the picture is made from the prompt alone",
    )
    strength: float | None = Field(
        None,
        gt=0,
        le=1,
        allow_inf_nan=False,
        description="How much of the input picture is redrawn, above 0 to 1: that share of the "
        "steps, at least one",
    )
    num_outputs: int = Field(1, ge=1, le=16, description="How many pictures")
    steps: int | None = Field(None, ge=1, le=100, description="Denoising steps")
    guidance_scale: float | None = Field(
        None, ge=0, le=30, allow_inf_nan=False, description="How closely the prompt is followed"
    )
    width: Side | None = Field(None, description="Pixels, in steps of 8")
    height: Side | None = Field(None, description="Pixels, in steps of 8")
    seed: int | None = Field(
        None, ge=0, le=MAX_SEED, description="Picture i has seed + i; drawn at random if not given"
    )
    scheduler: Scheduler | None = Field(
        None, description="How noise is taken away; the model's own way if not given"
    )
    model: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="A name from GET /models"
    )
    loras: list[Lora] = Field(default_factory=list, max_length=16, description="Adapters to apply")
    determinism: Literal["default", "exact"] = Field(
        "default",
        description="exact: the same bytes whatever is drawn beside it; default: on a GPU within "
        "1/255 of that, and faster",
    )
    preview_every: int | None = Field(
        None, ge=1, le=100, description="Show a small preview of each picture after so many steps"
    )
    output_format: Literal["jpeg", "png", "webp"] = "jpeg"


class Generation:
    """The task type `generation`."""

    name = "generation"
    draws_rows = True
    summary = "Generate pictures from a prompt, and from a picture where one is given"
    example: Mapping[str, Any] = {
        "prompt": "fashion model wearing the dress, studio lighting, white background",
        "negative_prompt": "blurry, distorted, low quality",
        "num_outputs": 4,
        "steps": 30,
        "guidance_scale": 7.5,
    }
    url_fields = ("input_image_url",)
    asides: tuple[str, ...] = ("preview_every",)
    transparency: Transparency = "flatten"

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of a request."""
        return GenerationParams.model_json_schema()

    def parse(self, body: Mapping[str, Any]) -> GenerationParams:
        """Return a request's parameters. Raises: InvalidParams, naming the field."""
        return parse_params(GenerationParams, body)

    def model_name(self, params: BaseModel, *, defaults: Mapping[Kind, str]) -> str:
        """Return the model that the request names, else the default."""
        return _typed(params).model or defaults["base"]

    def prepare(self, params: BaseModel, *, model: Model | None, limits: Limits) -> dict[str, Any]:
        """Return the parameters with every default of the model filled in.

        A default never goes over what the operator allows, so that a bare prompt always works.
        Sides stay open where a picture is given without them: they follow its proportions.
        Raises: InvalidParams, UnknownModel.
        """
        asked = _typed(params)
        model = _base(model)
        follows_input = asked.input_image_url is not None and not (asked.width or asked.height)
        if asked.strength is not None and asked.input_image_url is None:
            raise InvalidParams(
                "strength: has a meaning only with input_image_url", param="strength"
            )
        side = _default_side(model, limits)
        full = asked.model_copy(
            update={
                "model": model.name,
                "steps": asked.steps or min(model.steps, limits.steps),
                "guidance_scale": _or(
                    asked.guidance_scale, min(model.guidance_scale, limits.guidance)
                ),
                "strength": None
                if asked.input_image_url is None
                else _or(asked.strength, model.strength),
                "width": None if follows_input else asked.width or side,
                "height": None if follows_input else asked.height or side,
                "seed": draw_seed() if asked.seed is None else asked.seed,
            }
        )
        _check_limits(full, model, limits)
        _check_strength(asked.strength, steps=full.steps or model.steps)
        _check_family(full, model)
        left_out = {name for name in _LEFT_OUT if not getattr(full, name)}
        if full.determinism == "default":
            left_out.add("determinism")
        return full.model_dump(mode="json", exclude=left_out)

    def output_count(self, params: Mapping[str, Any]) -> int:
        """Return how many pictures a task makes."""
        return int(params["num_outputs"])

    def effort(self, params: Mapping[str, Any], *, model: Model | None) -> Effort:
        """Return how much work it is, in evaluations of the network x megapixels."""
        model = _base(model)
        asked = params["width"] or model.default_size, params["height"] or model.default_size
        width, height = drawn_size(*asked, native=model.native_size)
        strength = params["strength"]
        steps = params["steps"] if strength is None else max(1, int(params["steps"] * strength))
        guided = params["guidance_scale"] > 1 and model.family != "flux"
        beside = _DECODED if strength is None else _DECODED + _ENCODED
        evaluations = params["num_outputs"] * (steps * (2 if guided else 1) + beside)
        return Effort(pace=f"{self.name}/{model.name}", units=evaluations * width * height / 1e6)

    def parts(self, params: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
        """Return the one run that an attempt is."""
        return (tuple(input_urls(self.url_fields, params)),)

    def build_work(
        self,
        params: Mapping[str, Any],
        *,
        model: Model | None,
        inputs: Mapping[str, Picture],
        limits: Limits,
        loras: tuple[LoraUse, ...] = (),
    ) -> Work:
        """Return the device's share: one seed per picture, the input at the size it is drawn."""
        model = _base(model)
        picture = inputs.get("input_image_url")
        width, height = output_size(params, model=model, picture=picture, limits=limits)
        drawn_width, drawn_height = drawn_size(width, height, native=model.native_size)
        image = None
        if picture is not None:
            fitted = fit_picture(picture, drawn_width, drawn_height)
            image = InputImage(width=fitted.width, height=fitted.height, rgb=fitted.rgb)
        work = GenerationWork(
            model=model,
            prompt=params["prompt"],
            negative_prompt=params["negative_prompt"],
            width=drawn_width,
            height=drawn_height,
            steps=params["steps"],
            guidance_scale=params["guidance_scale"],
            strength=_or(params["strength"], 1.0),
            seeds=tuple(picture_seed(params["seed"], i) for i in range(params["num_outputs"])),
            image=image,
            loras=loras,
            scheduler=params.get("scheduler"),
            exact=params.get("determinism") == "exact",
            preview_every=params.get("preview_every"),
        )
        return Work(
            message=msgspec.msgpack.encode(work),
            size=(width, height),
            output_format=params["output_format"],
        )


def output_size(
    params: Mapping[str, Any], *, model: Model, picture: Picture | None, limits: Limits
) -> tuple[int, int]:
    """Return width and height in pixels of what the user gets.

    Sides that were asked for hold. Else the input's proportions at about the model's default area,
    in steps of 8, from 64 to what the operator allows.
    """
    if params["width"] and params["height"]:
        return params["width"], params["height"]
    side = _default_side(model, limits)
    if picture is None:
        return side, side
    return _same_area(picture.width, picture.height, side, low=64, high=_highest_side(limits))


def drawn_size(width: int, height: int, *, native: int | None) -> tuple[int, int]:
    """Return the size that the device draws: the asked one, or the native area in its proportions.

    A model that draws only near its native side makes nonsense far from it, so anything else is
    drawn there and enlarged.
    """
    if native is None:
        return width, height
    return _same_area(width, height, native, low=native // 2, high=native * 2)


def _same_area(width: int, height: int, side: int, *, low: int, high: int) -> tuple[int, int]:
    ratio = math.sqrt(width / height)
    sides = (side * ratio, side / ratio)
    first, second = (min(high, max(low, round(value / SIDE_STEP) * SIDE_STEP)) for value in sides)
    return first, second


def _default_side(model: Model, limits: Limits) -> int:
    return min(model.default_size, _highest_side(limits))


def _highest_side(limits: Limits) -> int:
    return limits.side // SIDE_STEP * SIDE_STEP


def _check_limits(params: GenerationParams, model: Model, limits: Limits) -> None:
    """Refuse what the operator does not allow, and what is too much work in one task."""
    side = _default_side(model, limits)
    width, height = params.width or side, params.height or side
    steps = params.steps or model.steps
    for name, value, limit in (
        ("steps", steps, limits.steps),
        ("num_outputs", params.num_outputs, limits.outputs),
        ("width", width, limits.side),
        ("height", height, limits.side),
        ("guidance_scale", params.guidance_scale or 0, limits.guidance),
        ("prompt", len(params.prompt), limits.prompt),
        ("negative_prompt", len(params.negative_prompt or ""), limits.prompt),
    ):
        if value > limit:
            raise InvalidParams(f"{name}: {value} is over the limit of {limit}", param=name)
    work = params.num_outputs * steps * width * height
    if work > limits.work:
        raise InvalidParams(
            f"num_outputs x steps x pixels is {work:.3g}, over the limit of {limits.work:.3g}; "
            "ask for fewer outputs, fewer steps or smaller pictures",
            param="num_outputs",
        )


def _check_strength(strength: float | None, *, steps: int) -> None:
    """Refuse a strength that leaves no denoising step. The model's own is raised where it does."""
    if strength is not None and int(steps * strength) < 1:
        least = math.ceil(1000 / steps) / 1000
        raise InvalidParams(
            f"strength: {strength:g} of {steps} steps leaves none; use {least:g} or more, or more "
            "steps",
            param="strength",
        )


def _check_family(params: GenerationParams, model: Model) -> None:
    """Refuse what is only for models whose steps are ours."""
    known = schedulers_of(model.family)
    if params.preview_every is not None and not known:
        raise InvalidParams(
            f"preview_every: the model {model.name!r} shows no previews; leave it out",
            param="preview_every",
        )
    if params.scheduler is None or params.scheduler in known:
        return
    use = f"use one of {', '.join(known)}, or leave it out" if known else "leave it out"
    raise InvalidParams(
        f"scheduler: {params.scheduler!r} is not for the model {model.name!r}; {use}",
        param="scheduler",
    )


def _base(model: Model | None) -> Model:
    """Return the model, once it is certain that it draws. Raises: UnknownModel."""
    if model is None:
        raise TypeError("generation needs a model")
    if model.kind != "base":
        raise UnknownModel(
            f"model: {model.name!r} is a model of the kind {model.kind}, and does not draw",
            param="model",
        )
    return model


def _typed(params: BaseModel) -> GenerationParams:
    if not isinstance(params, GenerationParams):
        raise TypeError(f"generation takes GenerationParams, not {type(params).__name__}")
    return params


def _or(value: float | None, default: float) -> float:
    return default if value is None else value
