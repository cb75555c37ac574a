"""How good forecasts were: what was told when a task was made, against what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

from imageloom.store.pool import Connection

# Tasks that failed or were cancelled ended when they did for reasons that no forecast knows.
_SCORED: Final = (
    " from forecast join task on task.id = forecast.task_id and task.status = 'completed'"
    " join attempt on attempt.task_id = task.id and attempt.number = 1"
    " where made_at > now() - make_interval(hours => %(hours)s)"
    " and (%(tenant)s::text is null or forecast.tenant = %(tenant)s)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How the forecasts of one type were, of all where `type` is None; None without any.

    Shares are 0 to 1. Errors are medians: seconds from the p50, and by the time that it really
    took from when the forecast was made.
    """

    type: str | None
    scored: int
    started_before_p50: float | None
    started_before_p90: float | None
    start_error_seconds: float | None
    start_error_relative: float | None
    scored_finishes: int
    finished_before_p50: float | None
    finished_before_p90: float | None
    finish_error_seconds: float | None
    finish_error_relative: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """One completed task and its forecast."""

    tenant: str
    task_id: str
    type: str
    position: int
    made_at: datetime
    started_at: datetime
    completed_at: datetime
    start_p50: datetime
    start_p90: datetime
    finish_p50: datetime | None
    finish_p90: datetime | None


async def list_scores(conn: Connection, *, tenant: str | None, hours: int) -> list[Score]:
    """Return how the forecasts of the last hours were, all together first. Uses forecast_age."""
    rows = await conn.execute(
        "select forecast.type, count(*) as scored,"
        " avg((attempt.started_at <= start_p50)::int)::float8 as started_before_p50,"
        " avg((attempt.started_at <= start_p90)::int)::float8 as started_before_p90,"
        f" {_error('attempt.started_at', 'start_p50')} as start_error_seconds,"
        f" {_relative('attempt.started_at', 'start_p50')} as start_error_relative,"
        " count(finish_p50) as scored_finishes,"
        " avg((completed_at <= finish_p50)::int)::float8 as finished_before_p50,"
        " avg((completed_at <= finish_p90)::int)::float8 as finished_before_p90,"
        f" {_error('completed_at', 'finish_p50')} as finish_error_seconds,"
        f" {_relative('completed_at', 'finish_p50')} as finish_error_relative"
        f" {_SCORED} group by grouping sets ((forecast.type), ()) order by 1 nulls first",
        {"tenant": tenant, "hours": hours},
    )
    return [Score(**row) for row in await rows.fetchall()]


async def list_newest(
    conn: Connection, *, tenant: str | None, hours: int, limit: int
) -> list[Scored]:
    """Return the newest forecasts that were scored, the newest first. Uses forecast_age."""
    rows = await conn.execute(
        "select forecast.tenant, forecast.task_id, forecast.type, position, made_at,"
        f" attempt.started_at, completed_at, start_p50, start_p90, finish_p50, finish_p90 {_SCORED}"
        " order by made_at desc limit %(limit)s",
        {"tenant": tenant, "hours": hours, "limit": limit},
    )
    return [Scored(**row) for row in await rows.fetchall()]


def _error(real: str, expected: str) -> str:
    return (
        "percentile_cont(0.5) within group (order by"
        f" abs(extract(epoch from {real} - {expected})::float8))"
    )


def _relative(real: str, expected: str) -> str:
    return (
        "percentile_cont(0.5) within group (order by"
        f" abs(extract(epoch from {real} - {expected})::float8)"
        f" / nullif(extract(epoch from {real} - made_at)::float8, 0))"
    )
