"""What every route works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, cast

from fastapi import Depends, Request

from imageloom.api.sign_ins import SignIns
from imageloom.api.urls import Urls
from imageloom.core.metrics import Scraper
from imageloom.core.services import Services


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The services of this process, its URLs and metrics, and who sent it wrong keys."""

    services: Services
    urls: Urls
    scraper: Scraper
    sign_ins: SignIns = field(default_factory=SignIns)


async def get_context(request: Request) -> Context:
    """Return the context that `create_app` put into the app.

    Async, although it waits for nothing: FastAPI gives every other dependency a thread.
    """
    return cast("Context", request.app.state.context)


InContext = Annotated[Context, Depends(get_context)]
