"""Recover: return the tasks of dead workers to the queue.

Runs in every API and worker process, as a plain loop and never as a queue job, which could itself
stall. Any number of processes may do it at once: each task is decided under its row lock.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial

import structlog

from imageloom.core.services import Services
from imageloom.core.settle import settle_in
from imageloom.core.submit import enqueue_again
from imageloom.domain.tasks import Lost, Status, Task
from imageloom.storage.keys import attempt_prefix
from imageloom.store import tasks
from imageloom.store.pool import Connection, after_commit, transaction
from imageloom.store.queue import drop_job

_log = structlog.get_logger("imageloom.recover")


class Recovery:
    """One process's passes. It judges silence only after watching for as long without a gap.

    While the database was away, or the whole machine asleep, nobody could be heard: then every
    worker looks silent to the first who looks again, and an hour of training would be thrown away.
    """

    def __init__(self, services: Services, *, clock: Callable[[], float] = time.time) -> None:
        settings = services.settings
        self._services = services
        self._clock = clock
        self._lease = settings.lease_seconds
        self._gap = max(self._lease / 2, 2 * settings.reap_interval)
        self._since = self._seen = -math.inf

    async def run(self) -> int:
        """Do one pass and return how many tasks were taken back. Raises: StoreUnavailable."""
        recovered = await recover_orphans(self._services)
        now = self._clock()
        if not 0 <= now - self._seen <= self._gap:
            self._since = now
        self._seen = now
        if now - self._since >= self._lease:
            recovered += await recover_silent(self._services)
        return recovered


async def recover_silent(services: Services) -> int:
    """Take back the tasks whose workers gave no heartbeat for a lease, and return how many.

    Raises: StoreUnavailable.
    """
    silence = timedelta(seconds=services.settings.lease_seconds)
    recovered = 0
    for job in await services.queue.stalled(silence=silence):
        if job.id is None:
            continue
        async with transaction(services.pool) as conn:
            task = await tasks.lock(conn, str(job.task_kwargs["task_id"]))
            if task is not None and task.job_id == job.id:
                await _take_back(services, conn, task, reason="its worker went silent")
                recovered += 1
            await drop_job(conn, job.id)
        # A task that waits through another job may have a living attempt by now: hands off.
        if task is not None and task.job_id in (job.id, None) and task.output is None:
            # What the worker stored before it died; no row will ever name it.
            await services.storage.delete_prefix(attempt_prefix(task.id, task.attempt))
    return recovered


async def recover_orphans(services: Services) -> int:
    """Take back the tasks whose job is gone, and return how many. Raises: StoreUnavailable."""
    async with transaction(services.pool) as conn:
        orphans = await tasks.without_job(conn)
    recovered = 0
    for task_id in orphans:
        async with transaction(services.pool) as conn:
            task = await tasks.lock(conn, task_id)
            # Asked again with the row held: another process may have decided on it meanwhile.
            if task is not None and await tasks.is_without_job(conn, task_id):
                await _take_back(services, conn, task, reason="its job vanished")
                recovered += 1
    return recovered


async def _take_back(services: Services, conn: Connection, task: Task, *, reason: str) -> None:
    """Settle a live task's attempt as lost, or queue again what was never claimed."""
    said = {"task_id": task.id, "attempt": task.attempt, "reason": reason}
    after_commit(partial(_log.warning, "recovered", **said))
    if task.status is Status.RUNNING:
        await settle_in(services, conn, task.id, attempt=task.attempt, outcome=Lost(reason=reason))
        return
    await enqueue_again(conn, services.queue, task)
