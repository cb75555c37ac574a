"""Notices that something became of a task or a run, so that a process need not ask again and again.

The triggers that write events tell it in the same transaction, as "id status kind tenant"; each API
process listens on one connection of its own, whatever the number of those who wait. A notice is a
hint and never the truth: what a waiter does with it is look at the rows.
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
MOST_HEARD: Final = 1000  # subjects that are kept for who is slow to take them
_OVER: Final = frozenset({"completed", "failed", "cancelled"})

_log = structlog.get_logger("imageloom.notices")


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiter:
    """Who wants to know of everything, or only that it is over."""

    news: asyncio.Event = field(default_factory=asyncio.Event)
    over_only: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """That a task, a training or a run (`kind`) of a tenant has that status now."""

    subject: str
    status: str
    kind: str
    tenant: str


class Overheard:
    """What becomes of everything of a tenant, or of all where None; of each subject the newest.

    `gap` is set once something may have been missed, because the connection broke.
    """

    def __init__(self, tenant: str | None) -> None:
        self.gap = False
        self._tenant = tenant
        self._newest: dict[str, Notice] = {}
        self.news = asyncio.Event()

    def add(self, notice: Notice) -> None:
        """Note what was heard; the oldest is dropped where nobody takes it."""
        if self._tenant not in (None, notice.tenant):
            return
        self._newest.pop(notice.subject, None)
        self._newest[notice.subject] = notice
        if len(self._newest) > MOST_HEARD:
            del self._newest[next(iter(self._newest))]
        self.news.set()

    def take(self) -> list[Notice]:
        """Return what was heard since this was last asked, the oldest first."""
        taken = list(self._newest.values())
        self._newest.clear()
        self.news.clear()
        return taken


class Notices:
    """What one process hears, and who waits for it. Nothing is heard unless `listen` runs."""

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._waiting: dict[str, list[_Waiter]] = {}
        self._overhearing: set[Overheard] = set()
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

    @contextmanager
    def overheard(self, tenant: str | None) -> Iterator[Overheard]:
        """Yield what collects the notices of a tenant, of all where None. None come again."""
        heard = Overheard(tenant)
        if self.closed:
            heard.news.set()
        self._overhearing.add(heard)
        try:
            yield heard
        finally:
            self._overhearing.discard(heard)

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
        for heard in self._overhearing:
            heard.news.set()

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
                self._tell(notice.payload)

    def _tell(self, payload: str) -> None:
        subject, status, *rest = payload.split(" ", 3)
        self._wake(subject, over=status in _OVER)
        match rest:
            case [kind, tenant]:
                notice = Notice(subject=subject, status=status, kind=kind, tenant=tenant)
                for heard in self._overhearing:
                    heard.add(notice)

    async def _catch_up(self, conn: Connection) -> None:
        """Wake those who may have missed what was told while nobody listened."""
        over = await _over_among(conn, list(self._waiting))
        for subject in list(self._waiting):
            self._wake(subject, over=subject in over)
        for heard in self._overhearing:
            heard.gap = True
            heard.news.set()

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
