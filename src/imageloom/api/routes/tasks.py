"""Routes about tasks: create, read, list, cancel, clean up."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from imageloom.api.auth import Reader, Writer
from imageloom.api.bodies import (
    idempotency_use,
    read_json_object,
    read_optional_object,
    refuse_query,
)
from imageloom.api.context import Context, InContext
from imageloom.api.dry_run import ANSWER, DRY_RUN, dry_run_answer, wants_dry_run
from imageloom.api.own_inputs import own_inputs
from imageloom.api.paging import PageQuery, SpanQuery
from imageloom.api.preference import PREFER, wait_as_preferred
from imageloom.api.routing import IDEMPOTENCY_KEY, both_slashes, errors_of, inline_refs, json_body
from imageloom.api.shapes import (
    AttemptView,
    OutputView,
    PageView,
    TaskView,
    attempt_view,
    output_view,
    task_view,
)
from imageloom.core import cancel as core_cancel
from imageloom.core import cleanup as core_cleanup
from imageloom.core import read
from imageloom.core.prepare import prepare_request, webhook_of
from imageloom.core.reproduce import reproduce
from imageloom.core.retry import retry
from imageloom.core.submit import rehearse, submit
from imageloom.domain.errors import InvalidParams, NotFound
from imageloom.domain.tasks import Status, Task
from imageloom.store.tasks import Filter, SortField
from imageloom.task_types.parsing import WebhookParams, parse_params
from imageloom.task_types.registry import QUEUES, TASK_TYPES, get_task_type
from imageloom.task_types.spec import TaskType, input_urls

_CANCEL = {
    "CancelTask": {
        "operationId": "cancel_task",
        "parameters": {"task_id": "$response.body#/id"},
        "description": "Cancel the task, pending or running",
    },
}
_LINKS = {
    "GetTask": {
        "operationId": "get_task",
        "parameters": {"task_id": "$response.body#/id"},
        "description": "Poll the task until it is over",
    },
    **_CANCEL,
}


def tasks_router() -> APIRouter:
    """Return the routes of tasks; those that create one follow from the registry of task types."""
    router = APIRouter(prefix="/tasks", tags=["tasks"])
    for task_type in TASK_TYPES.values():
        _add_type(router, task_type)

    @both_slashes(
        router.post,
        "",
        status_code=201,
        operation_id="create_task",
        summary="Create a task of any type",
        response_model=TaskView,
        responses={201: {"links": _LINKS}, **ANSWER, **errors_of(401, 403, 413, 415, 422, 503)},
        openapi_extra=_any_type_body(),
    )
    async def create_task(
        request: Request, response: Response, context: InContext, tenant: Writer
    ) -> TaskView | Response:
        body = await read_json_object(request)
        name = body.get("type")
        if not isinstance(name, str):
            raise InvalidParams(f"type: is required, one of {', '.join(TASK_TYPES)}", param="type")
        rest = {field: value for field, value in body.items() if field != "type"}
        dry_run = wants_dry_run(request)
        task = await _create(
            request,
            context,
            tenant,
            get_task_type(name),
            rest,
            route="tasks",
            sent=body,
            dry_run=dry_run,
        )
        if dry_run:
            return dry_run_answer(task, context.urls)
        task = await wait_as_preferred(request, response, context, task)
        return task_view(task, context.urls)

    @both_slashes(
        router.get,
        "",
        operation_id="list_tasks",
        summary="List your tasks, newest first",
        responses=errors_of(401, 403, 422, 503),
    )
    async def list_tasks(
        context: InContext, tenant: Reader, query: Annotated[ListQuery, Query()]
    ) -> PageView[TaskView]:
        items, total = await read.list_tasks(
            context.services,
            tenant=tenant,
            wanted=_filter(query),
            sort_by=query.sort_by,
            descending=query.sort_order == "desc",
            page=query.page,
            page_size=query.page_size,
        )
        views = [task_view(task, context.urls, receipts=False) for task in items]
        return query.view(views, total)

    @both_slashes(
        router.get,
        "/{task_id}",
        operation_id="get_task",
        summary="Read a task",
        responses={200: {"links": _CANCEL}, **errors_of(401, 403, 404, 422, 503)},
    )
    async def get_task(task_id: str, context: InContext, tenant: Reader) -> TaskView:
        return task_view(
            await read.get_task(context.services, task_id, tenant=tenant), context.urls
        )

    @both_slashes(
        router.get,
        "/{task_id}/attempts",
        operation_id="list_attempts",
        summary="List the attempts at a task, the first first",
        responses=errors_of(401, 403, 404, 422, 503),
    )
    async def list_attempts(
        task_id: str, context: InContext, tenant: Reader, query: Annotated[PageQuery, Query()]
    ) -> PageView[AttemptView]:
        items, total = await read.list_attempts(
            context.services, task_id, tenant=tenant, page=query.page, page_size=query.page_size
        )
        return query.view([attempt_view(attempt) for attempt in items], total)

    @both_slashes(
        router.get,
        "/{task_id}/result",
        operation_id="get_result",
        summary="Read the output of a completed task",
        responses=errors_of(401, 403, 404, 409, 410, 422, 503),
    )
    async def get_result(task_id: str, context: InContext, tenant: Reader) -> OutputView:
        output = await read.get_output(context.services, task_id, tenant=tenant)
        return output_view(output, context.urls)

    @both_slashes(
        router.post,
        "/{task_id}/cancel",
        operation_id="cancel_task",
        summary="Cancel a task, pending or running",
        responses=errors_of(401, 403, 404, 409, 422, 503),
    )
    async def cancel_task(task_id: str, context: InContext, tenant: Writer) -> TaskView:
        task = await core_cancel.cancel(context.services, task_id, tenant=tenant)
        return task_view(task, context.urls)

    @both_slashes(
        router.post,
        "/{task_id}/cleanup",
        operation_id="cleanup_task",
        summary="Delete the outputs of a task that is over",
        responses=errors_of(401, 403, 404, 409, 422, 503),
    )
    async def cleanup_task(task_id: str, context: InContext, tenant: Writer) -> TaskView:
        task = await core_cleanup.cleanup(context.services, task_id, tenant=tenant)
        return task_view(task, context.urls)

    @both_slashes(
        router.post,
        "/{task_id}/reproduce",
        status_code=201,
        operation_id="reproduce_output",
        summary="Make an output of a generation again, alone, and compare",
        responses={
            201: {"links": _LINKS},
            **errors_of(401, 403, 404, 409, 410, 413, 415, 422, 503),
        },
        openapi_extra=json_body(
            ReproduceBody.model_json_schema(), example={"output": 0}, parameters=[PREFER]
        ),
    )
    async def reproduce_output(
        task_id: str, request: Request, response: Response, context: InContext, tenant: Writer
    ) -> TaskView:
        refuse_query(request)
        body = await read_json_object(request)
        asked = parse_params(ReproduceBody, body)
        task = await reproduce(
            context.services,
            task_id,
            output=asked.output,
            tenant=tenant,
            webhook=webhook_of(asked, allow=context.services.settings.fetch_allow),
            idempotency_use=idempotency_use(request, route=f"tasks/{task_id}/reproduce", body=body),
        )
        task = await wait_as_preferred(request, response, context, task)
        return task_view(task, context.urls)

    @both_slashes(
        router.post,
        "/{task_id}/retry",
        status_code=201,
        operation_id="retry_task",
        summary="Do a failed or cancelled task over, as a new task",
        responses={201: {"links": _LINKS}, **errors_of(401, 403, 404, 409, 410, 422, 503)},
        openapi_extra={"parameters": [IDEMPOTENCY_KEY, PREFER]},
    )
    async def retry_task(
        task_id: str, request: Request, response: Response, context: InContext, tenant: Writer
    ) -> TaskView:
        refuse_query(request)
        parse_params(NoBody, body := await read_optional_object(request))
        task = await retry(
            context.services,
            task_id,
            tenant=tenant,
            idempotency_use=idempotency_use(request, route=f"tasks/{task_id}/retry", body=body),
        )
        task = await wait_as_preferred(request, response, context, task)
        return task_view(task, context.urls)

    return router


class NoBody(BaseModel):
    """Nothing: what is retried stands in the first task."""

    model_config = ConfigDict(extra="forbid")


class ReproduceBody(WebhookParams):
    """Which output of the task is made again."""

    output: int = Field(ge=0, description="Its index among the task's outputs")


class ListQuery(SpanQuery):
    """Which tasks a list shows."""

    status: list[Status] = Field(default_factory=list)
    task_type: str | None = None
    search: str | None = Field(
        None, max_length=64, pattern="^[A-Za-z0-9_]*$", description="The beginning of an id"
    )
    workflow_id: str | None = Field(
        None,
        max_length=64,
        pattern="^[A-Za-z0-9_]+$",
        description="The tasks of this workflow, or of this run of one",
    )
    sort_by: SortField = "created_at"


def _add_type(router: APIRouter, task_type: TaskType) -> None:
    """Add the routes below one type's own name; read and cancel check the type."""
    name = task_type.name

    @both_slashes(
        router.post,
        f"/{name}",
        status_code=201,
        operation_id=f"create_{name}_task",
        summary=task_type.summary,
        response_model=TaskView,
        responses={201: {"links": _LINKS}, **ANSWER, **errors_of(401, 403, 413, 415, 422, 503)},
        openapi_extra=json_body(
            task_type.schema(), example=task_type.example, parameters=[PREFER, DRY_RUN]
        ),
    )
    async def create_typed(
        request: Request, response: Response, context: InContext, tenant: Writer
    ) -> TaskView | Response:
        body = await read_json_object(request)
        dry_run = wants_dry_run(request)
        task = await _create(
            request,
            context,
            tenant,
            task_type,
            body,
            route=f"tasks/{name}",
            sent=body,
            dry_run=dry_run,
        )
        if dry_run:
            return dry_run_answer(task, context.urls)
        task = await wait_as_preferred(request, response, context, task)
        return task_view(task, context.urls)

    @both_slashes(
        router.get,
        f"/{name}/{{task_id}}",
        operation_id=f"get_{name}_task",
        summary=f"Read a {name} task",
        responses=errors_of(401, 403, 404, 422, 503),
    )
    async def get_typed(task_id: str, context: InContext, tenant: Reader) -> TaskView:
        return task_view(await _of_type(context, task_id, tenant, name), context.urls)

    @both_slashes(
        router.post,
        f"/{name}/{{task_id}}/cancel",
        operation_id=f"cancel_{name}_task",
        summary=f"Cancel a {name} task, pending or running",
        responses=errors_of(401, 403, 404, 409, 422, 503),
    )
    async def cancel_typed(task_id: str, context: InContext, tenant: Writer) -> TaskView:
        await _of_type(context, task_id, tenant, name)
        task = await core_cancel.cancel(context.services, task_id, tenant=tenant)
        return task_view(task, context.urls)


