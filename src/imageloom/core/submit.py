"""Submit: the task row, its place in the queue and its idempotency key are one transaction."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from imageloom.core.idempotency import Idempotency, earlier_use, remember_use
from imageloom.core.read import with_position
from imageloom.core.services import Services
from imageloom.core.transitions import note_submitted
from imageloom.domain.ids import new_id
from imageloom.domain.metrics import SUBMIT_TIME
from imageloom.domain.receipts import OutputRef
from imageloom.domain.tasks import NewTask, Task
from imageloom.domain.webhooks import Webhook
from imageloom.store import rounds, tasks
from imageloom.store.pool import Connection, transaction
from imageloom.store.queue import Queue
from imageloom.tracing import traceparent


async def submit(
    services: Services,
    *,
    tenant: str,
    task_type: str,
    params: dict[str, Any],
    inputs: dict[str, str],
    reproduces: OutputRef | None = None,
    retries: str | None = None,
    priority: int = 0,
    webhook: Webhook | None = None,
    idempotency_use: Idempotency | None = None,
) -> Task:
    """Return a new pending task, or the one that the idempotency key made before.

    When this returns, the task is durable: a caller who got its id can trust it.
    Raises: IdempotencyMismatch where the key came with another body; StoreUnavailable.
    """
    async with submitting(services, task_type), transaction(services.pool) as conn:
        if idempotency_use is not None:
            earlier = await _earlier(conn, tenant, idempotency_use)
            if earlier is not None:
                return await with_position(conn, earlier)
        new = NewTask(
            id=new_task_id(),
            tenant=tenant,
            type=task_type,
            params=params,
            inputs=inputs,
            max_attempts=services.settings.max_attempts,
            reproduces=reproduces,
            retries=retries,
            priority=priority,
            webhook=webhook,
        )
        (task,) = await create_tasks(conn, [new])
        if idempotency_use is not None:
            await remember_use(conn, tenant, idempotency_use, task.id)
        return await with_position(conn, task)


@asynccontextmanager
async def submitting(services: Services, task_type: str) -> AsyncIterator[None]:
    """Measure the transaction inside, in which a task of that type is made."""
    began = time.perf_counter()
    with services.tracing.span("submit", task_type=task_type):
        yield
    services.meters.observe(SUBMIT_TIME, time.perf_counter() - began, type=task_type)


async def create_tasks(conn: Connection, new: Sequence[NewTask]) -> list[Task]:
    """Add tasks of one tenant, type and priority, each with its place in the queue; return them.

    Part of the caller's transaction; a few statements whatever their number. Locks: after this,
    wait for nothing that another transaction may hold while it does the same for this tenant.
    """
    around = traceparent()
    made = await tasks.insert(conn, [replace(task, traceparent=around) for task in new])
    note_submitted(made)
    return await enqueue(conn, made)


async def enqueue(conn: Connection, waiting: Sequence[Task]) -> list[Task]:
    """Give each of these tasks of one tenant, type and priority a place in the queue."""
    jobs = await rounds.enqueue(conn, waiting)
    return [replace(task, job_id=jobs[task.id]) for task in waiting]


async def enqueue_again(conn: Connection, queue: Queue, task: Task) -> None:
    """Give a task that has had its turn, but was never claimed, another place in the queue."""
    job_id = await queue.enqueue_again(conn, queue=task.type, task_id=task.id)
    await tasks.remember_jobs(conn, {task.id: job_id})


def new_task_id() -> str:
    """Return an id for a task that is made now."""
    return new_id("task", now_ms=time.time_ns() // 1_000_000)


async def _earlier(conn: Connection, tenant: str, use: Idempotency) -> Task | None:
    task_id = await earlier_use(conn, tenant, use)
    return None if task_id is None else await tasks.get(conn, task_id, tenant=tenant)
