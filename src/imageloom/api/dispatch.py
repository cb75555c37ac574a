"""The dispatcher of one API process: takes events that are due, and sends each on its own.

It is here and not in core because a body is what the API answers: the same shapes, the same URLs.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
from opentelemetry.trace import SpanKind

from imageloom.api.urls import Urls
from imageloom.api.webhook_shapes import render
from imageloom.core.deliver import SLOTS, Answer, claim_events, keep_body, note, sign
from imageloom.core.services import Services
from imageloom.domain.errors import StoreUnavailable
from imageloom.fetch import Poster, PostFailed
from imageloom.store.outbox import SUBJECT, Event
from imageloom.tracing import fail

_log = structlog.get_logger("imageloom.webhook")

GRACE = 5.0  # seconds at the end of a process; most receivers answer within one
POLL = 1.0  # seconds between two looks: what is tried again comes due without a notice


class Dispatcher:
    """Sends the events of an installation, beside those of other processes. `run` it once."""

    def __init__(self, services: Services, urls: Urls, poster: Poster) -> None:
        self._services = services
        self._urls = urls
        self._poster = poster
        self._in_flight: Counter[str] = Counter()
        self._news = asyncio.Event()  # something is to be told, or there is room again
        self._stopped = False

    async def run(self) -> None:
        """Deliver until `stop`, and end what is on its way; cut off, it is left to its lease."""
        with self._services.notices.watched(SUBJECT) as news:
            self._news = news
            async with asyncio.TaskGroup() as group:
                while not self._stopped:
                    news.clear()
                    await self.begin(group)
                    try:
                        async with asyncio.timeout(POLL):
                            await news.wait()
                    except TimeoutError:
                        pass

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True
        self._news.set()

    async def begin(self, group: asyncio.TaskGroup) -> int:
        """Begin what is due, as far as there is room; return how many deliveries that is."""
        try:
            events = await claim_events(self._services, self._in_flight)
        except StoreUnavailable as exc:
            _log.warning("webhooks_not_claimed", error=exc.message)
            return 0
        for event in events:
            self._in_flight[event.host] += 1
            group.create_task(self._deliver(event), name=f"webhook {event.id}")
        return len(events)

    async def _deliver(self, event: Event) -> None:
        try:
            await self._send(event)
        except Exception as exc:  # noqa: BLE001  # whatever it was: its lease ends, and it is sent again
            _log.warning("webhook_not_sent", id=event.id, error=str(exc))
        finally:
            self._in_flight[event.host] -= 1
            if not self._in_flight[event.host]:
                del self._in_flight[event.host]
            self._news.set()

    async def _send(self, event: Event) -> None:
        with self._services.tracing.span(
            "webhook",
            parent=event.traceparent,
            kind=SpanKind.CLIENT,
            event_id=event.id,
            event_type=event.type,
            attempt=event.attempt,
            host=event.host,
        ) as span:
            answer = await self._try(event)
            if answer is not None and answer.status is not None:
                span.set_attribute("http.response.status_code", answer.status)
            if answer is not None and not answer.good:
                fail(span, answer.error or "refused")

    async def _try(self, event: Event) -> Answer | None:
        """Send an event once and return what came of it; None where it is another's by now."""
        body = event.body
        if body is None:
            # Kept before it is sent: a retry says the same, whatever has happened since.
            body = await render(self._services, event, self._urls)
            if not await keep_body(self._services, event, body):
                return None
        at, headers = await sign(self._services, event, body)
        began = time.monotonic()
        try:
            posted = await self._poster.post(event.url, body.encode(), headers)
            answer = Answer(status=posted.status, error=None, retry_after=posted.retry_after)
        except PostFailed as exc:
            answer = Answer(status=None, error=exc.kind)
        await note(self._services, event, answer, at=at, seconds=time.monotonic() - began)
        return answer


@asynccontextmanager
async def webhooks_sent(services: Services, urls: Urls) -> AsyncIterator[None]:
    """Send webhooks beside the block; at its end what is on its way has a moment to arrive."""
    poster = Poster(services.settings.fetch_allow, most=SLOTS)
    dispatcher = Dispatcher(services, urls, poster)
    running = asyncio.create_task(dispatcher.run(), name="webhooks")
    try:
        yield
    finally:
        dispatcher.stop()
        await asyncio.wait([running], timeout=GRACE)
        running.cancel()
        await asyncio.wait([running])
        await poster.aclose()
