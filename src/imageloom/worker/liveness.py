"""Whether a device process answers and gets on, asked once a second and judged without a clock."""

from __future__ import annotations

from typing import Final

from imageloom.domain.messages import Pong

PING_INTERVAL: Final = 1.0  # seconds
# On a GPU a step takes seconds; one that hangs keeps a core busy with waiting for it. Elsewhere a
# step may take minutes, and one that computes is left alone.
GPU_STEP: Final = 30.0


class Liveness:
    """What is known of one device process.

    Unanswered questions are counted, not timed: where the parent itself was stopped, or its machine
    slept, the device is not to blame. `compiles` where a step may wait for a compiler.
    """

    def __init__(self, *, silence: float, compiles: bool) -> None:
        self._silence = silence
        self._compiles = compiles
        self._unanswered = 0
        self._last = Pong(step=0.0, still=0.0)

    def ask(self) -> bool:
        """Note that a second is over; True where a question is to be sent: one at a time."""
        self._unanswered += 1
        return self._unanswered == 1

    def answered(self, pong: Pong) -> None:
        """Take in an answer."""
        self._unanswered = 0
        self._last = pong

    def trouble(self, *, kind: str | None) -> str | None:
        """Return what is wrong with a device of that kind, None where nothing seems to be."""
        # The last question may be on its way.
        silent = (self._unanswered - 1) * PING_INTERVAL
        if silent >= self._silence:
            return f"the device has not answered for {silent:.0f} s"
        if self._compiles:
            return None
        if self._last.still >= self._silence:
            return f"the device has stood still in a step for {self._last.still:.0f} s"
        if kind == "cuda" and self._last.step >= GPU_STEP:
            return f"a step of the device has taken {self._last.step:.0f} s"
        return None
