"""What the weights of a model are, for tasks that begin in the same second: one look serves all."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from imageloom.domain.catalog import Model
from imageloom.runtime.digests import weights_digest

# A look at the files of an installed model takes about 1 ms, which was a fifth of what a worker
# does for a task that draws nothing.
LOOK_SERVES: Final = 1.0  # seconds


class WeightDigests:
    """Tells the digests of weights as of a second ago at most."""

    def __init__(
        self,
        *,
        look: Callable[[Model], str] = weights_digest,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look = look
        self._clock = clock
        self._found: dict[str, tuple[Model, float, asyncio.Task[str]]] = {}

    def of(self, model: Model) -> asyncio.Task[str]:
        """Return what will tell the digest; shield it, for others wait for it too.

        It raises: ModelNotInstalled, BadWeights.
        """
        known = self._found.get(model.name)
        if known is not None and known[0] == model and self._clock() - known[1] < LOOK_SERVES:
            return known[2]
        looking = asyncio.create_task(asyncio.to_thread(self._look, model))
        # Where nobody comes to ask, a failure to read them is the device's to tell.
        looking.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._found[model.name] = model, self._clock(), looking
        return looking
