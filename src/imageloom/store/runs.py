"""Every query about workflows, their runs and the steps of a run."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from psycopg import sql
from psycopg.types.json import Jsonb

from imageloom.domain.tasks import OutputImage
from imageloom.domain.workflow import Draft, Run, RunStatus, Step, StepSpec, StepStatus, Workflow
from imageloom.store.outbox import webhook_from
from imageloom.store.pool import Connection, one

WorkflowSort = Literal["created_at", "name", "status"]

_RUN = sql.SQL(
    "run.id, run.workflow_id, run.tenant, run.number, run.status, run.held, run.input, run.inputs,"
    " run.cache, run.error, run.created_at, run.started_at, run.completed_at, run.cleaned_at,"
    " run.webhook"
)
_STEP = sql.SQL("position, spec, status, output, error, deadline, started_at, completed_at")


async def insert_workflow(
    conn: Connection, *, workflow_id: str, tenant: str, draft: Draft
) -> Workflow:
    """Add a workflow and return it."""
    row = await conn.execute(
        "insert into workflow"
        " (id, tenant, name, description, origin_instance, steps, input, webhook)"
        " values (%s, %s, %s, %s, %s, %s, %s, %s) returning *",
        (
            workflow_id,
            tenant,
            draft.name,
            draft.description,
            draft.origin_instance,
            Jsonb([asdict(step) for step in draft.steps]),
            Jsonb(draft.input) if draft.input is not None else None,
            Jsonb(asdict(draft.webhook)) if draft.webhook is not None else None,
        ),
    )
    return _workflow(one(await row.fetchone()))


async def get_workflow(conn: Connection, workflow_id: str, *, tenant: str) -> Workflow | None:
    """Return the tenant's workflow, or None where it has none of that id."""
    row = await conn.execute(
        "select * from workflow where id = %s and tenant = %s", (workflow_id, tenant)
    )
    found = await row.fetchone()
    return _workflow(found) if found else None


async def owner(conn: Connection, workflow_id: str) -> str | None:
    """Return whose workflow it is, None where there is none. Uses the primary key."""
    row = await conn.execute("select tenant from workflow where id = %s", (workflow_id,))
    found = await row.fetchone()
    return found["tenant"] if found else None


async def lock_workflow(conn: Connection, workflow_id: str, *, tenant: str) -> Workflow | None:
    """Return the workflow and hold its row: its runs are numbered one after the other."""
    row = await conn.execute(
        "select * from workflow where id = %s and tenant = %s for update", (workflow_id, tenant)
    )
    found = await row.fetchone()
    return _workflow(found) if found else None


async def insert_run(conn: Connection, *, run_id: str, workflow: Workflow) -> Run:
    """Add a run in state `created` with a copy of every step; the workflow's row must be held."""
    query = sql.SQL(
        "insert into run (id, workflow_id, tenant, webhook, number)"
        " select %(id)s, %(workflow)s, %(tenant)s, %(webhook)s::jsonb,"
        " coalesce(max(number), 0) + 1 from run where workflow_id = %(workflow)s returning {run}"
    ).format(run=_RUN)
    row = await conn.execute(
        query,
        {
            "id": run_id,
            "workflow": workflow.id,
            "tenant": workflow.tenant,
            "webhook": Jsonb(asdict(workflow.webhook)) if workflow.webhook is not None else None,
        },
    )
    run = _run(one(await row.fetchone()))
    await conn.execute(
        "insert into step (run_id, position, spec)"
        " select %s, position - 1, spec from jsonb_array_elements(%s)"
        " with ordinality as new (spec, position)",
        (run_id, Jsonb([asdict(step) for step in workflow.steps])),
    )
    return run


async def latest_run(conn: Connection, workflow_id: str, *, tenant: str) -> Run | None:
    """Return the workflow's run with the highest number."""
    query = sql.SQL(
        "select {run} from run where workflow_id = %s and tenant = %s order by number desc limit 1"
    ).format(run=_RUN)
    row = await conn.execute(query, (workflow_id, tenant))
    found = await row.fetchone()
    return _run(found) if found else None


async def get_run(conn: Connection, run_id: str, *, tenant: str) -> Run | None:
    """Return the tenant's run, or None where it has none of that id."""
    query = sql.SQL("select {run} from run where id = %s and tenant = %s").format(run=_RUN)
    row = await conn.execute(query, (run_id, tenant))
    found = await row.fetchone()
    return _run(found) if found else None


async def lock_run(conn: Connection, run_id: str) -> Run:
    """Return a run that exists and hold its row until the transaction ends.

    Everything that moves its graph holds it: joins are decided one after the other.
    """
    query = sql.SQL("select {run} from run where id = %s for update").format(run=_RUN)
    row = await conn.execute(query, (run_id,))
    return _run(one(await row.fetchone()))


