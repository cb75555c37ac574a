"""Workflows and their runs: create, start, read, list."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from imageloom.core.advance import advance
from imageloom.core.announce import announce_start
from imageloom.core.idempotency import Idempotency, earlier_use, remember_use
from imageloom.core.models import read_catalog
from imageloom.core.plan import check_plan
from imageloom.core.services import Services
from imageloom.domain.errors import Conflict, NotFound
from imageloom.domain.ids import new_id
from imageloom.domain.workflow import Draft, Run, RunStatus, Step, StepSpec, Workflow
from imageloom.store import runs, tasks
from imageloom.store.pool import Connection, transaction
from imageloom.store.runs import Tally, WorkflowFilter, WorkflowSort
from imageloom.store.tasks import TaskBrief


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowState:
    """A workflow, one of its runs, and how every step of it stands.

    `tallies` are by the position of a step that has tasks. `tasks` are None in lists.
    """

    workflow: Workflow
    run: Run
    steps: list[Step]
    tallies: dict[int, Tally]
    tasks: list[TaskBrief] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInput:
    """What a run starts with. `inputs` are the storage keys of those values that are our files."""

    values: dict[str, Any]
    inputs: dict[str, str]
    cache: bool = True


async def create(
    services: Services,
    draft: Draft,
    *,
    tenant: str,
    start_with: RunInput | None = None,
    idempotency_use: Idempotency | None = None,
) -> WorkflowState:
    """Return a new workflow, started where `start_with` says with what.

    Or the workflow that the idempotency key made before.
    Raises: InvalidWorkflow, naming the step and the field; IdempotencyMismatch.
    """
    async with transaction(services.pool) as conn:
        if idempotency_use is not None:
            earlier = await earlier_use(conn, tenant, idempotency_use)
            if earlier is not None:
                return await read_in(conn, earlier, tenant=tenant)
        if start_with is None:
            await _check(services, conn, draft.steps, draft.input, tenant=tenant)
        workflow = await runs.insert_workflow(
            conn, workflow_id=_new_id("wf"), tenant=tenant, draft=draft
        )
        run = await runs.insert_run(conn, run_id=_new_id("run"), workflow=workflow)
        if start_with is not None:
            await _begin(services, conn, workflow, run, start_with)
        if idempotency_use is not None:
            await remember_use(conn, tenant, idempotency_use, workflow.id)
        return await read_in(conn, workflow.id, tenant=tenant)


async def start(
    services: Services, workflow_id: str, *, tenant: str, start_with: RunInput
) -> WorkflowState:
    """Start the workflow's run, once: asking again with the same input changes nothing.

    Raises: NotFound; Conflict where it is cancelled or was started with another input;
    InvalidWorkflow where the input does not fit the steps.
    """
    async with transaction(services.pool) as conn:
        workflow = await _lock(conn, workflow_id, tenant=tenant)
        latest = await latest_run(conn, workflow_id, tenant=tenant)
        run = await runs.lock_run(conn, latest.id)
        if run.status is RunStatus.CREATED:
            await _begin(services, conn, workflow, run, start_with)
        elif run.status is RunStatus.CANCELLED:
            raise Conflict("the workflow is cancelled; run it again with POST /workflows/{id}/runs")
        elif run.input != start_with.values:
            raise Conflict(
                "the workflow was started with another input; "
                "run it again with POST /workflows/{id}/runs"
            )
        return await read_in(conn, workflow_id, tenant=tenant)


async def run_again(
    services: Services,
    workflow_id: str,
    *,
    tenant: str,
    start_with: RunInput,
    idempotency_use: Idempotency | None = None,
) -> WorkflowState:
    """Start another run of the workflow, whatever became of those before it.

    Raises: NotFound; InvalidWorkflow where the input does not fit the steps; IdempotencyMismatch.
    """
    async with transaction(services.pool) as conn:
        if idempotency_use is not None:
            earlier = await earlier_use(conn, tenant, idempotency_use)
            if earlier is not None:
                return await read_in(conn, workflow_id, tenant=tenant, run_id=earlier)
        workflow = await _lock(conn, workflow_id, tenant=tenant)
        latest = await latest_run(conn, workflow_id, tenant=tenant)
        run = await runs.lock_run(conn, latest.id)
        if run.status is not RunStatus.CREATED:
            run = await runs.insert_run(conn, run_id=_new_id("run"), workflow=workflow)
        await _begin(services, conn, workflow, run, start_with)
        if idempotency_use is not None:
            await remember_use(conn, tenant, idempotency_use, run.id)
        return await read_in(conn, workflow_id, tenant=tenant, run_id=run.id)


async def get_workflow(services: Services, workflow_id: str, *, tenant: str) -> Workflow:
    """Return what the user wrote. Raises: NotFound, also where it is another tenant's."""
    async with transaction(services.pool) as conn:
        return await find_workflow(conn, workflow_id, tenant=tenant)


