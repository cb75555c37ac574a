"""Announce: write what happened into the outbox, in the transaction in which it happens.

What is rolled back is never told, and what is committed is never forgotten. Each verb that changes
where a task or a run stands calls this once; without a webhook it costs nothing.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import urlsplit

from imageloom.domain.ids import new_id
from imageloom.domain.tasks import Status, Task
from imageloom.domain.webhooks import Happening, Resource, Webhook, endpoint_of, resource_of
from imageloom.domain.workflow import Run, RunStatus
from imageloom.store import outbox
from imageloom.store.outbox import NewEvent
from imageloom.store.pool import Connection
from imageloom.tracing import traceparent

_OF_TASK = {
    Status.RUNNING: Happening.STARTED,
    Status.COMPLETED: Happening.COMPLETED,
    Status.FAILED: Happening.FAILED,
    Status.CANCELLED: Happening.CANCELLED,
}
_OF_RUN = {
    RunStatus.PAUSED: Happening.PAUSED,
    RunStatus.COMPLETED: Happening.COMPLETED,
    RunStatus.FAILED: Happening.FAILED,
    RunStatus.CANCELLED: Happening.CANCELLED,
}


async def announce_task(conn: Connection, task: Task) -> None:
    """Tell that the task has come to stand where it does: an attempt began, or it ended."""
    if task.webhook is None:
        return
    await _announce_task(conn, task, task.webhook, _OF_TASK[task.status], progress=task.progress)


async def announce_progress(conn: Connection, task: Task, *, progress: float) -> None:
    """Tell how far a running attempt is, in place of what was not told yet."""
    if task.webhook is None or Happening.PROGRESS not in task.webhook.events:
        return
    await _announce_task(conn, task, task.webhook, Happening.PROGRESS, progress=progress)


async def announce_start(conn: Connection, run: Run) -> None:
    """Tell that a run began."""
    if run.webhook is not None:
        await _announce_run(conn, run, run.webhook, Happening.STARTED)


async def announce_run(conn: Connection, run: Run) -> None:
    """Tell that the run has come to stand where it does: it waits, or it ended."""
    if run.webhook is not None:
        await _announce_run(conn, run, run.webhook, _OF_RUN[run.status])


async def announce_part(conn: Connection, run: Run) -> None:
    """Tell that a task of the run ended and that the run goes on."""
    if run.webhook is not None and Happening.PROGRESS in run.webhook.events:
        await _announce_run(conn, run, run.webhook, Happening.PROGRESS)


async def _announce_task(
    conn: Connection, task: Task, webhook: Webhook, happening: Happening, *, progress: float
) -> None:
    snapshot = {
        "status": task.status.value,
        "progress": progress,
        "attempt": task.attempt,
        "started_at": task.started_at.isoformat() if task.started_at else None,
    }
    await _write(
        conn,
        webhook,
        happening,
        tenant=task.tenant,
        resource=resource_of(task.type),
        resource_id=task.id,
        run_id=None,
        snapshot=snapshot,
        part_of=task.traceparent or traceparent(),
    )


async def _announce_run(conn: Connection, run: Run, webhook: Webhook, happening: Happening) -> None:
    await _write(
        conn,
        webhook,
        happening,
        tenant=run.tenant,
        resource="workflow",
        resource_id=run.workflow_id,
        run_id=run.id,
        snapshot={"status": run.status.value, "error": run.error},
        part_of=traceparent(),
    )


async def _write(
    conn: Connection,
    webhook: Webhook,
    happening: Happening,
    *,
    tenant: str,
    resource: Resource,
    resource_id: str,
    run_id: str | None,
    snapshot: dict[str, Any],
    part_of: str | None,
) -> None:
    outdated = happening.final or happening is Happening.PROGRESS
    if outdated and Happening.PROGRESS in webhook.events:
        await outbox.drop_progress(conn, run_id or resource_id)
    if happening not in webhook.events:
        return
    event = NewEvent(
        id=new_id("msg", now_ms=time.time_ns() // 1_000_000),
        tenant=tenant,
        resource=resource,
        resource_id=resource_id,
        run_id=run_id,
        happening=happening,
        url=webhook.url,
        endpoint=endpoint_of(tenant, webhook.url),
        host=urlsplit(webhook.url).netloc.lower(),
        snapshot=snapshot,
        traceparent=part_of,
    )
    await outbox.add(conn, event)
