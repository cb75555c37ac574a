"""Bring a `Picture` to a size. Lanczos in both directions, bicubic for a cut-out."""

from __future__ import annotations

from typing import Literal

from PIL import Image, ImageChops

from imageloom.images.picture import Picture, from_pillow, to_pillow

Fit = Literal["contain", "cover", "stretch", "pad"]
Box = tuple[float, float, float, float]


def fit_picture(picture: Picture, width: int, height: int) -> Picture:
    """Return `picture` scaled to cover `width` x `height`, its overhang cut off on both sides.

    A picture of that size already is returned as it is.
    """
    if (picture.width, picture.height) == (width, height):
        return picture
    image = to_pillow(picture)
    scale = max(width / image.width, height / image.height)
    beside = max(0, image.width - width / scale) / 2
    above = max(0, image.height - height / scale) / 2
    box = (beside, above, image.width - beside, image.height - above)
    return from_pillow(scaled(image, (width, height), box))


def resize_picture(picture: Picture, width: int, height: int) -> Picture:
    """Return `picture` stretched to exactly `width` x `height`, its proportions not kept."""
    if (picture.width, picture.height) == (width, height):
        return picture
    return from_pillow(scaled(to_pillow(picture), (width, height)))


def resize(
    picture: Picture,
    width: int | None,
    height: int | None,
    *,
    fit: Fit,
    color: tuple[int, int, int] | None = None,
) -> Picture:
    """Return `picture` at `resized_size`, brought there as `fit` says.

    contain: as large as fits inside, enlarged too. cover: fills, the overhang cut off on both
    sides. stretch: proportions not kept. pad: contain, centred on exactly `width` x `height`; with
    a `color` the whole picture lies on it, without one what is filled up is transparent.
    One side alone keeps the proportions, whatever `fit` is. `color` has a meaning only for pad.
    Raises: ValueError when neither side is given.
    """
    size = resized_size((picture.width, picture.height), width, height, fit=fit)
    if width is None or height is None or fit in ("contain", "stretch"):
        return resize_picture(picture, *size)
    if fit == "cover":
        return fit_picture(picture, *size)
    return _padded(resize(picture, width, height, fit="contain"), size, color)


def resized_size(
    size: tuple[int, int], width: int | None, height: int | None, *, fit: Fit
) -> tuple[int, int]:
    """Return the width and height, at least 1, that `resize` gives a picture of `size`.

    Raises: ValueError when neither side is given.
    """
    across, down = size
    if width is None:
        if height is None:
            raise ValueError("give width, height or both")
        return share(across * height, down), height
    if height is None:
        return width, share(down * width, across)
    if fit != "contain":
        return width, height
    if width * down <= height * across:
        return width, share(down * width, across)
    return share(across * height, down), height


def share(amount: int, parts: int) -> int:
    """Return `amount / parts` to the nearest, halves up; at least 1, as a side of a picture is."""
    return max(1, (2 * amount + parts) // (2 * parts))


def scaled(image: Image.Image, size: tuple[int, int], box: Box | None = None) -> Image.Image:
    """Return `box` of an image of mode RGB or RGBA at `size`.

    A cut-out is weighted by its alpha, so that what is hidden does not show at its outline; and
    bicubic, since Lanczos puts a ring of alpha 4 to 7 around a hard one.
    """
    if image.mode != "RGBA":
        return image.resize(size, Image.Resampling.LANCZOS, box)
    result = image.resize(size, Image.Resampling.BICUBIC, box)
    _mend_overshoot(result, image, box)
    return result


# At an outline the filter overshoots. Alpha stops at 255 there, the colour that is divided by it
# does not: 100 became 125 in the corner of a flat cut-out. With alpha at three quarters nothing
# stops (cubic overshoots by 7 % a direction), but there are fewer levels: so only where it matters.
_HEADROOM = [value * 3 // 4 for value in range(256)]
_OVERSHOT = [255 * (value > 1) for value in range(256)]  # 1 is rounding


def _mend_overshoot(result: Image.Image, source: Image.Image, box: Box | None) -> None:
    """Replace in `result` the colours of the pixels whose alpha stopped at 255 on the way."""
    faint = source.copy()
    faint.putalpha(source.getchannel("A").point(_HEADROOM))
    faint = faint.resize(result.size, Image.Resampling.BICUBIC, box)
    stopped = result.getchannel("A").point(_HEADROOM)
    overshot = ImageChops.subtract(faint.getchannel("A"), stopped).point(_OVERSHOT)
    faint.putalpha(result.getchannel("A"))
    result.paste(faint, mask=overshot)


def _padded(picture: Picture, size: tuple[int, int], color: tuple[int, int, int] | None) -> Picture:
    if color is None and size == (picture.width, picture.height):
        return picture
    image = to_pillow(picture)
    offset = ((size[0] - image.width) // 2, (size[1] - image.height) // 2)
    if color is None:
        canvas = Image.new("RGBA", size)
        canvas.paste(image, offset)
    else:
        canvas = Image.new("RGB", size, color)
        canvas.paste(image, offset, image if image.mode == "RGBA" else None)
    return from_pillow(canvas)
