"""The chores that every API and worker process does on the side, each in a loop of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import structlog

from imageloom.core.control import expire_approvals
from imageloom.core.metrics import KEEP_COUNTS
from imageloom.core.recover import Recovery
from imageloom.core.retention import forget_old
from imageloom.core.services import Services
from imageloom.storage.keys import attempt_prefix
from imageloom.store import (
    attempts,
    events,
    files,
    forecasts,
    idempotency,
    metrics,
    outbox,
    sessions,
    workers,
)
from imageloom.store.pool import transaction

_log = structlog.get_logger("imageloom.maintain")

SWEEP_INTERVAL = 60.0  # seconds; what it deletes has been useless for an hour or more
SWEEP_AGE = timedelta(minutes=10)  # since an attempt ended: five times what it may try to settle
SWEEP_MOST = 200  # attempts of one pass
KEEP_EVENTS = timedelta(days=7)  # of webhooks, after they ended: time to look and to replay


async def maintain(services: Services) -> None:
    """Recover lost tasks, end approvals that are overdue and sweep what has expired, for ever."""
    recovery = Recovery(services)
    async with asyncio.TaskGroup() as group:
        group.create_task(_every(services.settings.reap_interval, "recover", recovery.run))
        approvals = partial(expire_approvals, services)
        group.create_task(_every(services.settings.reap_interval, "approvals", approvals))
        group.create_task(_every(SWEEP_INTERVAL, "sweep", partial(sweep, services)))
        group.create_task(_every(SWEEP_INTERVAL, "forget", partial(forget_old, services)))
        left = partial(sweep_attempts, services)
        group.create_task(_every(SWEEP_INTERVAL, "attempts", left))


async def sweep(services: Services) -> None:
    """Delete expired uploads, and forget what is old.

    These are keys of requests, events, forecasts, webhooks, sessions and workers.
    """
    async with transaction(services.pool) as conn:
        await idempotency.delete_old(conn)
        await events.delete_old(conn)
        await forecasts.delete_old(conn)
        await workers.prune(conn)
        await sessions.delete_old(conn)
        await metrics.delete_counts(conn, age=KEEP_COUNTS)
        await outbox.delete_old(conn, age=KEEP_EVENTS)
        keys = await files.delete_expired(conn)
    if keys:
        # After the commit: a file that is listed must be there, one that is there may be unlisted.
        await services.storage.delete(keys)


async def sweep_attempts(services: Services) -> None:
    """Delete what attempts left that did not complete: who should have done it may have died.

    Each once, and late, so that whoever came back from the dead has written all that it will.
    """
    async with transaction(services.pool) as conn:
        left = await attempts.unswept(conn, age=SWEEP_AGE, limit=SWEEP_MOST)
    for task_id, number in left:
        await services.storage.delete_prefix(attempt_prefix(task_id, number))
        async with transaction(services.pool) as conn:
            await attempts.mark_swept(conn, task_id, number)


async def _every(interval: float, name: str, chore: Callable[[], Awaitable[object]]) -> None:
    while True:
        try:
            await chore()
        except Exception as exc:  # noqa: BLE001  # whatever it was, the next pass tries again
            _log.warning("chore_failed", chore=name, error=str(exc))
        await asyncio.sleep(interval)
