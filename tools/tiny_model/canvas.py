"""Paint outlines, fabric and lines on a 256-unit canvas with OpenCV.

All coordinates are in units of the 256 x 256 page, x to the right, y down; the canvas applies the
scene's small shift, zoom and tilt. A point is (x, y), or (x, y, 1) for a sharp corner.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

PAGE = 256
CENTRE = PAGE / 2
INK_WIDTH = 6.0
_SHIFT = 4
Colour = tuple[float, float, float]
Points = Sequence[tuple[float, ...]]


def spline(points: Points, *, closed: bool = True, pieces: int = 7) -> np.ndarray:
    """Return a smooth polyline [n, 2] through the points, straight beside corners."""
    xy = np.array([point[:2] for point in points], dtype=np.float64)
    corner = [len(point) > 2 for point in points]
    count = len(xy)
    steps = np.linspace(0, 1, pieces, endpoint=False)[:, None]
    h00, h10 = 2 * steps**3 - 3 * steps**2 + 1, steps**3 - 2 * steps**2 + steps
    h01, h11 = -2 * steps**3 + 3 * steps**2, steps**3 - steps**2
    parts = []
    for i in range(count if closed else count - 1):
        a, b = xy[i], xy[(i + 1) % count]
        before, after = xy[(i - 1) % count], xy[(i + 2) % count]
        leave_corner = corner[i] or (not closed and i == 0)
        arrive_corner = corner[(i + 1) % count] or (not closed and i == count - 2)
        leave = b - a if leave_corner else (b - before) / 2
        arrive = b - a if arrive_corner else (after - a) / 2
        parts.append(h00 * a + h10 * leave + h01 * b + h11 * arrive)
    if not closed:
        parts.append(xy[-1:])
    return np.concatenate(parts)


def mirrored(right: Points, *, middle: float = CENTRE) -> list[tuple[float, ...]]:
    """Return a closed outline from its right half, given as offsets from the middle line."""
    first = [(middle + p[0], *p[1:]) for p in right]
    second = [(middle - p[0], *p[1:]) for p in reversed(right) if p[0] != 0]
    return first + second


def oval(x: float, y: float, rx: float, ry: float) -> np.ndarray:
    """Return an ellipse as a polyline [36, 2]."""
    angle = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def shade(colour: Colour, factor: float) -> Colour:
    """Return the colour made darker (below 1) or mixed with white (above 1)."""
    if factor <= 1:
        return (colour[0] * factor, colour[1] * factor, colour[2] * factor)
    white = factor - 1
    return (
        colour[0] + (255 - colour[0]) * white,
        colour[1] + (255 - colour[1]) * white,
        colour[2] + (255 - colour[2]) * white,
    )


class Canvas:
    """Hold one page, RGB uint8 [256 * zoom, 256 * zoom, 3], and paint on it in place."""

    def __init__(self, page: np.ndarray, matrix: np.ndarray) -> None:
        self.page = page
        self.matrix = matrix  # [2, 3], page units to page units
        self.zoom = len(page) // PAGE

    def placed(self, points: np.ndarray) -> np.ndarray:
        """Return points under the canvas transform, as OpenCV's fixed-point integers."""
        moved = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return np.round(moved * self.zoom * (1 << _SHIFT)).astype(np.int32)

    def fill(self, points: np.ndarray, colour: Colour) -> None:
        """Paint a flat area."""
        cv2.fillPoly(self.page, [self.placed(points)], colour, cv2.LINE_AA, _SHIFT)

    def line(
        self, points: np.ndarray, colour: Colour, width: float = INK_WIDTH, *, closed: bool = False
    ) -> None:
        """Paint a line of the given width."""
        pixels = round(width * self.zoom)
        cv2.polylines(self.page, [self.placed(points)], closed, colour, pixels, cv2.LINE_AA, _SHIFT)

    def area(self, points: np.ndarray, colour: Colour, ink: Colour) -> None:
        """Paint a flat area with an outline."""
        self.fill(points, colour)
        self.line(points, ink, closed=True)

    def fabric(self, points: np.ndarray, cloth: np.ndarray) -> None:
        """Lay a cloth, RGB float32 of the page's size, inside the outline."""
        mask = np.zeros(self.page.shape[:2], np.uint8)
        cv2.fillPoly(mask, [self.placed(points)], 255, cv2.LINE_AA, _SHIFT)
        share = mask.astype(np.float32)[:, :, None] / 255
        self.page[:] = np.round(self.page * (1 - share) + cloth * share).astype(np.uint8)


def weave(
    colour: Colour, pattern: str, canvas: Canvas, *, middle: float, light: Colour
) -> np.ndarray:
    """Return a side-lit cloth with its pattern, RGB float32 of the canvas's size.

    Stripes repeat every 36 units (9 px at 64 px) and dots measure 24 units (6 px), so that both
    survive a four-fold reduced latent.
    """
    side = PAGE * canvas.zoom
    along = np.arange(side, dtype=np.float32) / canvas.zoom
    x, y = np.meshgrid(along, along)
    base = np.broadcast_to(np.array(colour, np.float32), (side, side, 3))
    match pattern:
        case "plain":
            share = None
        case "striped":
            share = _soft(np.abs((y - 8) % 36 - 18) - 11.0)
        case "dotted":
            row = np.floor(y / 34)
            dx = (x - middle + 20 * (row % 2)) % 40 - 20
            share = _soft(12.0 - np.hypot(dx, y % 34 - 17))
        case "checkered":
            share = (((x - middle) // 24 + y // 24) % 2).astype(np.float32)
        case _:
            raise ValueError(f"pattern {pattern!r} is unknown")
    if share is not None:
        share = share[:, :, None]
        base = base * (1 - share) + np.array(light, np.float32) * share
        moved = canvas.matrix * np.array([1, 1, canvas.zoom])
        base = cv2.warpAffine(
            base, moved, (side, side), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT
        )
    lit = np.clip(1.04 - 0.0012 * (x - middle + 40), 0.86, 1.06)[:, :, None]
    return np.clip(base * lit, 0, 255)


def _soft(distance: np.ndarray) -> np.ndarray:
    return np.clip(distance + 0.5, 0, 1)
