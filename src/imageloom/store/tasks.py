"""Every query about tasks. Time is the database's; a worker's write carries its attempt number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal

from psycopg import sql
from psycopg.types.json import Jsonb

from imageloom.domain.receipts import OutputRef, Receipt, Reproduction
from imageloom.domain.retry import Decision
from imageloom.domain.tasks import (
    AdapterFile,
    ErrorDetail,
    NewTask,
    Output,
    OutputImage,
    Preview,
    Status,
    Task,
)
from imageloom.store.outbox import webhook_from
from imageloom.store.pool import Connection, one

# A live task without a job that would run it; a held run's pending tasks are meant to have none.
_WITHOUT_JOB: Final = (
    "select task.id from task left join procrastinate_jobs job on job.id = task.job_id"
    " left join run on run.id = task.run_id"
    " where task.status in ('pending', 'running')"
    " and (job.id is null or job.status not in ('todo', 'doing'))"
    " and not (task.status = 'pending' and task.job_id is null and coalesce(run.held, false))"
)

SortField = Literal["created_at", "started_at", "completed_at", "status", "type", "progress"]

_COLUMNS = sql.SQL(
    "id, tenant, type, status, params, inputs, priority, attempt, interruptions, max_attempts,"
    " worker, job_id, progress, output, error, error_detail,"
    " created_at, started_at, completed_at, cleaned_at,"
    " workflow_id, run_id, step, step_name, item, backoff_seconds, cache_base, reproduces, retries,"
    " previews, webhook, traceparent, pace, units"
)


async def insert(conn: Connection, new: Sequence[NewTask]) -> list[Task]:
    """Add pending tasks without jobs and return them in the same order. One statement."""
    query = sql.SQL(
        "insert into task (id, tenant, type, params, inputs, priority, max_attempts,"
        " workflow_id, run_id, step, step_name, item, backoff_seconds, cache_base, reproduces,"
        " retries, webhook, traceparent, pace, units)"
        " select id, tenant, type, params, inputs, priority, max_attempts,"
        " workflow_id, run_id, step, step_name, item, backoff_seconds, cache_base, reproduces,"
        " retries, webhook, traceparent, pace, units from jsonb_to_recordset(%s)"
        " as new (id text, tenant text, type text, params jsonb, inputs jsonb,"
        " priority integer, max_attempts integer, workflow_id text, run_id text,"
        " step integer, step_name text, item integer, backoff_seconds double precision,"
        " cache_base text, reproduces jsonb, retries text, webhook jsonb,"
        " traceparent text, pace text, units double precision)"
        " returning {columns}"
    ).format(columns=_COLUMNS)
    rows = await conn.execute(query, (Jsonb([asdict(task) for task in new]),))
    made = {row["id"]: _task(row) for row in await rows.fetchall()}
    return [made[task.id] for task in new]


async def remember_jobs(conn: Connection, jobs: Mapping[str, int]) -> None:
    """Note the jobs through which tasks wait, by task id."""
    await conn.execute(
        "update task set job_id = new.job_id"
        " from unnest(%s::text[], %s::bigint[]) as new (id, job_id) where task.id = new.id",
        (list(jobs), list(jobs.values())),
    )


async def forget_jobs(conn: Connection, run_id: str) -> list[int]:
    """Take a run's pending tasks out of the queue and return their jobs, for the caller to cancel.

    What a worker has fetched but not yet claimed is among them: it has then no right to claim.
    """
    rows = await conn.execute(
        "update task set job_id = null from (select id, job_id from task where run_id = %s"
        " and status = 'pending' and job_id is not null for update) as waiting"
        " where task.id = waiting.id returning waiting.job_id",
        (run_id,),
    )
    return [row["job_id"] for row in await rows.fetchall()]


async def pending_without_job(conn: Connection, run_id: str) -> list[Task]:
    """Return a run's pending tasks that a pause took out of the queue, in order of their making."""
    query = sql.SQL(
        "select {columns} from task where run_id = %s and status = 'pending' and job_id is null"
        " and not replaced order by step, item"
    ).format(columns=_COLUMNS)
    rows = await conn.execute(query, (run_id,))
    return [_task(row) for row in await rows.fetchall()]


async def list_of_run(conn: Connection, run_id: str, *, step: int | None = None) -> list[Task]:
    """Return the tasks of a run or of one of its steps, one per item. Uses task_of_step."""
    query = sql.SQL(
        "select {columns} from task where run_id = %(run)s and not replaced"
        " and (%(step)s::integer is null or step = %(step)s) order by step, item"
    ).format(columns=_COLUMNS)
    rows = await conn.execute(query, {"run": run_id, "step": step})
    return [_task(row) for row in await rows.fetchall()]


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskBrief:
    """What a workflow says of one of its tasks. `step` is the position of its step."""

    id: str
    step: int
    status: Status
    progress: float
    error: str | None


async def briefs_of_run(conn: Connection, run_id: str) -> list[TaskBrief]:
    """Return the tasks of a run in brief, one per item, in order. Uses task_of_step."""
    rows = await conn.execute(
        "select id, step, status, progress, error from task"
        " where run_id = %s and not replaced order by step, item",
        (run_id,),
    )
    return [TaskBrief(**{**row, "status": Status(row["status"])}) for row in await rows.fetchall()]


