"""Control: pause, resume, cancel and clean up runs of workflows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from imageloom.core.advance import advance, restart
from imageloom.core.announce import announce_run
from imageloom.core.approval import approval_config, choose
from imageloom.core.models import read_catalog
from imageloom.core.plan import check_plan
from imageloom.core.services import Services
from imageloom.core.settle import cancel_all_in
from imageloom.core.submit import enqueue
from imageloom.core.workflows import WorkflowState, find_run, find_workflow, read_in
from imageloom.domain.errors import Conflict, InvalidParams, RequestError
from imageloom.domain.tasks import Task
from imageloom.domain.workflow import (
    APPROVAL,
    Run,
    RunStatus,
    Step,
    StepStatus,
    candidates_of,
)
from imageloom.storage.keys import output_prefix
from imageloom.store import runs, tasks
from imageloom.store.pool import Connection, transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Edit:
    """New values for parameters of a step, and the storage keys of those that are our files."""

    config: dict[str, Any]
    inputs: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """What a resume says. `select` are indices of candidates, `step` the approval they are for."""

    select: tuple[int, ...] | None = None
    step: str | None = None
    edits: Mapping[str, Edit] = field(default_factory=dict)


async def pause(
    services: Services, workflow_id: str, *, tenant: str, run_id: str | None = None
) -> WorkflowState:
    """Start nothing more of the run; what runs goes on to its end. Repeating it is harmless.

    Raises: NotFound; Conflict where the run was not started or is over.
    """
    async with transaction(services.pool) as conn:
        run = await _lock(conn, workflow_id, tenant=tenant, run_id=run_id)
        if run.status is RunStatus.CREATED or run.status.over:
            raise Conflict(f"the workflow is {run.status.value}; there is nothing to pause")
        if not run.held:
            held = await runs.write_run_status(conn, run.id, RunStatus.PAUSED, held=True)
            if run.status is not RunStatus.PAUSED:
                await announce_run(conn, held)
            await services.queue.cancel_all(conn, await tasks.forget_jobs(conn, run.id))
        return await read_in(conn, workflow_id, tenant=tenant, run_id=run.id)


async def resume(
    services: Services,
    workflow_id: str,
    resumption: Resumption,
    *,
    tenant: str,
    run_id: str | None = None,
) -> WorkflowState:
    """Let a paused run go on, with the choice that an approval waits for, or redo what failed.

    Of a failed run only the pictures that did not complete are made again. Where the run goes on
    already, nothing changes; nor where the named approval has this choice, as when sent again.
    Raises: NotFound; Conflict where nothing can be resumed; InvalidParams and InvalidWorkflow,
    naming the field, where the choice or an edit does not fit.
    """
    async with transaction(services.pool) as conn:
        run = await _lock(conn, workflow_id, tenant=tenant, run_id=run_id)
        steps = await runs.list_steps(conn, run.id)
        if _is_made(steps, resumption):
            return await read_in(conn, workflow_id, tenant=tenant, run_id=run.id)
        if run.status in (RunStatus.CREATED, RunStatus.COMPLETED, RunStatus.CANCELLED):
            hint = "start it" if run.status is RunStatus.CREATED else "run it again"
            raise Conflict(f"the workflow is {run.status.value}; {hint} instead")
        waiting = [step for step in steps if step.status is StepStatus.PAUSED]
        chosen = _approval_of(waiting, resumption)
        if chosen is None and waiting and not run.held:
            raise InvalidParams(
                f"select: is required; {waiting[0].spec.name!r} waits for a choice", param="select"
            )
        if resumption.edits:
            steps = await _edit(services, conn, run, steps, resumption.edits)
        if chosen is not None and resumption.select is not None:
            images = choose(candidates_of(chosen.spec, steps), resumption.select, param="select")
            await runs.write_step(
                conn, run.id, chosen.position, StepStatus.COMPLETED, images=images
            )
        if run.held:
            run = await _release(conn, run)
        if run.status is RunStatus.FAILED:
            run = await _redo(services, conn, run, steps, edited=resumption.edits.keys())
        await advance(services, conn, run)
        return await read_in(conn, workflow_id, tenant=tenant, run_id=run.id)


async def cancel(
    services: Services, workflow_id: str, *, tenant: str, run_id: str | None = None
) -> WorkflowState:
    """Cancel the run and every task of it that is not over. Repeating it is harmless.

    Final when this returns: no task of the run starts any more.
    Raises: NotFound; Conflict where it has completed or failed.
    """
    async with transaction(services.pool) as conn:
        run = await _lock(conn, workflow_id, tenant=tenant, run_id=run_id)
        if run.status in (RunStatus.COMPLETED, RunStatus.FAILED):
            raise Conflict(f"the workflow has {run.status.value} already; it cannot be cancelled")
        if run.status is not RunStatus.CANCELLED:
            await _cancel(services, conn, run)
        return await read_in(conn, workflow_id, tenant=tenant, run_id=run.id)


async def cleanup(
    services: Services, workflow_id: str, *, tenant: str, run_id: str | None = None
) -> WorkflowState:
    """Delete what the run made, or all runs where none is named; the records stay.

    Raises: NotFound; Conflict while one of them goes on.
    """
    async with transaction(services.pool) as conn:
        await find_workflow(conn, workflow_id, tenant=tenant)
        if run_id is None:
            chosen = await runs.lock_runs(conn, workflow_id, tenant=tenant)
        else:
            chosen = [await _lock(conn, workflow_id, tenant=tenant, run_id=run_id)]
        for run in chosen:
            if run.status in (RunStatus.RUNNING, RunStatus.PAUSED):
                raise Conflict(f"the run {run.id} is {run.status.value}; cancel it first")
        made = []
        for run in chosen:
            await runs.mark_run_cleaned(conn, run.id)
            made += await tasks.mark_run_cleaned(conn, run.id)
        state = await read_in(conn, workflow_id, tenant=tenant, run_id=run_id)
    # After the commit, as for a task: a crash between leaves bytes that no row names.
    for task_id in made:
        await services.storage.delete_prefix(output_prefix(task_id))
    return state


async def expire_approvals(services: Services) -> int:
    """Take the default of every approval that has waited for too long; return of how many."""
    async with transaction(services.pool) as conn:
        overdue = await runs.overdue_approvals(conn)
    expired = 0
    for run_id in overdue:
        async with transaction(services.pool) as conn:
            run = await runs.lock_run(conn, run_id)
            if run.status is not RunStatus.PAUSED or run.held:
                continue
            expired += await _expire(services, conn, run)
    return expired


async def _expire(services: Services, conn: Connection, run: Run) -> int:
    """Take the defaults of a run's overdue approvals."""
    steps = await runs.list_steps(conn, run.id)
    expired = 0
    for step in steps:
        if not await runs.is_overdue(conn, run.id, step.position):
            continue
        expired += 1
        default = approval_config(step.spec).default
        if default == "cancel":
            await _cancel(services, conn, run)
            return expired
        candidates = candidates_of(step.spec, steps)
        # A default written before the run may name more candidates than there came to be.
        wanted = default if isinstance(default, list) else range(len(candidates))
        images = [candidates[index] for index in wanted if index < len(candidates)] or candidates
        images = images[:1] if default == "first" else images
        await runs.write_step(conn, run.id, step.position, StepStatus.COMPLETED, images=images)
    await advance(services, conn, run)
    return expired


