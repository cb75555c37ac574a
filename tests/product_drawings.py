"""Catalogue shots drawn here: thirty products on studio backgrounds, each with its exact mask.

A subject is a stack of parts. Each part is a shape drawn four times too large, then averaged, so
both its edge in the picture and its share of the mask are exact to a sixteenth of a pixel.
Everything follows from the seed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from imageloom.images import Picture

OVERSAMPLING = 4
Colour = tuple[float, float, float]
Floats = NDArray[np.float32]
Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """A product shot: `rgb` uint8 [height, width, 3]; `coverage` float32 0 to 1, the true alpha."""

    name: str
    rgb: NDArray[np.uint8]
    coverage: Floats

    @property
    def picture(self) -> Picture:
        height, width = self.rgb.shape[:2]
        return Picture(width=width, height=height, rgb=self.rgb.tobytes())

    @property
    def mask(self) -> NDArray[np.bool_]:
        return self.coverage >= 0.5


class Sheet:
    """What a subject is drawn on: coordinates 0 to 1 across and down a square in its middle."""

    def __init__(self, background: Floats, rng: np.random.Generator) -> None:
        self.paint = background
        self.rng = rng
        self.height, self.width = background.shape[:2]
        self.side = min(self.height, self.width)
        self.offset = ((self.width - self.side) / 2, (self.height - self.side) / 2)
        self._covered = self._empty()

    @property
    def coverage(self) -> Floats:
        return self._averaged(self._covered)

    def _empty(self) -> NDArray[np.uint8]:
        return np.zeros((self.height * OVERSAMPLING, self.width * OVERSAMPLING), np.uint8)

    def _averaged(self, shape: NDArray[np.uint8]) -> Floats:
        small = cv2.resize(
            shape.astype(np.float32), (self.width, self.height), interpolation=cv2.INTER_AREA
        )
        return small / 255

    def _place(self, points: Points) -> NDArray[np.int32]:
        placed = np.asarray(points, np.float64) * self.side + self.offset
        return np.round(placed * OVERSAMPLING * 16).astype(np.int32)

    def fill(self, points: Points, *, smooth: bool = False) -> NDArray[np.uint8]:
        """Return the shape inside `points`, a polygon, or a closed curve through them."""
        shape = self._empty()
        outline = closed_curve(points) if smooth else points
        cv2.fillPoly(shape, [self._place(outline)], 255, shift=4)
        return shape

    def oval(self, x: float, y: float, across: float, down: float) -> NDArray[np.uint8]:
        """Return an ellipse around (x, y) with these half axes."""
        turn = np.linspace(0, 2 * np.pi, 120, endpoint=False)
        points = np.stack([x + across * np.cos(turn), y + down * np.sin(turn)], axis=1)
        return self.fill([(float(a), float(b)) for a, b in points])

    def stroke(
        self, points: Points, thickness: float, *, smooth: bool = False
    ) -> NDArray[np.uint8]:
        """Return an open line through `points`, as thick as told."""
        shape = self._empty()
        line = open_curve(points) if smooth else points
        pixels = max(1, round(thickness * self.side * OVERSAMPLING))
        cv2.polylines(shape, [self._place(line)], False, 255, pixels, shift=4)
        return shape

    def add(self, shape: NDArray[np.uint8], colours: Floats, *, opacity: float = 1.0) -> None:
        """Paint `shape` over what is there; it becomes part of the subject."""
        self._covered = np.maximum(self._covered, shape)
        self.tint(shape, colours, opacity=opacity)

    def tint(self, shape: NDArray[np.uint8], colours: Floats, *, opacity: float = 1.0) -> None:
        """Paint `shape` over what is there without making it part of the subject."""
        share = self._averaged(shape)[..., None] * opacity
        self.paint = self.paint * (1 - share) + colours * share

    def shadow(self, x: float, y: float, across: float, down: float, depth: float) -> None:
        """Darken the ground under the subject: an oval, soft, darkest where they touch."""
        shape = self._averaged(self.oval(x, y, across, down))
        wide = cv2.GaussianBlur(shape, (0, 0), self.side * 0.035)
        near = cv2.GaussianBlur(shape, (0, 0), self.side * 0.012)
        self.paint = self.paint * (1 - depth * (0.65 * wide + 0.35 * near))[..., None]

    def flat(self, colour: Colour) -> Floats:
        """Return one colour for every pixel."""
        return np.full((self.height, self.width, 3), colour, np.float32)

    def round(self, colour: Colour, left: float, right: float, *, depth: float = 0.5) -> Floats:
        """Return `colour` as on an upright cylinder between two x, lit from the upper left."""
        x = (np.arange(self.width) + 0.5 - self.offset[0]) / self.side
        turn = np.clip((x - left) / max(right - left, 1e-6) * 2 - 1, -1, 1)
        light = 1 - depth * (1 - np.sqrt(np.clip(1 - (turn + 0.3) ** 2 / 1.7, 0, 1)))
        return (self.flat(colour) * light[None, :, None]).astype(np.float32)

    def slope(self, colour: Colour, *, top: float = 1.1, bottom: float = 0.75) -> Floats:
        """Return `colour` brighter above than below."""
        light = np.linspace(top, bottom, self.height, dtype=np.float32)
        return np.clip(self.flat(colour) * light[:, None, None], 0, 255)

    def woven(self, colours: Floats, *, strength: float = 0.12, grain: float = 1.2) -> Floats:
        """Return `colours` with the uneven light of cloth or leather."""
        noise = self.rng.standard_normal((self.height, self.width)).astype(np.float32)
        noise = cv2.GaussianBlur(noise, (0, 0), grain)
        noise /= float(noise.std())
        return np.clip(colours * (1 + strength * noise[..., None]), 0, 255)


def closed_curve(points: Points) -> Points:
    """Return a closed Catmull-Rom curve through `points`, twelve steps to a piece."""
    p = np.asarray(points, np.float64)
    return _curve(np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0))


def open_curve(points: Points) -> Points:
    """Return a Catmull-Rom curve from the first of `points` to the last."""
    p = np.asarray(points, np.float64)
    padded = np.concatenate([p[:1], p, p[-1:]])
    pieces = _curve(padded[:-3], padded[1:-2], padded[2:-1], padded[3:])
    return [*pieces, (float(p[-1, 0]), float(p[-1, 1]))]


def _curve(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64], d: NDArray[np.float64]
) -> list[tuple[float, float]]:
    t = np.linspace(0, 1, 12, endpoint=False)[None, :, None]
    a, b, c, d = (end[:, None, :] for end in (a, b, c, d))
    line = 0.5 * (
        2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3
    )
    return [(float(x), float(y)) for x, y in line.reshape(-1, 2)]


# Subjects


def mug(sheet: Sheet, colour: Colour = (60, 110, 150)) -> None:
    sheet.shadow(0.47, 0.83, 0.27, 0.035, 0.5)
    handle = sheet.stroke(
        [(0.66, 0.36), (0.78, 0.34), (0.84, 0.47), (0.79, 0.61), (0.65, 0.66)], 0.045, smooth=True
    )
    sheet.add(handle, sheet.slope(colour, top=1.05, bottom=0.6))
    body = sheet.fill(
        [(0.25, 0.25), (0.69, 0.25), (0.67, 0.78), (0.6, 0.83), (0.34, 0.83), (0.27, 0.78)]
    )
    sheet.add(body, sheet.round(colour, 0.25, 0.69))
    sheet.add(sheet.oval(0.47, 0.25, 0.22, 0.05), sheet.flat(tuple(c * 0.85 for c in colour)))  # type: ignore[arg-type]
    sheet.add(sheet.oval(0.47, 0.255, 0.2, 0.04), sheet.flat(tuple(c * 0.45 for c in colour)))  # type: ignore[arg-type]
    sheet.tint(
        sheet.fill([(0.33, 0.34), (0.36, 0.34), (0.365, 0.72), (0.34, 0.72)]),
        sheet.flat((255, 255, 255)),
        opacity=0.35,
    )


def white_mug(sheet: Sheet) -> None:
    mug(sheet, (226, 226, 222))
    sheet.tint(sheet.oval(0.47, 0.55, 0.09, 0.09), sheet.flat((190, 50, 60)), opacity=0.9)


def bottle(sheet: Sheet, colour: Colour = (40, 82, 52), label: Colour = (232, 222, 196)) -> None:
    sheet.shadow(0.5, 0.93, 0.17, 0.022, 0.5)
    outline = [
        (0.45, 0.08),
        (0.55, 0.08),
        (0.555, 0.3),
        (0.6, 0.38),
        (0.635, 0.46),
        (0.64, 0.9),
        (0.62, 0.93),
        (0.38, 0.93),
        (0.36, 0.9),
        (0.365, 0.46),
        (0.4, 0.38),
        (0.445, 0.3),
    ]
    sheet.add(sheet.fill(outline), sheet.round(colour, 0.36, 0.64))
    sheet.add(
        sheet.fill([(0.44, 0.06), (0.56, 0.06), (0.56, 0.13), (0.44, 0.13)]),
        sheet.round((150, 120, 50), 0.44, 0.56),
    )
    sheet.tint(
        sheet.fill([(0.362, 0.55), (0.638, 0.55), (0.639, 0.78), (0.361, 0.78)]),
        sheet.round(label, 0.36, 0.64, depth=0.35),
    )
    for line in range(4):
        y = 0.6 + line * 0.04
        sheet.tint(
            sheet.fill([(0.42, y), (0.58, y), (0.58, y + 0.012), (0.42, y + 0.012)]),
            sheet.flat((90, 60, 50)),
        )
    sheet.tint(
        sheet.stroke([(0.4, 0.48), (0.4, 0.9)], 0.012), sheet.flat((255, 255, 255)), opacity=0.45
    )


def pale_bottle(sheet: Sheet) -> None:
    bottle(sheet, (222, 219, 211), (205, 214, 208))


def glass(sheet: Sheet) -> None:
    sheet.shadow(0.5, 0.9, 0.19, 0.022, 0.3)
    outline = [(0.33, 0.2), (0.67, 0.2), (0.63, 0.88), (0.6, 0.9), (0.4, 0.9), (0.37, 0.88)]
    body = sheet.fill(outline)
    sheet.add(body, sheet.round((178, 198, 204), 0.33, 0.67, depth=0.6), opacity=0.55)
    sheet.tint(
        sheet.fill([(0.345, 0.45), (0.655, 0.45), (0.625, 0.86), (0.375, 0.86)]),
        sheet.round((196, 120, 36), 0.34, 0.66),
        opacity=0.8,
    )
    sheet.add(
        sheet.stroke([*outline, outline[0]], 0.008), sheet.flat((120, 136, 142)), opacity=0.75
    )
    sheet.tint(
        sheet.stroke([(0.39, 0.24), (0.425, 0.84)], 0.02), sheet.flat((255, 255, 255)), opacity=0.6
    )


def shoe(sheet: Sheet, colour: Colour = (168, 48, 44)) -> None:
    sheet.shadow(0.5, 0.75, 0.42, 0.025, 0.55)
    upper = [
        (0.1, 0.36),
        (0.2, 0.34),
        (0.27, 0.4),
        (0.38, 0.38),
        (0.5, 0.46),
        (0.66, 0.55),
        (0.84, 0.59),
        (0.92, 0.67),
        (0.9, 0.72),
        (0.5, 0.72),
        (0.12, 0.72),
        (0.09, 0.6),
        (0.11, 0.48),
    ]
    sheet.add(
        sheet.fill(upper, smooth=True),
        sheet.woven(sheet.slope(colour, top=1.3, bottom=0.75), strength=0.06),
    )
    sole = [(0.08, 0.68), (0.5, 0.69), (0.93, 0.67), (0.94, 0.72), (0.88, 0.76), (0.1, 0.76)]
    sheet.add(sheet.fill(sole), sheet.slope((214, 208, 196), top=1.1, bottom=0.8))
    for step in range(5):
        x, y = 0.36 + step * 0.055, 0.43 + step * 0.03
        sheet.tint(sheet.stroke([(x, y), (x + 0.05, y - 0.01)], 0.012), sheet.flat((240, 240, 235)))
    sheet.tint(
        sheet.stroke([(0.16, 0.66), (0.3, 0.52), (0.46, 0.66)], 0.02, smooth=True),
        sheet.flat((245, 240, 230)),
    )


def sneaker_pair(sheet: Sheet) -> None:
    shoe(sheet, (70, 84, 104))


def dress(sheet: Sheet, colour: Colour = (40, 60, 120)) -> None:
    outline = [
        (0.39, 0.24),
        (0.45, 0.27),
        (0.5, 0.28),
        (0.55, 0.27),
        (0.61, 0.24),
        (0.6, 0.4),
        (0.58, 0.46),
        (0.66, 0.65),
        (0.75, 0.92),
        (0.6, 0.94),
        (0.5, 0.93),
        (0.38, 0.95),
        (0.25, 0.92),
        (0.34, 0.65),
        (0.42, 0.46),
        (0.4, 0.4),
    ]
    for side in (-1, 1):
        strap = [(0.5 + side * 0.105, 0.25), (0.5 + side * 0.09, 0.14), (0.5 + side * 0.04, 0.07)]
        sheet.add(sheet.stroke(strap, 0.011, smooth=True), sheet.flat(colour))
    sheet.add(
        sheet.fill(outline), sheet.woven(sheet.round(colour, 0.25, 0.75, depth=0.4), strength=0.05)
    )
    for fold in range(6):
        x = 0.36 + fold * 0.055
        line = sheet.stroke(
            [(0.46 + fold * 0.016, 0.48), (x, 0.7), (x - 0.03 + fold * 0.012, 0.9)],
            0.01,
            smooth=True,
        )
        sheet.tint(line, sheet.flat((10, 10, 20)), opacity=0.25)


def floral_dress(sheet: Sheet) -> None:
    dress(sheet, (232, 190, 176))
    for _ in range(46):
        y = sheet.rng.uniform(0.32, 0.88)
        half = 0.07 + 0.16 * max(0.0, y - 0.46)
        x = 0.5 + sheet.rng.uniform(-half, half)
        colour = [(190, 50, 70), (60, 120, 70), (250, 240, 220)][int(sheet.rng.integers(3))]
        sheet.tint(sheet.oval(x, y, 0.013, 0.013), sheet.flat(colour))


def chair(sheet: Sheet, colour: Colour = (140, 90, 50)) -> None:
    sheet.shadow(0.5, 0.93, 0.27, 0.02, 0.4)
    wood = sheet.woven(sheet.slope(colour), strength=0.08, grain=2)
    for line in (
        [(0.3, 0.55), (0.27, 0.93)],
        [(0.7, 0.55), (0.74, 0.93)],
        [(0.36, 0.55), (0.36, 0.87)],
        [(0.64, 0.55), (0.64, 0.87)],
        [(0.32, 0.08), (0.31, 0.55)],
        [(0.68, 0.08), (0.69, 0.55)],
        [(0.28, 0.76), (0.72, 0.76)],
    ):
        sheet.add(sheet.stroke(line, 0.022), wood)
    for bar in (0.12, 0.24, 0.36):
        sheet.add(
            sheet.fill([(0.31, bar), (0.69, bar), (0.69, bar + 0.05), (0.31, bar + 0.05)]), wood
        )
    sheet.add(
        sheet.fill([(0.27, 0.51), (0.73, 0.51), (0.76, 0.58), (0.24, 0.58)]),
        sheet.woven(sheet.slope((176, 60, 50)), strength=0.05),
    )


def metal_chair(sheet: Sheet) -> None:
    chair(sheet, (92, 96, 104))


def bag(sheet: Sheet, colour: Colour = (176, 112, 62)) -> None:
    sheet.shadow(0.5, 0.87, 0.31, 0.025, 0.5)
    handle = [(0.36, 0.42), (0.37, 0.2), (0.5, 0.12), (0.63, 0.2), (0.64, 0.42)]
    sheet.add(sheet.stroke(handle, 0.028, smooth=True), sheet.flat(tuple(c * 0.7 for c in colour)))  # type: ignore[arg-type]
    outline = [(0.24, 0.4), (0.76, 0.4), (0.82, 0.84), (0.79, 0.87), (0.21, 0.87), (0.18, 0.84)]
    sheet.add(
        sheet.fill(outline), sheet.woven(sheet.slope(colour, top=1.3, bottom=0.7), strength=0.06)
    )
    sheet.tint(
        sheet.stroke([(0.22, 0.52), (0.5, 0.56), (0.78, 0.52)], 0.008, smooth=True),
        sheet.flat((60, 36, 20)),
    )
    sheet.tint(
        sheet.fill([(0.47, 0.53), (0.53, 0.53), (0.53, 0.6), (0.47, 0.6)]),
        sheet.flat((224, 190, 100)),
    )


def watch(sheet: Sheet) -> None:
    leather = sheet.woven(sheet.slope((64, 44, 36), top=1.3, bottom=0.9), strength=0.08)
    sheet.shadow(0.52, 0.52, 0.2, 0.3, 0.25)
    sheet.add(sheet.fill([(0.42, 0.06), (0.58, 0.06), (0.6, 0.34), (0.4, 0.34)]), leather)
    sheet.add(sheet.fill([(0.4, 0.66), (0.6, 0.66), (0.57, 0.95), (0.43, 0.95)]), leather)
    sheet.add(
        sheet.fill([(0.69, 0.47), (0.73, 0.47), (0.73, 0.53), (0.69, 0.53)]),
        sheet.flat((150, 152, 158)),
    )
    sheet.add(sheet.oval(0.5, 0.5, 0.2, 0.2), sheet.round((178, 180, 186), 0.3, 0.7))
    sheet.tint(sheet.oval(0.5, 0.5, 0.165, 0.165), sheet.flat((242, 240, 232)))
    for hour in range(12):
        turn = hour * np.pi / 6
        ends = [(0.5 + r * np.sin(turn), 0.5 - r * np.cos(turn)) for r in (0.13, 0.15)]
        sheet.tint(sheet.stroke(ends, 0.01), sheet.flat((30, 30, 40)))
    sheet.tint(sheet.stroke([(0.5, 0.5), (0.57, 0.44)], 0.012), sheet.flat((30, 30, 40)))
    sheet.tint(sheet.stroke([(0.5, 0.5), (0.47, 0.38)], 0.008), sheet.flat((30, 30, 40)))


def frame(sheet: Sheet) -> None:
    outer = sheet.fill([(0.18, 0.12), (0.82, 0.12), (0.82, 0.88), (0.18, 0.88)])
    inner = sheet.fill([(0.28, 0.22), (0.72, 0.22), (0.72, 0.78), (0.28, 0.78)])
    gold = sheet.woven(sheet.slope((186, 146, 72), top=1.2, bottom=0.8), strength=0.07, grain=1.6)
    sheet.add(cv2.subtract(outer, inner), gold)
    rim = cv2.subtract(
        sheet.fill([(0.2, 0.14), (0.8, 0.14), (0.8, 0.86), (0.2, 0.86)]),
        sheet.fill([(0.21, 0.15), (0.79, 0.15), (0.79, 0.85), (0.21, 0.85)]),
    )
    sheet.tint(rim, sheet.flat((96, 66, 24)))


def scissors(sheet: Sheet) -> None:
    steel = sheet.slope((148, 152, 160), top=1.2, bottom=0.85)
    sheet.add(sheet.fill([(0.47, 0.6), (0.53, 0.58), (0.66, 0.1), (0.6, 0.16)]), steel)
    sheet.add(sheet.fill([(0.53, 0.6), (0.47, 0.58), (0.34, 0.1), (0.4, 0.16)]), steel)
    grip = sheet.slope((206, 92, 24), top=1.2, bottom=0.8)
    for side in (-1, 1):
        ring = cv2.subtract(
            sheet.oval(0.5 + side * 0.13, 0.78, 0.11, 0.14),
            sheet.oval(0.5 + side * 0.13, 0.78, 0.07, 0.1),
        )
        sheet.add(ring, grip)
        sheet.add(
            sheet.fill(
                [
                    (0.5 - side * 0.03, 0.57),
                    (0.5 + side * 0.03, 0.57),
                    (0.5 + side * 0.1, 0.68),
                    (0.5 + side * 0.05, 0.72),
                ]
            ),
            grip,
        )
    sheet.tint(sheet.oval(0.5, 0.58, 0.015, 0.015), sheet.flat((60, 62, 66)))


def headphones(sheet: Sheet) -> None:
    arch = [
        (0.22, 0.62),
        (0.2, 0.36),
        (0.34, 0.16),
        (0.5, 0.11),
        (0.66, 0.16),
        (0.8, 0.36),
        (0.78, 0.62),
    ]
    sheet.add(sheet.stroke(arch, 0.04, smooth=True), sheet.slope((52, 54, 60), top=1.6, bottom=0.9))
    for side in (-1, 1):
        x = 0.5 + side * 0.27
        sheet.add(sheet.oval(x, 0.66, 0.09, 0.16), sheet.round((64, 66, 74), x - 0.09, x + 0.09))
        sheet.tint(sheet.oval(x - side * 0.02, 0.66, 0.05, 0.11), sheet.flat((30, 30, 34)))


def lamp(sheet: Sheet) -> None:
    sheet.shadow(0.5, 0.93, 0.17, 0.018, 0.45)
    sheet.add(sheet.stroke([(0.5, 0.4), (0.5, 0.9)], 0.02), sheet.slope((150, 126, 80)))
    sheet.add(sheet.oval(0.5, 0.91, 0.15, 0.028), sheet.slope((150, 126, 80), top=1.3))
    sheet.add(
        sheet.fill([(0.38, 0.1), (0.62, 0.1), (0.74, 0.44), (0.26, 0.44)]),
        sheet.woven(sheet.round((236, 200, 142), 0.26, 0.74, depth=0.35), strength=0.03),
    )


def earrings(sheet: Sheet) -> None:
    for x in (0.32, 0.68):
        hook = [(x + 0.03, 0.3), (x + 0.035, 0.2), (x, 0.15), (x - 0.035, 0.2), (x - 0.03, 0.26)]
        sheet.add(sheet.stroke(hook, 0.013, smooth=True), sheet.flat((170, 140, 70)))
        ring = cv2.subtract(sheet.oval(x, 0.46, 0.12, 0.17), sheet.oval(x, 0.46, 0.092, 0.142))
        sheet.add(ring, sheet.slope((204, 166, 84), top=1.2, bottom=0.7))
        sheet.add(
            sheet.fill([(x, 0.62), (x + 0.06, 0.72), (x, 0.86), (x - 0.06, 0.72)]),
            sheet.round((30, 120, 110), x - 0.06, x + 0.06),
        )


def shirt(sheet: Sheet, colour: Colour = (38, 40, 46)) -> None:
    outline = [
        (0.38, 0.12),
        (0.44, 0.16),
        (0.56, 0.16),
        (0.62, 0.12),
        (0.78, 0.18),
        (0.93, 0.4),
        (0.8, 0.48),
        (0.73, 0.38),
        (0.74, 0.9),
        (0.26, 0.9),
        (0.27, 0.38),
        (0.2, 0.48),
        (0.07, 0.4),
        (0.22, 0.18),
    ]
    sheet.add(
        sheet.fill(outline), sheet.woven(sheet.round(colour, 0.1, 0.9, depth=0.3), strength=0.05)
    )
    sheet.tint(sheet.oval(0.5, 0.48, 0.13, 0.13), sheet.flat((228, 176, 40)))
    sheet.tint(
        sheet.fill([(0.42, 0.52), (0.48, 0.42), (0.52, 0.48), (0.55, 0.45), (0.59, 0.53)]),
        sheet.flat((200, 70, 50)),
    )
    sheet.tint(sheet.stroke([(0.36, 0.65), (0.64, 0.65)], 0.022), sheet.flat((236, 232, 224)))


def striped_shirt(sheet: Sheet) -> None:
    shirt(sheet, (222, 216, 204))
    for stripe in range(6):
        y = 0.3 + stripe * 0.1
        sheet.tint(
            sheet.fill([(0.274, y), (0.727, y), (0.727, y + 0.035), (0.274, y + 0.035)]),
            sheet.flat((36, 62, 112)),
        )


def box(sheet: Sheet) -> None:
    sheet.shadow(0.5, 0.83, 0.33, 0.035, 0.55)
    front = [(0.18, 0.34), (0.56, 0.44), (0.56, 0.88), (0.18, 0.74)]
    side = [(0.56, 0.44), (0.84, 0.32), (0.84, 0.7), (0.56, 0.88)]
    top = [(0.18, 0.34), (0.46, 0.24), (0.84, 0.32), (0.56, 0.44)]
    card = (198, 158, 112)
    for face, light in ((front, 0.95), (side, 0.72), (top, 1.12)):
        sheet.add(
            sheet.fill(face), sheet.woven(sheet.flat(tuple(c * light for c in card)), strength=0.03)
        )  # type: ignore[arg-type]
    sheet.tint(
        sheet.fill([(0.31, 0.29), (0.36, 0.275), (0.74, 0.36), (0.69, 0.38)]),
        sheet.flat((226, 206, 170)),
    )


def sofa_cushion(sheet: Sheet) -> None:
    sheet.shadow(0.5, 0.82, 0.33, 0.03, 0.45)
    outline = [
        (0.15, 0.2),
        (0.32, 0.23),
        (0.5, 0.22),
        (0.68, 0.23),
        (0.85, 0.2),
        (0.83, 0.35),
        (0.83, 0.65),
        (0.86, 0.82),
        (0.7, 0.8),
        (0.5, 0.81),
        (0.3, 0.8),
        (0.14, 0.82),
        (0.17, 0.65),
        (0.17, 0.35),
    ]
    pattern = sheet.round((70, 128, 126), 0.1, 0.9, depth=0.35)
    y, x = np.mgrid[0 : sheet.height, 0 : sheet.width].astype(np.float32) / sheet.side
    checks = (np.sin(x * 70) * np.sin(y * 70) > 0.1)[..., None]
    sheet.add(
        sheet.fill(outline, smooth=True),
        np.where(checks, pattern * 0.6 + 90, pattern).astype(np.float32),
    )


def plant(sheet: Sheet) -> None:
    sheet.shadow(0.5, 0.93, 0.18, 0.02, 0.5)
    for turn in np.linspace(-1.25, 1.25, 9):
        length = 0.42 + 0.06 * sheet.rng.uniform(-1, 1)
        tip = (0.5 + length * np.sin(turn), 0.62 - length * np.cos(turn))
        mid = (0.5 + 0.55 * length * np.sin(turn * 0.8), 0.62 - 0.6 * length * np.cos(turn * 0.8))
        width = 0.045
        leaf = [(0.5, 0.64), (mid[0] - width, mid[1]), tip, (mid[0] + width, mid[1] + 0.02)]
        green = (50 + 20 * abs(turn), 118 - 14 * turn, 56)
        sheet.add(sheet.fill(leaf, smooth=True), sheet.slope(green, top=1.4, bottom=0.6))
    sheet.add(
        sheet.fill([(0.36, 0.62), (0.64, 0.62), (0.6, 0.93), (0.4, 0.93)]),
        sheet.round((190, 104, 74), 0.36, 0.64),
    )


def backpack(sheet: Sheet) -> None:
    """Cut off by the picture's lower edge."""
    edge = 1 + sheet.offset[1] / sheet.side + 0.01
    loop = [(0.42, 0.22), (0.43, 0.12), (0.5, 0.09), (0.57, 0.12), (0.58, 0.22)]
    sheet.add(sheet.stroke(loop, 0.025, smooth=True), sheet.flat((40, 40, 46)))
    outline = [
        (0.24, edge),
        (0.24, 0.4),
        (0.3, 0.26),
        (0.42, 0.2),
        (0.58, 0.2),
        (0.7, 0.26),
        (0.76, 0.4),
        (0.76, edge),
    ]
    sheet.add(
        sheet.fill(outline), sheet.woven(sheet.round((54, 92, 84), 0.24, 0.76), strength=0.06)
    )
    sheet.tint(
        sheet.fill([(0.32, 0.58), (0.68, 0.58), (0.68, 0.9), (0.32, 0.9)]),
        sheet.woven(sheet.round((44, 76, 70), 0.32, 0.68), strength=0.06),
    )
    sheet.tint(sheet.stroke([(0.33, 0.6), (0.67, 0.6)], 0.012), sheet.flat((200, 170, 60)))


