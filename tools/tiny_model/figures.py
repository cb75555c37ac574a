"""Draw the person who wears the garment, framed so that the garment fills the picture.

Four framings: the whole body (dress, trousers, skirt), head to hips (shirt, jacket, bag), a
portrait (hat) and the legs (shoes). The garment itself is drawn on top afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from canvas import CENTRE, Canvas, Colour, mirrored, oval, shade, spline

TEE: Colour = (222, 225, 230)
DENIM: Colour = (64, 76, 110)
LEATHER: Colour = (60, 54, 56)
CHEEK: Colour = (232, 120, 110)


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Carry the paints of one person."""

    skin: Colour
    hair: Colour
    long_hair: bool

    @property
    def skin_ink(self) -> Colour:
        return shade(self.skin, 0.62)

    @property
    def hair_ink(self) -> Colour:
        return shade(self.hair, 0.6)


def draw_person(canvas: Canvas, person: Person, kind: str) -> None:
    """Paint the body in the framing that suits the kind of garment."""
    match kind:
        case "dress":
            _whole_body(canvas, person, legs_bare=True, tee=False)
        case "skirt":
            _whole_body(canvas, person, legs_bare=True, tee=True)
        case "trousers":
            _whole_body(canvas, person, legs_bare=False, tee=True)
        case "shirt" | "jacket" | "bag":
            _half_body(canvas, person, tee=kind == "bag", sleeves=kind == "jacket")
        case "hat":
            _portrait(canvas, person)
        case "shoe":
            _legs(canvas, person)
        case _:
            raise ValueError(f"garment {kind!r} is unknown")


def _limb(canvas: Canvas, points: list[tuple[float, float]], width: float, colour: Colour,
          ink: Colour) -> None:  # fmt: skip
    for side in (1, -1):
        path = spline([(CENTRE + side * x, y) for x, y in points], closed=False)
        canvas.line(path, ink, width + 9)
        canvas.line(path, colour, width)


def _whole_body(canvas: Canvas, person: Person, *, legs_bare: bool, tee: bool) -> None:
    _hair_behind(canvas, person, y=40, size=0.66)
    _limb(canvas, [(33, 86), (42, 116), (46, 150)], 9, person.skin, person.skin_ink)
    if legs_bare:
        _limb(canvas, [(15, 180), (16, 232)], 13, person.skin, person.skin_ink)
    for side in (1, -1):
        canvas.area(oval(CENTRE + side * 22, 243, 18, 8), LEATHER, shade(LEATHER, 0.6))
    chest = spline(mirrored([(0, 70, 1), (12, 72), (34, 79), (28, 110, 1), (0, 112, 1)]))
    canvas.area(chest, person.skin, person.skin_ink)
    _neck(canvas, person, half=9, top=56, bottom=78)
    if tee:
        shirt = [(0, 84), (14, 73, 1), (34, 80), (48, 112, 1), (34, 119, 1), (28, 108, 1),
                 (28, 140, 1), (0, 140, 1)]  # fmt: skip
        canvas.area(spline(mirrored(shirt)), TEE, shade(TEE, 0.5))
    _head(canvas, person, y=40, size=0.66)


def _half_body(canvas: Canvas, person: Person, *, tee: bool, sleeves: bool) -> None:
    _hair_behind(canvas, person, y=54, size=1.0)
    if sleeves:
        _limb(canvas, [(84, 236), (85, 250)], 18, person.skin, person.skin_ink)
    else:
        _limb(canvas, [(76, 168), (83, 262)], 18, person.skin, person.skin_ink)
    hips = spline(mirrored([(0, 224, 1), (55, 224, 1), (60, 270, 1), (0, 270, 1)]))
    canvas.area(hips, DENIM, shade(DENIM, 0.6))
    chest = spline(mirrored([(0, 96, 1), (30, 100), (56, 112, 1), (40, 150, 1), (0, 150, 1)]))
    canvas.fill(chest, person.skin)
    _neck(canvas, person, half=15, top=76, bottom=114)
    if tee:
        shirt = [(0, 122), (26, 99, 1), (62, 110), (94, 168, 1), (66, 184, 1), (55, 160, 1),
                 (55, 200), (57, 238, 1), (0, 242)]  # fmt: skip
        canvas.area(spline(mirrored(shirt)), TEE, shade(TEE, 0.5))
    _head(canvas, person, y=54, size=1.0)


def _portrait(canvas: Canvas, person: Person) -> None:
    _hair_behind(canvas, person, y=132, size=1.55)
    shirt = [(0, 222), (28, 206, 1), (74, 218), (98, 270, 1), (0, 270, 1)]
    _neck(canvas, person, half=22, top=170, bottom=226)
    canvas.area(spline(mirrored(shirt)), TEE, shade(TEE, 0.5))
    _head(canvas, person, y=132, size=1.55)


def _legs(canvas: Canvas, person: Person) -> None:
    for x, y in ((-66.0, 140.0), (18.0, 164.0)):
        ankle = np.array([[CENTRE + x, y - 90], [CENTRE + x, y]])
        canvas.line(ankle, person.skin_ink, 33)
        canvas.line(ankle, person.skin, 24)
        cloth = spline([(CENTRE + x - 27, -16, 1), (CENTRE + x + 27, -16, 1),
                        (CENTRE + x + 25, y - 44, 1), (CENTRE + x - 25, y - 44, 1)])  # fmt: skip
        canvas.area(cloth, DENIM, shade(DENIM, 0.6))


def _neck(canvas: Canvas, person: Person, *, half: float, top: float, bottom: float) -> None:
    box = spline(mirrored([(half, top, 1), (half + 1, bottom, 1)]))
    canvas.fill(box, shade(person.skin, 0.9))


def _hair_behind(canvas: Canvas, person: Person, *, y: float, size: float) -> None:
    if not person.long_hair:
        return
    back = [(0, y - 42 * size), (36 * size, y - 20 * size), (40 * size, y + 20 * size),
            (44 * size, y + 58 * size, 1), (0, y + 58 * size, 1)]  # fmt: skip
    canvas.area(spline(mirrored(back)), person.hair, person.hair_ink)


def _head(canvas: Canvas, person: Person, *, y: float, size: float) -> None:
    canvas.area(oval(CENTRE, y, 30 * size, 36 * size), person.skin, person.skin_ink)
    fringe = [(0, y - 42 * size), (28 * size, y - 32 * size), (35 * size, y - 2 * size, 1),
              (26 * size, y - 12 * size), (0, y - 18 * size)]  # fmt: skip
    canvas.area(spline(mirrored(fringe)), person.hair, person.hair_ink)
    red, green, blue = ((a + b) / 2 for a, b in zip(CHEEK, person.skin, strict=True))
    blush = (red, green, blue)
    for side in (1, -1):
        canvas.fill(oval(CENTRE + side * 12 * size, y + 2 * size, 4.2 * size, 5.2 * size),
                    (44, 36, 40))  # fmt: skip
        canvas.fill(oval(CENTRE + side * 18 * size, y + 13 * size, 5 * size, 3.4 * size),
                    blush)  # fmt: skip
    smile = [(CENTRE - 8 * size, y + 17 * size), (CENTRE, y + 21 * size),
             (CENTRE + 8 * size, y + 17 * size)]  # fmt: skip
    canvas.line(spline(smile, closed=False), (150, 50, 56), max(3, 4 * size))
