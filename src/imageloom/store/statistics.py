"""What became of tasks and runs in the last hours, counted by the database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from psycopg import sql

from imageloom.store.pool import Connection, one

# Of the tenant's, or of everybody's where it is null, what ended since then.
_ENDED: Final = sql.SQL(
    " where completed_at >= %(since)s and (%(tenant)s::text is null or tenant = %(tenant)s)"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Seconds: half took at most `p50`, nine of ten at most `p90`; None where there were none."""

    p50: float | None = None
    p90: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Times:
    """How long tasks waited for the start of their last attempt, and how long that one ran.

    Of what ended; only what was completed counts as run.
    """

    waits: Quantiles = Quantiles()
    durations: Quantiles = Quantiles()


@dataclass(frozen=True, slots=True, kw_only=True)
class HourCount:
    """How many tasks of a type ended so in the hour (UTC) that begins then."""

    hour: datetime
    type: str
    status: str
    count: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """From the beginning of the hour that was `hours` ago until now, by the database's clock."""

    since: datetime
    until: datetime


async def span(conn: Connection, hours: int) -> Span:
    """Return the last `hours` full hours (UTC) and the one that has begun."""
    row = await conn.execute(
        "select date_trunc('hour', now(), 'UTC') - make_interval(hours => %s) as since,"
        " now() as until",
        (hours,),
    )
    return Span(**one(await row.fetchone()))


async def live_tasks(conn: Connection, *, tenant: str | None) -> dict[tuple[str, str], int]:
    """Return how many tasks wait and run now, by type and status. Uses task_live alone."""
    rows = await conn.execute(
        "select type, status, count(*) as n from task where status in ('pending', 'running')"
        " and (%(tenant)s::text is null or tenant = %(tenant)s) group by type, status",
        {"tenant": tenant},
    )
    return {(row["type"], row["status"]): row["n"] for row in await rows.fetchall()}


async def ended_tasks(conn: Connection, *, tenant: str | None, since: datetime) -> list[HourCount]:
    """Return how many tasks ended how, by type and hour. Uses task_ended alone."""
    rows = await conn.execute(
        sql.SQL(
            "select date_trunc('hour', completed_at, 'UTC') as hour, type, status,"
            " count(*) as count from task{ended} group by 1, 2, 3 order by 1, 2, 3"
        ).format(ended=_ENDED),
        {"tenant": tenant, "since": since},
    )
    return [HourCount(**row) for row in await rows.fetchall()]


async def times(
    conn: Connection, *, tenant: str | None, since: datetime
) -> dict[str | None, Times]:
    """Return the waits and durations by type, and under None of all. Uses task_ended alone."""
    rows = await conn.execute(
        sql.SQL(
            "select type,"
            " percentile_cont(array[0.5, 0.9]) within group (order by"
            " extract(epoch from started_at - created_at)) as waits,"
            " percentile_cont(array[0.5, 0.9]) within group (order by"
            " case when status = 'completed'"
            " then extract(epoch from completed_at - started_at) end) as durations"
            " from task{ended} group by grouping sets ((type), ())"
        ).format(ended=_ENDED),
        {"tenant": tenant, "since": since},
    )
    return {
        row["type"]: Times(waits=_quantiles(row["waits"]), durations=_quantiles(row["durations"]))
        for row in await rows.fetchall()
    }


async def failures(
    conn: Connection, *, tenant: str | None, since: datetime
) -> list[tuple[str, int]]:
    """Return why tasks failed, by the stable code, and how many of each, most first.

    Uses task_failed.
    """
    rows = await conn.execute(
        sql.SQL(
            "select coalesce(error_detail ->> 'code', 'unknown') as code, count(*) as n"
            " from task{ended} and status = 'failed' group by 1 order by 2 desc, 1"
        ).format(ended=_ENDED),
        {"tenant": tenant, "since": since},
    )
    return [(row["code"], row["n"]) for row in await rows.fetchall()]


async def runs_by_status(
    conn: Connection, *, tenant: str | None, since: datetime
) -> dict[str, int]:
    """Return how many runs are not over, and how many ended since. Uses run_live and run_ended."""
    rows = await conn.execute(
        sql.SQL(
            "select status, count(*) as n from run where completed_at is null"
            " and (%(tenant)s::text is null or tenant = %(tenant)s) group by status"
            " union all select status, count(*) from run{ended} group by status"
        ).format(ended=_ENDED),
        {"tenant": tenant, "since": since},
    )
    return {row["status"]: row["n"] for row in await rows.fetchall()}


async def run_durations(conn: Connection, *, tenant: str | None, since: datetime) -> Quantiles:
    """Return how long the completed runs took from their start. Uses run_ended alone."""
    row = await conn.execute(
        sql.SQL(
            "select percentile_cont(array[0.5, 0.9]) within group (order by"
            " extract(epoch from completed_at - started_at)) as durations"
            " from run{ended} and status = 'completed'"
        ).format(ended=_ENDED),
        {"tenant": tenant, "since": since},
    )
    return _quantiles(one(await row.fetchone())["durations"])


def _quantiles(found: list[Any] | None) -> Quantiles:
    if found is None or found[0] is None:
        return Quantiles()
    return Quantiles(p50=float(found[0]), p90=float(found[1]))
