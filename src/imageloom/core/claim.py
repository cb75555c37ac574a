"""Claim: a worker's right to one attempt at a task."""

from __future__ import annotations

from collections.abc import Sequence

from imageloom.core.announce import announce_progress, announce_task
from imageloom.core.services import Services
from imageloom.core.settle import settle_in
from imageloom.core.submit import enqueue_again
from imageloom.core.transitions import note_claimed
from imageloom.domain.tasks import Claim, Lost, Preview
from imageloom.store import attempts, tasks
from imageloom.store.pool import transaction


async def claim(services: Services, task_id: str, *, job_id: int, worker: str) -> Claim | None:
    """Begin the next attempt at a task for this worker.

    None where there is nothing to do: the task is over, waits through another job, or has used up
    its attempts (then it is failed here). Raises: StoreUnavailable.
    """
    async with transaction(services.pool) as conn:
        task = await tasks.start_attempt(conn, task_id, job_id=job_id, worker=worker)
        if task is not None:
            await attempts.begin(conn, task)
            await announce_task(conn, task)
            note_claimed(services.meters, task)
            return Claim(task=task, attempt=task.attempt)
        stuck = await tasks.lock(conn, task_id)
        if stuck is not None and not stuck.status.terminal and stuck.job_id == job_id:
            lost = Lost(reason="its attempts were used up")
            await settle_in(services, conn, task_id, attempt=stuck.attempt, outcome=lost)
        return None


async def hand_back(services: Services, task_id: str, *, job_id: int) -> None:
    """Give an unclaimed task a new place in the queue; the caller's job is about to vanish."""
    async with transaction(services.pool) as conn:
        task = await tasks.lock(conn, task_id)
        if task is None or task.status.terminal or task.job_id != job_id:
            return
        await enqueue_again(conn, services.queue, task)


async def note_previews(services: Services, claim: Claim, previews: Sequence[Preview]) -> bool:
    """Name the stored previews of an attempt; False where it is no longer this worker's."""
    async with transaction(services.pool) as conn:
        return await tasks.write_previews(
            conn, claim.task.id, attempt=claim.attempt, previews=previews
        )


async def note_progress(services: Services, claim: Claim, progress: float) -> bool:
    """Write how far the attempt is, 0 to 1; False where it is no longer this worker's."""
    async with transaction(services.pool) as conn:
        ours = await tasks.write_progress(
            conn, claim.task.id, attempt=claim.attempt, progress=progress
        )
        if ours:
            await announce_progress(conn, claim.task, progress=progress)
        return ours
