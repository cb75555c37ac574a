"""Submit: the task row, its place in the queue and its idempotency key are one transaction."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from imageloom.core.idempotency import Idempotency, earlier_use, remember_use
from imageloom.core.services import Services
from imageloom.domain.ids import new_id
from imageloom.domain.tasks import Task
from imageloom.store import tasks
from imageloom.store.pool import Connection, transaction


async def submit(
    services: Services,
    *,
    tenant: str,
    task_type: str,
    params: dict[str, Any],
    inputs: dict[str, str],
    idempotency_use: Idempotency | None = None,
) -> Task:
    """Return a new pending task, or the one that the idempotency key made before.

    When this returns, the task is durable: a caller who got its id can trust it.
    Raises: IdempotencyMismatch where the key came with another body; StoreUnavailable.
    """
    async with transaction(services.pool) as conn:
        if idempotency_use is not None:
            earlier = await _earlier(conn, tenant, idempotency_use)
            if earlier is not None:
                return earlier
        task = await tasks.insert(
            conn,
            task_id=new_id("task", now_ms=time.time_ns() // 1_000_000),
            tenant=tenant,
            task_type=task_type,
            params=params,
            inputs=inputs,
            priority=0,
            max_attempts=services.settings.max_attempts,
        )
        job_id = await services.queue.enqueue(
            conn, queue=task_type, task_id=task.id, priority=task.priority
        )
        await tasks.remember_job(conn, task.id, job_id)
        if idempotency_use is not None:
            await remember_use(conn, tenant, idempotency_use, task.id)
        return replace(task, job_id=job_id)


async def _earlier(conn: Connection, tenant: str, use: Idempotency) -> Task | None:
    task_id = await earlier_use(conn, tenant, use)
    return None if task_id is None else await tasks.get(conn, task_id, tenant=tenant)