def mannequin(sheet: Sheet) -> None:
    """A coat on a torso that both the lower and the upper edge cut off."""
    low = 1 + sheet.offset[1] / sheet.side + 0.01
    high = -sheet.offset[1] / sheet.side - 0.01
    sheet.add(
        sheet.fill([(0.45, high), (0.55, high), (0.56, 0.2), (0.44, 0.2)]),
        sheet.round((206, 166, 140), 0.44, 0.56),
    )
    coat = [
        (0.43, 0.15),
        (0.57, 0.15),
        (0.74, 0.22),
        (0.8, 0.6),
        (0.72, 0.62),
        (0.7, 0.5),
        (0.72, low),
        (0.28, low),
        (0.3, 0.5),
        (0.28, 0.62),
        (0.2, 0.6),
        (0.26, 0.22),
    ]
    sheet.add(
        sheet.fill(coat),
        sheet.woven(sheet.round((112, 60, 70), 0.2, 0.8, depth=0.4), strength=0.05),
    )
    sheet.tint(sheet.stroke([(0.44, 0.16), (0.5, 0.4), (0.5, 1.0)], 0.01), sheet.flat((40, 20, 26)))
    for button in range(4):
        sheet.tint(
            sheet.oval(0.53, 0.46 + 0.12 * button, 0.012, 0.012), sheet.flat((224, 200, 150))
        )


