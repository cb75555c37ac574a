"""Every query about tasks. Time is the database's; a worker's write carries its attempt number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg import sql
from psycopg.types.json import Jsonb

from imageloom.domain.retry import Decision
from imageloom.domain.tasks import ErrorDetail, Output, OutputImage, Status, Task
from imageloom.store.pool import Connection, one

SortField = Literal["created_at", "started_at", "completed_at", "status", "type", "progress"]

_COLUMNS = sql.SQL(
    "id, tenant, type, status, params, inputs, priority, attempt, interruptions, max_attempts,"
    " worker, job_id, progress, output, error, error_detail,"
    " created_at, started_at, completed_at, cleaned_at"
)


async def insert(
    conn: Connection,
    *,
    task_id: str,
    tenant: str,
    task_type: str,
    params: dict[str, Any],
    inputs: dict[str, str],
    priority: int,
    max_attempts: int,
) -> Task:
    """Add a pending task without a job and return it."""
    query = sql.SQL(
        "insert into task (id, tenant, type, params, inputs, priority, max_attempts)"
        " values (%(id)s, %(tenant)s, %(type)s, %(params)s, %(inputs)s, %(priority)s, %(max)s)"
        " returning {columns}"
    ).format(columns=_COLUMNS)
    row = await conn.execute(
        query,
        {
            "id": task_id,
            "tenant": tenant,
            "type": task_type,
            "params": Jsonb(params),
            "inputs": Jsonb(inputs),
            "priority": priority,
            "max": max_attempts,
        },
    )
    return _task(one(await row.fetchone()))


async def remember_job(conn: Connection, task_id: str, job_id: int) -> None:
    """Note the job through which a task waits."""
    await conn.execute("update task set job_id = %s where id = %s", (job_id, task_id))


async def get(conn: Connection, task_id: str, *, tenant: str) -> Task | None:
    """Return the tenant's task, or None where it has none of that id."""
    query = sql.SQL("select {columns} from task where id = %s and tenant = %s")
    row = await conn.execute(query.format(columns=_COLUMNS), (task_id, tenant))
    found = await row.fetchone()
    return _task(found) if found else None


async def lock(conn: Connection, task_id: str) -> Task | None:
    """Return the task and hold its row until the transaction ends, so that decisions on it last."""
    query = sql.SQL("select {columns} from task where id = %s for update")
    row = await conn.execute(query.format(columns=_COLUMNS), (task_id,))
    found = await row.fetchone()
    return _task(found) if found else None


async def start_attempt(conn: Connection, task_id: str, *, job_id: int, worker: str) -> Task | None:
    """Make the task this worker's and return it with its new attempt number.

    None where the task is over, waits through another job, or has no attempt left: then the caller
    has no right to it.
    """
    query = sql.SQL(
        "update task set status = 'running', attempt = attempt + 1, worker = %(worker)s,"
        " progress = 0, started_at = clock_timestamp()"
        " where id = %(id)s and job_id = %(job_id)s and status in ('pending', 'running')"
        " and attempt - interruptions < max_attempts returning {columns}"
    ).format(columns=_COLUMNS)
    row = await conn.execute(query, {"id": task_id, "job_id": job_id, "worker": worker})
    found = await row.fetchone()
    return _task(found) if found else None


async def write_progress(conn: Connection, task_id: str, *, attempt: int, progress: float) -> bool:
    """Raise the progress of a running attempt; False where the attempt is no longer that one."""
    cursor = await conn.execute(
        "update task set progress = greatest(progress, %(progress)s)"
        " where id = %(id)s and status = 'running' and attempt = %(attempt)s",
        {"id": task_id, "attempt": attempt, "progress": progress},
    )
    return cursor.rowcount == 1


