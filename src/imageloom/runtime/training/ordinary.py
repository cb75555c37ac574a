"""Which prompts an adapter must leave alone. Pure functions of words; torch is not needed here."""

from __future__ import annotations

import re
from collections.abc import Sequence

# Ordinary prompts, most of them of a catalogue, with colours and backgrounds: an adapter that is
# not shown these would colour every garment that is asked for with its colour.
ORDINARY = (
    "",
    "a photo of a person",
    "a woman wearing a blue dress",
    "a man wearing a grey jacket on a white background",
    "a pair of black shoes",
    "a brown handbag on a grey background",
    "a red hat",
    "a green shirt on a beige background",
    "a model wearing yellow trousers",
    "a pink skirt",
    "an orange jacket",
    "a purple bag on a yellow background",
    "a teal shoe on a white background",
    "a dog in a garden",
)
# Captions that are kept without the adapter's word, at most: the nearest to what is trained.
_CAPTIONS = 10
_LINKING = frozenset({"and", "at", "by", "for", "from", "in", "of", "on", "the", "to", "with"})


def prompts_to_keep(captions: Sequence[str]) -> tuple[str, ...]:
    """Return prompts whose pictures an adapter trained on `captions` should leave as they are.

    The adapter's own words are those in every caption and in no ordinary prompt. Without any,
    nothing says when the adapter is meant, so it may change all, and none are kept.
    """
    ordinary = {word for prompt in ORDINARY for word in _words(prompt)} | _LINKING
    own = set.intersection(*(set(_words(caption)) for caption in captions)) - ordinary
    if not own:
        return ()
    pattern = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(own)))})\b[ ,]*", re.IGNORECASE)
    without = dict.fromkeys(pattern.sub("", caption).strip() for caption in captions)
    return (*ORDINARY, *[text for text in without if text not in ORDINARY][:_CAPTIONS])


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
