"""Draw the training pictures: garments alone and people wearing them.

    python draw.py --count 18000 --seed 1 --out /tmp/tiny/train.npz
    python draw.py --contact-sheet /tmp/tiny/contact.png
    python draw.py --photograph ../../src/imageloom/runtime/embedded/dress.jpg

Pictures are painted at 256 px and area-reduced. The archive holds `pictures` uint8
[n, size, size, 3] and `scenes`, one JSON line each. Nothing is read from outside.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import cv2
import numpy as np
from canvas import CENTRE, PAGE, Canvas, Colour, oval, shade, weave
from figures import Person, draw_person
from garments import PRODUCT, WORN, Style
from vocabulary import BACKGROUNDS, COLOURS, HAIRS, KINDS, PATTERNS, SKINS, Scene, sample_scene


def draw_scene(scene: Scene, *, size: int = 64) -> np.ndarray:
    """Return the picture of a scene, RGB uint8 [size, size, 3]; equal scenes give equal bytes."""
    rng = np.random.default_rng([scene.seed, 77])
    backdrop = _jittered(BACKGROUNDS[scene.background], rng, 2)
    colour = _jittered(COLOURS[scene.colour], rng, 6)
    matrix = _placement(rng, tilted=not scene.worn)
    zoom = max(1, size // PAGE)
    canvas = Canvas(_studio(backdrop, PAGE * zoom), matrix)
    _shadow(canvas, scene, backdrop)
    style = _style(scene, colour, canvas)
    if scene.worn:
        person = Person(
            skin=_jittered(SKINS[scene.skin], rng, 3),
            hair=_jittered(HAIRS[scene.hair], rng, 3),
            long_hair=scene.long_hair,
        )
        draw_person(canvas, person, scene.kind)
        WORN[scene.kind](canvas, style)
    else:
        PRODUCT[scene.kind](canvas, style)
    return cv2.resize(canvas.page, (size, size), interpolation=cv2.INTER_AREA)


def draw_many(count: int, *, seed: int) -> tuple[np.ndarray, list[Scene]]:
    """Return `count` random pictures, uint8 [count, 64, 64, 3], and their scenes."""
    rng = np.random.default_rng(seed)
    scenes = [sample_scene(rng, seed=seed * 1_000_000 + index) for index in range(count)]
    with ProcessPoolExecutor(2, initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        pictures = list(pool.map(draw_scene, scenes, chunksize=200))
    return np.stack(pictures), scenes


def _jittered(colour: tuple[int, int, int], rng: np.random.Generator, by: int) -> Colour:
    moved = np.clip(np.array(colour) + rng.integers(-by, by + 1, 3), 0, 255)
    return (float(moved[0]), float(moved[1]), float(moved[2]))


def _placement(rng: np.random.Generator, *, tilted: bool) -> np.ndarray:
    zoom = 1 + rng.uniform(-0.05, 0.03)
    turn = rng.uniform(-0.04, 0.04) if tilted else 0.0
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    linear = np.array([[cos, -sin], [sin, cos]])
    centre = np.array([CENTRE, CENTRE])
    shift = centre - linear @ centre + rng.uniform(-4, 4, 2)
    return np.concatenate([linear, shift[:, None]], axis=1)


def _studio(backdrop: Colour, side: int) -> np.ndarray:
    down = np.linspace(1.015, 0.965, side, dtype=np.float32)[:, None, None]
    page = np.clip(np.array(backdrop, np.float32) * down, 0, 255)
    return np.ascontiguousarray(np.broadcast_to(page, (side, side, 3)).astype(np.uint8))


def _shadow(canvas: Canvas, scene: Scene, backdrop: Colour) -> None:
    """Lay a soft contact shadow where something stands on the ground."""
    if scene.worn and scene.kind in ("shirt", "jacket", "bag", "hat"):
        return
    wide, y = {"hat": (100, 200), "shoe": (108, 212), "bag": (96, 236)}.get(scene.kind, (74, 240))
    if scene.worn:
        wide, y = (100, 236) if scene.kind == "shoe" else (56, 246)
    layer = np.full_like(canvas.page, 255)
    Canvas(layer, canvas.matrix).fill(oval(CENTRE, y, wide, 9), (205, 205, 205))
    layer = cv2.blur(layer, (19 * canvas.zoom, 19 * canvas.zoom))
    canvas.page[:] = cv2.multiply(canvas.page, layer, scale=1 / 255)


def _style(scene: Scene, colour: Colour, canvas: Canvas) -> Style:
    ink, trim = shade(colour, 0.45), shade(colour, 0.74)
    light: Colour = (252, 250, 244)
    if scene.colour == "white":
        ink, trim, light = (112, 114, 122), (214, 215, 220), (150, 154, 166)
    elif scene.colour == "black":
        ink, trim, light = (14, 14, 18), (84, 84, 92), (216, 216, 222)
        if scene.background == "black":
            ink = (150, 150, 158)
    cloth = weave(colour, scene.pattern, canvas, middle=CENTRE, light=light)
    return Style(cloth=cloth, ink=ink, trim=trim)


def contact_sheet(path: Path) -> None:
    """Write one picture of every kind, pattern and way of wearing, shown at 128 px."""
    rng = np.random.default_rng(3)
    rows = []
    for worn in (False, True):
        for pattern in PATTERNS:
            row = []
            for index, kind in enumerate(KINDS):
                scene = dataclasses.replace(
                    sample_scene(rng, seed=index), kind=kind, pattern=pattern, worn=worn
                )
                picture = cv2.resize(draw_scene(scene), (128, 128), interpolation=cv2.INTER_CUBIC)
                row.append(picture)
            rows.append(np.concatenate(row, axis=1))
    cv2.imwrite(str(path), np.concatenate(rows)[:, :, ::-1])


def product_photograph(path: Path) -> None:
    """Write the demo's input, a red dress of 512 px on a light background, as a JPEG."""
    scene = Scene(kind="dress", colour="red", background="white", seed=12)
    picture = draw_scene(scene, size=512)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), picture[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=18_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("/tmp/tiny/train.npz"))
    parser.add_argument("--contact-sheet", type=Path)
    parser.add_argument("--photograph", type=Path)
    options = parser.parse_args()
    if options.photograph:
        product_photograph(options.photograph)
        return
    if options.contact_sheet:
        contact_sheet(options.contact_sheet)
        return
    pictures, scenes = draw_many(options.count, seed=options.seed)
    lines = [json.dumps(dataclasses.asdict(scene)) for scene in scenes]
    np.savez(options.out, pictures=pictures, scenes=np.array(lines))
    print(f"{len(scenes)} pictures in {options.out}")


if __name__ == "__main__":
    main()
