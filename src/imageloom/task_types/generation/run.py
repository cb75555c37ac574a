"""Generation on the device: rows that are stepped with those of others, or the stock pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import msgspec

from imageloom.domain.work import GenerationWork
from imageloom.runtime.denoiser import Adapters, Denoiser, load_drawing
from imageloom.runtime.residency import Residency
from imageloom.runtime.rows import Row
from imageloom.runtime.stock import StockPipeline
from imageloom.runtime.units import Attempt, Drawing, Units


def open_units(work: bytes, attempt: Attempt, residency: Residency) -> Units:
    """Return the pictures of a generation task as units of work.

    Raises: Loading while its model or its adapters are on their way; what loading them raises.
    """
    decoded = msgspec.msgpack.decode(work, type=GenerationWork)
    relief = residency.relief(decoded.model)
    drawing = residency.get(decoded.model, partial(load_drawing, relief=relief))
    if isinstance(drawing, StockPipeline):
        return StockUnits(decoded, attempt, drawing, residency)
    adapters: Adapters = []
    if decoded.loras:
        adapters = residency.prepared(attempt.key, lambda: drawing.read_adapters(decoded.loras))
    return RowUnits(decoded, attempt, drawing, adapters, residency)


class RowUnits(Drawing):
    """The pictures of one attempt as rows."""

    def __init__(
        self,
        work: GenerationWork,
        attempt: Attempt,
        denoiser: Denoiser,
        adapters: Adapters,
        residency: Residency,
    ) -> None:
        self.denoiser = denoiser
        self.rows: list[Row] = []
        self._work = work
        self._attempt = attempt
        self._residency = residency
        self._to_begin: Iterator[Row] = denoiser.begin(work, adapters)
        self._begun = 0
        self._finished = 0
        residency.hold(work.model)

    @property
    def begun(self) -> bool:
        return self._begun == len(self._work.seeds)

    @property
    def remaining(self) -> int:
        unbegun = (len(self._work.seeds) - self._begun) * self._work.steps
        return unbegun + sum(row.remaining for row in self.rows)

    @property
    def progress(self) -> float:
        drawn = self._finished + sum(row.share_done for row in self.rows)
        return drawn / len(self._work.seeds)

    def step(self) -> bool:
        """Begin the next row. Raises: InvalidParams where the family cannot do what was asked."""
        self.rows.append(next(self._to_begin))
        self._begun += 1
        return False

    def preview(self, row: Row) -> None:
        """Show what a row may become, where its last step left an estimate."""
        picture = self.denoiser.preview(row)
        if picture is not None:
            self._attempt.preview(
                index=self._work.seeds.index(row.seed),
                step=row.position,
                steps=len(row.timesteps),
                picture=picture,
            )

    def finish(self, row: Row) -> bool:
        """Decode and deliver a row that is done; True when it was the last."""
        picture, setup = self.denoiser.finish(row), self.denoiser.setup(row)
        self.rows.remove(row)
        self._finished += 1
        self._attempt.deliver(
            index=self._work.seeds.index(row.seed), picture=picture, seed=row.seed, setup=setup
        )
        return self._finished == len(self._work.seeds)

    def close(self) -> None:
        """Let go of the model."""
        self._residency.let_go(self._work.model)


class StockUnits:
    """The pictures of one attempt by the stock pipeline, one a unit, in order."""

    def __init__(
        self,
        work: GenerationWork,
        attempt: Attempt,
        pipeline: StockPipeline,
        residency: Residency,
    ) -> None:
        self._work = work
        self._attempt = attempt
        self._pipeline = pipeline
        self._residency = residency
        self._index = 0
        residency.hold(work.model)

    def step(self) -> bool:
        """Draw the next picture and deliver it; True when it was the last."""
        total = len(self._work.seeds)
        seed = self._work.seeds[self._index]
        picture = self._pipeline.draw(
            self._work,
            seed=seed,
            between_steps=lambda done: self._attempt.between_steps((self._index + done) / total),
        )
        setup = self._pipeline.setup((self._work.width, self._work.height))
        self._attempt.deliver(index=self._index, picture=picture, seed=seed, setup=setup)
        self._index += 1
        return self._index == total

    def close(self) -> None:
        """Let go of the model."""
        self._residency.let_go(self._work.model)
