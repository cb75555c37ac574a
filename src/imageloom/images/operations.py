"""What users ask to be done with a picture, as functions from picture to picture.

Colours that a cut-out hides never show: they have no part in any mean, blur or resampling.
"""

from __future__ import annotations

from typing import Literal

from PIL import Image, ImageEnhance, ImageFilter, ImageStat

from imageloom.domain.errors import InvalidInput
from imageloom.images.fitting import fit_picture, share
from imageloom.images.picture import Picture, from_pillow

Gravity = Literal[
    "center",
    "top",
    "bottom",
    "left",
    "right",
    "top-left",
    "top-right",
    "bottom-left",
    "bottom-right",
]
_WHITE = (255, 255, 255)


def crop(picture: Picture, left: int, top: int, width: int, height: int) -> Picture:
    """Return the box of `width` x `height` whose upper left corner is at `left`, `top`.

    Raises: InvalidInput when the box is empty or reaches outside of the picture.
    """
    if min(left, top) < 0 or left + width > picture.width or top + height > picture.height:
        raise InvalidInput(
            f"the box of {width} x {height} at left {left}, top {top} reaches outside of the "
            f"picture, which is {picture.width} x {picture.height}"
        )
    if min(width, height) < 1:
        raise InvalidInput(f"the box is {width} x {height}; at least 1 x 1 is needed")
    if (width, height) == (picture.width, picture.height):
        return picture

    def cut(data: bytes, channels: int) -> bytes:
        rows = range(top, top + height)
        starts = [(row * picture.width + left) * channels for row in rows]
        return b"".join(data[start : start + width * channels] for start in starts)

    alpha = None if picture.alpha is None else cut(picture.alpha, 1)
    return Picture(width=width, height=height, rgb=cut(picture.rgb, 3), alpha=alpha)


def crop_to_ratio(picture: Picture, across: int, down: int, gravity: Gravity) -> Picture:
    """Return the largest box that is `across` to `down`, to the nearest pixel.

    It keeps the edge or corner that `gravity` names, and the middle of what is not named.
    """
    if picture.width * down >= picture.height * across:
        width, height = share(picture.height * across, down), picture.height
    else:
        width, height = picture.width, share(picture.width * down, across)
    beside, above = picture.width - width, picture.height - height
    left = 0 if "left" in gravity else beside if "right" in gravity else beside // 2
    top = 0 if "top" in gravity else above if "bottom" in gravity else above // 2
    return crop(picture, left, top, width, height)


def adjust(
    picture: Picture,
    *,
    brightness: float = 1.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    sharpness: float = 1.0,
) -> Picture:
    """Return `picture` with each factor applied, in the order of the arguments; alpha stays.

    1 leaves as it is, more is more. 0 gives black, one grey, greys, or softness. Contrast is around
    the mean grey, in a cut-out that of the pixels which are not wholly transparent.
    """
    image, alpha = _colours(picture), _alpha(picture)
    if brightness != 1:
        image = ImageEnhance.Brightness(image).enhance(brightness)
    if contrast != 1:
        mean = _mean_grey(image, alpha)
        image = Image.blend(Image.new("RGB", image.size, (mean, mean, mean)), image, contrast)
    if saturation != 1:
        image = ImageEnhance.Color(image).enhance(saturation)
    if sharpness != 1:
        image = Image.blend(_softened(image, alpha), image, sharpness)
    return Picture(
        width=picture.width, height=picture.height, rgb=image.tobytes(), alpha=picture.alpha
    )


def lay_on(picture: Picture, background: Picture | tuple[int, int, int]) -> Picture:
    """Return `picture` before a colour, or before a picture that is scaled to cover; opaque.

    What is transparent in the background too becomes white.
    """
    if picture.alpha is None:
        return picture
    size = (picture.width, picture.height)
    if isinstance(background, Picture):
        ground = _colours(lay_on(fit_picture(background, *size), _WHITE))
    else:
        ground = Image.new("RGB", size, background)
    ground.paste(_colours(picture), mask=_alpha(picture))
    return from_pillow(ground)


def with_alpha(picture: Picture, alpha: bytes) -> Picture:
    """Return the cut-out of `picture` by `alpha`, row-major uint8 of its size.

    Where the picture has alpha already, the two multiply.
    Raises: ValueError when `alpha` is of another size.
    """
    own = _alpha(picture)
    if own is not None and len(alpha) == picture.width * picture.height:
        both = Image.new("L", own.size)
        # A product to the nearest; ImageChops.multiply would cut off.
        both.paste(Image.frombytes("L", own.size, alpha), mask=own)
        alpha = both.tobytes()
    return Picture(width=picture.width, height=picture.height, rgb=picture.rgb, alpha=alpha)


def _colours(picture: Picture) -> Image.Image:
    return Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)


def _alpha(picture: Picture) -> Image.Image | None:
    if picture.alpha is None:
        return None
    return Image.frombytes("L", (picture.width, picture.height), picture.alpha)


def _mean_grey(image: Image.Image, alpha: Image.Image | None) -> int:
    grey = ImageStat.Stat(image.convert("L"), alpha)
    return round(grey.mean[0]) if grey.count[0] else 0


def _softened(image: Image.Image, alpha: Image.Image | None) -> Image.Image:
    """Return `image`, RGB, slightly blurred, each pixel weighted by its alpha."""
    if alpha is None:
        return image.filter(ImageFilter.SMOOTH)
    weighted = image.copy()
    weighted.putalpha(alpha)
    soft = weighted.convert("RGBa").filter(ImageFilter.SMOOTH).convert("RGBA")
    return soft.convert("RGB")
