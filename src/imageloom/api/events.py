"""Events of tasks and runs as a stream of server-sent events."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Final, Literal

from fastapi import Request, Response
from fastapi.sse import EventSourceResponse, format_sse_event
from pydantic import BaseModel

from imageloom.api.context import Context
from imageloom.api.routing import errors_of
from imageloom.api.shapes import (
    OutputView,
    PreviewView,
    RunStepView,
    Time,
    output_view,
    preview_view,
)
from imageloom.core.read import get_task
from imageloom.core.watching import overhear
from imageloom.core.workflows import WorkflowState
from imageloom.domain.errors import InvalidParams
from imageloom.domain.tasks import Preview, Status, Task
from imageloom.domain.workflow import StepStatus, current_step
from imageloom.store.events import Event

_ID: Final = re.compile(r"([A-Za-z0-9_]{1,64})\.(\d{1,9})")
_LAST: Final = "Last-Event-ID"
HEADERS: Final = [
    {
        "name": _LAST,
        "in": "header",
        "required": False,
        "description": "The id of the event after which to begin; a browser sends it by itself",
        "schema": {"type": "string"},
    }
]
RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Server-sent events, each with an id and JSON; the stream ends after the "
        "one that says it is over. Comments in between say that the server is there",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "It is over, and nothing came after that event"},
    **errors_of(401, 403, 404, 422, 503),
}

CHANGES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Server-sent events without ids, each of them JSON: the `id`, the `status` "
        "and the `kind` (task, training, run) of what changed. Nothing is told again, whatever "
        "`Last-Event-ID` says: read the lists once the first comment has come, and after every "
        "reconnect. The stream ends where something may have been missed",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    **errors_of(401, 403, 422, 503),
}

_HERE: Final = format_sse_event(comment="here")
Render = Callable[[Event], Awaitable[BaseModel]]


class TaskEventView(BaseModel):
    """What became of a task. `previews` while it runs and shows them, `output` once completed."""

    id: str
    type: str
    status: str
    progress: float
    attempt: int
    at: Time
    error: str | None
    previews: list[PreviewView] | None
    output: OutputView | None


class RunEventView(BaseModel):
    """What became of a run of the workflow `id`."""

    id: str
    run_id: str
    status: str
    progress: float
    current_step: int
    at: Time
    error: str | None
    steps: list[RunStepView]


class ChangeView(BaseModel):
    """That a task, a training or a run has that status now."""

    id: str
    status: str
    kind: Literal["task", "training", "run"]


async def task_events(request: Request, context: Context, task: Task) -> Response:
    """Return the events of a task. Raises: InvalidParams, naming a senseless Last-Event-ID."""

    async def render(event: Event) -> TaskEventView:
        data, output = event.data, None
        if data["status"] == Status.COMPLETED:
            now = await get_task(context.services, task.id, tenant=task.tenant)
            output = output_view(now.output, context.urls) if now.output else None
        previews = [preview_view(Preview(**each), context.urls) for each in data["previews"] or ()]
        return TaskEventView(
            id=task.id,
            type=task.type,
            status=data["status"],
            progress=data["progress"],
            attempt=data["attempt"],
            at=event.at,
            error=data["error"],
            previews=previews or None,
            output=output,
        )

    return await _stream(request, context, task.id, render)


async def run_events(request: Request, context: Context, state: WorkflowState) -> Response:
    """Return the events of a workflow's run. Raises: as `task_events`."""

    async def render(event: Event) -> RunEventView:
        steps = event.data["steps"]
        return RunEventView(
            id=state.workflow.id,
            run_id=state.run.id,
            status=event.data["status"],
            progress=event.data["progress"],
            current_step=current_step([StepStatus(step["status"]) for step in steps]),
            at=event.at,
            error=event.data["error"],
            steps=[RunStepView(**step) for step in steps],
        )

    return await _stream(request, context, state.run.id, render)


def all_events(context: Context, *, tenant: str | None) -> Response:
    """Return what becomes of everything of a tenant, or of all where None, from now on."""

    async def lines() -> AsyncIterator[bytes]:
        async for notice in overhear(context.services.notices, tenant=tenant):
            if notice is None:
                yield _HERE
            else:
                yield _line(
                    ChangeView.model_validate(
                        {"id": notice.subject, "status": notice.status, "kind": notice.kind}
                    )
                )

    return _answer(lines())


async def _stream(request: Request, context: Context, subject: str, render: Render) -> Response:
    feeds = context.services.feeds
    opening = await feeds.open(subject, after=_last_seen(request, subject))
    if opening.over:
        return Response(status_code=204)  # a browser asks no more

    async def tell(event: Event) -> bytes:
        return _line(await render(event), id=f"{subject}.{event.seq}")

    async def lines() -> AsyncIterator[bytes]:
        async for told in feeds.follow(opening, tell):
            yield _HERE if told is None else told

    return _answer(lines())


def _line(view: BaseModel, *, id: str | None = None) -> bytes:  # noqa: A002  # the field's name
    data = json.dumps(view.model_dump(mode="json"), ensure_ascii=False)
    return format_sse_event(id=id, data_str=data)


def _answer(lines: AsyncIterator[bytes]) -> Response:
    return EventSourceResponse(
        lines, headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    )


def _last_seen(request: Request, subject: str) -> int | None:
    """Return after which event to begin, None for the newest. Raises: InvalidParams."""
    given = request.headers.get(_LAST)
    if not given:
        return None
    found = _ID.fullmatch(given)
    if found is None or found[1] != subject:
        raise InvalidParams(
            f"{_LAST}: {given[:80]!r} is not an event of this; send the id of one, or leave it out",
            param=_LAST,
        )
    return int(found[2])
