"""Deliver: who sends an event, how it is signed, and what an answer means.

Any number of processes deliver. A claim is a lease: whoever dies with it loses it after LEASE, and
the event is sent again, under the same id and with the same body.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import structlog
from standardwebhooks.webhooks import Webhook as Signer

from imageloom.core.services import Services
from imageloom.core.webhooks import secrets_of, shown
from imageloom.domain.metrics import DELIVERIES, DELIVERY_TIME
from imageloom.domain.webhooks import delay_after
from imageloom.store import endpoints, outbox
from imageloom.store.outbox import Attempt, Event, State
from imageloom.store.pool import transaction

_log = structlog.get_logger("imageloom.webhook")

SLOTS = 32  # deliveries of one process at once
OF_HOST = 8  # of these that one claim takes for one host, and above which it takes none
OF_ENDPOINT = 4  # on their way to one endpoint at once, from all processes
LEASE = timedelta(seconds=20)  # a delivery may take 15, and what came of it is then written
_GONE = 410


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of an attempt: a status, or the kind of error that came instead of one."""

    status: int | None
    error: str | None
    retry_after: float | None = None

    @property
    def good(self) -> bool:
        """Whether the receiver has the event. A redirect is not followed, so it has not."""
        return self.status is not None and 200 <= self.status < 300


async def claim_events(services: Services, in_flight: Counter[str]) -> list[Event]:
    """Take events that are due, as many as this process has room for.

    `in_flight` are the process's deliveries by host: one host, whatever its URLs, never takes all
    the room. Raises: StoreUnavailable.
    """
    free = SLOTS - in_flight.total()
    if free <= 0:
        return []
    async with transaction(services.pool) as conn:
        return await outbox.claim_due(
            conn,
            free=free,
            full=[host for host, count in in_flight.items() if count >= OF_HOST],
            of_host=OF_HOST,
            of_endpoint=OF_ENDPOINT,
            rate=services.settings.webhook_rate,
            lease=LEASE,
        )


async def keep_body(services: Services, event: Event, body: str) -> bool:
    """Write what every delivery of the event says; False where this process may not send it."""
    async with transaction(services.pool) as conn:
        return await outbox.keep_body(conn, event, body)


async def sign(services: Services, event: Event, body: str) -> tuple[datetime, dict[str, str]]:
    """Return this moment and the headers of an attempt at it, signed by each secret that is good.

    Raises: StoreUnavailable.
    """
    async with transaction(services.pool) as conn:
        secrets = await secrets_of(services, conn, event.tenant)
        now = (await outbox.clock(conn)).astimezone(UTC)
    keys = (secrets.current, *secrets.replaced)
    signatures = [Signer(shown(key)).sign(event.id, now, body) for key in keys]
    return now, {
        "Content-Type": "application/json",
        "webhook-id": event.id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(signatures),
    }


async def note(
    services: Services,
    event: Event,
    answer: Answer,
    *,
    at: datetime,
    seconds: float,
    jitter: Callable[[], float] = random.random,
) -> State | None:
    """Write what came of an attempt and return where the event stands; None where it is another's.

    A 410 turns the endpoint off: the event, and all others for it, wait until it is turned on.
    Raises: StoreUnavailable; then the lease ends by itself and the event is sent again.
    """
    made = Attempt(at=at, status=answer.status, error=answer.error, seconds=seconds)
    gone = answer.status == _GONE
    delay = delay_after(
        event.tries,
        factor=services.settings.webhook_delay_factor,
        jitter=jitter(),
        retry_after=answer.retry_after,
    )
    state: State = "pending"
    if answer.good:
        state = "delivered"
    elif delay is None and not gone:
        state = "failed"
    async with transaction(services.pool) as conn:
        if gone:
            await endpoints.disable(conn, tenant=event.tenant, url=event.url)
        ours = await outbox.note_attempt(
            conn, event, made, state=state, delay=0.0 if gone else delay or 0.0, fresh=gone
        )
    outcome = "off" if gone else "again" if state == "pending" else state
    services.meters.count(DELIVERIES, outcome=outcome)
    services.meters.observe(DELIVERY_TIME, seconds)
    _log.info(
        "webhook",
        id=event.id,
        type=event.type,
        resource_id=event.resource_id,
        attempt=event.attempt,
        status=answer.status,
        error=answer.error,
        state=state if ours else None,
        duration_s=round(seconds, 3),
    )
    return state if ours else None
