"""Settle: the only place where a task's state becomes terminal.

Every settlement holds the task's row, is fenced by the attempt number, and carries out what
`domain.retry.decide` returned; a task that goes back gets its new job in the same transaction, and
so does every step of a workflow whose turn it is when its last task ends.
"""

from __future__ import annotations

from imageloom.core.adapters import publish_in
from imageloom.core.advance import is_held, task_ended
from imageloom.core.announce import announce_task
from imageloom.core.services import Services
from imageloom.core.transitions import note_settled, note_withdrawn
from imageloom.domain.messages import Usage
from imageloom.domain.retry import decide, next_in_words
from imageloom.domain.tasks import TRANSITIONS, Cancelled, Outcome, Status, Task
from imageloom.store import attempts, tasks
from imageloom.store.pool import Connection, transaction
from imageloom.task_types.training.spec import NAME as TRAINING


async def settle(
    services: Services,
    task_id: str,
    *,
    attempt: int,
    outcome: Outcome,
    job_id: int | None = None,
    usage: Usage | None = None,
) -> Task | None:
    """Record how an attempt ended and return the task as it is now.

    `usage` is what the attempt had of its device, where that is known, `job_id` the job by which
    this process does it: it is over with the attempt.
    None where the attempt is no longer the task's: the caller lost its lease, nothing was written.
    Raises: StoreUnavailable; then it is unknown whether it was written, and asking again is safe.
    """
    async with transaction(services.pool) as conn:
        settled = await settle_in(
            services, conn, task_id, attempt=attempt, outcome=outcome, usage=usage
        )
        if settled is not None and job_id is not None:
            await services.queue.finish(conn, job_id)
        return settled


async def note_usage(services: Services, task_id: str, attempt: int, usage: Usage) -> None:
    """Record what an attempt had of its device where another ended it, such as a cancel."""
    async with transaction(services.pool) as conn:
        await attempts.note_usage(conn, task_id, attempt, usage)


async def settle_in(
    services: Services,
    conn: Connection,
    task_id: str,
    *,
    attempt: int,
    outcome: Outcome,
    usage: Usage | None = None,
) -> Task | None:
    """Do what `settle` does inside the caller's transaction."""
    task = await tasks.lock(conn, task_id)
    if task is None or task.attempt != attempt:
        return None
    decision = decide(
        outcome,
        attempt=attempt,
        spent=task.attempt - task.interruptions,
        max_attempts=task.max_attempts,
        first_backoff=task.backoff_seconds,
    )
    if decision.status not in TRANSITIONS[task.status]:
        # Over already, or pending again: its attempt was taken back, and the worker that did not
        # hear of it must not finish what others believe to be over.
        return None
    job_id = None
    held = decision.status is Status.PENDING and await is_held(conn, task)
    if decision.status is Status.PENDING and not held:
        job_id = await services.queue.enqueue_again(
            conn, queue=task.type, task_id=task_id, delay=decision.delay
        )
    settled = await tasks.write_decision(
        conn, task_id, attempt=attempt, decision=decision, job_id=job_id
    )
    # As the worker's room has it: only what was tried before is alone, and no training ever.
    tried = task.attempt - task.interruptions - (not decision.spends_attempt)
    tried_next = next_in_words(
        outcome,
        decision,
        held=held,
        alone=tried > 0 and task.type != TRAINING,
        relief=() if usage is None else usage.relief,
    )
    await attempts.end(
        conn,
        task_id,
        attempt,
        outcome=outcome,
        decision=decision,
        tried_next=tried_next,
        usage=usage,
    )
    if settled is not None:
        note_settled(services.meters, task, settled, outcome=outcome, decision=decision)
    if settled is not None and settled.output is not None and settled.output.adapter is not None:
        lineage = settled.output.lineage or {}
        await publish_in(conn, settled, settled.output.adapter, lineage=lineage)
    if settled is not None and settled.status.terminal:
        await announce_task(conn, settled)
        await task_ended(services, conn, settled)
    return settled


async def cancel_all_in(services: Services, conn: Connection, run_id: str) -> None:
    """Settle every task of a run that is not over as cancelled, and tell the workers.

    The caller holds the run. Tasks that nobody has claimed have no attempt to be fenced by: they
    go in one statement, whatever their number.
    """
    withdrawn = await tasks.cancel_pending_of_run(conn, run_id)
    note_withdrawn(services.meters, withdrawn)
    jobs = [each.job_id for each in withdrawn if each.job_id is not None]
    for task in await tasks.lock_live_of_run(conn, run_id):
        if task.job_id is not None:
            jobs.append(task.job_id)
        await settle_in(services, conn, task.id, attempt=task.attempt, outcome=Cancelled())
    await services.queue.cancel_all(conn, jobs)
