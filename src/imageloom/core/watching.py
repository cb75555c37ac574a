"""Watch a task or a run, its events read once for all who watch it here; or watch everything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import structlog

from imageloom.domain.errors import StoreUnavailable
from imageloom.store import events
from imageloom.store.events import Event
from imageloom.store.notices import Notice, Notices
from imageloom.store.pool import Pool, transaction

_log = structlog.get_logger("imageloom.watching")

HEARTBEAT: Final = 15.0  # seconds without an event, after which a watcher hears that we are there
KEPT: Final = 500  # events of a subject in memory; who is slower reads them again
PACE: Final = 0.25  # seconds between what who watches everything is told
LOOK_AGAIN: Final = 1.0  # seconds, where the database was away

# How an event is told: its bytes on the wire.
Tell = Callable[[Event], Awaitable[bytes]]


@dataclass(slots=True, kw_only=True, eq=False)
class _Feed:
    """The events of one subject after `since`, the newest of them, and those who watch it here.

    `told` are the same as bytes, by `seq`.
    """

    since: int
    events: list[Event] = field(default_factory=list)
    told: dict[int, asyncio.Task[bytes]] = field(default_factory=dict)
    watchers: set[asyncio.Event] = field(default_factory=set)
    reader: asyncio.Task[None] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """Where a watcher begins: the `events` that it gets at once, all after that one.

    `over` where none is left to come.
    """

    subject: str
    events: list[Event]
    after: int
    over: bool = False


class Feeds:
    """The subjects that somebody watches in this process."""

    def __init__(self, pool: Pool, notices: Notices) -> None:
        self._pool = pool
        self._notices = notices
        self._feeds: dict[str, _Feed] = {}

    @property
    def watchers(self) -> int:
        """How many watch something here."""
        return sum(len(feed.watchers) for feed in self._feeds.values())

    async def open(self, subject: str, *, after: int | None) -> Opening:
        """Return where a watcher begins: with what came after that event, else with the newest.

        Raises: StoreUnavailable.
        """
        async with transaction(self._pool) as conn:
            newest = await events.latest(conn, subject)
            if after is None:
                return Opening(subject=subject, events=[newest] if newest else [], after=0)
            found = await events.after(conn, subject, after)
        if found or newest is None:
            return Opening(subject=subject, events=found, after=0)
        # Whoever names an event that is still to come begins with the next.
        return Opening(subject=subject, events=[], after=newest.seq, over=newest.terminal)

    async def follow(self, opening: Opening, tell: Tell) -> AsyncIterator[bytes | None]:
        """Yield the events of an opening and those that follow until the subject is over.

        `tell` says the same of an event whoever watches: it is asked once for all of them. None is
        a heartbeat. Ends early where the process is about to.
        """
        found, seen = opening.events, opening.after
        if found:
            seen = found[-1].seq
        async with self._feed(opening.subject, since=seen) as (feed, news):
            while not (opening.over or self._notices.closed):
                for event in found:
                    yield await _told(feed, event, tell)
                    seen = event.seq
                if found and found[-1].terminal:
                    return
                news.clear()
                found = await self._after(opening.subject, feed, seen)
                if not found and not await _set_within(news, HEARTBEAT):
                    yield None

    async def _after(self, subject: str, feed: _Feed, seen: int) -> list[Event]:
        if seen >= feed.since:
            return feed.events[seen - feed.since :]
        # A watcher that is too slow for what is kept, or looked before this feed began.
        async with transaction(self._pool) as conn:
            return await events.after(conn, subject, seen)

    @asynccontextmanager
    async def _feed(
        self, subject: str, *, since: int
    ) -> AsyncIterator[tuple[_Feed, asyncio.Event]]:
        feed = self._feeds.get(subject)
        if feed is None:
            feed = self._feeds[subject] = _Feed(since=since)
            feed.reader = asyncio.create_task(self._read(subject, feed), name="feed")
        news = asyncio.Event()
        feed.watchers.add(news)
        try:
            yield feed, news
        finally:
            feed.watchers.discard(news)
            if not feed.watchers:
                del self._feeds[subject]
                if feed.reader is not None:
                    feed.reader.cancel()

    async def _read(self, subject: str, feed: _Feed) -> None:
        """Read what is new of a subject, once for all who watch it, until nobody does."""
        with self._notices.watched(subject) as told:
            while not self._notices.closed:
                told.clear()
                try:
                    async with transaction(self._pool) as conn:
                        new = await events.after(conn, subject, feed.since + len(feed.events))
                except StoreUnavailable as exc:
                    _log.warning("events_not_read", subject=subject, error=exc.message)
                    await asyncio.sleep(LOOK_AGAIN)
                    told.set()
                    continue
                feed.events += new
                late = max(0, len(feed.events) - KEPT)
                for event in feed.events[:late]:
                    feed.told.pop(event.seq, None)
                del feed.events[:late]
                feed.since += late
                for watcher in feed.watchers:
                    watcher.set()
                await told.wait()
            for watcher in feed.watchers:
                watcher.set()


async def _told(feed: _Feed, event: Event, tell: Tell) -> bytes:
    if event.seq < feed.since:  # what only this watcher reads again
        return await tell(event)
    telling = feed.told.get(event.seq)
    if telling is None or (telling.done() and (telling.cancelled() or telling.exception())):
        telling = feed.told[event.seq] = asyncio.create_task(_once(tell, event))
    # A watcher that leaves must not take it away from the others.
    return await asyncio.shield(telling)


async def _once(tell: Tell, event: Event) -> bytes:
    return await tell(event)


async def overhear(notices: Notices, *, tenant: str | None) -> AsyncIterator[Notice | None]:
    """Yield what becomes of everything of a tenant, or of all where None; nothing is told again.

    None is a heartbeat, the first once listening began. Of a subject that changes often, or for who
    is slow, only the newest is told. Ends where the process is about to, or where something may
    have been missed: who looks at everything and comes again has missed nothing.
    """
    with notices.overheard(tenant) as heard:
        yield None
        while not (notices.closed or heard.gap):
            if not await _set_within(heard.news, HEARTBEAT):
                yield None
                continue
            for notice in heard.take():
                yield notice
            await asyncio.sleep(PACE)


async def _set_within(news: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return False
    return True
