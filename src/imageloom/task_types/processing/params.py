"""What a processing request may say, one class per operation."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    Field,
    StringConstraints,
    model_validator,
)

from imageloom.domain.catalog import Kind
from imageloom.images import Fit, Gravity, parse_color
from imageloom.task_types.parsing import FieldError, TaskParams

Url = Annotated[str, StringConstraints(min_length=1, max_length=34_000_000)]
ModelName = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Color = Annotated[
    str,
    StringConstraints(min_length=1, max_length=32),
    AfterValidator(lambda text: "#{:02x}{:02x}{:02x}".format(*parse_color(text))),
]
Pixels = Annotated[int, Field(ge=1, le=16_384)]
Factor = Annotated[float, Field(ge=0, le=4, allow_inf_nan=False)]
Operation = Literal[
    "upscale", "remove-background", "replace-background", "resize", "crop", "convert", "adjust"
]
LARGEST_LIST = 16


class ProcessingParams(TaskParams):
    """What every operation takes: one picture or a list of them, and the format of the result."""

    model_kind: ClassVar[Kind | None] = None

    input_image_url: Url | None = Field(
        None, description="The picture: http, https, data: or the URL of an upload or output"
    )
    input_image_urls: list[Url] | None = Field(
        None, min_length=1, max_length=LARGEST_LIST, description="Several pictures instead of one"
    )
    output_format: Literal["jpeg", "png", "webp"] = Field(
        "jpeg", description="A picture with transparency becomes PNG where this is jpeg"
    )

    @model_validator(mode="after")
    def _one_kind_of_input(self) -> Self:
        given = (self.input_image_url is not None) + (self.input_image_urls is not None)
        if given != 1:
            raise FieldError("input_image_url", "give either input_image_url or input_image_urls")
        return self


class Upscale(ProcessingParams):
    """Enlarge, to exactly `scale` times the width and height."""

    model_kind: ClassVar[Kind | None] = "upscaler"

    operation: Literal["upscale"]
    scale: Literal[2, 4] = Field(2, description="How many times wider and higher")
    model: ModelName | None = Field(None, description="An upscaler from GET /models")


class RemoveBackground(ProcessingParams):
    """Cut the subject out: what is around it becomes transparent."""

    model_kind: ClassVar[Kind | None] = "segmenter"

    operation: Literal["remove-background"]
    model: ModelName | None = Field(None, description="A segmenter from GET /models")


class ReplaceBackground(ProcessingParams):
    """Put the subject before a colour or another picture.

    A picture that is a cut-out already keeps its own outline.
    """

    model_kind: ClassVar[Kind | None] = "segmenter"

    operation: Literal["replace-background"]
    background_color: Color | None = Field(None, description="#rrggbb or a CSS name")
    background_image_url: Url | None = Field(None, description="Scaled to cover")
    model: ModelName | None = Field(None, description="A segmenter from GET /models")

    @model_validator(mode="after")
    def _one_background(self) -> Self:
        if (self.background_color is None) == (self.background_image_url is None):
            raise FieldError(
                "background_color", "give either background_color or background_image_url"
            )
        return self


class Resize(ProcessingParams):
    """Bring to a size in pixels; one side alone keeps the proportions."""

    operation: Literal["resize"]
    width: Pixels | None = None
    height: Pixels | None = None
    fit: Fit = Field(
        "contain",
        description="contain: as large as fits inside. cover: fills, overhang cut off. "
        "stretch: proportions not kept. pad: contain, on exactly width x height",
    )
    background_color: Color | None = Field(
        None, description="What pad fills up with; transparent if not given"
    )

    @model_validator(mode="after")
    def _a_size(self) -> Self:
        if self.width is None and self.height is None:
            raise FieldError("width", "give width, height or both")
        if self.fit in ("cover", "stretch", "pad") and None in (self.width, self.height):
            raise FieldError("fit", f"{self.fit} needs both width and height")
        if self.background_color is not None and self.fit != "pad":
            raise FieldError("background_color", "has a meaning only with fit: pad")
        return self


class Crop(ProcessingParams):
    """Cut out a box in pixels, or the largest one of some proportions."""

    operation: Literal["crop"]
    left: Annotated[int, Field(ge=0)] | None = None
    top: Annotated[int, Field(ge=0)] | None = None
    width: Pixels | None = None
    height: Pixels | None = None
    aspect_ratio: (
        Annotated[str, StringConstraints(pattern=r"^[1-9]\d{0,3}:[1-9]\d{0,3}$")] | None
    ) = Field(None, description="Such as 4:5, instead of a box")
    gravity: Gravity | None = Field(None, description="Which part aspect_ratio keeps")

    @model_validator(mode="after")
    def _a_box_or_a_ratio(self) -> Self:
        box = (self.left, self.top, self.width, self.height)
        if self.aspect_ratio is not None:
            if any(value is not None for value in box):
                raise FieldError("aspect_ratio", "give it or left, top, width, height; not both")
            return self
        if self.width is None or self.height is None:
            raise FieldError("width", "give left, top, width and height, or aspect_ratio")
        if self.gravity is not None:
            raise FieldError("gravity", "has a meaning only with aspect_ratio")
        return self


class Convert(ProcessingParams):
    """Write in another format."""

    operation: Literal["convert"]
    output_format: Literal["jpeg", "png", "webp"]
    quality: Annotated[int, Field(ge=1, le=100)] | None = Field(
        None, description="Of jpeg and webp; higher is better and larger"
    )
    background_color: Color | None = Field(
        None, description="What a transparent picture is put on; it stays transparent if not given"
    )


class Adjust(ProcessingParams):
    """Change brightness, contrast, saturation, sharpness: 1 leaves as it is, 0 takes away."""

    operation: Literal["adjust"]
    brightness: Factor | None = None
    contrast: Factor | None = None
    saturation: Factor | None = None
    sharpness: Factor | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        factors = (self.brightness, self.contrast, self.saturation, self.sharpness)
        if all(factor is None for factor in factors):
            raise FieldError("brightness", "give brightness, contrast, saturation or sharpness")
        return self


OPERATIONS: dict[Operation, type[ProcessingParams]] = {
    "upscale": Upscale,
    "remove-background": RemoveBackground,
    "replace-background": ReplaceBackground,
    "resize": Resize,
    "crop": Crop,
    "convert": Convert,
    "adjust": Adjust,
}
