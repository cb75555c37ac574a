"""Which prompts an adapter must leave alone. Pure functions of words; torch is not needed here."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Ordinary prompts, most of them of a catalogue, with colours and backgrounds: an adapter that is
# not shown these would colour every garment that is asked for with its colour.
ORDINARY = (
    "",
    "a photo of a person",
    "a portrait of an old man",
    "a woman wearing a blue dress",
    "a woman wearing a white shirt and a black skirt",
    "a man wearing a grey jacket on a white background",
    "a man wearing green trousers on a blue background",
    "a model wearing yellow trousers",
    "a pair of black shoes",
    "a teal shoe on a white background",
    "a white shoe on a grey background",
    "a brown handbag on a grey background",
    "a purple bag on a yellow background",
    "a red hat",
    "a yellow hat on a blue background",
    "a green shirt on a beige background",
    "a striped shirt on a white background",
    "a pink skirt",
    "a blue skirt on a white background",
    "a green skirt on a grey background",
    "an orange jacket",
    "a red jacket on a grey background",
    "a pair of grey trousers on a beige background",
    "a beige dress on a blue background",
    "a dog in a garden",
    "a street with houses and cars",
)
# Captions that are kept without the adapter's word, at most: the nearest to what is trained.
_CAPTIONS = 10
# Words that stand in the place of the adapter's own, in so many captions at most.
_OTHER_WORDS = ("blue", "green", "white", "plain", "striped")
_BESIDE = 2
_LINKING = frozenset({"and", "at", "by", "for", "from", "in", "of", "on", "the", "to", "with"})


def prompts_to_keep(captions: Sequence[str]) -> tuple[str, ...]:
    """Return prompts whose pictures an adapter trained on `captions` should leave as they are.

    The adapter's own words are those in every caption and in no ordinary prompt. Without any,
    nothing says when the adapter is meant, so it may change all, and none are kept.
    """
    own = _own_words(captions)
    if not own:
        return ()
    pattern = re.compile(rf"{_any_of(own)}[ ,]*", re.IGNORECASE)
    without = dict.fromkeys(pattern.sub("", caption).strip() for caption in captions)
    return (*ORDINARY, *[text for text in without if text not in ORDINARY][:_CAPTIONS])


def prompts_beside(captions: Sequence[str]) -> tuple[str, ...]:
    """Return captions with an ordinary word in the place of the adapter's own: what is nearest.

    They are kept too, and teach that it is the word that counts, and not the rest of the caption.
    """
    own = _own_words(captions)
    if not own:
        return ()
    pattern = re.compile(_any_of(own), re.IGNORECASE)
    few = list(dict.fromkeys(captions))[:_BESIDE]
    return tuple(dict.fromkeys(pattern.sub(word, text) for text in few for word in _OTHER_WORDS))


def _own_words(captions: Sequence[str]) -> list[str]:
    """Return the words of every caption that no ordinary prompt has."""
    ordinary = {word for prompt in ORDINARY for word in _words(prompt)} | _LINKING
    return sorted(set.intersection(*(set(_words(caption)) for caption in captions)) - ordinary)


def _any_of(words: Sequence[str]) -> str:
    return rf"\b(?:{'|'.join(map(re.escape, words))})\b"


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
