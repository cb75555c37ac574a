"""Say in words what a scene shows, in many ways.

`caption` is random but fixed by its generator. Some captions leave out the background, the colour
or all but the kind; some carry intruding words, so that unknown prompts do no harm.
"""

from __future__ import annotations

import string

import numpy as np
from vocabulary import Scene

PREFIXES = (
    "", "", "", "a photo of ", "product photo of ", "studio photo of ", "a picture of ",
    "an image of ", "professional photo of ", "fashion photo of ", "product shot: ",
)  # fmt: skip
SUFFIXES = (
    "", "", "", "", ", studio lighting", ", high quality", ", professional photography",
    ", product photography", ", studio lighting, high quality", ", e-commerce", ", best quality",
    ", fashion photography", ", soft light, detailed",
)  # fmt: skip
SYNONYMS = {
    "dress": ("dress", "dress", "dress", "gown", "summer dress"),
    "shirt": ("shirt", "shirt", "t-shirt", "tee", "top"),
    "trousers": ("trousers", "trousers", "pants", "jeans"),
    "skirt": ("skirt",),
    "shoe": ("shoe", "shoe", "sneaker", "shoes", "sneakers"),
    "bag": ("bag", "bag", "handbag", "purse"),
    "hat": ("hat", "hat", "sun hat", "cap"),
    "jacket": ("jacket", "jacket", "coat", "blazer"),
}
PLURAL = ("trousers", "pants", "jeans", "shoes", "sneakers")
GENERIC = ("product", "the product", "garment", "the garment", "clothing", "outfit", "item",
           "clothes", "the clothing", "fashion")  # fmt: skip
PATTERN_WORDS = {
    "plain": ("plain", "solid"),
    "striped": ("striped", "striped", "stripy"),
    "dotted": ("dotted", "dotted", "polka dot", "spotted"),
}
WEARERS = ("model", "a model", "the model", "fashion model", "a fashion model", "a person",
           "professional model", "someone")  # fmt: skip
WEARING = (" wearing ", " wearing ", " wearing ", " in ", " with ")
BACKDROPS = (
    " on a {} background", " on {} background", ", {} background", ", {} background",
    " against a {} backdrop", " in front of a {} wall", ", {} studio background",
)  # fmt: skip
FILLERS = (
    "beautiful", "nice", "elegant", "modern", "new", "cotton", "silk", "leather", "vintage",
    "casual", "luxury", "sharp", "realistic", "commercial", "catalog", "4k", "hd", "summer",
    "winter", "style", "standing", "front view", "full body", "clean", "minimal", "bright",
    "smiling", "outdoor", "street", "colorful",
)  # fmt: skip


def caption(scene: Scene, rng: np.random.Generator) -> str:
    """Return one caption of the scene."""
    detail = rng.random()
    generic = detail < 0.05  # the kind is not said
    kind_only = 0.05 <= detail < 0.17  # neither colour nor pattern is said
    said = rng.random() >= (0.5 if generic or kind_only else 0.08)
    backdrop = _pick(BACKDROPS, rng).format(_spelled(scene.background, rng)) if said else ""
    item = _pick(GENERIC, rng) if generic else _item(scene, rng, bare=kind_only)
    subject = _subject(scene, item, rng)
    text = _pick(PREFIXES, rng) + subject + backdrop + _pick(SUFFIXES, rng)
    return _with_intruders(text, rng) if rng.random() < 0.2 else text


def _item(scene: Scene, rng: np.random.Generator, *, bare: bool) -> str:
    noun = _pick(SYNONYMS[scene.kind], rng)
    words: list[str] = []
    if not bare:
        words = [_spelled(scene.colour, rng)]
        if scene.pattern != "plain" or rng.random() < 0.08:
            words.insert(int(rng.integers(2)), _pick(PATTERN_WORDS[scene.pattern], rng))
    phrase = " ".join([*words, noun])
    article = rng.random()
    if article < 0.15 or noun in PLURAL:
        return phrase
    if article < 0.35:
        return "the " + phrase
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def _subject(scene: Scene, item: str, rng: np.random.Generator) -> str:
    if not scene.worn:
        return item
    wearer = _pick(WEARERS, rng)
    if rng.random() < 0.35:
        wearer = _pick(("a woman", "woman", "female model") if scene.long_hair
                       else ("a man", "man", "male model"), rng)  # fmt: skip
    return wearer + _pick(WEARING, rng) + item


def _with_intruders(text: str, rng: np.random.Generator) -> str:
    words = text.split(" ")
    for _ in range(int(rng.integers(1, 4))):
        if rng.random() < 0.65:
            word = _pick(FILLERS, rng)
        else:
            letters = rng.integers(0, 26, int(rng.integers(2, 8)))
            word = "".join(string.ascii_lowercase[k] for k in letters)
        words.insert(int(rng.integers(len(words) + 1)), word)
    return " ".join(words)


def _spelled(colour: str, rng: np.random.Generator) -> str:
    return "gray" if colour == "grey" and rng.random() < 0.3 else colour


def _pick(options: tuple[str, ...], rng: np.random.Generator) -> str:
    return options[int(rng.integers(len(options)))]
