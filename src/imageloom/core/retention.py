"""Retention: delete tasks and runs that ended long ago, where the operator said how long to keep.

Outputs go first, then the record: whatever dies between, the record is still there to find them by.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Final

import structlog

from imageloom.core.services import Services
from imageloom.storage.keys import checkpoint_prefix, output_prefix
from imageloom.store import retention, runs, tasks
from imageloom.store.pool import transaction

_log = structlog.get_logger("imageloom.retention")

BATCH: Final = 100  # tasks in one transaction: tens of milliseconds, and the others wait for less
MOST: Final = 100  # batches, or runs, in one pass: the next pass comes in a minute


async def forget_old(services: Services) -> int:
    """Do one pass and return how many tasks were deleted; none where all are kept for ever."""
    days = services.settings.keep_tasks
    if days is None:
        return 0
    age = timedelta(days=days)
    deleted = 0
    for _ in range(MOST):
        batch = await _forget_tasks(services, age)
        deleted += batch
        if batch < BATCH:
            break
    for _ in range(MOST):
        made = await _forget_run(services, age)
        if made is None:
            break
        deleted += made
    if deleted:
        _log.info("forgot_old", tasks=deleted, days=days)
    return deleted


async def _forget_tasks(services: Services, age: timedelta) -> int:
    async with transaction(services.pool) as conn:
        old = await retention.old_tasks(conn, age=age, limit=BATCH)
        # From here on nobody is told a URL of what is about to go.
        for task_id in old:
            await tasks.mark_cleaned(conn, task_id)
    await _delete_outputs(services, old)
    async with transaction(services.pool) as conn:
        await retention.delete_tasks(conn, old)
    return len(old)


async def _forget_run(services: Services, age: timedelta) -> int | None:
    """Delete the oldest run with its tasks and return how many; None where none is old enough."""
    async with transaction(services.pool) as conn:
        run_id = await retention.old_run(conn, age=age)
        if run_id is None:
            return None
        await runs.mark_run_cleaned(conn, run_id)
        made = await tasks.mark_run_cleaned(conn, run_id)
    await _delete_outputs(services, made)
    async with transaction(services.pool) as conn:
        await retention.delete_tasks(conn, made)
        await retention.delete_run(conn, run_id)
    return len(made)


async def _delete_outputs(services: Services, task_ids: Sequence[str]) -> None:
    for task_id in task_ids:
        for prefix in (output_prefix(task_id), checkpoint_prefix(task_id)):
            await services.storage.delete_prefix(prefix)
