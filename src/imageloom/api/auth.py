"""Who is calling: the bearer key's tenant, and whether its scopes allow the route."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import Depends
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from imageloom.api.context import Context, get_context
from imageloom.core.keys import authenticate
from imageloom.domain.errors import NotPermitted, Unauthorized

_bearer = HTTPBearer(auto_error=False, description="An API key: `imageloom keys create`")


def tenant_with(scope: str) -> Callable[..., Awaitable[str]]:
    """Return a dependency that gives the tenant of a key that has `scope`.

    It raises: Unauthorized, NotPermitted.
    """

    async def tenant(
        context: Annotated[Context, Depends(get_context)],
        credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)],
    ) -> str:
        if credentials is None or not credentials.credentials:
            raise Unauthorized("send an API key as `Authorization: Bearer KEY`")
        key = await authenticate(context.services.pool, credentials.credentials)
        if scope not in key.scopes:
            raise NotPermitted(
                f"this key has the scopes {', '.join(key.scopes)}; this route needs {scope}"
            )
        return key.tenant

    return tenant


Reader = Annotated[str, Depends(tenant_with("read"))]
Writer = Annotated[str, Depends(tenant_with("write"))]
