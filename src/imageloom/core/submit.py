"""Submit: the task row, its place in the queue and its idempotency key are one transaction."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

from imageloom.core.idempotency import Idempotency, check_use
from imageloom.core.outlook import note_forecasts
from imageloom.core.read import with_outlooks
from imageloom.core.services import Services, Submission
from imageloom.core.together import Not
from imageloom.core.transitions import note_submitted
from imageloom.domain.errors import IdempotencyMismatch
from imageloom.domain.forecast import Effort
from imageloom.domain.ids import new_id
from imageloom.domain.metrics import SUBMIT_TIME
from imageloom.domain.receipts import OutputRef
from imageloom.domain.tasks import NewTask, Task
from imageloom.domain.webhooks import Webhook
from imageloom.store import idempotency, rounds, tasks
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
    effort: Effort | None = None,
    idempotency_use: Idempotency | None = None,
) -> Task:
    """Return a new pending task, or the one that the idempotency key made before.

    When this returns, the task is durable: a caller who got its id can trust it.
    Raises: IdempotencyMismatch where the key came with another body; StoreUnavailable.
    """
    async with submitting(services, task_type):
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
            pace=None if effort is None else effort.pace,
            units=None if effort is None else effort.units,
            traceparent=traceparent(),
        )
        return await services.submissions.do(
            (tenant, task_type, priority),
            Submission(new=new, use=idempotency_use),
            partial(_make, services),
        )


async def _make(services: Services, asked: Sequence[Submission]) -> list[Task | Exception | Not]:
    """Make the tasks of one tenant, type and priority that are asked for, in one transaction.

    One after another, each would wait for the tenant's line until the one before is on disk: 117
    submissions a second of a tenant where a sync takes 7 ms.
    """
    tenant = asked[0].new.tenant
    async with transaction(services.pool) as conn:
        answers = await _by_keys(conn, tenant, asked)
        wanted = [each for each in asked if each.new.id not in answers]
        # Before the tenant's lock, which others wait for.
        await services.outlooks.look(conn, {each.new.pace for each in wanted})
        made = await create_tasks(conn, [each.new for each in wanted])
        earlier = [answer for answer in answers.values() if isinstance(answer, Task)]
        told = {task.id: task for task in await with_outlooks(services, conn, [*earlier, *made])}
        await note_forecasts(services.outlooks, conn, [told[task.id] for task in made])
        uses = [(each.use, each.new.id) for each in wanted if each.use is not None]
        if uses:
            await idempotency.remember(conn, tenant=tenant, made=uses)
    found = [answers.get(each.new.id, told.get(each.new.id, Not.YET)) for each in asked]
    return [told[answer.id] if isinstance(answer, Task) else answer for answer in found]


async def _by_keys(
    conn: Connection, tenant: str, asked: Sequence[Submission]
) -> dict[str, Task | Exception | Not]:
    """Return what idempotency keys have to say, by the id that the new task would have had.

    A key that comes twice waits for the task of its first use.
    """
    uses = [each.use for each in asked if each.use is not None]
    if not uses:
        return {}
    earlier = await idempotency.find(conn, tenant=tenant, uses=uses)
    answers: dict[str, Task | Exception | Not] = {}
    seen: set[tuple[str, str]] = set()
    for each in asked:
        if each.use is None:
            continue
        name = each.use.route, each.use.key
        if name in earlier:
            try:
                check_use(each.use, earlier[name])
            except IdempotencyMismatch as exc:
                answers[each.new.id] = exc
                continue
            task = await tasks.get(conn, earlier[name].resource_id, tenant=tenant)
            if task is not None:
                answers[each.new.id] = task
        elif name in seen:
            answers[each.new.id] = Not.YET
        seen.add(name)
    return answers


async def rehearse(
    services: Services,
    *,
    tenant: str,
    task_type: str,
    params: dict[str, Any],
    effort: Effort,
    priority: int = 0,
) -> Task:
    """Return what `submit` would, and leave nothing behind.

    The task is made and taken back in one transaction: nothing else knows its place in the queue.
    Other new tasks of the tenant wait for that, as they do for a submission.
    """
    new = NewTask(
        id=new_task_id(),
        tenant=tenant,
        type=task_type,
        params=params,
        inputs={},
        max_attempts=1,
        priority=priority,
        pace=effort.pace,
        units=effort.units,
    )
    with suppress(_TakenBackError):
        async with transaction(services.pool) as conn:
            task = await create_foretold(services, conn, new)
            raise _TakenBackError
    return task


class _TakenBackError(Exception):
    """Rolls a transaction back: what was to be told of it is not."""


async def create_foretold(services: Services, conn: Connection, new: NewTask) -> Task:
    """Add a task with its place in the queue, and write down when it is expected to be done."""
    # Before the tenant's lock, which others wait for.
    await services.outlooks.look(conn, {new.pace})
    (told,) = await with_outlooks(services, conn, await create_tasks(conn, [new]))
    await note_forecasts(services.outlooks, conn, [told])
    return told


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
    if not new:
        return []
    around = traceparent()
    made = await tasks.insert(
        conn, [replace(task, traceparent=task.traceparent or around) for task in new]
    )
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
