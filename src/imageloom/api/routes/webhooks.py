"""Routes about webhooks: the secret, what was delivered, where to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from imageloom.api.auth import Admin, Reader, Writer
from imageloom.api.bodies import read_json_object, refuse_query
from imageloom.api.context import InContext
from imageloom.api.paging import PageQuery
from imageloom.api.routing import both_slashes, errors_of, json_body
from imageloom.api.shapes import PageView, TaskView, WorkflowView
from imageloom.api.training_shapes import TrainingView
from imageloom.api.webhook_shapes import (
    DeliveryDetailView,
    DeliveryView,
    EndpointView,
    EventView,
    SecretView,
    delivery_detail_view,
    delivery_view,
    endpoint_view,
)
from imageloom.core import webhooks
from imageloom.domain.errors import InvalidParams
from imageloom.domain.webhooks import LONGEST_URL, Resource, happenings_of
from imageloom.store.outbox import EventFilter, State
from imageloom.task_types.parsing import parse_params

RESOURCES: tuple[Resource, ...] = ("task", "training", "workflow")
_TYPES = tuple(f"{name}.{each}" for name in RESOURCES for each in happenings_of(name))


class DeliveryQuery(PageQuery):
    """Which deliveries a list shows."""

    resource_id: str | None = Field(
        None,
        max_length=64,
        pattern="^[A-Za-z0-9_]+$",
        description="The id of a task, training or workflow",
    )
    type: str | None = Field(None, max_length=64, description="Such as task.completed")
    state: State | None = None


class EnableBody(BaseModel):
    """Which endpoint is turned on again."""

    model_config = ConfigDict(extra="forbid", strict=True)

    url: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)]


def webhooks_router() -> APIRouter:
    """Return the routes of webhooks."""
    router = APIRouter(prefix="/webhooks", tags=["webhooks"])
    _add_secret(router)
    _add_deliveries(router)
    _add_endpoints(router)
    return router


def described_webhooks() -> APIRouter:
    """Return what is sent, for the document's section `webhooks`; nothing of it is a route."""
    router = APIRouter(tags=["webhooks"])

    async def of_task(body: EventView[TaskView]) -> None: ...

    async def of_training(body: EventView[TrainingView]) -> None: ...

    async def of_workflow(body: EventView[WorkflowView]) -> None: ...

    bodies: tuple[Callable[..., Any], ...] = (of_task, of_training, of_workflow)
    for name, described in zip(RESOURCES, bodies, strict=True):
        router.add_api_route(
            f"{name}.{{event}}",
            described,
            methods=["POST"],
            status_code=204,
            responses={
                410: {"description": "Nothing is sent to this URL any more"},
                "default": {"description": "It is sent again later"},
            },
            operation_id=f"{name}_webhook",
            summary=f"What a {name} tells of itself",
            description="`event` is one of "
            f"{', '.join(happenings_of(name))}. Any 2xx within 15 seconds says that it "
            "arrived; the header `webhook-id` is the same when it is sent again.",
        )
    return router


def _add_secret(router: APIRouter) -> None:
    @both_slashes(
        router.get,
        "/secret",
        operation_id="get_webhook_secret",
        summary="Read the secret that your deliveries are signed with",
        responses=errors_of(401, 403, 503),
    )
    async def get_secret(context: InContext, tenant: Admin) -> SecretView:
        return SecretView(secret=await webhooks.get_secret(context.services, tenant=tenant))

    @both_slashes(
        router.post,
        "/secret/rotate",
        operation_id="rotate_webhook_secret",
        summary="Get a new secret; the old one signs beside it for 24 hours",
        responses=errors_of(401, 403, 422, 503),
    )
    async def rotate_secret(request: Request, context: InContext, tenant: Admin) -> SecretView:
        refuse_query(request)
        return SecretView(secret=await webhooks.rotate_secret(context.services, tenant=tenant))


def _add_deliveries(router: APIRouter) -> None:
    @both_slashes(
        router.get,
        "/deliveries",
        operation_id="list_webhook_deliveries",
        summary="List what was told or is to be told, newest first",
        responses=errors_of(401, 403, 422, 503),
    )
    async def list_deliveries(
        context: InContext, tenant: Reader, query: Annotated[DeliveryQuery, Query()]
    ) -> PageView[DeliveryView]:
        if query.type is not None and query.type not in _TYPES:
            raise InvalidParams(
                f"type: there is no event {query.type[:60]!r}; use one of {', '.join(_TYPES)}",
                param="type",
            )
        items, total = await webhooks.list_events(
            context.services,
            tenant=tenant,
            wanted=EventFilter(resource_id=query.resource_id, type=query.type, state=query.state),
            page=query.page,
            page_size=query.page_size,
        )
        return query.view([delivery_view(event) for event in items], total)

    @both_slashes(
        router.get,
        "/deliveries/{event_id}",
        operation_id="get_webhook_delivery",
        summary="Read a delivery with all its tries",
        responses=errors_of(401, 403, 404, 422, 503),
    )
    async def get_delivery(event_id: str, context: InContext, tenant: Reader) -> DeliveryDetailView:
        event = await webhooks.get_event(context.services, event_id, tenant=tenant)
        return delivery_detail_view(event)

    @both_slashes(
        router.post,
        "/deliveries/{event_id}/replay",
        operation_id="replay_webhook_delivery",
        summary="Deliver again, now: the same id, the same body",
        responses=errors_of(401, 403, 404, 409, 422, 503),
    )
    async def replay_delivery(
        request: Request, event_id: str, context: InContext, tenant: Writer
    ) -> DeliveryDetailView:
        refuse_query(request)
        event = await webhooks.replay(context.services, event_id, tenant=tenant)
        return delivery_detail_view(event)


def _add_endpoints(router: APIRouter) -> None:
    @both_slashes(
        router.get,
        "/endpoints",
        operation_id="list_webhook_endpoints",
        summary="List the URLs that events go to",
        responses=errors_of(401, 403, 422, 503),
    )
    async def list_endpoints(
        context: InContext, tenant: Reader, query: Annotated[PageQuery, Query()]
    ) -> PageView[EndpointView]:
        items, total = await webhooks.list_endpoints(
            context.services, tenant=tenant, page=query.page, page_size=query.page_size
        )
        return query.view([endpoint_view(each) for each in items], total)

    body_of_enable = json_body(
        EnableBody.model_json_schema(), example={"url": "https://example.com/hooks"}
    )

    @both_slashes(
        router.post,
        "/endpoints/enable",
        operation_id="enable_webhook_endpoint",
        summary="Send to a URL again that answered 410",
        responses=errors_of(401, 403, 404, 415, 422, 503),
        openapi_extra={"requestBody": body_of_enable["requestBody"]},
    )
    async def enable_endpoint(request: Request, context: InContext, tenant: Writer) -> EndpointView:
        refuse_query(request)
        body = parse_params(EnableBody, await read_json_object(request))
        found = await webhooks.enable_endpoint(context.services, body.url, tenant=tenant)
        return endpoint_view(found)
