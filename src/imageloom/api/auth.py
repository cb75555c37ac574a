"""Who calls: by a bearer key or a browser's session, and whether the scopes allow the route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from imageloom.api.context import Context, get_context
from imageloom.api.cookies import cookie_scheme, refuse_cross_site
from imageloom.core.keys import authenticate
from imageloom.core.sessions import find_session
from imageloom.domain.errors import NotPermitted, Unauthorized
from imageloom.store.keys import ApiKey

_bearer = HTTPBearer(auto_error=False, description="An API key: `imageloom keys create`")


@dataclass(frozen=True, slots=True, kw_only=True)
class Called:
    """The key of a request, whatever its scopes, and when its session ends, if it has one."""

    key: ApiKey
    expires_at: datetime | None = None


def tenant_with(scope: str) -> Callable[..., Awaitable[str]]:
    """Return a dependency that gives the tenant of a key that has `scope`.

    It raises: Unauthorized, CrossSite, NotPermitted.
    """

    async def tenant(caller: Caller) -> str:
        return _permitted(caller.key, scope).tenant

    return tenant


async def _caller(
    request: Request,
    context: Annotated[Context, Depends(get_context)],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    token: Annotated[str | None, Depends(cookie_scheme)],
) -> Called:
    """Return who calls. A request that names a key is judged by that, whatever cookie it has."""
    if token and "authorization" not in request.headers:
        refuse_cross_site(request, context)
        session = await find_session(context.services.pool, token)
        return Called(key=session.key, expires_at=session.expires_at)
    if credentials is None or not credentials.credentials:
        raise Unauthorized("send an API key as `Authorization: Bearer KEY`")
    return Called(key=await authenticate(context.services.pool, credentials.credentials))


async def reader_of(request: Request, context: Context) -> str:
    """Return the reading tenant where a key is only one of two ways in, as for a signed URL.

    Raises: Unauthorized, CrossSite, NotPermitted.
    """
    called = await _caller(request, context, await _bearer(request), await cookie_scheme(request))
    return _permitted(called.key, "read").tenant


def _permitted(key: ApiKey, *scopes: str) -> ApiKey:
    """Return the key, which has one of these scopes. Raises: NotPermitted."""
    if not set(scopes) & set(key.scopes):
        raise NotPermitted(
            f"this key has the scopes {', '.join(key.scopes)}; this route needs "
            f"{' or '.join(scopes)}"
        )
    return key


Caller = Annotated[Called, Depends(_caller)]


async def _administrator(caller: Caller) -> ApiKey:
    return _permitted(caller.key, "admin")


async def _viewer(caller: Caller) -> ApiKey:
    return _permitted(caller.key, "read", "monitor")


Reader = Annotated[str, Depends(tenant_with("read"))]
Writer = Annotated[str, Depends(tenant_with("write"))]
Admin = Annotated[str, Depends(tenant_with("admin"))]
# Who may make and revoke keys: the key itself, for what it may give.
Administrator = Annotated[ApiKey, Depends(_administrator)]
Monitor = Annotated[str, Depends(tenant_with("monitor"))]
# Who may look at monitoring: the key itself, for what it may see.
Viewer = Annotated[ApiKey, Depends(_viewer)]
