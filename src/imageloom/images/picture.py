"""A picture as every layer passes it on: width, height and bytes, of no library's type."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """An sRGB picture, upright.

    `rgb` is row-major uint8, shape [height, width, 3]. `alpha`, shape [height, width], is there
    only for a cut-out: 0 is transparent, and the colours are not premultiplied.
    """

    width: int
    height: int
    rgb: bytes = field(repr=False)
    alpha: bytes | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        pixels = self.width * self.height
        if min(self.width, self.height) < 1 or len(self.rgb) != 3 * pixels:
            raise ValueError(
                f"{self.width} x {self.height} RGB has {3 * pixels} bytes, not {len(self.rgb)}"
            )
        if self.alpha is not None and len(self.alpha) != pixels:
            raise ValueError(
                f"{self.width} x {self.height} alpha has {pixels} bytes, not {len(self.alpha)}"
            )


def to_pillow(picture: Picture) -> Image.Image:
    """Return `picture` as an image of Pillow, mode RGB, or RGBA for a cut-out."""
    size = (picture.width, picture.height)
    image = Image.frombytes("RGB", size, picture.rgb)
    if picture.alpha is not None:
        image.putalpha(Image.frombytes("L", size, picture.alpha))
    return image


def from_pillow(image: Image.Image) -> Picture:
    """Return the picture of an image of Pillow of mode RGB or RGBA."""
    return Picture(
        width=image.width,
        height=image.height,
        rgb=image.tobytes("raw", "RGB"),
        alpha=image.tobytes("raw", "A") if image.mode == "RGBA" else None,
    )


def to_mode(image: Image.Image, mode: str) -> Image.Image:
    """Return `image` in `mode`, without the copy that `convert` makes of one that is in it."""
    return image if image.mode == mode else image.convert(mode)
