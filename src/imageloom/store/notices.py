"""Notices that a task is over, so that a process may wait for one without asking again and again.

Whoever ends a task tells it in the same transaction; each API process listens on one connection of
its own, whatever the number of those who wait. A notice is a hint and never the truth: what a
waiter does with it is look at the task's row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import psycopg
import structlog
from psycopg import sql
from psycopg.rows import dict_row

from imageloom.store.pool import KEEPALIVE, Connection

CHANNEL = "imageloom_task_over"
LISTEN_AGAIN = 0.5  # seconds before a connection that broke is made anew

_log = structlog.get_logger("imageloom.notices")


async def tell_over(conn: Connection, task_ids: Iterable[str]) -> None:
    """Tell every process that these tasks are over, when `conn` commits and only then."""
    await conn.execute(
        "select pg_notify(%s, id) from unnest(%s::text[]) as over (id)", (CHANNEL, list(task_ids))
    )


class Notices:
    """What one process hears, and who waits for it. Nothing is heard unless `listen` runs."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._waiting: dict[str, list[asyncio.Event]] = {}
        self._closed = False

    @contextmanager
    def expected(self, task_id: str) -> Iterator[asyncio.Event]:
        """Yield what is set once the task is over, or once nobody shall wait any more.

        Look at the task inside the block: it may have ended before.
        """
        over = asyncio.Event()
        if self._closed:
            over.set()
        waiting = self._waiting.setdefault(task_id, [])
        waiting.append(over)
        try:
            yield over
        finally:
            waiting.remove(over)
            if not waiting:
                self._waiting.pop(task_id, None)

    async def listen(self) -> None:
        """Hear notices for ever, on a new connection whenever the old one breaks."""
        while True:
            try:
                await self._hear()
            except psycopg.Error as exc:
                _log.warning("listening_broke", error=str(exc).strip())
            await asyncio.sleep(LISTEN_AGAIN)

    def close(self) -> None:
        """Let everybody go who waits now or later: the process is about to end."""
        self._closed = True
        self._wake(list(self._waiting))

    async def _hear(self) -> None:
        conn: Connection = await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, row_factory=dict_row, **KEEPALIVE
        )
        async with conn:
            await conn.execute(sql.SQL("listen {}").format(sql.Identifier(CHANNEL)))
            # What was told while nobody listened.
            self._wake(await _over_among(conn, list(self._waiting)))
            async for notice in conn.notifies():
                self._wake([notice.payload])

    def _wake(self, task_ids: Iterable[str]) -> None:
        for task_id in task_ids:
            for over in self._waiting.get(task_id, ()):
                over.set()


async def _over_among(conn: Connection, task_ids: list[str]) -> list[str]:
    """Return those of the tasks that are over. Uses the primary key."""
    rows = await conn.execute(
        "select id from task where id = any(%s) and status in ('completed', 'failed', 'cancelled')",
        (task_ids,),
    )
    return [row["id"] for row in await rows.fetchall()]
