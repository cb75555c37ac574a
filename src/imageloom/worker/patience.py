"""Outlast a database that is away, where giving up would cost work that is already done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

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