async def _lock(conn: Connection, workflow_id: str, *, tenant: str, run_id: str | None) -> Run:
    run = await find_run(conn, workflow_id, tenant=tenant, run_id=run_id)
    return await runs.lock_run(conn, run.id)


async def _cancel(services: Services, conn: Connection, run: Run) -> None:
    # The run first: a task that ends below must not move its graph.
    cancelled = await runs.write_run_status(conn, run.id, RunStatus.CANCELLED)
    await announce_run(conn, cancelled)
    await cancel_all_in(services, conn, run.id)
    for step in await runs.list_steps(conn, run.id):
        if not step.status.over:
            await runs.write_step(conn, run.id, step.position, StepStatus.CANCELLED)


async def _release(conn: Connection, run: Run) -> Run:
    """Give a held run's pending tasks their places in the queue again."""
    lines: defaultdict[tuple[str, int], list[Task]] = defaultdict(list)
    for task in await tasks.pending_without_job(conn, run.id):
        lines[task.type, task.priority].append(task)
    for line in lines.values():
        # As new ones: else a pause would be a way to come first.
        await enqueue(conn, line)
    return await runs.write_run_status(conn, run.id, RunStatus.RUNNING)


async def _redo(
    services: Services,
    conn: Connection,
    run: Run,
    steps: Sequence[Step],
    *,
    edited: Collection[str],
) -> Run:
    """Make new tasks for the items of a failed run that did not complete.

    All items of a step that was edited are made again, or its pictures would not belong together.
    """
    run = await runs.write_run_status(conn, run.id, RunStatus.RUNNING)
    for step in steps:
        if step.status is StepStatus.SKIPPED:
            await runs.write_step(conn, run.id, step.position, StepStatus.PENDING)
        elif step.status in (StepStatus.FAILED, StepStatus.CANCELLED):
            keep = step.spec.name not in edited
            await restart(services, conn, run, step, steps, keep=keep)
    return run


