"""Bring a `Picture` to a size, with Lanczos in both directions."""

from __future__ import annotations

from PIL import Image, ImageOps

from imageloom.images.picture import Picture, from_pillow, to_pillow


def fit_picture(picture: Picture, width: int, height: int) -> Picture:
    """Return `picture` scaled to cover `width` x `height`, its overhang cut off on both sides.

    A picture of that size already is returned as it is.
    """
    if (picture.width, picture.height) == (width, height):
        return picture
    image = to_pillow(picture)
    return from_pillow(ImageOps.fit(image, (width, height), method=Image.Resampling.LANCZOS))


def resize_picture(picture: Picture, width: int, height: int) -> Picture:
    """Return `picture` stretched to exactly `width` x `height`, its proportions not kept."""
    if (picture.width, picture.height) == (width, height):
        return picture
    image = to_pillow(picture)
    return from_pillow(image.resize((width, height), Image.Resampling.LANCZOS))
