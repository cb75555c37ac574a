"""Patience: with a database that is away, and with a clean-up that is cancelled half-way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from imageloom.domain.errors import StoreUnavailable

T = TypeVar("T")

PAUSE = 0.5  # seconds between two tries


async def outlast(ask: Callable[[], Awaitable[T]], *, within: float) -> T:
    """Return what `ask` answers, asked again while the database is away; `ask` may be repeated.

    Raises: StoreUnavailable where it is still away after `within` seconds.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + within
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            if loop.time() > until:
                raise
        await asyncio.sleep(PAUSE)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` does, done to its end however often the caller is cancelled meanwhile.

    The caller is cancelled afterwards. One attempt may be cancelled by its user, by a lease that is
    lost and by a drain: a `finally` that only the first of them reaches must outlast the others.
    """
    doing = asyncio.create_task(work)
    cancelled: asyncio.CancelledError | None = None
    while not doing.done():
        try:
            await asyncio.wait((doing,))
        except asyncio.CancelledError as exc:
            cancelled = exc
    if cancelled is None:
        return doing.result()
    if not doing.cancelled() and (failure := doing.exception()) is not None:
        raise cancelled from failure
    raise cancelled