async def has_live(conn: Connection, run_id: str, step: int) -> bool:
    """Whether a task of the step has not ended. Uses task_live_of_step."""
    row = await conn.execute(
        "select 1 from task where run_id = %s and step = %s"
        " and status in ('pending', 'running') limit 1",
        (run_id, step),
    )
    return await row.fetchone() is not None


async def lock_live_of_run(conn: Connection, run_id: str) -> list[Task]:
    """Return a run's pending and running tasks and hold their rows."""
    query = sql.SQL(
        "select {columns} from task where run_id = %s and status in ('pending', 'running')"
        " order by id for update"
    ).format(columns=_COLUMNS)
    rows = await conn.execute(query, (run_id,))
    return [_task(row) for row in await rows.fetchall()]


@dataclass(frozen=True, slots=True, kw_only=True)
class Withdrawn:
    """A task that was cancelled while it waited, and the job through which it did."""

    id: str
    type: str
    tenant: str
    attempt: int
    job_id: int | None


async def cancel_pending_of_run(conn: Connection, run_id: str) -> list[Withdrawn]:
    """Cancel a run's pending tasks and return them, for the caller to cancel their jobs too.

    Not those with a webhook of their own, which have something to tell.
    """
    rows = await conn.execute(
        "update task set status = 'cancelled', job_id = null, completed_at = clock_timestamp()"
        " from (select id, job_id from task where run_id = %s and status = 'pending'"
        " and webhook is null for update)"
        " as waiting where task.id = waiting.id"
        " returning task.id, type, tenant, attempt, waiting.job_id",
        (run_id,),
    )
    return [Withdrawn(**row) for row in await rows.fetchall()]


async def mark_run_cleaned(conn: Connection, run_id: str) -> list[str]:
    """Note that the outputs of a run's tasks are deleted, and return the ids of all its tasks."""
    rows = await conn.execute(
        "update task set cleaned_at = coalesce(cleaned_at, now()),"
        " output = case when output is null then null else '{\"images\": []}'::jsonb end"
        " where run_id = %s returning id",
        (run_id,),
    )
    return [row["id"] for row in await rows.fetchall()]


async def mark_replaced(conn: Connection, task_ids: Sequence[str]) -> None:
    """Make way for new tasks at the items of these; they stay on record."""
    await conn.execute("update task set replaced = true where id = any(%s)", (list(task_ids),))


async def find_cached(
    conn: Connection, *, tenant: str, cache_key: str
) -> tuple[Output, float] | None:
    """Return what the tenant's latest task of that key made, and the seconds that it took.

    Only what was computed counts, and only while it is not deleted. Uses task_cached.
    """
    row = await conn.execute(
        "select output, extract(epoch from completed_at - started_at)::float8 as seconds from task"
        " where tenant = %s and output ->> 'cache_key' = %s and output ->> 'cache' = 'miss'"
        " order by completed_at desc limit 1",
        (tenant, cache_key),
    )
    found = await row.fetchone()
    return (_output(found["output"]), found["seconds"]) if found else None


async def get(conn: Connection, task_id: str, *, tenant: str) -> Task | None:
    """Return the tenant's task, or None where it has none of that id."""
    query = sql.SQL("select {columns} from task where id = %s and tenant = %s")
    row = await conn.execute(query.format(columns=_COLUMNS), (task_id, tenant))
    found = await row.fetchone()
    return _task(found) if found else None


async def lock(conn: Connection, task_id: str) -> Task | None:
    """Return the task and hold its row until the transaction ends, so that decisions on it last.

    Its run, where it has one, is held too, and first: whoever ends a task may move the graph, and
    two who took the rows in different orders would wait for one another.
    """
    await conn.execute(
        "select 1 from run where id = (select run_id from task where id = %s) for update",
        (task_id,),
    )
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
        " progress = 0, previews = null, started_at = clock_timestamp()"
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


