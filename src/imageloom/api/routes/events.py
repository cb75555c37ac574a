"""Routes that stream what becomes of a task, a training or a workflow."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from imageloom.api.auth import Reader, Viewer
from imageloom.api.context import InContext
from imageloom.api.events import CHANGES, HEADERS, RESPONSES, all_events, run_events, task_events
from imageloom.api.routing import both_slashes
from imageloom.api.seeing import SeenQuery, tenant_seen
from imageloom.core import workflows
from imageloom.core.read import get_task
from imageloom.domain.errors import NotFound
from imageloom.task_types.training.spec import NAME as TRAINING


def events_router() -> APIRouter:
    """Return the routes of events."""
    router = APIRouter()
    options = {
        "response_class": Response,
        "responses": RESPONSES,
        "openapi_extra": {"parameters": HEADERS},
    }

    @both_slashes(
        router.get,
        "/tasks/{task_id}/events",
        tags=["tasks"],
        operation_id="watch_task",
        summary="Watch a task: progress, previews and its output as they come",
        **options,
    )
    async def watch_task(
        task_id: str, request: Request, context: InContext, tenant: Reader
    ) -> Response:
        task = await get_task(context.services, task_id, tenant=tenant)
        return await task_events(request, context, task)

    @both_slashes(
        router.get,
        "/training/{task_id}/events",
        tags=["training"],
        operation_id="watch_training",
        summary="Watch a training",
        **options,
    )
    async def watch_training(
        task_id: str, request: Request, context: InContext, tenant: Reader
    ) -> Response:
        task = await get_task(context.services, task_id, tenant=tenant)
        if task.type != TRAINING:
            raise NotFound(f"there is no training {task_id}")
        return await task_events(request, context, task)

    @both_slashes(
        router.get,
        "/workflows/{workflow_id}/events",
        tags=["workflows"],
        operation_id="watch_workflow",
        summary="Watch the latest run of a workflow",
        **options,
    )
    async def watch_workflow(
        workflow_id: str, request: Request, context: InContext, tenant: Reader
    ) -> Response:
        state = await workflows.read(context.services, workflow_id, tenant=tenant)
        return await run_events(request, context, state)

    @both_slashes(
        router.get,
        "/workflows/{workflow_id}/runs/{run_id}/events",
        tags=["workflows"],
        operation_id="watch_run",
        summary="Watch one run of a workflow",
        **options,
    )
    async def watch_run(
        workflow_id: str, run_id: str, request: Request, context: InContext, tenant: Reader
    ) -> Response:
        state = await workflows.read(context.services, workflow_id, tenant=tenant, run_id=run_id)
        return await run_events(request, context, state)

    @both_slashes(
        router.get,
        "/monitoring/events",
        tags=["monitoring"],
        operation_id="watch_everything",
        summary="Watch what changes: tasks, trainings and runs, from now on",
        response_class=Response,
        responses=CHANGES,
    )
    async def watch_everything(
        context: InContext, viewer: Viewer, query: Annotated[SeenQuery, Query()]
    ) -> Response:
        return all_events(context, tenant=tenant_seen(viewer, all_tenants=query.all_tenants))

    return router
