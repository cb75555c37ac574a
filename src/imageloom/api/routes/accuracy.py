"""The route that says how good forecasts were."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field

from imageloom.api.auth import Viewer
from imageloom.api.context import InContext
from imageloom.api.outlook_shapes import EtaView, MomentsView
from imageloom.api.routing import both_slashes, errors_of
from imageloom.api.seeing import SeenQuery, tenant_seen
from imageloom.api.times import Time
from imageloom.core.accuracy import eta_accuracy
from imageloom.store.accuracy import Score, Scored
from imageloom.store.forecasts import KEPT_DAYS

_SHARE = "Of good forecasts about {}"


class AccuracyQuery(SeenQuery):
    """Of what time, and whose."""

    hours: int = Field(24, ge=1, le=24 * KEPT_DAYS, description="Forecasts made since then")
    newest: int = Field(20, ge=0, le=100, description="How many single forecasts are shown")


class ScoreView(BaseModel):
    """How forecasts of completed tasks were. Shares are 0 to 1, errors are medians.

    An error is how far the p50 was from what came, in seconds and by the time from the forecast to
    what came. All are null without a forecast that says so much.
    """

    scored: int
    started_before_p50: float | None = Field(description=_SHARE.format(0.5))
    started_before_p90: float | None = Field(description=_SHARE.format(0.9))
    start_error_seconds: float | None
    start_error_relative: float | None
    scored_finishes: int
    finished_before_p50: float | None = Field(description=_SHARE.format(0.5))
    finished_before_p90: float | None = Field(description=_SHARE.format(0.9))
    finish_error_seconds: float | None
    finish_error_relative: float | None


class ScoredView(BaseModel):
    """One completed task and its forecast; `task_id` is null where it is another tenant's."""

    task_id: str | None
    type: str
    queue_position: int
    made_at: Time
    started_at: Time
    completed_at: Time
    eta: EtaView


class AccuracyView(BaseModel):
    """How good the forecasts were that tasks got when they were made."""

    hours: int
    overall: ScoreView
    by_type: dict[str, ScoreView]
    newest: list[ScoredView]


def accuracy_router() -> APIRouter:
    """Return the route."""
    router = APIRouter(
        prefix="/monitoring", tags=["monitoring"], responses=errors_of(401, 403, 422, 503)
    )

    @both_slashes(
        router.get,
        "/eta-accuracy",
        operation_id="eta_accuracy",
        summary="How good the forecasts of tasks were that completed",
    )
    async def accuracy(
        context: InContext, viewer: Viewer, query: Annotated[AccuracyQuery, Query()]
    ) -> AccuracyView:
        scores, newest = await eta_accuracy(
            context.services,
            tenant=tenant_seen(viewer, all_tenants=query.all_tenants),
            hours=query.hours,
            newest=query.newest,
        )
        (overall,) = [score for score in scores if score.type is None]
        return AccuracyView(
            hours=query.hours,
            overall=_score_view(overall),
            by_type={score.type: _score_view(score) for score in scores if score.type is not None},
            newest=[_scored_view(each, tenant=viewer.tenant) for each in newest],
        )

    return router


def _score_view(score: Score) -> ScoreView:
    told = asdict(score)
    del told["type"]
    return ScoreView(**told)


def _scored_view(scored: Scored, *, tenant: str) -> ScoredView:
    finish = None
    if scored.finish_p50 is not None and scored.finish_p90 is not None:
        finish = MomentsView(p50=scored.finish_p50, p90=scored.finish_p90)
    return ScoredView(
        task_id=scored.task_id if scored.tenant == tenant else None,
        type=scored.type,
        queue_position=scored.position,
        made_at=scored.made_at,
        started_at=scored.started_at,
        completed_at=scored.completed_at,
        eta=EtaView(start=MomentsView(p50=scored.start_p50, p90=scored.start_p90), finish=finish),
    )
