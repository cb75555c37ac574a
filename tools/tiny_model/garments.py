"""Draw the eight garments, lying as a product or cut to fit a figure.

Each function paints on a canvas with a `Style`; "worn" variants share the product's drawing where
the outline is the same and only moves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from canvas import CENTRE, Canvas, Colour, Points, mirrored, oval, spline

GOLD: Colour = (236, 190, 70)
LINEN: Colour = (250, 250, 250)
INK: Colour = (58, 58, 68)


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """Carry the paints of one garment: cloth, outline ink, and the darker trim."""

    cloth: np.ndarray
    ink: Colour
    trim: Colour


def _sew(canvas: Canvas, style: Style, right: Points) -> None:
    outline = spline(mirrored(right))
    canvas.fabric(outline, style.cloth)
    canvas.line(outline, style.ink, closed=True)


def _stitch(canvas: Canvas, style: Style, *points: tuple[float, float]) -> None:
    for side in (1, -1):
        moved = [(CENTRE + side * x, y) for x, y in points]
        canvas.line(spline(moved, closed=False), style.ink, 4)


def _band(canvas: Canvas, style: Style, half: float, top: float, bottom: float) -> None:
    box = spline(mirrored([(half, top, 1), (half + 1, bottom, 1)]))
    canvas.area(box, style.trim, style.ink)


def draw_dress(canvas: Canvas, style: Style) -> None:
    _sew(
        canvas,
        style,
        [(0, 70, 1), (26, 22, 1), (46, 22, 1), (42, 58), (52, 88, 1), (38, 120, 1), (60, 180),
         (90, 226, 1), (44, 238), (0, 240)],
    )  # fmt: skip
    _stitch(canvas, style, (24, 140), (42, 222))
    _band(canvas, style, 38, 116, 132)


def draw_dress_worn(canvas: Canvas, style: Style) -> None:
    _sew(
        canvas,
        style,
        [(0, 94, 1), (14, 74, 1), (27, 74, 1), (26, 92), (33, 104, 1), (25, 128, 1), (38, 160),
         (58, 198, 1), (28, 206), (0, 207)],
    )  # fmt: skip
    _band(canvas, style, 25, 125, 136)


def draw_shirt(canvas: Canvas, style: Style) -> None:
    _sew(
        canvas,
        style,
        [(0, 72), (34, 42, 1), (62, 50), (112, 100, 1), (84, 132, 1), (64, 112, 1), (62, 160),
         (64, 220, 1), (0, 226)],
    )  # fmt: skip
    _stitch(canvas, style, (64, 112), (58, 84))
    neck = [(CENTRE - 34, 42), (CENTRE, 72), (CENTRE + 34, 42)]
    canvas.line(spline(neck, closed=False), style.trim, 9)


def draw_shirt_worn(canvas: Canvas, style: Style) -> None:
    _sew(
        canvas,
        style,
        [(0, 122), (26, 99, 1), (62, 110), (94, 168, 1), (66, 184, 1), (55, 160, 1), (55, 200),
         (57, 238, 1), (0, 242)],
    )  # fmt: skip
    neck = [(CENTRE - 26, 99), (CENTRE, 122), (CENTRE + 26, 99)]
    canvas.line(spline(neck, closed=False), style.trim, 8)


def draw_jacket(canvas: Canvas, style: Style) -> None:
    _sew(
        canvas,
        style,
        [(0, 40, 1), (26, 38, 1), (62, 52), (88, 96), (110, 196, 1), (80, 206, 1), (64, 124, 1),
         (68, 226, 1), (0, 230, 1)],
    )  # fmt: skip
    _lapels(canvas, style, top=38, bottom=142, hem=230, wide=50)


def draw_jacket_worn(canvas: Canvas, style: Style) -> None:
    _sew(
        canvas,
        style,
        [(0, 100, 1), (24, 98, 1), (64, 110), (86, 152), (98, 236, 1), (70, 242, 1), (60, 170, 1),
         (62, 244, 1), (0, 247, 1)],
    )  # fmt: skip
    _lapels(canvas, style, top=98, bottom=186, hem=247, wide=44)


def _lapels(
    canvas: Canvas, style: Style, *, top: float, bottom: float, hem: float, wide: float
) -> None:
    inner = spline(mirrored([(0, bottom, 1), (24, top, 1)]))
    canvas.fill(inner, LINEN)
    for side in (1, -1):
        flap = [(24, top, 1), (wide, top + 44, 1), (wide - 16, top + 52, 1), (0, bottom, 1)]
        outline = spline([(CENTRE + side * p[0], *p[1:]) for p in flap])
        canvas.area(outline, style.trim, style.ink)
    canvas.line(np.array([[CENTRE, bottom], [CENTRE, hem]]), style.ink, 5)
    for y in (bottom + 20, bottom + 46):
        if y < hem - 8:
            canvas.fill(oval(CENTRE + 14, y, 7, 7), GOLD)


def draw_trousers(canvas: Canvas, style: Style) -> None:
    _sew(
        canvas,
        style,
        [(0, 24, 1), (48, 24, 1), (58, 80), (66, 234, 1), (22, 236, 1), (0, 100, 1)],
    )
    _band(canvas, style, 48, 24, 42)
    canvas.line(np.array([[CENTRE, 42.0], [CENTRE, 100.0]]), style.ink, 4)


def draw_trousers_worn(canvas: Canvas, style: Style) -> None:
    _sew(
        canvas,
        style,
        [(0, 132, 1), (29, 132, 1), (36, 164), (39, 236, 1), (9, 236, 1), (0, 172, 1)],
    )
    _band(canvas, style, 29, 131, 142)


def draw_skirt(canvas: Canvas, style: Style) -> None:
    _sew(
        canvas,
        style,
        [(0, 46, 1), (42, 46, 1), (64, 120), (102, 204, 1), (50, 218), (0, 222)],
    )
    _stitch(canvas, style, (22, 70), (40, 210))
    _band(canvas, style, 42, 46, 66)


def draw_skirt_worn(canvas: Canvas, style: Style) -> None:
    _sew(
        canvas,
        style,
        [(0, 130, 1), (28, 130, 1), (42, 160), (62, 194, 1), (30, 202), (0, 204)],
    )
    _band(canvas, style, 28, 129, 141)


def draw_shoe(canvas: Canvas, style: Style) -> None:
    _sneaker(canvas, style, x=CENTRE, y=150, size=1.0)


def draw_shoes_worn(canvas: Canvas, style: Style) -> None:
    _sneaker(canvas, style, x=CENTRE - 42, y=176, size=0.58)
    _sneaker(canvas, style, x=CENTRE + 42, y=200, size=0.58)


def _sneaker(canvas: Canvas, style: Style, *, x: float, y: float, size: float) -> None:
    """Draw a side view with its toe to the right, about 212 units long at size 1."""

    def at(points: Points) -> list[tuple[float, ...]]:
        return [(x + size * p[0], y + size * p[1], *p[2:]) for p in points]

    upper = spline(
        at([(-92, -78, 1), (-66, -62), (-26, -84, 1), (8, -44), (50, -20), (92, -4), (106, 32, 1),
            (-100, 32, 1), (-96, -24)])
    )  # fmt: skip
    sole = spline(at([(-104, 30, 1), (110, 30, 1), (108, 52), (92, 58), (-94, 58), (-106, 48)]))
    canvas.fabric(upper, style.cloth)
    canvas.line(upper, style.ink, closed=True)
    canvas.area(sole, LINEN, INK)
    for k in range(3):
        lace = np.array(at([(-24 + 24 * k, -50 + 15 * k), (-2 + 24 * k, -64 + 17 * k)]))
        canvas.line(lace, LINEN, 8 * size + 1)


def draw_bag(canvas: Canvas, style: Style) -> None:
    _handbag(canvas, style, x=CENTRE, y=160, size=1.0)


def draw_bag_worn(canvas: Canvas, style: Style) -> None:
    strap = [(CENTRE - 36, 106), (CENTRE, 142), (CENTRE + 34, 180)]
    canvas.line(spline(strap, closed=False), style.ink, 14)
    canvas.line(spline(strap, closed=False), style.trim, 6)
    _handbag(canvas, style, x=CENTRE + 20, y=208, size=0.6)


def _handbag(canvas: Canvas, style: Style, *, x: float, y: float, size: float) -> None:
    """Draw a tote with a round handle, about 190 units wide at size 1."""

    def at(points: Points) -> list[tuple[float, ...]]:
        return [(x + size * p[0], y + size * p[1], *p[2:]) for p in points]

    if size > 0.9:
        handle = spline(at([(-44, -54), (-38, -110), (0, -130), (38, -110), (44, -54)]),
                        closed=False)  # fmt: skip
        canvas.line(handle, style.ink, 22)
        canvas.line(handle, style.trim, 11)
    body = spline(at([(-78, -58, 1), (78, -58, 1), (96, 60), (84, 72), (0, 76), (-84, 72),
                      (-96, 60)]))  # fmt: skip
    canvas.fabric(body, style.cloth)
    canvas.line(body, style.ink, closed=True)
    flap = spline(at([(-79, -58, 1), (79, -58, 1), (70, -14), (0, 8), (-70, -14)]))
    canvas.area(flap, style.trim, style.ink)
    canvas.area(oval(x, y + 6 * size, 13 * size + 2, 13 * size + 2), GOLD, style.ink)


def draw_hat(canvas: Canvas, style: Style) -> None:
    _sun_hat(canvas, style, y=172, wide=112, deep=32, crown=60, tall=112)


def draw_hat_worn(canvas: Canvas, style: Style) -> None:
    _sun_hat(canvas, style, y=98, wide=98, deep=20, crown=56, tall=80)


def _sun_hat(
    canvas: Canvas, style: Style, *, y: float, wide: float, deep: float, crown: float, tall: float
) -> None:
    brim = oval(CENTRE, y, wide, deep)
    canvas.fabric(brim, style.cloth)
    canvas.line(brim, style.ink, closed=True)
    top = spline(
        mirrored([(0, y - tall + 8), (crown * 0.55, y - tall), (crown * 0.92, y - tall * 0.75),
                  (crown, y, 1), (0, y + deep * 0.45)])
    )  # fmt: skip
    canvas.fabric(top, style.cloth)
    canvas.line(top, style.ink, closed=True)
    high, low = y - tall * 0.3, y
    ribbon = spline(
        mirrored([(0, high + deep * 0.3), (crown * 0.98, high, 1), (crown, low, 1),
                  (0, low + deep * 0.45)])
    )  # fmt: skip
    canvas.area(ribbon, style.trim, style.ink)


PRODUCT = {
    "dress": draw_dress, "shirt": draw_shirt, "trousers": draw_trousers, "skirt": draw_skirt,
    "shoe": draw_shoe, "bag": draw_bag, "hat": draw_hat, "jacket": draw_jacket,
}  # fmt: skip
WORN = {
    "dress": draw_dress_worn, "shirt": draw_shirt_worn, "trousers": draw_trousers_worn,
    "skirt": draw_skirt_worn, "shoe": draw_shoes_worn, "bag": draw_bag_worn,
    "hat": draw_hat_worn, "jacket": draw_jacket_worn,
}  # fmt: skip
