"""Wait for a state, never for a time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

LONGEST = (
    120.0  # seconds: a process that imports everything, on a machine that does ten other things
)

T = TypeVar("T")


def wait_for(
    condition: Callable[[], T | None],
    *,
    what: str,
    timeout: float = LONGEST,
    every: float = 0.05,
) -> T:
    """Return the first true answer of `condition`. Raises: AssertionError after `timeout`."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        threading.Event().wait(every)
    raise AssertionError(f"waited {timeout:.0f} s in vain for {what}")
