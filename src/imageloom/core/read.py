"""Read tasks as their tenant sees them."""

from __future__ import annotations

from imageloom.core.services import Services
from imageloom.domain.errors import Conflict, Gone, NotFound
from imageloom.domain.tasks import Output, Status, Task
from imageloom.store import tasks
from imageloom.store.pool import transaction
from imageloom.store.tasks import Filter, SortField


async def get_task(services: Services, task_id: str, *, tenant: str) -> Task:
    """Return the task. Raises: NotFound, also where it is another tenant's."""
    async with transaction(services.pool) as conn:
        task = await tasks.get(conn, task_id, tenant=tenant)
    if task is None:
        raise NotFound(f"there is no task {task_id}")
    return task


async def get_output(services: Services, task_id: str, *, tenant: str) -> Output:
    """Return what a completed task made.

    Raises: NotFound; Conflict while it is not completed; Gone after its outputs were deleted.
    """
    task = await get_task(services, task_id, tenant=tenant)
    if task.status is not Status.COMPLETED or task.output is None:
        raise Conflict(f"the task is {task.status.value}; only a completed task has a result")
    if task.cleaned_at is not None:
        raise Gone("the outputs of this task were deleted")
    return task.output


async def list_tasks(
    services: Services,
    *,
    tenant: str,
    wanted: Filter,
    sort_by: SortField,
    descending: bool,
    page: int,
    page_size: int,
) -> tuple[list[Task], int]:
    """Return one page of the tenant's tasks, the first page being 1, and how many there are."""
    async with transaction(services.pool) as conn:
        return await tasks.list_page(
            conn,
            tenant=tenant,
            wanted=wanted,
            sort_by=sort_by,
            descending=descending,
            limit=page_size,
            offset=(page - 1) * page_size,
        )
