"""Monitoring, asynchronous; `_monitoring_sync.py` is generated from this file."""

from __future__ import annotations

from datetime import datetime
from functools import partial

from imageloom.client._connection_async import AsyncConnection
from imageloom.client._monitoring_types import Stats, TaskSummary, stats_from, summary_from
from imageloom.client._requests import query
from imageloom.client._types import Page, page_from


class AsyncMonitoring:
    """What is in work and what became of it: `client.monitoring`.

    Of your own tenant, or with `all_tenants` of all, which needs a key with the scope `monitor`.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def tasks(
        self,
        *,
        status: str | list[str] | None = None,
        task_type: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        search: str | None = None,
        sort_by: str | None = None,
        sort_order: str | None = None,
        page: int | None = None,
        page_size: int | None = None,
        all_tenants: bool | None = None,
    ) -> Page[TaskSummary]:
        """Return one page of tasks in brief, newest first. `search` is the beginning of an id.

        >>> page = await client.monitoring.tasks(status="failed")
        >>> [(task.id, task.error_code) for task in page]
        [('task_1', 'out_of_memory')]
        """
        params = query(
            status=status,
            task_type=task_type,
            created_after=created_after,
            created_before=created_before,
            search=search,
            sort_by=sort_by,
            sort_order=sort_order,
            page=page,
            page_size=page_size,
            all_tenants=all_tenants,
        )
        read = partial(page_from, each=summary_from)
        return await self._connection.call("GET", "/monitoring/tasks", params=params, read=read)

    async def stats(self, *, hours: int | None = None, all_tenants: bool | None = None) -> Stats:
        """Return what became of tasks in the last full hours, 24 unless told, and the one begun.

        >>> stats = await client.monitoring.stats(hours=1)
        >>> stats.by_status["failed"], stats.failures, stats.run_seconds.p90
        (1, {'out_of_memory': 1}, 9.5)
        """
        params = query(hours=hours, all_tenants=all_tenants)
        return await self._connection.call(
            "GET", "/monitoring/stats", params=params, read=stats_from
        )