async def begin_run(
    conn: Connection,
    run_id: str,
    *,
    input_values: dict[str, Any],
    inputs: dict[str, str],
    cache: bool,
) -> Run:
    """Note what a run is started with, and that it runs."""
    query = sql.SQL(
        "update run set status = 'running', input = %s, inputs = %s, cache = %s,"
        " started_at = clock_timestamp() where id = %s and status = 'created' returning {run}"
    ).format(run=_RUN)
    row = await conn.execute(query, (Jsonb(input_values), Jsonb(inputs), cache, run_id))
    return _run(one(await row.fetchone()))


async def write_run_status(
    conn: Connection,
    run_id: str,
    status: RunStatus,
    *,
    held: bool = False,
    error: str | None = None,
) -> Run:
    """Write how a run stands, and return it."""
    query = sql.SQL(
        "update run set status = %(status)s, held = %(held)s, error = %(error)s,"
        " completed_at = case when %(over)s then clock_timestamp() end"
        " where id = %(id)s returning {run}"
    ).format(run=_RUN)
    row = await conn.execute(
        query,
        {"id": run_id, "status": status.value, "held": held, "error": error, "over": status.over},
    )
    return _run(one(await row.fetchone()))


async def mark_run_cleaned(conn: Connection, run_id: str) -> None:
    """Note that a run's outputs are deleted; its record stays."""
    await conn.execute(
        "update run set cleaned_at = coalesce(cleaned_at, now()) where id = %s", (run_id,)
    )
    await conn.execute(
        "update step set output = '[]' where run_id = %s and output is not null", (run_id,)
    )


async def lock_runs(conn: Connection, workflow_id: str, *, tenant: str) -> list[Run]:
    """Return all runs of a workflow, in order, and hold their rows."""
    query = sql.SQL(
        "select {run} from run where workflow_id = %s and tenant = %s order by number for update"
    ).format(run=_RUN)
    rows = await conn.execute(query, (workflow_id, tenant))
    return [_run(row) for row in await rows.fetchall()]


async def list_runs(
    conn: Connection, workflow_id: str, *, tenant: str, limit: int, offset: int
) -> tuple[list[Run], int]:
    """Return one page of a workflow's runs, newest first, and how many there are."""
    count = await conn.execute(
        "select count(*) as n from run where workflow_id = %s and tenant = %s",
        (workflow_id, tenant),
    )
    total = one(await count.fetchone())["n"]
    query = sql.SQL(
        "select {run} from run where workflow_id = %s and tenant = %s"
        " order by number desc limit %s offset %s"
    ).format(run=_RUN)
    rows = await conn.execute(query, (workflow_id, tenant, limit, offset))
    return [_run(row) for row in await rows.fetchall()], total


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowFilter:
    """Which workflows a list shows; None means any. `search` begins an id or is part of a name."""

    status: Sequence[str] = ()
    created_after: datetime | None = None
    created_before: datetime | None = None
    search: str | None = None


async def list_workflows(
    conn: Connection,
    *,
    tenant: str | None,
    wanted: WorkflowFilter,
    sort_by: WorkflowSort,
    descending: bool,
    limit: int,
    offset: int,
) -> tuple[list[tuple[Workflow, Run]], int]:
    """Return one page of the tenant's workflows with their latest runs, and how many there are.

    Of everybody's where the tenant is None. Uses workflow_by_tenant or workflow_by_age.
    """
    conditions = [sql.SQL("true")]
    if tenant is not None:
        conditions.append(sql.SQL("workflow.tenant = %(tenant)s"))
    if wanted.status:
        conditions.append(sql.SQL("run.status = any(%(status)s)"))
    if wanted.created_after is not None:
        conditions.append(sql.SQL("workflow.created_at > %(created_after)s"))
    if wanted.created_before is not None:
        conditions.append(sql.SQL("workflow.created_at < %(created_before)s"))
    if wanted.search is not None:
        conditions.append(
            sql.SQL(
                "(starts_with(workflow.id, %(search)s)"
                " or position(lower(%(search)s) in lower(workflow.name)) > 0)"
            )
        )
    values = {
        "tenant": tenant,
        "status": list(wanted.status),
        "created_after": wanted.created_after,
        "created_before": wanted.created_before,
        "search": wanted.search,
        "limit": limit,
        "offset": offset,
    }
    source = sql.SQL(
        " from workflow join lateral (select * from run where run.workflow_id = workflow.id"
        " order by number desc limit 1) run on true where {}"
    ).format(sql.SQL(" and ").join(conditions))
    count = await conn.execute(sql.SQL("select count(*) as n") + source, values)
    total = one(await count.fetchone())["n"]
    order = sql.SQL(" order by {table}.{field} {direction}, workflow.id {direction}").format(
        table=sql.Identifier("run" if sort_by == "status" else "workflow"),
        field=sql.Identifier(sort_by),
        direction=sql.SQL("desc" if descending else "asc"),
    )
    rows = await conn.execute(
        sql.SQL("select to_jsonb(workflow) - 'created_at' as workflow,")
        + sql.SQL(" workflow.created_at as written_at, {run}").format(run=_RUN)
        + source
        + order
        + sql.SQL(" limit %(limit)s offset %(offset)s"),
        values,
    )
    page = []
    for row in await rows.fetchall():
        written = {**row.pop("workflow"), "created_at": row.pop("written_at")}
        page.append((_workflow(written), _run(row)))
    return page, total