def spoons(sheet: Sheet) -> None:
    """Three separate things."""
    for index, x in enumerate((0.24, 0.5, 0.76)):
        wood = sheet.woven(
            sheet.slope((150 + 20 * index, 104 + 14 * index, 62), top=1.15), strength=0.07, grain=2
        )
        sheet.shadow(x + 0.01, 0.5, 0.03, 0.36, 0.25)
        sheet.add(sheet.stroke([(x, 0.3), (x, 0.9)], 0.028), wood)
        sheet.add(sheet.oval(x, 0.22, 0.07, 0.12), wood)


def sunglasses(sheet: Sheet) -> None:
    sheet.shadow(0.5, 0.62, 0.36, 0.02, 0.35)
    for side in (-1, 1):
        x = 0.5 + side * 0.2
        rim = [
            (x - 0.15, 0.42),
            (x, 0.39),
            (x + 0.15, 0.42),
            (x + 0.13, 0.56),
            (x, 0.62),
            (x - 0.13, 0.56),
        ]
        sheet.add(sheet.fill(rim, smooth=True), sheet.flat((28, 26, 26)))
        lens = [
            (x - 0.12, 0.44),
            (x, 0.42),
            (x + 0.12, 0.44),
            (x + 0.1, 0.55),
            (x, 0.59),
            (x - 0.1, 0.55),
        ]
        sheet.tint(sheet.fill(lens, smooth=True), sheet.slope((92, 66, 52), top=0.6, bottom=1.4))
        sheet.add(
            sheet.stroke(
                [(0.5 + side * 0.34, 0.43), (0.5 + side * 0.42, 0.4), (0.5 + side * 0.43, 0.34)],
                0.016,
            ),
            sheet.flat((28, 26, 26)),
        )
    sheet.add(
        sheet.stroke([(0.44, 0.45), (0.5, 0.43), (0.56, 0.45)], 0.018, smooth=True),
        sheet.flat((28, 26, 26)),
    )


