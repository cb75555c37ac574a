"""`?dry_run=true` on the routes that create a task: what would become of it, and nothing made."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

from imageloom.api.bodies import refuse_query
from imageloom.api.outlook_shapes import Change, Expected, Reason, Runnable, outlook_fields
from imageloom.api.shapes import Ahead, shown_params
from imageloom.api.training_shapes import EstimateView
from imageloom.api.urls import Urls
from imageloom.domain.errors import InvalidParams
from imageloom.domain.tasks import Task

DRY_RUN = {
    "name": "dry_run",
    "in": "query",
    "required": False,
    "description": "`true` answers 200 with what would become of the task, and makes nothing",
    "schema": {"type": "boolean", "default": False},
}


class DryRunView(BaseModel):
    """What would become of a task that was not made."""

    dry_run: Literal[True] = True
    type: str
    runnable: Runnable
    runnable_reason: Reason
    runnable_change: Change
    queue_position: Ahead
    eta: Expected
    units: float | None = Field(
        description="How much work it is; of a generation evaluations of the network x "
        "megapixels, of processing pictures, of a training as of a generation"
    )
    estimate: EstimateView | None = Field(
        None, description="Of a training on an uploaded data set, as the preflight has it"
    )
    params: dict[str, Any]


ANSWER: dict[int | str, dict[str, Any]] = {
    200: {"model": DryRunView, "description": "With `dry_run=true`: the task was not made"}
}


def wants_dry_run(request: Request) -> bool:
    """Whether the caller asks what would become of a task. Raises: InvalidParams."""
    refuse_query(request, "dry_run")
    match request.query_params.getlist("dry_run"):
        case [] | ["false"]:
            return False
        case ["true"]:
            return True
        case _:
            raise InvalidParams("dry_run: use true or false, once", param="dry_run")


def dry_run_answer(task: Task, urls: Urls, *, estimate: EstimateView | None = None) -> JSONResponse:
    """Return the answer about a task that was not made; it waits for nothing."""
    view = DryRunView(
        type=task.type,
        queue_position=task.queue_position,
        units=task.units,
        estimate=estimate,
        params=shown_params(task, urls),
        **outlook_fields(task),
    )
    return JSONResponse(view.model_dump(mode="json"))
