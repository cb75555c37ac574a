"""Wait for the end of a task on behalf of a caller who would else ask again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from imageloom.core.read import get_task
from imageloom.core.services import Services
from imageloom.domain.errors import StoreUnavailable
from imageloom.domain.tasks import Task


async def wait_until_over(
    services: Services, task: Task, *, seconds: float, left: Callable[[], Awaitable[object]]
) -> Task:
    """Return the task once it is over; as it is after `seconds`, or when the process is to end.

    The wait ends also when `left` does: the caller is gone. While one waits, no connection of the
    pool is held. While the database is away, the task is as it was last seen.
    """
    with services.notices.expected(task.id) as over:
        # Looked at with the notice expected: what ends between the two is not missed.
        task = await _now(services, task)
        if not task.status.terminal:
            await _until(over, seconds=seconds, left=left)
            task = await _now(services, task)
    return task


async def _until(
    over: asyncio.Event, *, seconds: float, left: Callable[[], Awaitable[object]]
) -> None:
    async def leave() -> None:
        await left()
        over.set()

    async with asyncio.TaskGroup() as group:
        leaving = group.create_task(leave())
        try:
            async with asyncio.timeout(seconds):
                await over.wait()
        except TimeoutError:
            pass
        leaving.cancel()


async def _now(services: Services, task: Task) -> Task:
    try:
        return await get_task(services, task.id, tenant=task.tenant)
    except StoreUnavailable:
        return task