def teapot(sheet: Sheet) -> None:
    sheet.shadow(0.5, 0.8, 0.24, 0.03, 0.5)
    china = (150, 176, 200)
    handle = [(0.3, 0.44), (0.16, 0.4), (0.1, 0.55), (0.2, 0.68), (0.3, 0.66)]
    sheet.add(sheet.stroke(handle, 0.036, smooth=True), sheet.slope(china, top=1.1))
    sheet.add(
        sheet.fill(
            [(0.68, 0.68), (0.8, 0.5), (0.84, 0.38), (0.93, 0.36), (0.86, 0.54), (0.7, 0.76)]
        ),
        sheet.slope(china, top=1.1),
    )
    sheet.add(sheet.oval(0.5, 0.58, 0.25, 0.22), sheet.round(china, 0.25, 0.75, depth=0.6))
    sheet.add(sheet.oval(0.5, 0.38, 0.13, 0.04), sheet.round(china, 0.37, 0.63))
    sheet.add(sheet.oval(0.5, 0.325, 0.03, 0.03), sheet.round(china, 0.47, 0.53))
    for x, y in ((0.42, 0.55), (0.52, 0.63), (0.6, 0.52), (0.48, 0.48), (0.58, 0.68)):
        sheet.tint(sheet.oval(x, y, 0.025, 0.025), sheet.flat((36, 60, 130)))


