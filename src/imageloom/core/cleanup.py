"""Cleanup: delete what a task made, now rather than when it expires."""

from __future__ import annotations

from imageloom.core.services import Services
from imageloom.domain.errors import Conflict, NotFound
from imageloom.domain.tasks import Task
from imageloom.storage.keys import checkpoint_prefix, output_prefix
from imageloom.store import tasks
from imageloom.store.pool import transaction


async def cleanup(services: Services, task_id: str, *, tenant: str) -> Task:
    """Delete the outputs of a task that is over and return the task; repeating it is harmless.

    The row is marked before the bytes go: a crash between leaves bytes that no row names.
    Raises: NotFound; Conflict while the task is pending or running.
    """
    async with transaction(services.pool) as conn:
        task = await tasks.lock(conn, task_id)
        if task is None or task.tenant != tenant:
            raise NotFound(f"there is no task {task_id}")
        if not task.status.terminal:
            raise Conflict(f"the task is {task.status.value}; cancel it before you clean it up")
        await tasks.mark_cleaned(conn, task_id)
        cleaned = await tasks.get(conn, task_id, tenant=tenant)
    for prefix in (output_prefix(task_id), checkpoint_prefix(task_id)):
        await services.storage.delete_prefix(prefix)
    if cleaned is None:
        raise RuntimeError(f"task {task_id} vanished although its row was held")
    return cleaned
