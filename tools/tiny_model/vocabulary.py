"""Name everything the tiny model knows: garments, colours, backgrounds and patterns.

`Scene` is one picture in words; `sample_scene` draws one at random with the weights used in
training. Colours are RGB, 0 to 255.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

KINDS = ("dress", "shirt", "trousers", "skirt", "shoe", "bag", "hat", "jacket")
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (216, 38, 46),
    "blue": (38, 88, 208),
    "green": (44, 152, 70),
    "yellow": (250, 206, 36),
    "orange": (246, 126, 28),
    "purple": (126, 58, 172),
    "pink": (246, 116, 172),
    "black": (44, 44, 50),
    "white": (246, 246, 244),
    "grey": (136, 139, 144),
    "brown": (124, 76, 44),
    "teal": (16, 150, 152),
}
BACKGROUNDS: dict[str, tuple[int, int, int]] = {
    "white": (249, 249, 249),
    "grey": (188, 190, 194),
    "beige": (234, 216, 190),
    "pink": (251, 208, 220),
    "blue": (178, 207, 242),
    "green": (184, 222, 190),
    "yellow": (253, 236, 160),
    "black": (56, 57, 64),
}
PATTERNS = ("plain", "striped", "dotted")
HELD_OUT_PATTERN = "checkered"  # never drawn for training: the new concept for LoRA tests
SKINS = ((250, 214, 188), (232, 180, 140), (184, 124, 84), (122, 78, 54))
HAIRS = ((44, 34, 32), (96, 58, 36), (226, 180, 92), (170, 72, 36))

# Hats, bags and jackets were the weak kinds of the first model, so they are drawn more often.
_KIND_WEIGHTS = {"bag": 1.25, "hat": 1.25, "jacket": 1.25}
_PATTERN_WEIGHTS = (0.56, 0.22, 0.22)
_LONG_HAIR_SHARE = {"dress": 0.9, "skirt": 0.9, "bag": 0.75}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Say what one picture shows; `seed` fixes its jitter."""

    kind: str
    colour: str
    background: str
    pattern: str = "plain"
    worn: bool = False
    skin: int = 0
    hair: int = 0
    long_hair: bool = True
    seed: int = 0


def sample_scene(rng: np.random.Generator, *, seed: int) -> Scene:
    """Return a random scene; a garment as dark or pale as its background is drawn again, mostly."""
    weights = np.array([_KIND_WEIGHTS.get(kind, 1.0) for kind in KINDS])
    kind = str(rng.choice(KINDS, p=weights / weights.sum()))
    colour, background = str(rng.choice(list(COLOURS))), str(rng.choice(list(BACKGROUNDS)))
    while colour == background and rng.random() < 0.5:
        background = str(rng.choice(list(BACKGROUNDS)))
    return Scene(
        kind=kind,
        colour=colour,
        background=background,
        pattern=str(rng.choice(PATTERNS, p=_PATTERN_WEIGHTS)),
        worn=bool(rng.random() < 0.45),
        skin=int(rng.integers(len(SKINS))),
        hair=int(rng.integers(len(HAIRS))),
        long_hair=bool(rng.random() < _LONG_HAIR_SHARE.get(kind, 0.5)),
        seed=seed,
    )
