"""Every query about forecasts: what they rest on, what was told, and what became of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from psycopg.types.json import Jsonb

from imageloom.domain.forecast import Forecast, Pace, Past, Wait
from imageloom.domain.tasks import Task
from imageloom.store.pool import Connection, one

KEPT_DAYS: Final = 7
_COMPLETED: Final = 100  # of so many attempts of a pace, the last, its seconds are
_SCORED: Final = 400  # and of so many how far off forecasts were: it takes longer to show
_WAITING: Final = 200  # so many of those that wait in a queue are looked at


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A running task, as far as a forecast looks at it; `progress` is 0 to 1."""

    id: str
    queue: str
    pace: str | None
    units: float | None
    progress: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Those of one pace among the first that wait in a queue: how many, and their units in all.

    `measured` is how many of them say their units.
    """

    queue: str
    pace: str | None
    count: int
    measured: int
    units: float


async def list_running(conn: Connection) -> list[Running]:
    """Return what runs. Uses task_live."""
    rows = await conn.execute(
        "select id, type as queue, pace, units, progress from task"
        " where status = 'running' limit 1000"
    )
    return [Running(**row) for row in await rows.fetchall()]


async def sum_waiting(conn: Connection, queues: Sequence[str]) -> list[Waiting]:
    """Return the first some hundred that wait in each queue, summed by pace. Uses job_by_round."""
    rows = await conn.execute(
        "select queue, task.pace, count(*) as count, count(task.units) as measured,"
        " coalesce(sum(task.units), 0)::float8 as units"
        " from unnest(%s::text[]) as queue, lateral (select args ->> 'task_id' as task_id"
        " from procrastinate_jobs where status = 'todo' and queue_name = queue"
        " order by priority desc, id limit %s) as first join task on task.id = first.task_id"
        " group by queue, task.pace",
        (list(queues), _WAITING),
    )
    return [Waiting(**row) for row in await rows.fetchall()]


async def read_paces(conn: Connection, names: Iterable[str]) -> dict[str, Pace]:
    """Return the paces of those names that are known. Uses attempt_by_pace."""
    rows = await conn.execute(
        "select attempt.pace, device_seconds, units,"
        " extract(epoch from ended_at - started_at)::float8 as lasted,"
        " unit_seconds, start_seconds, extract(epoch from started_at - made_at)::float8 as started,"
        " finish_seconds, extract(epoch from ended_at - made_at)::float8 as finished"
        " from unnest(%s::text[]) as name, lateral (select * from attempt where pace = name"
        " and outcome = 'completed' and number = 1 and device_seconds > 0 and units > 0"
        " order by ended_at desc limit %s) as attempt"
        " left join forecast on forecast.task_id = attempt.task_id order by ended_at desc",
        (list(names), _SCORED),
    )
    found: dict[str, list[dict[str, Any]]] = {}
    for row in await rows.fetchall():
        found.setdefault(row["pace"], []).append(row)
    return {name: _pace(attempts) for name, attempts in found.items()}


def _pace(attempts: Sequence[dict[str, Any]]) -> Pace:
    pace = Pace(
        measured=tuple(
            (_company(row), row["device_seconds"] / row["units"]) for row in attempts[:_COMPLETED]
        ),
        # Of one that shared its device with nobody, this is what was done beside it.
        beside_seconds=max(0.0, min(row["lasted"] - row["device_seconds"] for row in attempts)),
    )

    def past(before: str, real: str) -> tuple[Past, ...]:
        return tuple(
            Past(
                today=row[before] * pace.unit_seconds(_company(row)) / row["unit_seconds"],
                then=row[before],
                real=row[real],
            )
            for row in attempts
            if row[before] is not None and row["unit_seconds"]
        )

    return replace(
        pace,
        starts=past("start_seconds", "started"),
        finishes=past("finish_seconds", "finished"),
    )


def _company(row: dict[str, Any]) -> float:
    return max(1.0, float(row["lasted"] / row["device_seconds"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Foretold:
    """What is told of a task that was just made, and what a unit of it was taken to need."""

    task: Task
    wait: Wait
    forecast: Forecast
    unit_seconds: float | None


async def insert(conn: Connection, told: Sequence[Foretold]) -> None:
    """Note what is told of tasks. One statement."""
    await conn.execute(
        "insert into forecast (task_id, tenant, type, position, unit_seconds, start_seconds,"
        " finish_seconds, start_p50, start_p90, finish_p50, finish_p90)"
        " select id, tenant, type, position, unit, start, finish,"
        " now() + make_interval(secs => start_p50), now() + make_interval(secs => start_p90),"
        " now() + make_interval(secs => finish_p50), now() + make_interval(secs => finish_p90)"
        " from jsonb_to_recordset(%s) as told (id text, tenant text, type text, position integer,"
        " unit float8, start float8, finish float8, start_p50 float8, start_p90 float8,"
        " finish_p50 float8, finish_p90 float8)",
        (Jsonb([_row(each) for each in told]),),
    )


def _row(told: Foretold) -> dict[str, Any]:
    start, finish = told.forecast.start, told.forecast.finish
    return {
        "id": told.task.id,
        "tenant": told.task.tenant,
        "type": told.task.type,
        "position": told.task.queue_position,
        "unit": told.unit_seconds,
        "start": told.wait.start,
        "finish": told.wait.finish,
        "start_p50": start and start.p50,
        "start_p90": start and start.p90,
        "finish_p50": finish and finish.p50,
        "finish_p90": finish and finish.p90,
    }


async def now(conn: Connection) -> datetime:
    """Return the database's time."""
    row = await conn.execute("select clock_timestamp() as now")
    found: datetime = one(await row.fetchone())["now"]
    return found


async def delete_old(conn: Connection) -> None:
    """Forget forecasts after some days. Uses forecast_age."""
    await conn.execute(
        "delete from forecast where made_at < now() - make_interval(days => %s)", (KEPT_DAYS,)
    )
