"""Routes about workflows: create, read, start, and control their runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, Field

from imageloom.api.auth import Reader, Writer
from imageloom.api.bodies import (
    idempotency_use,
    read_json_object,
    read_optional_object,
    refuse_query,
)
from imageloom.api.context import Context, InContext
from imageloom.api.own_inputs import own_inputs
from imageloom.api.paging import PageQuery, SpanQuery
from imageloom.api.routing import both_slashes, errors_of, json_body
from imageloom.api.shapes import PageView, WorkflowView, workflow_view
from imageloom.api.workflow_bodies import (
    ResumeBody,
    StartBody,
    WorkflowBody,
    parse_steps,
    workflow_schema,
)
from imageloom.core import control, workflows
from imageloom.core.control import Edit, Resumption
from imageloom.core.plan import check_steps, url_values
from imageloom.core.prepare import webhook_of
from imageloom.core.workflows import RunInput, WorkflowState
from imageloom.domain.errors import InvalidParams
from imageloom.domain.workflow import Draft, RunStatus, StepSpec
from imageloom.store.runs import WorkflowFilter, WorkflowSort
from imageloom.task_types.parsing import parse_params
from imageloom.task_types.registry import TASK_TYPES
from imageloom.task_types.spec import input_urls

_EXAMPLE = {
    "name": "product-to-model",
    "steps": [
        {
            "name": "generate-base",
            "type": "generation",
            "config": {"prompt": "model wearing product", "num_outputs": 4},
        },
        {
            "name": "upscale",
            "type": "processing",
            "config": {"operation": "upscale", "scale": 2},
            "depends_on": ["generate-base"],
        },
        {
            "name": "background-removal",
            "type": "processing",
            "config": {"operation": "remove-background"},
            "depends_on": ["upscale"],
        },
    ],
}
_START_EXAMPLE = {"input": {"image_url": "https://example.com/dress.jpg"}}
_LINKS = {
    "StartWorkflow": {
        "operationId": "start_workflow",
        "parameters": {"workflow_id": "$response.body#/id"},
        "description": "Run the workflow",
    },
    "GetWorkflow": {
        "operationId": "get_workflow",
        "parameters": {"workflow_id": "$response.body#/id"},
        "description": "Read the workflow with its latest run",
    },
}
_START_QUERY = {
    "name": "start",
    "in": "query",
    "required": False,
    "description": "Start it at once, with the body's input",
    "schema": {"type": "boolean", "default": False},
}
Verb = Callable[..., Awaitable[WorkflowState]]


def workflows_router() -> APIRouter:
    """Return the routes of workflows and their runs."""
    router = APIRouter(prefix="/workflows", tags=["workflows"])
    _add_creation(router)
    _add_reading(router)
    for verb, summary, act in (
        ("pause", "Start nothing more; what runs goes on to its end", control.pause),
        ("cancel", "Cancel, with every task that is not over", control.cancel),
        ("cleanup", "Delete the outputs of what is over", control.cleanup),
    ):
        _add_control(router, verb, summary, act)
    _add_resume(router)
    return router


class WorkflowQuery(SpanQuery):
    """Which workflows a list shows."""

    status: list[RunStatus] = Field(default_factory=list)
    search: str | None = Field(
        None, max_length=200, description="The beginning of an id, or a part of the name"
    )
    sort_by: WorkflowSort = "created_at"


def _add_creation(router: APIRouter) -> None:
    body_of_workflow = json_body(workflow_schema(), example=_EXAMPLE)
    body_of_workflow["parameters"] = [*body_of_workflow["parameters"], _START_QUERY]

    @both_slashes(
        router.post,
        "",
        status_code=201,
        operation_id="create_workflow",
        summary="Create a workflow; ?start=true starts it too",
        responses={201: {"links": _LINKS}, **errors_of(401, 403, 413, 415, 422, 503)},
        openapi_extra=body_of_workflow,
    )
    async def create_workflow(request: Request, context: InContext, tenant: Writer) -> WorkflowView:
        refuse_query(request, "start")
        start = _flag(request, "start")
        sent = await read_json_object(request)
        body = parse_params(WorkflowBody, sent)
        steps = parse_steps(body.steps)
        check_steps(steps)
        steps = await _with_own_inputs(request, context, tenant, steps)
        draft = Draft(
            name=body.name,
            description=body.description,
            origin_instance=body.origin_instance,
            steps=steps,
            input=body.input,
            webhook=webhook_of(body, allow=context.services.settings.fetch_allow),
        )
        start_with = None
        if start or body.input is not None:
            given = await _run_input(request, context, tenant, steps, body.input or {}, cache=True)
            start_with = given if start else None
        state = await workflows.create(
            context.services,
            draft,
            tenant=tenant,
            start_with=start_with,
            idempotency_use=idempotency_use(
                request, route="workflows", body={"body": sent, "start": start}
            ),
        )
        return workflow_view(state, context.urls)

    @both_slashes(
        router.post,
        "/{workflow_id}/start",
        operation_id="start_workflow",
        summary="Run a workflow; asking again with the same input changes nothing",
        responses=errors_of(401, 403, 404, 409, 413, 415, 422, 503),
        openapi_extra=_body_of(StartBody, _START_EXAMPLE),
    )
    async def start_workflow(
        request: Request, workflow_id: str, context: InContext, tenant: Writer
    ) -> WorkflowView:
        refuse_query(request)
        body = parse_params(StartBody, await read_optional_object(request))
        state = await workflows.start(
            context.services,
            workflow_id,
            tenant=tenant,
            start_with=await _start_with(request, context, tenant, workflow_id, body),
        )
        return workflow_view(state, context.urls)

    @both_slashes(
        router.post,
        "/{workflow_id}/runs",
        status_code=201,
        operation_id="run_workflow",
        summary="Run a workflow again, with another input if you like",
        responses=errors_of(401, 403, 404, 413, 415, 422, 503),
        openapi_extra=json_body(StartBody.model_json_schema(), example=_START_EXAMPLE),
    )
    async def run_workflow(
        request: Request, workflow_id: str, context: InContext, tenant: Writer
    ) -> WorkflowView:
        refuse_query(request)
        sent = await read_optional_object(request)
        body = parse_params(StartBody, sent)
        state = await workflows.run_again(
            context.services,
            workflow_id,
            tenant=tenant,
            start_with=await _start_with(request, context, tenant, workflow_id, body),
            idempotency_use=idempotency_use(
                request, route=f"workflows/{workflow_id}/runs", body=sent
            ),
        )
        return workflow_view(state, context.urls)


def _add_reading(router: APIRouter) -> None:
    @both_slashes(
        router.get,
        "",
        operation_id="list_workflows",
        summary="List your workflows, newest first",
        responses=errors_of(401, 403, 422, 503),
    )
    async def list_workflows(
        context: InContext, tenant: Reader, query: Annotated[WorkflowQuery, Query()]
    ) -> PageView[WorkflowView]:
        items, total = await workflows.list_workflows(
            context.services,
            tenant=tenant,
            wanted=_filter(query),
            sort_by=query.sort_by,
            descending=query.sort_order == "desc",
            page=query.page,
            page_size=query.page_size,
        )
        return query.view([workflow_view(state, context.urls) for state in items], total)

    @both_slashes(
        router.get,
        "/{workflow_id}",
        operation_id="get_workflow",
        summary="Read a workflow with its latest run",
        responses=errors_of(401, 403, 404, 422, 503),
    )
    async def get_workflow(workflow_id: str, context: InContext, tenant: Reader) -> WorkflowView:
        state = await workflows.read(context.services, workflow_id, tenant=tenant)
        return workflow_view(state, context.urls)

    @both_slashes(
        router.get,
        "/{workflow_id}/runs",
        operation_id="list_runs",
        summary="List a workflow's runs, newest first",
        responses=errors_of(401, 403, 404, 422, 503),
    )
    async def list_runs(
        workflow_id: str, context: InContext, tenant: Reader, query: Annotated[PageQuery, Query()]
    ) -> PageView[WorkflowView]:
        items, total = await workflows.list_runs(
            context.services, workflow_id, tenant=tenant, page=query.page, page_size=query.page_size
        )
        return query.view([workflow_view(state, context.urls) for state in items], total)

    @both_slashes(
        router.get,
        "/{workflow_id}/runs/{run_id}",
        operation_id="get_run",
        summary="Read one run of a workflow",
        responses=errors_of(401, 403, 404, 422, 503),
    )
    async def get_run(
        workflow_id: str, run_id: str, context: InContext, tenant: Reader
    ) -> WorkflowView:
        state = await workflows.read(context.services, workflow_id, tenant=tenant, run_id=run_id)
        return workflow_view(state, context.urls)


def _add_control(router: APIRouter, verb: str, summary: str, act: Verb) -> None:
    """Add a verb on the latest run, and on a named one; `cleanup` of none named is of all."""

    @both_slashes(
        router.post,
        f"/{{workflow_id}}/{verb}",
        operation_id=f"{verb}_workflow",
        summary=summary,
        responses=errors_of(401, 403, 404, 409, 422, 503),
    )
    async def on_latest(
        request: Request, workflow_id: str, context: InContext, tenant: Writer
    ) -> WorkflowView:
        refuse_query(request)
        state = await act(context.services, workflow_id, tenant=tenant)
        return workflow_view(state, context.urls)

    @both_slashes(
        router.post,
        f"/{{workflow_id}}/runs/{{run_id}}/{verb}",
        operation_id=f"{verb}_run",
        summary=f"{summary}: one run",
        responses=errors_of(401, 403, 404, 409, 422, 503),
    )
    async def on_run(
        request: Request, workflow_id: str, run_id: str, context: InContext, tenant: Writer
    ) -> WorkflowView:
        refuse_query(request)
        state = await act(context.services, workflow_id, tenant=tenant, run_id=run_id)
        return workflow_view(state, context.urls)


def _add_resume(router: APIRouter) -> None:
    body_of_resume = _body_of(ResumeBody, {"select": [0, 2]})

    async def resume(
        request: Request, context: Context, tenant: str, workflow_id: str, run_id: str | None
    ) -> WorkflowView:
        refuse_query(request)
        body = parse_params(ResumeBody, await read_optional_object(request))
        resumption = await _resumption(request, context, tenant, workflow_id, run_id, body)
        state = await control.resume(
            context.services, workflow_id, resumption, tenant=tenant, run_id=run_id
        )
        return workflow_view(state, context.urls)

    @both_slashes(
        router.post,
        "/{workflow_id}/resume",
        operation_id="resume_workflow",
        summary="Go on: redo what failed, or with the choice that an approval waits for",
        responses=errors_of(401, 403, 404, 409, 413, 415, 422, 503),
        openapi_extra=body_of_resume,
    )
    async def resume_latest(
        request: Request, workflow_id: str, context: InContext, tenant: Writer
    ) -> WorkflowView:
        return await resume(request, context, tenant, workflow_id, None)

    @both_slashes(
        router.post,
        "/{workflow_id}/runs/{run_id}/resume",
        operation_id="resume_run",
        summary="Go on with one run",
        responses=errors_of(401, 403, 404, 409, 413, 415, 422, 503),
        openapi_extra=body_of_resume,
    )
    async def resume_run(
        request: Request, workflow_id: str, run_id: str, context: InContext, tenant: Writer
    ) -> WorkflowView:
        return await resume(request, context, tenant, workflow_id, run_id)


async def _with_own_inputs(
    request: Request, context: Context, tenant: str, steps: Sequence[StepSpec]
) -> tuple[StepSpec, ...]:
    """Return the steps with the storage keys of what their configs name of ours."""
    found = []
    for position, step in enumerate(steps):
        inputs = await _keys_of_config(
            request, context, tenant, step.type, step.config, place=f"steps.{position}.config."
        )
        found.append(replace(step, inputs=inputs))
    return tuple(found)


async def _keys_of_config(
    request: Request,
    context: Context,
    tenant: str,
    task_type: str,
    config: dict[str, Any],
    *,
    place: str,
) -> dict[str, str]:
    if task_type not in TASK_TYPES:
        return {}
    named = input_urls(TASK_TYPES[task_type].url_fields, config)
    return await own_inputs(request, context, tenant, named, place=place)


async def _start_with(
    request: Request, context: Context, tenant: str, workflow_id: str, body: StartBody
) -> RunInput:
    workflow = await workflows.get_workflow(context.services, workflow_id, tenant=tenant)
    values = workflow.input or {} if body.input is None else body.input
    return await _run_input(request, context, tenant, workflow.steps, values, cache=body.cache)


async def _run_input(
    request: Request,
    context: Context,
    tenant: str,
    steps: Sequence[StepSpec],
    values: dict[str, Any],
    *,
    cache: bool,
) -> RunInput:
    """Return a run's input. Raises: InvalidParams, InvalidInput, naming the value."""
    urls = tuple(sorted(url_values(steps)))
    for name in urls:
        match values.get(name):
            case None if name not in values:
                continue
            case str() if name != "image_urls":
                continue
            case list(found) if name != "image_url" and all(isinstance(url, str) for url in found):
                continue
        kind = {"image_url": "the URL of a picture", "image_urls": "a list of URLs of pictures"}
        raise InvalidParams(
            f"input.{name}: must be {kind.get(name, 'the URL of a picture, or a list of them')}",
            param=f"input.{name}",
        )
    inputs = await own_inputs(request, context, tenant, input_urls(urls, values), place="input.")
    return RunInput(values=values, inputs=inputs, cache=cache)


