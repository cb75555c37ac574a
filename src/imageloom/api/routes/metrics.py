"""The route that Prometheus scrapes."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Response
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from imageloom.api.auth import Monitor
from imageloom.api.context import InContext
from imageloom.api.routing import both_slashes, errors_of
from imageloom.core.metrics import PARTS, Part

_TEXT: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "Metrics in the text format of Prometheus; docs/metrics.md lists them",
        "content": {"text/plain": {"schema": {"type": "string"}}},
    },
}


def metrics_router() -> APIRouter:
    """Return the route of metrics; like those of health it is outside of a version."""
    router = APIRouter(tags=["monitoring"])

    @both_slashes(
        router.get,
        "/metrics",
        operation_id="metrics",
        summary="Metrics of the installation and of this API process, for Prometheus",
        response_class=Response,
        responses={**_TEXT, **errors_of(401, 403, 422, 503)},
    )
    async def metrics(
        context: InContext,
        _tenant: Monitor,
        part: Annotated[
            list[Part] | None,
            Query(
                description="Of several API processes, scrape one for the installation and each "
                "for its process; both unless said"
            ),
        ] = None,
    ) -> Response:
        text = await context.scraper.scrape(part or PARTS)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return router
