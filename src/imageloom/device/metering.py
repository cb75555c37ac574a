"""What each attempt has of the device: its share of the time, and the memory while it had it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from imageloom.domain.messages import Usage
from imageloom.runtime.units import Memory


@dataclass(slots=True, kw_only=True, eq=False)
class Bill:
    """What one attempt had so far; `relief` are the rungs that were taken meanwhile, in order."""

    seconds: float = 0.0
    memory_bytes: int | None = None
    relief: dict[str, None] = field(default_factory=dict)

    @property
    def usage(self) -> Usage:
        """The bill as the parent is told of it."""
        return Usage(
            seconds=self.seconds, memory_bytes=self.memory_bytes, relief=tuple(self.relief)
        )


class Meter:
    """Bills the device's time as it passes: to the innermost work, divided over whose it is."""

    def __init__(
        self, residency: Memory, *, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._residency = residency
        self._clock = clock
        self._work: list[dict[Bill, int]] = []
        self._since = 0.0

    @contextmanager
    def running(self) -> Iterator[dict[Bill, int]]:
        """Bill the block to the rows that it puts down, by whose they are.

        Work within the block is not the block's: a long unit does not pay for the rows that have
        their turn between its steps.
        """
        self._bill()
        self._work.append({})
        try:
            yield self._work[-1]
        finally:
            self._bill()
            self._work.pop()

    def _bill(self) -> None:
        now, peak = self._clock(), self._residency.take_peak()
        relief = self._residency.take_relief()
        if self._work:
            shares = self._work[-1]
            total = sum(shares.values())
            for bill, rows in shares.items():
                bill.seconds += (now - self._since) * rows / total
                bill.relief |= dict.fromkeys(relief)
                if peak is not None:
                    bill.memory_bytes = max(peak, bill.memory_bytes or 0)
        self._since = now
