"""What a worker counts beside its tasks, and how its counts reach whoever scrapes.

A worker serves no HTTP: it writes its counts into the database, and the API processes show them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

import structlog

from imageloom.core.meters import Meters
from imageloom.core.metrics import keep_counts
from imageloom.core.services import Services
from imageloom.core.transitions import begin_counting
from imageloom.domain.errors import InvalidInput, StoreUnavailable
from imageloom.domain.metrics import DEVICE_RESTARTS, FETCHED, FETCHES
from imageloom.fetch import Answer, Fetcher
from imageloom.fetch.targets import is_data_url

_log = structlog.get_logger("imageloom.worker")

INTERVAL = 5.0  # seconds: what a `kill -9` can cost; a scrape comes every 15


@asynccontextmanager
async def counts_kept(
    services: Services, worker: str, queues: Collection[str]
) -> AsyncIterator[None]:
    """Write what this process counts every few seconds beside the block, and once at its end."""
    begin_counting(services.meters, types=queues)
    services.meters.count(DEVICE_RESTARTS, 0)
    keeping = asyncio.create_task(_keep(services, worker), name="counts")
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.wait([keeping])
        await _write(services, worker)


async def _keep(services: Services, worker: str) -> None:
    while True:
        await _write(services, worker)
        await asyncio.sleep(INTERVAL)


async def _write(services: Services, worker: str) -> None:
    try:
        await keep_counts(services, worker)
    except StoreUnavailable as exc:
        _log.warning("counts_not_written", error=exc.message)


class MeteredFetcher(Fetcher):
    """A fetcher that counts what it opens; not URLs that are their own data."""

    def __init__(self, allow: Collection[str], timeout: float, *, meters: Meters) -> None:
        super().__init__(allow, timeout)
        self._meters = meters

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 - as it is in Fetcher
    ) -> AsyncIterator[Answer]:
        """Do as Fetcher does, and count it. Raises: as Fetcher does."""
        opened = super().stream(url, max_bytes=max_bytes, timeout=timeout)
        if is_data_url(url):
            async with opened as answer:
                yield answer
            return
        try:
            async with opened as answer:
                yield Answer(
                    media_type=answer.media_type,
                    size=answer.size,
                    chunks=self._counted(answer.chunks),
                )
        except InvalidInput:
            self._meters.count(FETCHES, outcome="failed")
            raise
        self._meters.count(FETCHES, outcome="fetched")

    async def _counted(self, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for chunk in chunks:
            self._meters.count(FETCHED, len(chunk))
            yield chunk