def _is_made(steps: Sequence[Step], resumption: Resumption) -> bool:
    """Whether the named approval has this very choice already: a request that was sent again."""
    for step in steps:
        if step.spec.name == resumption.step and step.spec.type == APPROVAL and step.images:
            candidates = candidates_of(step.spec, steps)
            wanted = [index for index in resumption.select or () if index < len(candidates)]
            return [candidates[index] for index in wanted] == list(step.images)
    return False


def _approval_of(waiting: Sequence[Step], resumption: Resumption) -> Step | None:
    """Return the approval that a resume speaks of, None where it speaks of none."""
    names = ", ".join(repr(step.spec.name) for step in waiting)
    if resumption.step is not None:
        for step in waiting:
            if step.spec.name == resumption.step:
                if resumption.select is None:
                    raise InvalidParams("select: goes with step; give both", param="select")
                return step
        raise InvalidParams(
            f"step: {resumption.step[:64]!r} waits for no choice; {names or 'no step'} does",
            param="step",
        )
    if resumption.select is None:
        return None
    if not waiting:
        raise Conflict("no approval of this workflow waits for a choice")
    if len(waiting) > 1:
        raise InvalidParams(f"step: say which of {names} the choice is for", param="step")
    return waiting[0]


async def _edit(
    services: Services,
    conn: Connection,
    run: Run,
    steps: Sequence[Step],
    edits: Mapping[str, Edit],
) -> list[Step]:
    """Change what steps of this run say, and return all steps as they are now."""
    edited = list(steps)
    by_name = {step.spec.name: step for step in steps}
    for name, edit in edits.items():
        step = by_name.get(name)
        if step is None:
            raise InvalidParams(f"edits.{name[:64]}: there is no such step", param="edits")
        if step.status in (StepStatus.COMPLETED, StepStatus.RUNNING):
            raise Conflict(f"edits.{name}: the step is {step.status.value}; it cannot be edited")
        if step.spec.type == APPROVAL and step.status is StepStatus.PAUSED:
            raise Conflict(f"edits.{name}: the approval waits already; it cannot be edited")
        kept = {
            param: key
            for param, key in step.spec.inputs.items()
            if param.partition(".")[0] not in edit.config
        }
        spec = replace(
            step.spec,
            config={**step.spec.config, **edit.config},
            inputs={**kept, **edit.inputs},
        )
        edited[step.position] = replace(step, spec=spec)
    try:
        check_plan(
            [step.spec for step in edited],
            input_values=run.input,
            catalog=await read_catalog(conn, tenant=run.tenant),
            settings=services.settings,
        )
    except RequestError as exc:
        raise InvalidParams(f"edits: {exc.message}", param="edits") from exc
    changed = [by_name[name].position for name in edits]
    await runs.write_specs(
        conn, run.id, [(position, edited[position].spec) for position in changed]
    )
    return edited
