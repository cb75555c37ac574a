"""Routes about the API keys of one's own tenant. The text of a key is in one answer only."""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field

from imageloom.api.auth import Administrator
from imageloom.api.bodies import idempotency_use, read_json_object, refuse_query
from imageloom.api.context import InContext
from imageloom.api.paging import PageQuery
from imageloom.api.routing import both_slashes, errors_of, json_body
from imageloom.api.shapes import PageView, Time
from imageloom.core import keys
from imageloom.store.keys import ApiKey
from imageloom.task_types.parsing import parse_params

Scope = Literal["read", "write", "admin", "monitor"]


class KeyBody(BaseModel):
    """What a new key may do: no more than the key that makes it."""

    model_config = ConfigDict(extra="forbid", strict=True)

    scopes: list[Scope] = Field(min_length=1)


class KeyView(BaseModel):
    """A key of the tenant. `current` is the one that this was asked with, or its session's."""

    id: str
    scopes: list[str]
    created_at: Time
    revoked_at: Time | None
    current: bool


class NewKeyView(KeyView):
    """A key just made. `key` is shown once: sent again under one Idempotency-Key, it is null."""

    key: str | None


def keys_router() -> APIRouter:
    """Return the routes of keys."""
    router = APIRouter(prefix="/keys", tags=["keys"])

    @both_slashes(
        router.get,
        "",
        operation_id="list_keys",
        summary="List your tenant's keys, newest first, revoked ones too",
        responses=errors_of(401, 403, 422, 503),
    )
    async def list_keys(
        context: InContext, caller: Administrator, query: Annotated[PageQuery, Query()]
    ) -> PageView[KeyView]:
        found, total = await keys.list_keys_of(
            context.services.pool, caller.tenant, page=query.page, page_size=query.page_size
        )
        return query.view([KeyView(**_fields(key, caller)) for key in found], total)

    @both_slashes(
        router.post,
        "",
        status_code=201,
        operation_id="create_key",
        summary="Make a key for your tenant; its text is shown now and never again",
        responses=errors_of(401, 403, 413, 415, 422, 503),
        openapi_extra=json_body(KeyBody.model_json_schema(), example={"scopes": ["read", "write"]}),
    )
    async def create_key(request: Request, context: InContext, caller: Administrator) -> NewKeyView:
        refuse_query(request)
        body = await read_json_object(request)
        asked = parse_params(KeyBody, body)
        made, text = await keys.grant_key(
            context.services.pool,
            by=caller,
            scopes=tuple(asked.scopes),
            idempotency_use=idempotency_use(request, route="keys", body=body),
        )
        return NewKeyView(**_fields(made, caller), key=text)

    @both_slashes(
        router.delete,
        "/{key_id}",
        operation_id="revoke_key",
        summary="Revoke a key and end its sessions; to repeat it is harmless",
        responses=errors_of(401, 403, 404, 409, 422, 503),
    )
    async def revoke_key(
        request: Request, key_id: str, context: InContext, caller: Administrator
    ) -> KeyView:
        refuse_query(request)
        revoked = await keys.revoke_key_of(context.services.pool, caller.tenant, key_id)
        return KeyView(**_fields(revoked, caller))

    return router


def _fields(key: ApiKey, caller: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "scopes": list(key.scopes),
        "created_at": key.created_at,
        "revoked_at": key.revoked_at,
        "current": key.id == caller.id,
    }
