"""Whether the device loop turns, as the link's thread can tell beside it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from imageloom.domain.messages import Pong

# Of the time between two looks, the part of a core below which the process does nothing: to answer
# a question a second takes 0.0003 of one.
_IDLE_SHARE: Final = 0.01


class Pulse:
    """What the loop does, and since when: it says so between steps, another thread asks."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        worked: Callable[[], float] = time.process_time,
    ) -> None:
        """`worked` gives the seconds of computing that the process has done."""
        self._clock = clock
        self._worked = worked
        self._lock = threading.Lock()
        self._rests = False
        self._since = self._looked = self._moved = clock()
        self._work_seen = worked()

    def beat(self) -> None:
        """Note that a step is over and the next begins."""
        with self._lock:
            self._rests = False
            self._since = self._clock()

    def rest(self) -> None:
        """Note that the loop waits for something to do."""
        with self._lock:
            self._rests = True

    def look(self) -> Pong:
        """Return how long the step takes already, and how long the process has not computed in it.

        Both are 0 while the loop waits for something to do. Ask often: computing is noticed by the
        whole time since the last look.
        """
        with self._lock:
            now, work = self._clock(), self._worked()
            if work - self._work_seen > _IDLE_SHARE * (now - self._looked):
                self._moved = now
            self._looked, self._work_seen = now, work
            if self._rests:
                return Pong(step=0.0, still=0.0)
            return Pong(step=now - self._since, still=now - max(self._since, self._moved))
