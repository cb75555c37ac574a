"""Generation on the device: the stock pipeline, one picture a unit of work.

One picture at a time, because another number of rows takes other kernels: only so has the picture
of seed s the same bytes whichever task it is part of.
"""

from __future__ import annotations

import msgspec

from imageloom.domain.work import GenerationWork
from imageloom.runtime.residency import Residency
from imageloom.runtime.stock import StockPipeline
from imageloom.runtime.units import Attempt


def open_units(work: bytes, attempt: Attempt, residency: Residency) -> GenerationUnits:
    """Return the pictures of a generation task as units of work; loads the model if need be."""
    decoded = msgspec.msgpack.decode(work, type=GenerationWork)
    return GenerationUnits(decoded, attempt, residency.get(decoded.model, StockPipeline.load))


class GenerationUnits:
    """The pictures of one attempt, in order."""

    def __init__(self, work: GenerationWork, attempt: Attempt, pipeline: StockPipeline) -> None:
        self._work = work
        self._attempt = attempt
        self._pipeline = pipeline
        self._index = 0

    def step(self) -> bool:
        """Draw the next picture and deliver it; True when it was the last."""
        total = len(self._work.seeds)
        seed = self._work.seeds[self._index]
        picture = self._pipeline.draw(
            self._work,
            seed=seed,
            between_steps=lambda done: self._attempt.between_steps((self._index + done) / total),
        )
        self._attempt.deliver(index=self._index, picture=picture, seed=seed)
        self._index += 1
        return self._index == total
