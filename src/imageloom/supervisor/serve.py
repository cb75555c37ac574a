"""Run the database, the API and the workers of one machine, until told to stop."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from imageloom.api.main import address_of
from imageloom.core.keys import NewKey, ensure_first_key
from imageloom.domain.errors import StoreUnavailable
from imageloom.settings import Settings
from imageloom.store.database import embedded
from imageloom.store.migrate import migrate
from imageloom.store.pool import open_pool
from imageloom.store.postgres import EmbeddedPostgres
from imageloom.supervisor.child import Child

_log = structlog.get_logger("imageloom.serve")

# Together under the promise that everything is gone within 30 seconds of the signal.
STOP_TIMEOUT = 20.0
DATABASE_CHECK = 1.0  # seconds between two looks at the embedded PostgreSQL


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """What the person who typed `serve` wants to read."""

    url: str
    new_key: NewKey | None


async def serve(
    settings: Settings,
    listener: socket.socket,
    *,
    workers: int,
    announce: Callable[[Started], None],
) -> None:
    """Keep everything running until SIGINT or SIGTERM, then end it in order.

    The listening socket is ours and passed on, so while a dead API process is replaced its callers
    wait instead of being refused. Raises: StoreUnavailable where the database cannot be started.
    """
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    database = embedded(settings)
    url = settings.database_url or ""
    try:
        if database is not None:
            url = await asyncio.to_thread(database.start)
        await migrate(url)
        async with open_pool(url, max_size=2, wait=10) as pool:
            new_key = await ensure_first_key(pool, given=settings.api_key)
        environment = _environment(settings, listener)
        children = [Child("api", ["api"], environment=environment, fds=[listener.fileno()])]
        children += [
            Child(f"worker-{number}", ["worker"], environment=environment, fds=[])
            for number in range(workers)
        ]
        announce(Started(url=settings.public_url or address_of(listener), new_key=new_key))
        await _keep_until(stop, children, database)
    finally:
        listener.close()
        if database is not None:
            await asyncio.to_thread(database.stop)


def _environment(settings: Settings, listener: socket.socket) -> dict[str, str]:
    """Return what children read their settings from.

    They find the embedded PostgreSQL as we do, and use it in their own right: so it ends with the
    last of them where we are killed, and its password travels nowhere.
    """
    environment = {
        **os.environ,  # noqa: TID251  # passed on, not read
        "IMAGELOOM_DATA_DIR": str(settings.data_dir.resolve()),
        "IMAGELOOM_DEVICE": settings.device,
        "IMAGELOOM_LISTEN_FD": str(listener.fileno()),
        "IMAGELOOM_SUPERVISED": "1",
    }
    # Children check keys against hashes; a process that has no key cannot leak it.
    environment.pop("IMAGELOOM_API_KEY", None)
    return environment


async def _keep_until(
    stop: asyncio.Event, children: list[Child], database: EmbeddedPostgres | None
) -> None:
    keeping = [asyncio.create_task(child.keep(), name=child.name) for child in children]
    if database is not None:
        keeping.append(asyncio.create_task(_keep_database(database, children), name="postgres"))
    try:
        waiting = asyncio.create_task(stop.wait())
        done, _ = await asyncio.wait([waiting, *keeping], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {waiting}:
            task.result()  # none of them ends by itself but by a fault of ours
    finally:
        for task in keeping:
            task.cancel()
        await asyncio.wait(keeping)
        await asyncio.gather(*(child.stop(within=STOP_TIMEOUT) for child in children))


async def _keep_database(database: EmbeddedPostgres, children: list[Child]) -> None:
    """Bring the embedded PostgreSQL back whenever it dies; children follow where it moved."""
    url = await asyncio.to_thread(database.start)
    while True:
        await asyncio.sleep(DATABASE_CHECK)
        try:
            if not await asyncio.to_thread(database.ensure_running):
                continue
            moved = await asyncio.to_thread(database.start)
        except StoreUnavailable as exc:
            _log.error("postgres_does_not_start", error=exc.message)
            continue
        _log.warning("postgres_restarted", moved=moved != url)
        if moved != url:
            # Its port was taken meanwhile, and the children's URL names the old one.
            url = moved
            for child in children:
                child.restart()
