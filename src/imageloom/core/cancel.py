"""Cancel: final the moment it is answered, whatever a worker does meanwhile."""

from __future__ import annotations

from imageloom.core.services import Services
from imageloom.core.settle import settle_in
from imageloom.domain.errors import Conflict, NotFound
from imageloom.domain.tasks import Cancelled, Status, Task
from imageloom.store import tasks
from imageloom.store.pool import transaction


async def cancel(services: Services, task_id: str, *, tenant: str) -> Task:
    """Cancel a pending or running task and return it; repeating it is harmless.

    The task is `cancelled` in the same transaction that tells its worker, which stops at the next
    step. Raises: NotFound; Conflict where the task has completed or failed; StoreUnavailable.
    """
    async with transaction(services.pool) as conn:
        task = await tasks.lock(conn, task_id)
        if task is None or task.tenant != tenant:
            raise NotFound(f"there is no task {task_id}")
        if task.status is Status.CANCELLED:
            return task
        if task.status.terminal:
            raise Conflict(f"the task has {task.status.value} already; it cannot be cancelled")
        if task.job_id is not None:
            await services.queue.cancel(conn, task.job_id)
        settled = await settle_in(
            services, conn, task_id, attempt=task.attempt, outcome=Cancelled()
        )
        if settled is None:
            raise RuntimeError(f"task {task_id} changed although its row was held")
        return settled
