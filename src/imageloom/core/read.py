"""Read tasks as their tenant sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from imageloom.core import outlook
from imageloom.core.services import Services
from imageloom.domain.errors import Conflict, Gone, NotFound
from imageloom.domain.tasks import Output, Status, Task
from imageloom.store import attempts, rounds, tasks
from imageloom.store.attempts import Attempt
from imageloom.store.pool import Connection, statements, transaction
from imageloom.store.tasks import Filter, SortField


async def get_task(services: Services, task_id: str, *, tenant: str) -> Task:
    """Return the task. Raises: NotFound, also where it is another tenant's."""
    async with statements(services.pool) as conn:
        found = await tasks.get(conn, task_id, tenant=tenant)
        if found is None:
            raise NotFound(f"there is no task {task_id}")
        return await with_outlook(services, conn, found)


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


async def list_attempts(
    services: Services, task_id: str, *, tenant: str, page: int, page_size: int
) -> tuple[list[Attempt], int]:
    """Return one page of a task's attempts, the first first, and how many there are.

    Raises: NotFound, also where the task is another tenant's.
    """
    async with transaction(services.pool) as conn:
        if await tasks.get(conn, task_id, tenant=tenant) is None:
            raise NotFound(f"there is no task {task_id}")
        return await attempts.list_page(
            conn, task_id, limit=page_size, offset=(page - 1) * page_size
        )


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
        found, total = await tasks.list_page(
            conn,
            tenant=tenant,
            wanted=wanted,
            sort_by=sort_by,
            descending=descending,
            limit=page_size,
            offset=(page - 1) * page_size,
        )
        return await with_outlooks(services, conn, found), total


async def with_outlook(services: Services, conn: Connection, task: Task) -> Task:
    """Return the task with its position in the queue, and with what lies before it.

    Costs a query where it waits, of as many rows as come before it.
    """
    (told,) = await with_outlooks(services, conn, [task])
    return told


async def with_outlooks(services: Services, conn: Connection, found: Sequence[Task]) -> list[Task]:
    """Do what `with_outlook` does for several tasks, at about the cost of the last in the queue."""
    placed = await _with_positions(conn, found)
    return await outlook.with_outlooks(services.outlooks, conn, placed)


async def _with_positions(conn: Connection, found: Sequence[Task]) -> list[Task]:
    jobs = [task.job_id for task in found if task.job_id and task.status is Status.PENDING]
    ahead = await rounds.positions(conn, jobs) if jobs else {}
    # One that a worker has just fetched, and not yet claimed, is next.
    return [
        replace(task, queue_position=ahead.get(task.job_id, 0)) if task.job_id in jobs else task
        for task in found
    ]
