"""The worker's own side of its lease: where it ends unheard, its attempts stop by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import structlog

from imageloom.domain.errors import CutOff

_log = structlog.get_logger("imageloom.worker")

WATCH_INTERVAL = 1.0  # seconds


class Lease:
    """How long ago the database took a heartbeat, and what must stop when that is too long.

    After `seconds` others may have the worker's tasks, and what it still does is for nothing. Not
    so where the database itself is down, for then nobody can take anything: `is_heard` tells.
    """

    def __init__(
        self,
        *,
        seconds: float,
        is_heard: Callable[[], Awaitable[bool]],
        clock: Callable[[], float],
    ) -> None:
        self._seconds = seconds
        self._is_heard = is_heard
        self._clock = clock
        self._renewed = clock()
        self._holders: set[asyncio.Task[object]] = set()
        self._stopped: set[asyncio.Task[object]] = set()

    def renew(self, *, at: float) -> None:
        """Note that a heartbeat was taken which was sent at that moment of the clock."""
        self._renewed = at

    async def keep_watch(self) -> None:
        """Look for ever: beside the heartbeats, which may wait for long where nobody answers."""
        while True:
            await self.look()
            await asyncio.sleep(WATCH_INTERVAL)

    async def look(self) -> None:
        """Stop the attempts of a lease that has ended unheard."""
        if not self._holders or self._clock() - self._renewed < self._seconds:
            return
        if await self._is_heard():
            return
        _log.warning("cut_off", after_s=round(self._clock() - self._renewed, 1))
        for holder in self._holders - self._stopped:
            self._stopped.add(holder)
            holder.cancel()

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Stop what is inside when the lease ends. Raises: CutOff then."""
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("a lease is held by a task")
        self._holders.add(task)
        try:
            yield
        except asyncio.CancelledError as exc:
            if task not in self._stopped or task.uncancel() > 0:
                raise
            raise CutOff("nothing was heard from the database for a lease") from exc
        finally:
            self._holders.discard(task)
            self._stopped.discard(task)
