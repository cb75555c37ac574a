"""Colours as users write them: #rgb, #rrggbb, or a CSS name."""

from __future__ import annotations

import re

from PIL import ImageColor

_HEX = re.compile(r"#(?:[0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE)
_ACCEPTED = "#rgb, #rrggbb and CSS names are accepted, such as #fff, #ff8800 or white"


def parse_color(text: str) -> tuple[int, int, int]:
    """Return the red, green and blue, 0 to 255, of a colour such as `#fff` or `SteelBlue`.

    Raises: ValueError for anything else, a colour with an alpha among it.
    """
    if _HEX.fullmatch(text) or text.lower() in ImageColor.colormap:
        red, green, blue = ImageColor.getrgb(text)[:3]
        return red, green, blue
    raise ValueError(f"{text!r} is no colour; {_ACCEPTED}")
