"""Write progress at most twice a second, however fast the device steps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

import structlog

from imageloom.domain.errors import LeaseLost, StoreUnavailable

_log = structlog.get_logger("imageloom.worker")

INTERVAL = 0.5  # seconds between two writes
# Progress is 1 only for a completed task, and completing is settle's to say.
LIMIT = 0.99


class ProgressWriter:
    """Writes the newest progress in the background while its `async with` block runs.

    Where a write finds that the attempt is no longer ours, the block is cancelled and leaves with
    LeaseLost.
    """

    def __init__(self, write: Callable[[float], Awaitable[bool]]) -> None:
        self._write = write
        self._newest = 0.0
        self._changed = asyncio.Event()
        self._lost = False
        self._body: asyncio.Task[object] | None = None
        self._writer: asyncio.Task[None] | None = None

    def note(self, progress: float) -> None:
        """Remember how far the work is, 0 to 1; never goes back.

        That it begins is no news: writing it would delay the first denoising step by an interval.
        """
        if (risen := min(progress, LIMIT)) > self._newest:
            self._newest = risen
            self._changed.set()

    async def __aenter__(self) -> Self:
        self._body = asyncio.current_task()
        self._writer = asyncio.create_task(self._run(), name="progress")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.wait([self._writer])
        if self._lost and self._body is not None and self._body.cancelling():
            self._body.uncancel()
            raise LeaseLost("the attempt is no longer this worker's") from exc

    async def _run(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            try:
                if not await self._write(self._newest):
                    self._lost = True
                    if self._body is not None:
                        self._body.cancel()
                    return
            except StoreUnavailable as exc:
                _log.warning("progress_not_written", error=exc.message)
            await asyncio.sleep(INTERVAL)
