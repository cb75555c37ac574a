"""Notices that something became of a task or a run, so that a process need not ask again and again.

The triggers that write events tell it in the same transaction; each API process listens on one
connection of its own, whatever the number of those who wait. A notice is a hint and never the
truth: what a waiter does with it is look at the rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

import psycopg
import structlog
from psycopg import sql
from psycopg.rows import dict_row

from imageloom.store.pool import KEEPALIVE, Connection

CHANNEL: Final = "imageloom_event"
LISTEN_AGAIN = 0.5  # seconds before a connection that broke is made anew
_OVER: Final = frozenset({"completed", "failed", "cancelled"})

_log = structlog.get_logger("imageloom.notices")


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiter:
    """Who wants to know of everything, or only that it is over."""

    news: asyncio.Event = field(default_factory=asyncio.Event)
    over_only: bool


class Notices:
    """What one process hears, and who waits for it. Nothing is heard unless `listen` runs."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._waiting: dict[str, list[_Waiter]] = {}
        self.closed = False

    @contextmanager
    def expected(self, task_id: str) -> Iterator[asyncio.Event]:
        """Yield what is set once the task is over, or once nobody shall wait any more.

        Look at the task inside the block: it may have ended before.
        """
        with self._added(task_id, _Waiter(over_only=True)) as over:
            yield over

    @contextmanager
    def watched(self, subject: str) -> Iterator[asyncio.Event]:
        """Yield what is set whenever there may be news of a task or run; clear it, then look."""
        with self._added(subject, _Waiter(over_only=False)) as news:
            yield news

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
        self.closed = True
        for subject in self._waiting:
            self._wake(subject, over=True)

    @contextmanager
    def _added(self, subject: str, waiter: _Waiter) -> Iterator[asyncio.Event]:
        if self.closed:
            waiter.news.set()
        waiting = self._waiting.setdefault(subject, [])
        waiting.append(waiter)
        try:
            yield waiter.news
        finally:
            waiting.remove(waiter)
            if not waiting:
                self._waiting.pop(subject, None)

    async def _hear(self) -> None:
        conn: Connection = await psycopg.AsyncConnection.connect(
            self._conninfo, autocommit=True, row_factory=dict_row, **KEEPALIVE
        )
        async with conn:
            await conn.execute(sql.SQL("listen {}").format(sql.Identifier(CHANNEL)))
            await self._catch_up(conn)
            async for notice in conn.notifies():
                subject, _, status = notice.payload.partition(" ")
                self._wake(subject, over=status in _OVER)

    async def _catch_up(self, conn: Connection) -> None:
        """Wake those who may have missed what was told while nobody listened."""
        over = await _over_among(conn, list(self._waiting))
        for subject in list(self._waiting):
            self._wake(subject, over=subject in over)

    def _wake(self, subject: str, *, over: bool) -> None:
        for waiter in self._waiting.get(subject, ()):
            if over or not waiter.over_only:
                waiter.news.set()


async def _over_among(conn: Connection, task_ids: Iterable[str]) -> set[str]:
    """Return those of the tasks that are over. Uses the primary key."""
    rows = await conn.execute(
        "select id from task where id = any(%s) and status = any(%s)",
        (list(task_ids), list(_OVER)),
    )
    return {row["id"] for row in await rows.fetchall()}
