"""The HTTP API as an ASGI app: parse, call one verb of core, shape the answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from starlette.types import ASGIApp, Lifespan

from imageloom import __version__
from imageloom.api.context import Context
from imageloom.api.dispatch import webhooks_sent
from imageloom.api.edge import Edge
from imageloom.api.errors import install_handlers
from imageloom.api.routes.accuracy import accuracy_router
from imageloom.api.routes.events import events_router
from imageloom.api.routes.files import files_router
from imageloom.api.routes.keys import keys_router
from imageloom.api.routes.manual import manual_router
from imageloom.api.routes.metrics import metrics_router
from imageloom.api.routes.monitoring import health_router, monitoring_router
from imageloom.api.routes.overview import overview_router
from imageloom.api.routes.pages import pages_router
from imageloom.api.routes.session import session_router
from imageloom.api.routes.tasks import tasks_router
from imageloom.api.routes.training import training_router
from imageloom.api.routes.webhooks import described_webhooks, webhooks_router
from imageloom.api.routes.workflows import workflows_router
from imageloom.api.urls import BASE_PATH, Urls
from imageloom.core.maintain import maintain
from imageloom.core.metrics import Scraper
from imageloom.core.services import Services


def create_app(services: Services, *, public_url: str) -> ASGIApp:
    """Return the app; while its lifespan runs, it does chores, hears notices and sends webhooks."""
    urls = Urls(public_url, services.signer, life=services.settings.url_ttl)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        running = [
            asyncio.create_task(maintain(services), name="maintain"),
            asyncio.create_task(services.notices.listen(), name="listen"),
        ]
        try:
            async with webhooks_sent(services, urls):
                yield
        finally:
            for each in running:
                each.cancel()
            await asyncio.wait(running)

    app = _routes(lifespan=lifespan, public_url=public_url)
    app.state.context = Context(services=services, urls=urls, scraper=Scraper(services))
    return Edge(app, services.settings.limits, services.meters, services.tracing)


def describe_api() -> dict[str, Any]:
    """Return the OpenAPI document; needs no services."""
    return _routes(lifespan=None, public_url="http://127.0.0.1:9000").openapi()


def _routes(*, lifespan: Lifespan[FastAPI] | None, public_url: str) -> FastAPI:
    app = FastAPI(
        title="Imageloom",
        version=__version__,
        summary="Durable tasks and workflows for images, run by GPU workers",
        lifespan=lifespan,
        redirect_slashes=False,
        docs_url=None,  # FastAPI's own take whatever is newest at a content network: see `manual`
        redoc_url=None,
        servers=[{"url": public_url}],
    )
    install_handlers(app)
    for router in (
        tasks_router(),
        workflows_router(),
        training_router(),
        events_router(),
        files_router(),
        webhooks_router(),
        monitoring_router(),
        accuracy_router(),
        session_router(),
        keys_router(),
        overview_router(),
    ):
        app.include_router(router, prefix=BASE_PATH)
    app.include_router(health_router())
    app.include_router(pages_router(public_url))
    app.include_router(manual_router())
    app.include_router(metrics_router())
    app.webhooks.include_router(described_webhooks())
    return app
