"""Who shares the device: tasks that were tried before, or compare, are done alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from imageloom.domain.tasks import Claim
from imageloom.task_types.training.spec import NAME as TRAINING
from imageloom.worker.patience import to_the_end


class Room:
    """Lets first attempts in together; every later one, and what makes an output again, when nobody
    else is there.
    """

    def __init__(self) -> None:
        self._inside = 0
        self._alone = False
        self._waiting = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def for_attempt(self, claim: Claim) -> AsyncIterator[bool]:
        """Hold a place for an attempt; True where it has the device to itself.

        Trainings go beside everything: they are stepped while nothing else is there.
        """
        if claim.task.type == TRAINING:
            yield False
            return
        tried = claim.attempt - claim.task.interruptions > 1
        alone = tried or claim.task.reproduces is not None
        async with self._changed:
            self._waiting += alone
            try:
                # Who must be alone goes first, or it would wait for a gap that never comes.
                await self._changed.wait_for(
                    lambda: not self._alone and (self._inside == 0 if alone else self._waiting == 0)
                )
            finally:
                self._waiting -= alone
                self._changed.notify_all()
            self._inside += 1
            self._alone = alone
        try:
            yield alone
        finally:
            await to_the_end(self._leave())

    async def _leave(self) -> None:
        async with self._changed:
            self._inside -= 1
            self._alone = False
            self._changed.notify_all()
