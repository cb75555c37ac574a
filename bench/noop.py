"""Measure what a task costs that does nothing: from POST to completed, beside Celery with Redis.

Each side is a whole installation on this machine, started by this script: ours is `imageloom serve`
with the device `drill`, which draws nothing; Celery's is a FastAPI app whose POST calls `delay`, a
worker, and a Redis that keeps everything by fsync before it answers, as PostgreSQL does. The same
client posts to both, in alternating turns.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from serving import load, machine, server, word

TASK = {
    "prompt": "nothing",
    "num_outputs": 1,
    "steps": 1,
    "width": 64,
    "height": 64,
    "guidance_scale": 0,
}
TARGET = 300.0  # tasks a second


@dataclass(frozen=True, kw_only=True)
class Side:
    """One of the two: where to post, and how to see how many tasks have completed."""

    name: str
    url: str
    path: str
    headers: dict[str, str]
    completed: Callable[[], int]


def tasks_per_second(side: Side, *, count: int, callers: int) -> tuple[float, float]:
    """Return how many tasks completed a second, and how many were accepted a second."""
    before = side.completed()
    began = time.perf_counter()
    asyncio.run(_post(side, count=count, callers=callers))
    accepted = time.perf_counter() - began
    while side.completed() < before + count:
        time.sleep(0.05)
    return count / (time.perf_counter() - began), count / accepted


async def _post(side: Side, *, count: int, callers: int) -> None:
    left = iter(range(count))

    async def post() -> None:
        async with _connection(side) as ask:
            for number in left:
                await ask({**TASK, "seed": number})

    async with asyncio.TaskGroup() as group:
        for _ in range(callers):
            group.create_task(post())


@asynccontextmanager
async def _connection(side: Side) -> AsyncIterator[Callable[[dict[str, Any]], Any]]:
    """Yield what posts a body: a client that costs little, for it is on the same two cores."""
    url = httpx.URL(side.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    head = "".join(f"{name}: {value}\r\n" for name, value in side.headers.items())
    lead = f"POST {side.path} HTTP/1.1\r\nHost: {url.host}\r\nContent-Type: application/json\r\n"

    async def ask(body: dict[str, Any]) -> None:
        text = json.dumps(body)
        writer.write(f"{lead}{head}Content-Length: {len(text)}\r\n\r\n{text}".encode())
        answer = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(answer.split(b"content-length: ")[1].split(b"\r\n")[0])
        said = await reader.readexactly(length)
        if b" 201 " not in answer[:20]:
            raise RuntimeError(f"{side.name} answered {answer[:20]!r}: {said[:300]!r}")

    try:
        yield ask
    finally:
        writer.close()


@contextmanager
def ours(workers: int) -> Iterator[Side]:
    """Yield `imageloom serve`."""
    with server(workers=workers, DEVICE="drill", LOG_FORMAT="json") as client:

        def completed() -> int:
            query = {"status": "completed", "page_size": 1}
            return int(client.get("/tasks", params=query).raise_for_status().json()["total"])

        yield Side(
            name="imageloom",
            url=str(client.base_url),
            path=f"{client.base_url.path.rstrip('/')}/tasks/generation",
            headers={"Authorization": client.headers["authorization"]},
            completed=completed,
        )


@contextmanager
def celery(way: str) -> Iterator[Side]:
    """Yield FastAPI, Celery with two workers of that pool, and Redis."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="il-")))
        redis_port, port = _free_port(), _free_port()
        redis = shutil.which("redis-server")
        if redis is None:
            raise RuntimeError("there is no redis-server: apt-get install redis-server")
        keep = ["--appendonly", "yes", "--appendfsync", "always", "--save", ""]
        _start(stack, folder, redis, "--port", str(redis_port), "--dir", str(folder), *keep)
        app = str(Path(__file__).with_name("celery_app.py"))
        _start(stack, folder, sys.executable, app, "worker", str(redis_port), way)
        _start(stack, folder, sys.executable, app, "api", str(redis_port), str(port))
        client = stack.enter_context(httpx.Client(base_url=f"http://127.0.0.1:{port}"))
        deadline = time.monotonic() + 60
        while True:
            try:
                if client.get("/ready").raise_for_status().json():
                    break
            except httpx.HTTPError:
                pass
            if time.monotonic() > deadline:
                raise RuntimeError((folder / "log").read_text()[-3000:])
            time.sleep(0.1)
        yield Side(
            name=f"celery, {way}",
            url=str(client.base_url),
            path="/tasks",
            headers={},
            completed=lambda: int(client.get("/completed").raise_for_status().json()),
        )


def _start(stack: ExitStack, folder: Path, *command: str) -> None:
    log = stack.enter_context((folder / "log").open("ab"))
    process = subprocess.Popen(command, stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.terminate)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Read the options, measure in alternating turns and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=3000, help="tasks of one turn")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--callers", type=int, default=16)
    parser.add_argument("--workers", type=int, default=1, help="workers of ours")
    parser.add_argument("--pools", default="prefork,threads", help="Celery's; - for none")
    options = parser.parse_args()
    print(machine())
    with ExitStack() as stack:
        sides = [stack.enter_context(ours(options.workers))]
        sides += [
            stack.enter_context(celery(way)) for way in options.pools.split(",") if way != "-"
        ]
        for side in sides:  # warm
            tasks_per_second(side, count=200, callers=options.callers)
        found: dict[str, list[float]] = {side.name: [] for side in sides}
        print(f"\ntasks a second, {options.tasks} a turn, {options.callers} callers")
        for turn in range(options.turns):
            for side in sides if turn % 2 == 0 else sides[::-1]:
                done, accepted = tasks_per_second(
                    side, count=options.tasks, callers=options.callers
                )
                found[side.name].append(done)
                print(f"  {side.name:<16} {done:7.0f}   accepted {accepted:7.0f}")
    mine = statistics.median(found[sides[0].name])
    print(f"\nmedian   {mine:7.0f}/s   target {TARGET:.0f}/s   {word(mine >= TARGET)}")
    for side in sides[1:]:
        ratios = [
            own / its for own, its in zip(found[sides[0].name], found[side.name], strict=True)
        ]
        print(
            f"of {side.name:<16} {statistics.median(ratios):.2f} x"
            f" ({min(ratios):.2f} to {max(ratios):.2f})"
        )
    print(f"load       {load()} at the end")


if __name__ == "__main__":
    main()
