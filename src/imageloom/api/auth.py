"""Who is calling: the bearer key's tenant, and whether its scopes allow the route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from imageloom.api.context import Context, get_context
from imageloom.core.keys import authenticate
from imageloom.domain.errors import NotPermitted, Unauthorized
from imageloom.store.keys import ApiKey

_bearer = HTTPBearer(auto_error=False, description="An API key: `imageloom keys create`")


def tenant_with(scope: str) -> Callable[..., Awaitable[str]]:
    """Return a dependency that gives the tenant of a key that has `scope`.

    It raises: Unauthorized, NotPermitted.
    """

    async def tenant(
        context: Annotated[Context, Depends(get_context)],
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> str:
        return (await _authorize(context, credentials, scope)).tenant

    return tenant


async def _viewer(
    context: Annotated[Context, Depends(get_context)],
    credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
) -> ApiKey:
    return await _authorize(context, credentials, "read", "monitor")


async def reader_of(request: Request, context: Context) -> str:
    """Return the reading tenant where a key is only one of two ways in, as for a signed URL.

    Raises: Unauthorized, NotPermitted.
    """
    return (await _authorize(context, await _bearer(request), "read")).tenant


async def _authorize(
    context: Context, credentials: HTTPAuthorizationCredentials | None, *scopes: str
) -> ApiKey:
    """Return the key of a request, which has one of these scopes."""
    if credentials is None or not credentials.credentials:
        raise Unauthorized("send an API key as `Authorization: Bearer KEY`")
    key = await authenticate(context.services.pool, credentials.credentials)
    if not set(scopes) & set(key.scopes):
        raise NotPermitted(
            f"this key has the scopes {', '.join(key.scopes)}; this route needs "
            f"{' or '.join(scopes)}"
        )
    return key


Reader = Annotated[str, Depends(tenant_with("read"))]
Writer = Annotated[str, Depends(tenant_with("write"))]
Admin = Annotated[str, Depends(tenant_with("admin"))]
# Who may look at monitoring: the key itself, for what it may see.
Viewer = Annotated[ApiKey, Depends(_viewer)]