async def list_steps(conn: Connection, run_id: str) -> list[Step]:
    """Return a run's steps in the order of the definition. Uses the primary key."""
    query = sql.SQL("select {step} from step where run_id = %s order by position").format(
        step=_STEP
    )
    rows = await conn.execute(query, (run_id,))
    return [_step(row) for row in await rows.fetchall()]


async def steps_of_runs(conn: Connection, run_ids: Sequence[str]) -> dict[str, list[Step]]:
    """Return the steps of several runs, in order."""
    query = sql.SQL(
        "select run_id, {step} from step where run_id = any(%s) order by run_id, position"
    ).format(step=_STEP)
    rows = await conn.execute(query, (list(run_ids),))
    found: dict[str, list[Step]] = {run_id: [] for run_id in run_ids}
    for row in await rows.fetchall():
        found[row.pop("run_id")].append(_step(row))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What the tasks of one step come to. `progress` is their mean, 0 to 1."""

    progress: float
    cache: Literal["hit", "miss"] | None
    seconds_saved: float | None


async def tallies(conn: Connection, run_ids: Sequence[str]) -> dict[tuple[str, int], Tally]:
    """Return the tally of every step that has tasks, by run and position. Uses task_of_step."""
    rows = await conn.execute(
        "select run_id, step, avg(progress)::float8 as progress,"
        " count(*) filter (where output ->> 'cache' = 'hit') as hits,"
        " count(output ->> 'cache') as looked_for, count(*) as n,"
        " sum((output ->> 'seconds_saved')::float8) as seconds_saved"
        " from task where run_id = any(%s) and not replaced group by run_id, step",
        (list(run_ids),),
    )
    found = {}
    for row in await rows.fetchall():
        cache: Literal["hit", "miss"] | None = None
        if row["looked_for"]:
            cache = "hit" if row["hits"] == row["n"] else "miss"
        found[row["run_id"], row["step"]] = Tally(
            progress=row["progress"], cache=cache, seconds_saved=row["seconds_saved"]
        )
    return found


async def write_step(
    conn: Connection,
    run_id: str,
    position: int,
    status: StepStatus,
    *,
    images: Sequence[OutputImage] | None = None,
    error: str | None = None,
    wait: timedelta | None = None,
) -> None:
    """Write how a step stands; `wait` is how long an approval waits at most."""
    await conn.execute(
        "update step set status = %(status)s, output = %(output)s, error = %(error)s,"
        " deadline = now() + %(wait)s,"
        " started_at = case when %(status)s = 'pending' then null"
        " when %(status)s = 'skipped' then started_at"
        " else coalesce(started_at, clock_timestamp()) end,"
        " completed_at = case when %(over)s then clock_timestamp() end"
        " where run_id = %(run)s and position = %(position)s",
        {
            "run": run_id,
            "position": position,
            "status": status.value,
            "output": None if images is None else Jsonb([asdict(image) for image in images]),
            "error": error,
            "wait": wait,
            "over": status.over,
        },
    )


async def write_specs(conn: Connection, run_id: str, specs: Iterable[tuple[int, StepSpec]]) -> None:
    """Replace what some steps of one run say, as an edit asks for."""
    for position, spec in specs:
        await conn.execute(
            "update step set spec = %s where run_id = %s and position = %s",
            (Jsonb(asdict(spec)), run_id, position),
        )


async def overdue_approvals(conn: Connection) -> list[str]:
    """Return the runs in which an approval has waited for too long. Uses step_deadline."""
    rows = await conn.execute(
        "select distinct step.run_id from step join run on run.id = step.run_id"
        " where step.status = 'paused' and step.deadline <= now() and not run.held limit 100"
    )
    return [row["run_id"] for row in await rows.fetchall()]


async def is_overdue(conn: Connection, run_id: str, position: int) -> bool:
    """Whether a waiting approval's time is over, by the database's clock."""
    row = await conn.execute(
        "select 1 from step where run_id = %s and position = %s and status = 'paused'"
        " and deadline <= now()",
        (run_id, position),
    )
    return await row.fetchone() is not None


def _workflow(row: dict[str, Any]) -> Workflow:
    return Workflow(
        **{
            **row,
            "steps": tuple(_spec(step) for step in row["steps"]),
            "webhook": webhook_from(row["webhook"]),
        }
    )


def _run(row: dict[str, Any]) -> Run:
    return Run(
        **{**row, "status": RunStatus(row["status"]), "webhook": webhook_from(row["webhook"])}
    )


def _step(row: dict[str, Any]) -> Step:
    output = row.pop("output")
    return Step(
        **{
            **row,
            "spec": _spec(row["spec"]),
            "status": StepStatus(row["status"]),
            "images": None if output is None else tuple(OutputImage(**image) for image in output),
        }
    )


def _spec(stored: dict[str, Any]) -> StepSpec:
    return StepSpec(**{**stored, "depends_on": tuple(stored["depends_on"])})