def _filter(query: ListQuery) -> Filter:
    """Return which tasks to look for. Raises: InvalidParams where none could ever match."""
    if query.task_type is not None and query.task_type not in QUEUES:
        raise InvalidParams(
            f"task_type: there is no task type {query.task_type[:60]!r}; "
            f"use one of {', '.join(QUEUES)}",
            param="task_type",
        )
    query.check_span()
    return Filter(
        status=tuple(status.value for status in query.status),
        type=query.task_type,
        created_after=query.created_after,
        created_before=query.created_before,
        search=query.search,
        workflow=query.workflow_id,
    )


async def _create(
    request: Request,
    context: Context,
    tenant: str,
    task_type: TaskType,
    body: dict[str, Any],
    *,
    route: str,
    sent: dict[str, Any],
    dry_run: bool,
) -> Task:
    """Validate a body against its task type and submit it, or with `dry_run` rehearse that."""
    services = context.services
    prepared = await prepare_request(services, task_type, body, tenant=tenant)
    urls = input_urls(task_type.url_fields, prepared.params)
    inputs = await own_inputs(request, context, tenant, urls)
    use = idempotency_use(request, route=route, body=sent)
    if dry_run:
        return await rehearse(
            services,
            tenant=tenant,
            task_type=task_type.name,
            params=prepared.params,
            effort=prepared.effort,
            priority=prepared.priority,
        )
    return await submit(
        services,
        tenant=tenant,
        task_type=task_type.name,
        params=prepared.params,
        inputs=inputs,
        priority=prepared.priority,
        webhook=prepared.webhook,
        effort=prepared.effort,
        idempotency_use=use,
    )


async def _of_type(context: Context, task_id: str, tenant: str, name: str) -> Task:
    task = await read.get_task(context.services, task_id, tenant=tenant)
    if task.type != name:
        raise NotFound(f"there is no {name} task {task_id}")
    return task


def _any_type_body() -> dict[str, Any]:
    """Return the OpenAPI body of `POST /tasks`: any type's parameters and its name."""
    schemas = []
    for task_type in TASK_TYPES.values():
        schema = inline_refs(task_type.schema())
        kind = {"type": "string", "const": task_type.name}
        for form in schema.get("oneOf", [schema]):
            form["properties"] = {"type": kind, **form["properties"]}
            form["required"] = ["type", *form.get("required", [])]
            schemas.append(form)
    first = next(iter(TASK_TYPES.values()))
    example = {"type": first.name, **first.example}
    return json_body({"oneOf": schemas}, example=example, parameters=[PREFER, DRY_RUN])
