"""What every storage does, and how its blocking calls are run: in threads of its own, bounded.

Threads, because file systems have no other way, and because the coroutines of obstore can abort
the interpreter at exit: with 0.12.1, 8 of 60 short programs ended with SIGABRT when the program
finished soon after an awaited call; of 125 that made blocking calls in threads, none did.
"""

from __future__ import annotations

import asyncio
import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, ParamSpec, TypeVar

from imageloom.domain.errors import NotFound, StorageUnavailable

THREADS = 8  # calls at once; more wait
SHORT_CALL = 30.0  # seconds for a call that moves no bytes, all its retries included
LONG_CALL = 600.0  # seconds for a call that moves bytes
LAST_CALL = 5.0  # seconds that who is cancelled waits for what a thread is in the middle of
CHUNK = 1 << 20  # bytes of one piece of a stream

P = ParamSpec("P")
T = TypeVar("T")


class StoredStream(NamedTuple):
    """What `open` returns: the size in bytes, and the bytes piece by piece."""

    size: int
    chunks: AsyncIterator[bytes]


class Storage(ABC):
    """Bytes under keys. All methods are safe to call at the same time.

    A key is as `keys` makes it; any other key is NotFound, in every method. Readers see a whole
    object or none, never part of one.
    Raises: StorageUnavailable from every method when the storage fails or does not answer in time.
    """

    failures: tuple[type[Exception], ...] = (OSError,)

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="storage")

    @abstractmethod
    async def put(self, key: str, data: bytes, *, media_type: str) -> None:
        """Store `data` durably under `key`, in the place of what was there. Idempotent."""

    @abstractmethod
    async def put_stream(self, key: str, chunks: AsyncIterator[bytes], *, media_type: str) -> int:
        """Store a body of any size as `put` does, without holding it; return its size in bytes.

        When `chunks` raises, nothing is stored.
        """

    @abstractmethod
    async def get(self, key: str) -> bytes:
        """Return the bytes under `key`. Raises: NotFound."""

    @abstractmethod
    async def open(self, key: str) -> StoredStream:
        """Return the size and a stream of the bytes under `key`. Raises: NotFound."""

    @abstractmethod
    async def exists(self, key: str) -> bool:
        """Return whether bytes are stored under `key`."""

    @abstractmethod
    async def list(self, prefix: str = "") -> Sequence[str]:
        """Return the keys below the folder `prefix`, sorted: `a/b` finds `a/b/c`, not `a/bc`."""

    @abstractmethod
    async def delete(self, keys: Collection[str]) -> None:
        """Delete what is stored under `keys`. A key that does not exist is no error."""

    async def delete_prefix(self, prefix: str) -> None:
        """Delete every key below the folder `prefix`, which must not be empty."""
        if not prefix:
            raise ValueError("an empty prefix would delete the whole storage")
        await self.delete(await self.list(prefix))

    async def aclose(self) -> None:
        """Let the calls that are running finish and end the threads."""
        await asyncio.to_thread(self._threads.shutdown)

    async def _run(
        self, seconds: float, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        running = self._threads.submit(functools.partial(call, *args, **kwargs))
        answer = asyncio.wrap_future(running)
        answer.add_done_callback(_look_at)
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(answer)
        except TimeoutError as exc:
            raise StorageUnavailable("the storage did not answer in time") from exc
        except asyncio.CancelledError:
            # A thread cannot be called back: what it writes must be there before whoever cancelled
            # it deletes what was written.
            if not running.cancel():
                await asyncio.wait((answer,), timeout=LAST_CALL)
            raise
        except self.failures as exc:
            raise StorageUnavailable("the storage failed; try again later") from exc

    async def _read(
        self, seconds: float, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Run a call that reads one key: a file that is not there is NotFound."""
        try:
            return await self._run(seconds, call, *args, **kwargs)
        except StorageUnavailable as exc:
            if isinstance(exc.__cause__, FileNotFoundError):
                raise NotFound("nothing is stored under that name") from exc
            raise


def _look_at(answer: asyncio.Future[Any]) -> None:
    """Take note of an answer that nobody waits for any more: asyncio would complain of it."""
    if not answer.cancelled():
        answer.exception()
