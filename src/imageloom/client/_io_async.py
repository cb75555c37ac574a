"""What the asynchronous client does differently from the synchronous one, by the same names."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

Thunk = Callable[[], Awaitable[T]]
Sleep = Callable[[float], Awaitable[None]]


async def sleep(seconds: float) -> None:
    """Wait without holding the event loop."""
    await asyncio.sleep(seconds)


async def blocking(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that blocks, in a thread."""
    return await asyncio.to_thread(function, *args, **kwargs)