async def write_previews(
    conn: Connection, task_id: str, *, attempt: int, previews: Sequence[Preview]
) -> bool:
    """Name the previews of a running attempt; False where the attempt is no longer that one."""
    cursor = await conn.execute(
        "update task set previews = %(previews)s"
        " where id = %(id)s and status = 'running' and attempt = %(attempt)s",
        {
            "id": task_id,
            "attempt": attempt,
            "previews": Jsonb([asdict(preview) for preview in previews]),
        },
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
        " error_detail = %(error_detail)s, job_id = %(job_id)s, worker = null, previews = null,"
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

    Not those that a pause took out of the queue.
    """
    rows = await conn.execute(f"{_WITHOUT_JOB} limit 100")
    return [row["id"] for row in await rows.fetchall()]


async def is_without_job(conn: Connection, task_id: str) -> bool:
    """Whether the job of a live task is gone; ask with the task's row held."""
    row = await conn.execute(f"{_WITHOUT_JOB} and task.id = %s", (task_id,))
    return await row.fetchone() is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filter:
    """Which tasks a list shows; None means any. `search` is the beginning of an id.

    `workflow` is the id of a workflow or of one of its runs.
    """

    status: Sequence[str] = ()
    type: str | None = None
    created_after: datetime | None = None
    created_before: datetime | None = None
    search: str | None = None
    workflow: str | None = None


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
    where, values = conditions(wanted, tenant=tenant)
    values |= {"limit": limit, "offset": offset}
    total = await conn.execute(
        sql.SQL("select count(*) as n from task where {}").format(where), values
    )
    count = one(await total.fetchone())["n"]
    page = sql.SQL(
        "select {columns} from task where {where} order by {order}"
        " limit %(limit)s offset %(offset)s"
    ).format(columns=_COLUMNS, where=where, order=order_by(sort_by, descending=descending))
    rows = await conn.execute(page, values)
    return [_task(row) for row in await rows.fetchall()], count


def conditions(wanted: Filter, *, tenant: str | None) -> tuple[sql.Composable, dict[str, Any]]:
    """Return what stands behind `where` for these tasks, of any tenant where None, and its values.

    A single status is compared, not looked for in an array: so an index gives the rows in order.
    """
    found: list[sql.Composable] = [sql.SQL("true")]
    if tenant is not None:
        found.append(sql.SQL("tenant = %(tenant)s"))
    if len(wanted.status) == 1:
        found.append(sql.SQL("status = %(one_status)s"))
    elif wanted.status:
        found.append(sql.SQL("status = any(%(status)s)"))
    if wanted.type is not None:
        found.append(sql.SQL("type = %(type)s"))
    if wanted.created_after is not None:
        found.append(sql.SQL("created_at > %(created_after)s"))
    if wanted.created_before is not None:
        found.append(sql.SQL("created_at < %(created_before)s"))
    if wanted.search is not None:
        found.append(sql.SQL("starts_with(id, %(search)s)"))
    if wanted.workflow is not None:
        found.append(sql.SQL("%(workflow)s in (workflow_id, run_id)"))
    values = {
        "tenant": tenant,
        "status": list(wanted.status),
        "one_status": next(iter(wanted.status), None),
        "type": wanted.type,
        "created_after": wanted.created_after,
        "created_before": wanted.created_before,
        "search": wanted.search,
        "workflow": wanted.workflow,
    }
    return sql.SQL(" and ").join(found), values


def order_by(field: SortField, *, descending: bool) -> sql.Composable:
    """Return what stands behind `order by`; what has no such time comes last.

    That is said only of what may be null: else no index would give the rows in this order.
    """
    nulls = " nulls last" if field in ("started_at", "completed_at") else ""
    return sql.SQL("{field} {direction}{nulls}, id {direction}").format(
        field=sql.Identifier(field),
        direction=sql.SQL("desc" if descending else "asc"),
        nulls=sql.SQL(nulls),
    )


async def owned(conn: Connection, task_ids: Sequence[str], *, tenant: str) -> set[str]:
    """Return those of the tasks that are the tenant's. Uses the primary key."""
    rows = await conn.execute(
        "select id from task where id = any(%s) and tenant = %s", (list(task_ids), tenant)
    )
    return {row["id"] for row in await rows.fetchall()}


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueCount:
    """What waits and runs of one task type.

    `oldest_age` is how many seconds ago the oldest that waits was created, None where none does.
    """

    pending: int = 0
    running: int = 0
    oldest_age: float | None = None


async def count_live(conn: Connection) -> dict[str, QueueCount]:
    """Return what waits and runs, by task type. Uses task_live alone.

    What a pause took out of the queue is pending too, but does not wait.
    """
    rows = await conn.execute(
        "select type, count(*) filter (where status = 'pending') as pending,"
        " count(*) filter (where status = 'running') as running,"
        " extract(epoch from clock_timestamp() - min(created_at)"
        " filter (where status = 'pending' and job_id is not null))::float8 as oldest_age"
        " from task where status in ('pending', 'running') group by type"
    )
    return {row.pop("type"): QueueCount(**row) for row in await rows.fetchall()}


def _output(stored: dict[str, Any]) -> Output:
    adapter, reproduction = stored.get("adapter"), stored.get("reproduction")
    return Output(
        **{
            **stored,
            "images": tuple(OutputImage(**image) for image in stored["images"]),
            "adapter": AdapterFile(**adapter) if adapter else None,
            "receipts": tuple(Receipt.of(receipt) for receipt in stored.get("receipts", ())),
            "reproduction": Reproduction.of(reproduction) if reproduction else None,
        }
    )


def _task(row: dict[str, Any]) -> Task:
    detail = row["error_detail"]
    return Task(
        **{
            **row,
            "status": Status(row["status"]),
            "output": _output(row["output"]) if row["output"] is not None else None,
            "error_detail": ErrorDetail(**detail) if detail is not None else None,
            "previews": tuple(Preview(**each) for each in row["previews"] or ()),
            "reproduces": OutputRef(**row["reproduces"]) if row["reproduces"] else None,
            "webhook": webhook_from(row["webhook"]),
        }
    )
