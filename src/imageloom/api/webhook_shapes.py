"""The shapes of what webhooks say, and of answers about them."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, Field

from imageloom.api.shapes import TaskView, Time, WorkflowView, task_view, workflow_view
from imageloom.api.training_shapes import TrainingView, training_view
from imageloom.api.urls import Urls
from imageloom.core.read import get_task
from imageloom.core.services import Services
from imageloom.core.training import read_training
from imageloom.core.workflows import read
from imageloom.domain.tasks import Status, Task
from imageloom.domain.webhooks import Happening
from imageloom.domain.workflow import RunStatus
from imageloom.store.endpoints import Endpoint
from imageloom.store.outbox import Attempt, Event, State

D = TypeVar("D", bound=BaseModel)


class EventView(BaseModel, Generic[D]):
    """The body of a delivery. The header `webhook-id` names the event, the same on each retry."""

    type: str
    timestamp: Time = Field(description="When it happened")
    data: D


class TryView(BaseModel):
    """One try: the status that was answered, or what kind of error came instead of one."""

    at: Time
    status: int | None
    error: str | None = Field(
        description="unknown_host, address_refused, unreachable, tls, timeout or invalid_answer"
    )
    duration_seconds: float


class DeliveryView(BaseModel):
    """An event and what became of it. `id` is the `webhook-id` of every try."""

    id: str
    type: str
    resource_id: str
    run_id: str | None
    url: str
    state: State
    created_at: Time
    attempt_count: int
    last_attempt: TryView | None
    next_attempt_at: Time | None = Field(description="While it is pending")
    ended_at: Time | None


class DeliveryDetailView(DeliveryView):
    """A delivery with all its tries. What a receiver answers beyond its status is not kept."""

    attempts: list[TryView]


class EndpointView(BaseModel):
    """A URL that events of the last week went to, or that is off because it answered 410."""

    url: str
    pending: int
    delivered: int
    failed: int
    last_event_at: Time | None
    disabled_at: Time | None


class SecretView(BaseModel):
    """What deliveries are signed with, as Standard Webhooks writes it."""

    secret: str


async def render(services: Services, event: Event, urls: Urls) -> str:
    """Return the body of an event: the resource as it is now, standing where it stood then.

    Raises: NotFound where the resource is gone.
    """
    data: TaskView | TrainingView | WorkflowView
    match event.resource:
        case "task":
            task = await get_task(services, event.resource_id, tenant=event.tenant)
            data = task_view(_as_it_was(task, event), urls)
        case "training":
            task, state, adapter = await read_training(
                services, event.resource_id, tenant=event.tenant
            )
            adapter = adapter if _ended(event) else None
            data = training_view(_as_it_was(task, event), state, adapter, urls)
        case "workflow":
            found = await read(
                services, event.resource_id, tenant=event.tenant, run_id=event.run_id
            )
            run = replace(
                found.run,
                status=RunStatus(event.snapshot["status"]),
                error=event.snapshot["error"],
                completed_at=found.run.completed_at if _ended(event) else None,
            )
            # Without its tasks, as in lists: a run may have ten thousand.
            data = workflow_view(replace(found, run=run, tasks=None), urls)
    return EventView(type=event.type, timestamp=event.occurred_at, data=data).model_dump_json()


def delivery_view(event: Event) -> DeliveryView:
    """Return an event as its tenant sees it in a list."""
    return DeliveryView(**_delivery(event))


def delivery_detail_view(event: Event) -> DeliveryDetailView:
    """Return an event as its tenant sees it, with every try."""
    return DeliveryDetailView(
        **_delivery(event), attempts=[_attempt_view(made) for made in event.attempts]
    )


def endpoint_view(endpoint: Endpoint) -> EndpointView:
    """Return an endpoint as its tenant sees it."""
    return EndpointView(
        url=endpoint.url,
        pending=endpoint.pending,
        delivered=endpoint.delivered,
        failed=endpoint.failed,
        last_event_at=endpoint.last_event_at,
        disabled_at=endpoint.disabled_at,
    )


def _delivery(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "type": event.type,
        "resource_id": event.resource_id,
        "run_id": event.run_id,
        "url": event.url,
        "state": event.state,
        "created_at": event.occurred_at,
        "attempt_count": len(event.attempts),
        "last_attempt": _attempt_view(event.attempts[-1]) if event.attempts else None,
        "next_attempt_at": event.due_at if event.state == "pending" else None,
        "ended_at": event.ended_at,
    }


def _attempt_view(made: Attempt) -> TryView:
    return TryView(at=made.at, status=made.status, error=made.error, duration_seconds=made.seconds)


def _as_it_was(task: Task, event: Event) -> Task:
    """Return a task where it stood at the event; nothing changes one that has ended."""
    if _ended(event):
        return task
    said = event.snapshot
    same = task.status is Status.RUNNING and task.attempt == said["attempt"]
    return replace(
        task,
        status=Status(said["status"]),
        progress=said["progress"],
        attempt=said["attempt"],
        started_at=said["started_at"] and datetime.fromisoformat(said["started_at"]),
        completed_at=None,
        cleaned_at=None,
        queue_position=None,
        outlook=None,
        output=None,
        error=None,
        error_detail=None,
        previews=task.previews if same and event.type.endswith(Happening.PROGRESS) else (),
    )


def _ended(event: Event) -> bool:
    return Happening(event.type.rpartition(".")[2]).final