# Backgrounds


def _grid(height: int, width: int) -> tuple[Floats, Floats]:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    return x / width, y / height


def _plain(height: int, width: int, colour: Colour) -> Floats:
    return np.full((height, width, 3), colour, np.float32)


def white(height: int, width: int, rng: np.random.Generator) -> Floats:
    return _plain(height, width, (255, 255, 255))


def pale_grey(height: int, width: int, rng: np.random.Generator) -> Floats:
    return _plain(height, width, (236, 236, 238))


def gradient(height: int, width: int, rng: np.random.Generator) -> Floats:
    _, y = _grid(height, width)
    return _plain(height, width, (228, 230, 234)) * (1.06 - 0.28 * y)[..., None]


def coloured(height: int, width: int, rng: np.random.Generator) -> Floats:
    x, _ = _grid(height, width)
    colours: list[Colour] = [(236, 206, 196), (196, 214, 226), (238, 222, 160), (200, 220, 200)]
    return _plain(height, width, colours[int(rng.integers(4))]) * (1.02 - 0.06 * x)[..., None]


def vignette(height: int, width: int, rng: np.random.Generator) -> Floats:
    x, y = _grid(height, width)
    away = (x - 0.5) ** 2 + (y - 0.5) ** 2
    return _plain(height, width, (222, 218, 212)) * (1.05 - 0.6 * away)[..., None]