async def read(
    services: Services, workflow_id: str, *, tenant: str, run_id: str | None = None
) -> WorkflowState:
    """Return the workflow with that run of it, else its latest. Raises: NotFound."""
    async with transaction(services.pool) as conn:
        return await read_in(conn, workflow_id, tenant=tenant, run_id=run_id)


async def read_in(
    conn: Connection, workflow_id: str, *, tenant: str, run_id: str | None = None
) -> WorkflowState:
    """Do what `read` does inside the caller's transaction."""
    workflow = await find_workflow(conn, workflow_id, tenant=tenant)
    run = await find_run(conn, workflow_id, tenant=tenant, run_id=run_id)
    tallies = await runs.tallies(conn, [run.id])
    return WorkflowState(
        workflow=workflow,
        run=run,
        steps=await runs.list_steps(conn, run.id),
        tallies={position: tally for (_, position), tally in tallies.items()},
        tasks=await tasks.briefs_of_run(conn, run.id),
    )


async def list_workflows(
    services: Services,
    *,
    tenant: str | None,
    wanted: WorkflowFilter,
    sort_by: WorkflowSort,
    descending: bool,
    page: int,
    page_size: int,
) -> tuple[list[WorkflowState], int]:
    """Return one page of the tenant's workflows with their latest runs, and how many there are.

    Of everybody's where the tenant is None.
    """
    async with transaction(services.pool) as conn:
        found, total = await runs.list_workflows(
            conn,
            tenant=tenant,
            wanted=wanted,
            sort_by=sort_by,
            descending=descending,
            limit=page_size,
            offset=(page - 1) * page_size,
        )
        return await _states(conn, found), total


async def list_runs(
    services: Services, workflow_id: str, *, tenant: str, page: int, page_size: int
) -> tuple[list[WorkflowState], int]:
    """Return one page of a workflow's runs, newest first, and how many there are.

    Raises: NotFound.
    """
    async with transaction(services.pool) as conn:
        workflow = await find_workflow(conn, workflow_id, tenant=tenant)
        found, total = await runs.list_runs(
            conn, workflow_id, tenant=tenant, limit=page_size, offset=(page - 1) * page_size
        )
        return await _states(conn, [(workflow, run) for run in found]), total


async def find_workflow(conn: Connection, workflow_id: str, *, tenant: str) -> Workflow:
    """Return the tenant's workflow. Raises: NotFound."""
    workflow = await runs.get_workflow(conn, workflow_id, tenant=tenant)
    if workflow is None:
        raise NotFound(f"there is no workflow {workflow_id}")
    return workflow


async def find_run(conn: Connection, workflow_id: str, *, tenant: str, run_id: str | None) -> Run:
    """Return that run of the workflow, its latest where none is named. Raises: NotFound."""
    if run_id is None:
        return await latest_run(conn, workflow_id, tenant=tenant)
    run = await runs.get_run(conn, run_id, tenant=tenant)
    if run is None or run.workflow_id != workflow_id:
        raise NotFound(f"the workflow {workflow_id} has no run {run_id}")
    return run


async def latest_run(conn: Connection, workflow_id: str, *, tenant: str) -> Run:
    """Return the workflow's latest run. Raises: NotFound where there is no such workflow."""
    run = await runs.latest_run(conn, workflow_id, tenant=tenant)
    if run is None:
        raise NotFound(f"there is no workflow {workflow_id}")
    return run


async def _lock(conn: Connection, workflow_id: str, *, tenant: str) -> Workflow:
    workflow = await runs.lock_workflow(conn, workflow_id, tenant=tenant)
    if workflow is None:
        raise NotFound(f"there is no workflow {workflow_id}")
    return workflow


async def _begin(
    services: Services, conn: Connection, workflow: Workflow, run: Run, start_with: RunInput
) -> None:
    tenant = workflow.tenant
    await _check(services, conn, workflow.steps, start_with.values, tenant=tenant)
    begun = await runs.begin_run(
        conn,
        run.id,
        input_values=start_with.values,
        inputs=start_with.inputs,
        cache=start_with.cache,
    )
    await announce_start(conn, begun)
    await advance(services, conn, begun)


async def _check(
    services: Services,
    conn: Connection,
    steps: Sequence[StepSpec],
    values: dict[str, Any] | None,
    *,
    tenant: str,
) -> None:
    catalog = await read_catalog(conn, tenant=tenant)
    check_plan(steps, input_values=values, catalog=catalog, settings=services.settings)


async def _states(conn: Connection, found: Sequence[tuple[Workflow, Run]]) -> list[WorkflowState]:
    run_ids = [run.id for _, run in found]
    steps = await runs.steps_of_runs(conn, run_ids)
    tallies = await runs.tallies(conn, run_ids)
    return [
        WorkflowState(
            workflow=workflow,
            run=run,
            steps=steps[run.id],
            tallies={
                position: tally for (run_id, position), tally in tallies.items() if run_id == run.id
            },
        )
        for workflow, run in found
    ]


def _new_id(prefix: str) -> str:
    return new_id(prefix, now_ms=time.time_ns() // 1_000_000)
