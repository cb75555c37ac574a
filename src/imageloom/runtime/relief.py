"""What is done for a model where memory does not suffice, one rung of a ladder after the other.

A pass of many rows is halved first (`device.ticks`). Then models leave that nobody draws with; the
picture goes through the autoencoder in tiles; the parts of the model take turns on the device. What
was done stays done, also where the model is loaded anew; models that left may come back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal, TypeVar

import structlog

from imageloom.runtime.shortage import forget_frames, is_out_of_memory
from imageloom.runtime.torch_device import release_memory

_log = structlog.get_logger("imageloom.device")

# A side is cut in two, then in four: at 1024 px a tile is then 256 px, which a decoder of a few
# hundred MB can do. Smaller ones would be all seams.
MOST_CUTS: Final = 4
LEAST_TILE: Final = 32  # pixels of a side

Coding = Literal["encode", "decode"]
Size = tuple[int, int]
T = TypeVar("T")


class Relief:
    """How far down the ladder one model is."""

    def __init__(
        self,
        model: str,
        *,
        evict: Callable[[], bool] = lambda: False,
        tell: Callable[[str], None] = lambda _rung: None,
    ) -> None:
        """`evict` frees the memory of other models, True where there was any to free.

        `tell` hears of each rung that is taken.
        """
        self._model = model
        self._evict = evict
        self._tell = tell
        self._most_rows: dict[object, int] = {}
        self._cuts: dict[tuple[Coding, Size], int] = {}
        self.offloaded = False

    def most_rows(self, fits: object) -> int | None:
        """Return how many rows of one kind go in one pass, None where that was never too many."""
        return self._most_rows.get(fits)

    def cuts(self, coding: Coding, size: Size) -> int:
        """Return in how many tiles a side of such pictures is cut; 1 where they are whole."""
        return self._cuts.get((coding, size), 1)

    def tiles(self, size: Size) -> dict[str, str]:
        """Return how pictures of a size are cut, for their receipts; empty where they are whole."""
        return {
            f"tiles.{coding}": str(cuts)
            for (coding, cut), cuts in self._cuts.items()
            if cut == size
        }

    def halve(self, fits: object, rows: int) -> None:
        """Take half as many rows in a pass from now on."""
        self._most_rows[fits] = max(1, rows // 2)
        self._note("fewer_rows", rows=self._most_rows[fits])
        release_memory()

    def offload(self) -> bool:
        """Let the parts of the model take turns on the device; False where they do so already."""
        if self.offloaded:
            return False
        self.offloaded = True
        self._note("offloaded")
        return True

    def relieved(
        self,
        work: Callable[[], T],
        *,
        coding: Coding | None = None,
        size: Size = (0, 0),
        offload: bool = True,
    ) -> T:
        """Do some work of the model; where memory does not suffice, take a rung and do it again.

        `coding` says that it is the autoencoder's, on a picture of that `size` in pixels. Without
        `offload` the parts of the model cannot take turns.

        Raises: what `work` raises, out of memory where no rung is left.
        """
        while True:
            try:
                return work()
            except RuntimeError as exc:
                if not is_out_of_memory(exc):
                    raise
                forget_frames(exc)
                failure = exc
            release_memory()
            if not self._climb(coding, size, offload=offload):
                self._note("nothing_left")
                raise failure
            release_memory()

    def _climb(self, coding: Coding | None, size: Size, *, offload: bool) -> bool:
        if self._evict():
            self._note("others_evicted")
            return True
        if coding is not None:
            cuts = 2 * self.cuts(coding, size)
            if cuts <= MOST_CUTS and max(size) >= cuts * LEAST_TILE:
                self._cuts[coding, size] = cuts
                self._note("tiles", coding=coding, size=size, cuts=cuts)
                return True
        return offload and self.offload()

    def _note(self, rung: str, **fields: object) -> None:
        _log.warning("out_of_memory", model=self._model, rung=rung, **fields)
        self._tell(rung)