def dark(height: int, width: int, rng: np.random.Generator) -> Floats:
    x, y = _grid(height, width)
    away = (x - 0.5) ** 2 + (y - 0.5) ** 2
    return _plain(height, width, (24, 25, 28)) * (1.3 - 0.8 * away)[..., None]


def table(height: int, width: int, rng: np.random.Generator) -> Floats:
    _, y = _grid(height, width)
    wall = _plain(height, width, (226, 224, 218)) * (1.04 - 0.1 * y)[..., None]
    top = _plain(height, width, (196, 186, 172)) * (0.92 + 0.12 * y)[..., None]
    share = np.clip((y - 0.66) * height / 3 + 0.5, 0, 1)[..., None]
    return (wall * (1 - share) + top * share).astype(np.float32)


def cloth(height: int, width: int, rng: np.random.Generator) -> Floats:
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    weave = 0.5 * np.sin(x * 1.55) + 0.5 * np.sin(y * 1.55)
    light = rng.standard_normal((height, width)).astype(np.float32)
    light = cv2.GaussianBlur(light, (0, 0), 1.0)
    light /= float(light.std())
    return _plain(height, width, (216, 208, 194)) * (1 + 0.018 * weave + 0.016 * light)[..., None]


Subject = Callable[[Sheet], None]
Background = Callable[[int, int, np.random.Generator], Floats]

