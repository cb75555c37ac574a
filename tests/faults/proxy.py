"""A TCP proxy that can fall silent: what a cable does that is pulled out, without root."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import quote, urlsplit

CHUNK = 1 << 16


class Proxy:
    """Stands before one port of this machine. While `cut`, nothing passes and nothing is refused:
    connections stay open, new ones are accepted, and no byte goes through.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._flows = asyncio.Event()
        self.port = 0

    @classmethod
    @contextmanager
    def before(cls, target: int) -> Iterator[Proxy]:
        """Yield a proxy before that port until the block ends."""
        proxy = cls(target)
        started = threading.Event()
        thread = threading.Thread(target=proxy._run, args=(started,), name="proxy", daemon=True)
        thread.start()
        started.wait()
        try:
            yield proxy
        finally:
            proxy._loop.call_soon_threadsafe(proxy._loop.stop)
            thread.join()

    def url(self, url: str) -> str:
        """Return a database's URL over TCP, by way of this proxy."""
        parts = urlsplit(url)
        host = f"{parts.username}:{quote(parts.password or '')}@127.0.0.1:{self.port}"
        return parts._replace(netloc=host).geturl()

    def cut(self) -> None:
        """Let nothing through."""
        self._loop.call_soon_threadsafe(self._flows.clear)

    def heal(self) -> None:
        """Let everything through again, what had come meanwhile first."""
        self._loop.call_soon_threadsafe(self._flows.set)

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._flows.set()
        server = self._loop.run_until_complete(
            asyncio.start_server(self._connected, "127.0.0.1", 0, limit=CHUNK)
        )
        self.port = int(server.sockets[0].getsockname()[1])
        started.set()
        self._loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0.05))
        self._loop.close()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.CancelledError):
            await self._flows.wait()
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._target)
            await asyncio.gather(self._pass(reader, far_writer), self._pass(far_reader, writer))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(CHUNK):
                await self._flows.wait()
                writer.write(data)
                await writer.drain()
        finally:
            # An end passes as everything else does: not while the line is cut.
            await self._flows.wait()
            writer.close()