async def write_decision(
    conn: Connection, task_id: str, *, attempt: int, decision: Decision, job_id: int | None
) -> Task | None:
    """Carry out a decision on the attempt of that number, and return the task.

    None where another attempt has begun or the task is over: then nothing is written. `job_id` is
    the job through which the task waits again, None where it does not.
    """
    query = sql.SQL(
        "update task set status = %(status)s, output = %(output)s, error = %(error)s,"
        " error_detail = %(error_detail)s, job_id = %(job_id)s, worker = null,"
        " interruptions = interruptions + %(interruption)s,"
        " progress = case %(status)s when 'completed' then 1 when 'pending' then 0"
        " else progress end,"
        " started_at = case %(status)s when 'pending' then null else started_at end,"
        " completed_at = case %(status)s when 'pending' then null else clock_timestamp() end"
        " where id = %(id)s and attempt = %(attempt)s and status in ('pending', 'running')"
        " returning {columns}"
    ).format(columns=_COLUMNS)
    row = await conn.execute(
        query,
        {
            "id": task_id,
            "attempt": attempt,
            "status": decision.status.value,
            "output": Jsonb(asdict(decision.output)) if decision.output else None,
            "error": decision.error,
            "error_detail": Jsonb(asdict(decision.error_detail)) if decision.error_detail else None,
            "job_id": job_id,
            "interruption": 0 if decision.spends_attempt else 1,
        },
    )
    found = await row.fetchone()
    return _task(found) if found else None


async def mark_cleaned(conn: Connection, task_id: str) -> None:
    """Note that the task's outputs are deleted; its record stays."""
    await conn.execute(
        "update task set cleaned_at = coalesce(cleaned_at, now()),"
        " output = case when output is null then null else '{\"images\": []}'::jsonb end"
        " where id = %s",
        (task_id,),
    )


async def without_job(conn: Connection) -> list[str]:
    """Return live tasks whose job is gone: nothing else would ever run them. Uses task_live.

    Tasks that another process is deciding on at this moment are skipped.
    """
    rows = await conn.execute(
        "select task.id from task left join procrastinate_jobs job on job.id = task.job_id"
        " where task.status in ('pending', 'running') and (job.id is null"
        " or job.status not in ('todo', 'doing')) limit 100 for update of task skip locked"
    )
    return [row["id"] for row in await rows.fetchall()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which tasks a list shows; None means any. `search` is the beginning of an id."""

    status: Sequence[str] = ()
    type: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    search: str | None = None


async def list_page(
    conn: Connection,
    *,
    tenant: str,
    wanted: Filter,
    sort_by: SortField,
    descending: bool,
    limit: int,
    offset: int,
) -> tuple[list[Task], int]:
    """Return one page of the tenant's tasks and how many there are in all. Uses task_by_tenant."""
    conditions = [sql.SQL("tenant = %(tenant)s")]
    if wanted.status:
        conditions.append(sql.SQL("status = any(%(status)s)"))
    if wanted.type is not None:
        conditions.append(sql.SQL("type = %(type)s"))
    if wanted.created_after is not None:
        conditions.append(sql.SQL("created_at > %(created_after)s"))
    if wanted.created_before is not None:
        conditions.append(sql.SQL("created_at < %(created_before)s"))
    if wanted.search is not None:
        conditions.append(sql.SQL("starts_with(id, %(search)s)"))
    values = {
        "tenant": tenant,
        "status": list(wanted.status),
        "type": wanted.type,
        "created_after": wanted.created_after,
        "created_before": wanted.created_before,
        "search": wanted.search,
        "limit": limit,
        "offset": offset,
    }
    where = sql.SQL(" and ").join(conditions)
    order = sql.SQL("{field} {direction} nulls last, id {direction}").format(
        field=sql.Identifier(sort_by), direction=sql.SQL("desc" if descending else "asc")
    )
    total = await conn.execute(
        sql.SQL("select count(*) as n from task where {}").format(where), values
    )
    count = one(await total.fetchone())["n"]
    page = sql.SQL(
        "select {columns} from task where {where} order by {order}"
        " limit %(limit)s offset %(offset)s"
    ).format(columns=_COLUMNS, where=where, order=order)
    rows = await conn.execute(page, values)
    return [_task(row) for row in await rows.fetchall()], count


async def count_live(conn: Connection) -> dict[str, dict[str, int]]:
    """Return how many tasks are pending and running, by task type. Uses task_live."""
    rows = await conn.execute(
        "select type, status, count(*) as n from task where status in ('pending', 'running')"
        " group by type, status"
    )
    counts: dict[str, dict[str, int]] = {}
    for row in await rows.fetchall():
        counts.setdefault(row["type"], {})[row["status"]] = row["n"]
    return counts


def _task(row: dict[str, Any]) -> Task:
    output = row["output"]
    detail = row["error_detail"]
    return Task(
        **{
            **row,
            "status": Status(row["status"]),
            "output": Output(images=tuple(OutputImage(**image) for image in output["images"]))
            if output is not None
            else None,
            "error_detail": ErrorDetail(**detail) if detail is not None else None,
        }
    )