SUBJECTS: tuple[Subject, ...] = (
    mug, white_mug, bottle, pale_bottle, glass, shoe, sneaker_pair, dress, floral_dress, chair,
    metal_chair, bag, watch, frame, scissors, headphones, lamp, earrings, shirt, striped_shirt, box,
    sofa_cushion, plant, backpack, mannequin, spoons, sunglasses, teapot,
)  # fmt: skip
BACKGROUNDS: tuple[Background, ...] = (
    white, pale_grey, gradient, coloured, vignette, dark, table, cloth,
)  # fmt: skip


def draw(
    subject: Subject,
    background: Background,
    *,
    seed: int,
    width: int = 420,
    height: int = 420,
    noise: float = 1.0,
    jpeg: int | None = None,
) -> Drawing:
    """Draw one shot, with sensor noise in levels of 255 and, if asked, through JPEG once."""
    rng = np.random.default_rng(seed)
    sheet = Sheet(background(height, width, rng), rng)
    subject(sheet)
    grain = rng.standard_normal(sheet.paint.shape).astype(np.float32) * noise
    rgb = np.clip(np.round(sheet.paint + grain), 0, 255).astype(np.uint8)
    if jpeg is not None:
        _, data = cv2.imencode(".jpg", rgb[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, jpeg])
        rgb = np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
    name = f"{subject.__name__} on {background.__name__}"
    return Drawing(name=name, rgb=rgb, coverage=sheet.coverage)
