"""Tasks as a list for operators shows them: of one tenant, or of all."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg import sql

from imageloom.domain.tasks import Status
from imageloom.store.pool import Connection, one
from imageloom.store.tasks import Filter, SortField, conditions, order_by

# Seconds by the database's clock, up to now for what still waits or runs.
_COLUMNS = sql.SQL(
    "id, tenant, type, status, priority, progress, attempt, worker,"
    " coalesce(params ->> 'model', params ->> 'base_model') as model,"
    " created_at, started_at, completed_at,"
    " extract(epoch from coalesce(started_at, completed_at, clock_timestamp()) - created_at)"
    "::float8 as wait_seconds,"
    " extract(epoch from coalesce(completed_at, clock_timestamp()) - started_at)"
    "::float8 as run_seconds,"
    " error, error_detail ->> 'code' as error_code, workflow_id, run_id, step_name"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """A task without its parameters and outputs.

    `wait_seconds` is from its creation to the start of its latest attempt, `run_seconds` what that
    one took; both grow until then. `error_code` is the stable one, of a task that failed.
    """

    id: str
    tenant: str
    type: str
    status: Status
    priority: int
    progress: float
    attempt: int
    worker: str | None
    model: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    wait_seconds: float
    run_seconds: float | None
    error: str | None
    error_code: str | None
    workflow_id: str | None
    run_id: str | None
    step_name: str | None


async def list_page(
    conn: Connection,
    *,
    tenant: str | None,
    wanted: Filter,
    sort_by: SortField,
    descending: bool,
    limit: int,
    offset: int,
) -> tuple[list[TaskSummary], int]:
    """Return one page of the tenant's tasks, of everybody's where None, and how many there are.

    By their creation, uses task_by_tenant or task_by_age; by anything else, all are sorted.
    """
    where, values = conditions(wanted, tenant=tenant)
    total = await conn.execute(
        sql.SQL("select count(*) as n from task where {}").format(where), values
    )
    count = one(await total.fetchone())["n"]
    query = sql.SQL(
        "select {columns} from task where {where} order by {order}"
        " limit %(limit)s offset %(offset)s"
    ).format(columns=_COLUMNS, where=where, order=order_by(sort_by, descending=descending))
    rows = await conn.execute(query, {**values, "limit": limit, "offset": offset})
    return [_summary(row) for row in await rows.fetchall()], count


async def get(conn: Connection, task_id: str, *, tenant: str | None) -> TaskSummary | None:
    """Return the task, where the tenant is named only if it is theirs."""
    query = sql.SQL(
        "select {columns} from task where id = %(id)s"
        " and (%(tenant)s::text is null or tenant = %(tenant)s)"
    ).format(columns=_COLUMNS)
    row = await conn.execute(query, {"id": task_id, "tenant": tenant})
    found = await row.fetchone()
    return _summary(found) if found else None


def _summary(row: dict[str, Any]) -> TaskSummary:
    return TaskSummary(**{**row, "status": Status(row["status"])})
