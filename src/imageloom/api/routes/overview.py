"""Routes by which an operator sees tasks, workflows and what became of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import Field

from imageloom.api.auth import Viewer
from imageloom.api.context import InContext
from imageloom.api.monitoring_shapes import (
    MediaView,
    StatsView,
    TaskDetailView,
    TaskSummaryView,
    WorkflowDetailView,
    WorkflowStatsView,
    WorkflowSummaryView,
    detail_view,
    media_view,
    stats_view,
    summary_view,
    workflow_detail_view,
    workflow_stats_view,
    workflow_summary_view,
)
from imageloom.api.paging import SpanQuery
from imageloom.api.routing import both_slashes, errors_of
from imageloom.api.seeing import AllTenants, SeenQuery, check_task_type, tenant_seen
from imageloom.api.shapes import PageView
from imageloom.core import overview, workflows
from imageloom.domain.tasks import Status
from imageloom.domain.workflow import RunStatus
from imageloom.store.runs import WorkflowFilter, WorkflowSort
from imageloom.store.tasks import Filter, SortField

_WEEK = 7 * 24


class SeenTasksQuery(SpanQuery):
    """Which tasks are shown, and whose."""

    status: list[Status] = Field(default_factory=list)
    task_type: str | None = None
    search: str | None = Field(
        None, max_length=64, pattern="^[A-Za-z0-9_]*$", description="The beginning of an id"
    )
    sort_by: SortField = "created_at"
    all_tenants: AllTenants = False


class SeenWorkflowsQuery(SpanQuery):
    """Which workflows are shown, and whose."""

    status: list[RunStatus] = Field(default_factory=list)
    search: str | None = Field(
        None, max_length=200, description="The beginning of an id, or a part of the name"
    )
    sort_by: WorkflowSort = "created_at"
    all_tenants: AllTenants = False


class StatsQuery(SeenQuery):
    """Of what time, and whose."""

    hours: int = Field(24, ge=1, le=_WEEK, description="Full hours before the one that has begun")


def overview_router() -> APIRouter:
    """Return the routes of monitoring that show what a tenant, or everybody, has in work."""
    router = APIRouter(
        prefix="/monitoring", tags=["monitoring"], responses=errors_of(401, 403, 422, 503)
    )
    _add_tasks(router)
    _add_statistics(router)
    _add_workflows(router)
    return router


def _add_tasks(router: APIRouter) -> None:
    @both_slashes(
        router.get,
        "/tasks",
        operation_id="monitor_tasks",
        summary="List tasks in brief, newest first",
    )
    async def list_tasks(
        context: InContext, viewer: Viewer, query: Annotated[SeenTasksQuery, Query()]
    ) -> PageView[TaskSummaryView]:
        check_task_type(query.task_type)
        query.check_span()
        items, total = await overview.list_tasks(
            context.services,
            tenant=tenant_seen(viewer, all_tenants=query.all_tenants),
            wanted=Filter(
                status=tuple(status.value for status in query.status),
                type=query.task_type,
                created_after=query.created_after,
                created_before=query.created_before,
                search=query.search,
            ),
            sort_by=query.sort_by,
            descending=query.sort_order == "desc",
            page=query.page,
            page_size=query.page_size,
        )
        return query.view([summary_view(task) for task in items], total)

    @both_slashes(
        router.get,
        "/tasks/{task_id}",
        operation_id="monitor_task",
        summary="Read a task with its attempts and what happened to it",
        responses=errors_of(404),
    )
    async def get_task(
        task_id: str, context: InContext, viewer: Viewer, query: Annotated[SeenQuery, Query()]
    ) -> TaskDetailView:
        tenant = tenant_seen(viewer, all_tenants=query.all_tenants)
        return detail_view(
            await overview.get_task(context.services, task_id, tenant=tenant), context.urls
        )

    @both_slashes(
        router.get,
        "/tasks/{task_id}/media",
        operation_id="monitor_task_media",
        summary="The pictures of a task: inputs, outputs, previews",
        responses=errors_of(404),
    )
    async def get_media(
        task_id: str, context: InContext, viewer: Viewer, query: Annotated[SeenQuery, Query()]
    ) -> MediaView:
        tenant = tenant_seen(viewer, all_tenants=query.all_tenants)
        detail = await overview.get_task(context.services, task_id, tenant=tenant)
        return media_view(detail.task, context.urls)


def _add_statistics(router: APIRouter) -> None:
    @both_slashes(
        router.get,
        "/stats",
        operation_id="monitor_stats",
        summary="What became of tasks: counts, waits, durations, throughput, failures",
    )
    async def stats(
        context: InContext, viewer: Viewer, query: Annotated[StatsQuery, Query()]
    ) -> StatsView:
        tenant = tenant_seen(viewer, all_tenants=query.all_tenants)
        found = await overview.statistics_of(context.services, tenant=tenant, hours=query.hours)
        return stats_view(found, hours=query.hours)

    @both_slashes(
        router.get,
        "/workflows/stats",
        operation_id="monitor_workflow_stats",
        summary="What became of runs: counts and durations",
    )
    async def workflow_stats(
        context: InContext, viewer: Viewer, query: Annotated[StatsQuery, Query()]
    ) -> WorkflowStatsView:
        tenant = tenant_seen(viewer, all_tenants=query.all_tenants)
        found = await overview.run_statistics(context.services, tenant=tenant, hours=query.hours)
        return workflow_stats_view(found, hours=query.hours)


def _add_workflows(router: APIRouter) -> None:
    @both_slashes(
        router.get,
        "/workflows",
        operation_id="monitor_workflows",
        summary="List workflows with their latest runs in brief, newest first",
    )
    async def list_workflows(
        context: InContext, viewer: Viewer, query: Annotated[SeenWorkflowsQuery, Query()]
    ) -> PageView[WorkflowSummaryView]:
        query.check_span()
        items, total = await workflows.list_workflows(
            context.services,
            tenant=tenant_seen(viewer, all_tenants=query.all_tenants),
            wanted=WorkflowFilter(
                status=tuple(status.value for status in query.status),
                created_after=query.created_after,
                created_before=query.created_before,
                search=query.search,
            ),
            sort_by=query.sort_by,
            descending=query.sort_order == "desc",
            page=query.page,
            page_size=query.page_size,
        )
        return query.view([workflow_summary_view(state, context.urls) for state in items], total)

    @both_slashes(
        router.get,
        "/workflows/{workflow_id}",
        operation_id="monitor_workflow",
        summary="Read a workflow with its latest run and the list of its runs",
        responses=errors_of(404),
    )
    async def get_workflow(
        workflow_id: str, context: InContext, viewer: Viewer, query: Annotated[SeenQuery, Query()]
    ) -> WorkflowDetailView:
        tenant = tenant_seen(viewer, all_tenants=query.all_tenants)
        state, runs = await overview.get_workflow(context.services, workflow_id, tenant=tenant)
        return workflow_detail_view(state, runs, context.urls)