async def _resumption(
    request: Request,
    context: Context,
    tenant: str,
    workflow_id: str,
    run_id: str | None,
    body: ResumeBody,
) -> Resumption:
    """Return what a resume says, with the storage keys of what its edits name of ours."""
    edits = {}
    if body.edits:
        state = await workflows.read(context.services, workflow_id, tenant=tenant, run_id=run_id)
        types = {step.spec.name: step.spec.type for step in state.steps}
        for name, config in body.edits.items():
            inputs = await _keys_of_config(
                request,
                context,
                tenant,
                types.get(name, ""),
                config,
                place=f"edits.{name[:64]}.",
            )
            edits[name] = Edit(config=config, inputs=inputs)
    return Resumption(
        select=None if body.select is None else tuple(body.select), step=body.step, edits=edits
    )


def _flag(request: Request, name: str) -> bool:
    value = request.query_params.get(name, "false").lower()
    if value not in ("true", "false", "1", "0"):
        raise InvalidParams(f"{name}: must be true or false; found {value[:60]!r}", param=name)
    return value in ("true", "1")


def _filter(query: WorkflowQuery) -> WorkflowFilter:
    """Return which workflows to look for. Raises: InvalidParams where none could ever match."""
    query.check_span()
    return WorkflowFilter(
        status=tuple(status.value for status in query.status),
        created_after=query.created_after,
        created_before=query.created_before,
        search=query.search,
    )


def _body_of(model: type[BaseModel], example: dict[str, Any]) -> dict[str, Any]:
    """Return what OpenAPI says of a route whose body may be left out."""
    body = json_body(model.model_json_schema(), example=example)["requestBody"]
    return {"requestBody": {**body, "required": False}}
