"""The watchers of `bench/events.py`, in a process of their own: many streams, and their delays.

    python bench/audience.py URL KEY events|asking

Reads lines of a task's id and how many watch it. A watcher follows `GET /tasks/{id}/events` until
the task is over, or asks `GET /tasks/{id}` once a second. At the end prints what they saw.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import urlsplit

OVER = ("completed", "failed", "cancelled")
ASK_EVERY = 1.0  # seconds


@dataclass(kw_only=True, eq=False)
class Audience:
    """Watchers of the API at `url`. `delays` are seconds from the database's clock to the event."""

    url: str
    key: str
    delays: list[float] = field(default_factory=list)
    ended: int = 0
    failed: int = 0

    async def follow(self, task: str) -> None:
        """Read the events of one task until it is over."""
        reader, writer = await self._connect()
        try:
            writer.write(self._request(f"/tasks/{task}/events"))
            if b" 200 " not in await reader.readline():
                self.failed += 1
                return
            first = True
            while line := await reader.readline():
                if not line.startswith(b"data: "):
                    continue
                now = time.time()
                event = json.loads(line[6:])
                if not first:  # the first is how it stood before
                    self.delays.append(now - datetime.fromisoformat(event["at"]).timestamp())
                first = False
                if event["status"] in OVER:
                    self.ended += 1
                    return
            self.failed += 1
        finally:
            writer.close()

    async def ask(self, task: str, *, offset: float) -> None:
        """Ask once a second until the task is over."""
        await asyncio.sleep(offset)
        reader, writer = await self._connect()
        try:
            while True:
                writer.write(self._request(f"/tasks/{task}"))
                head = await reader.readuntil(b"\r\n\r\n")
                length = next(
                    int(line.split(b":")[1])
                    for line in head.lower().split(b"\r\n")
                    if line.startswith(b"content-length")
                )
                status = json.loads(await reader.readexactly(length))["status"]
                if status in OVER:
                    self.ended += 1
                    return
                await asyncio.sleep(ASK_EVERY)
        finally:
            writer.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self.url)
        return await asyncio.open_connection(parts.hostname, parts.port)

    def _request(self, path: str) -> bytes:
        parts = urlsplit(self.url)
        return (
            f"GET {parts.path}{path} HTTP/1.1\r\nHost: {parts.netloc}\r\n"
            f"Authorization: Bearer {self.key}\r\n\r\n"
        ).encode()


async def main(url: str, key: str, way: str) -> None:
    """Watch until the input ends, and then until everybody has seen the end."""
    audience = Audience(url=url, key=key)
    watchers: list[asyncio.Task[None]] = []
    while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
        task, number = line.split()
        for index in range(int(number)):
            work = (
                audience.follow(task)
                if way == "events"
                else audience.ask(task, offset=ASK_EVERY * index / int(number))
            )
            watchers.append(asyncio.create_task(work))
    await asyncio.wait(watchers, timeout=5)
    for watcher in watchers:
        watcher.cancel()
    found = await asyncio.gather(*watchers, return_exceptions=True)
    broken = sum(isinstance(each, Exception) for each in found)
    seen = {
        "delays": audience.delays,
        "ended": audience.ended,
        "failed": audience.failed + broken,
    }
    print(json.dumps(seen), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
