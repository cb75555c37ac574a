"""Routes that sign a browser in and out."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from imageloom.api.auth import Caller
from imageloom.api.bodies import read_json_object, refuse_query
from imageloom.api.context import InContext
from imageloom.api.cookies import (
    clear_cookie,
    cookie_scheme,
    refuse_cross_site,
    set_cookie,
)
from imageloom.api.routing import both_slashes, errors_of, json_body
from imageloom.api.shapes import Time
from imageloom.core.sessions import sign_in, sign_out
from imageloom.domain.errors import InvalidParams, Unauthorized
from imageloom.store.keys import ApiKey

_LONGEST_KEY = 1024  # characters; those that we make have 46


class SessionBody(BaseModel):
    """The key that a browser signs in with."""

    model_config = ConfigDict(extra="forbid")

    key: str = Field(min_length=1, max_length=_LONGEST_KEY)


class SessionView(BaseModel):
    """Who is calling, and what they may do."""

    tenant: str
    scopes: list[str]
    key_id: str
    expires_at: Time | None = Field(description="When the session ends; null for a bearer key")


def session_router() -> APIRouter:
    """Return the routes of sessions."""
    router = APIRouter(prefix="/session", tags=["session"])
    body = json_body(SessionBody.model_json_schema(), example={"key": "il_..."})

    @both_slashes(
        router.post,
        "",
        status_code=201,
        operation_id="create_session",
        summary="Sign a browser in: the answer sets a cookie that stands for the key, for 12 hours",
        responses=errors_of(401, 413, 415, 422, 429, 503),
        openapi_extra={"requestBody": body["requestBody"]},
    )
    async def create_session(
        request: Request, response: Response, context: InContext
    ) -> SessionView:
        refuse_query(request)
        address = request.client.host if request.client else ""
        context.sign_ins.check(address)
        key = await _read_key(request)
        try:
            made = await sign_in(context.services.pool, key)
        except Unauthorized:
            context.sign_ins.failed(address)
            raise Unauthorized("the API key is not valid", param="key") from None
        set_cookie(request, response, context, made.token)
        response.headers["Cache-Control"] = "no-store"
        return _view(made.session.key, made.session.expires_at)

    @both_slashes(
        router.get,
        "",
        operation_id="get_session",
        summary="Who is calling, by cookie or by key",
        responses=errors_of(401, 403, 503),
    )
    async def get_session(response: Response, caller: Caller) -> SessionView:
        response.headers["Cache-Control"] = "no-store"
        return _view(caller.key, caller.expires_at)

    @both_slashes(
        router.delete,
        "",
        status_code=204,
        operation_id="end_session",
        summary="Sign a browser out; to repeat it is harmless",
        responses=errors_of(403, 503),
    )
    async def end_session(
        request: Request,
        response: Response,
        context: InContext,
        token: Annotated[str | None, Depends(cookie_scheme)],
    ) -> None:
        if token:
            refuse_cross_site(request, context)
            await sign_out(context.services.pool, token)
        clear_cookie(request, response, context)

    return router


async def _read_key(request: Request) -> str:
    """Return the key of a body. Raises: InvalidParams, which repeats nothing that could be one."""
    body = await read_json_object(request)
    key = body.get("key")
    if set(body) != {"key"} or not isinstance(key, str) or not 1 <= len(key) <= _LONGEST_KEY:
        raise InvalidParams(
            f"key: send it alone, as text of 1 to {_LONGEST_KEY} characters", param="key"
        )
    return key


def _view(key: ApiKey, expires_at: Time | None) -> SessionView:
    return SessionView(
        tenant=key.tenant, scopes=list(key.scopes), key_id=key.id, expires_at=expires_at
    )
