"""What an adapter must leave alone: prompts without its own word keep the base model's answers.

A few pictures of one thing teach a model that everything looks like it: after 16 checkered dresses,
a blue shoe changed as much as a checkered dress did. So before the training the base model draws a
few prompts, and beside the pictures the adapter learns to answer those as the base does. On the
embedded model that took the change of other prompts from 23 levels a pixel to 8, beside 31 of its
own.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imageloom.runtime.training.base import Example
from imageloom.runtime.training.rows import Rows

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """An answer of the base model: to `noisy` [c, h, w] at `timestep` [], with the caption of
    `example`, it said `answer` [c, h, w]; all float32 on the device.
    """

    example: Example
    noisy: Tensor
    timestep: Tensor
    answer: Tensor


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


def rows_of_kept(kept: Sequence[Kept], *, weight: float) -> Rows:
    """Return kept answers as rows that aim at them, each counting `weight`."""
    noisy = torch.stack([one.noisy for one in kept])
    return Rows(
        examples=[one.example for one in kept],
        noisy=noisy,
        timesteps=torch.stack([one.timestep for one in kept]),
        target=torch.stack([one.answer for one in kept]),
        weights=torch.full((len(kept),), weight, device=noisy.device),
        pictures=0,
    )


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
