"""What every route works with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, cast

from fastapi import Depends, Request

from imageloom.api.urls import Urls
from imageloom.core.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The services of this process and the URLs that it gives out."""

    services: Services
    urls: Urls


def get_context(request: Request) -> Context:
    """Return the context that `create_app` put into the app."""
    return cast("Context", request.app.state.context)


InContext = Annotated[Context, Depends(get_context)]
