"""A small picture out of half blocks, for terminals that show every colour but no pictures.

A cell is two pixels, one above the other: the upper half block in the colour of the one on the
colour of the other.
"""

from __future__ import annotations

import io

import httpx
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text

MOST_ROWS = 14  # of text; a picture of 64 pixels shows all that it has to say on these
LEFT = 12  # rows that the rest of the screen keeps
TIMEOUT = 5.0  # seconds to fetch a picture; without it the training goes on being shown
LARGEST = 50_000_000  # bytes


def rows_for(console: Console) -> int:
    """Return how many rows a picture may take, 0 where colours or room are lacking.

    In 256 colours a pale picture becomes grey with coloured specks, so those get the URL alone.
    """
    if console.color_system != "truecolor":
        return 0
    rows = min(MOST_ROWS, console.height - LEFT)
    return rows if rows >= MOST_ROWS // 2 else 0


def fetch(url: str) -> bytes | None:
    """Return what a signed URL answers, None where it is not there in time."""
    try:
        answer = httpx.get(url, timeout=TIMEOUT)
    except httpx.HTTPError:
        return None
    return answer.content if answer.is_success and len(answer.content) <= LARGEST else None


def thumbnail(data: bytes, *, rows: int, columns: int) -> Text | None:
    """Return a picture as at most so many rows and columns, None where nothing here decodes it."""
    try:
        # Not in the base install: there the URL must do.
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        return None
    try:
        with Image.open(io.BytesIO(data)) as opened:
            image = opened.convert("RGB")
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
        return None
    scale = min(columns / image.width, 2 * rows / image.height)
    width, height = (max(1, round(side * scale)) for side in image.size)
    height += height % 2
    pixels = image.resize((width, height), Image.Resampling.LANCZOS).tobytes()

    def colour(x: int, y: int) -> Color:
        start = 3 * (y * width + x)
        return Color.from_rgb(*pixels[start : start + 3])

    drawn = Text(no_wrap=True, end="")
    for y in range(0, height, 2):
        for x in range(width):
            drawn.append("▀", Style(color=colour(x, y), bgcolor=colour(x, y + 1)))
        drawn.append("\n" if y + 2 < height else "")
    return drawn
