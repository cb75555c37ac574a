"""Advance: start what has its turn in a run, in the transaction that made it so.

Whoever calls holds the run's row. So of two parents that end in the same instant one comes second,
sees that both have ended, and starts what waits for both: once.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import structlog

from imageloom.core.announce import announce_part, announce_run
from imageloom.core.approval import approval_config
from imageloom.core.expansion import Piece, Received, cache_base, expand
from imageloom.core.models import Catalog, read_catalog
from imageloom.core.prepare import Prepared, prepare
from imageloom.core.services import Services
from imageloom.core.submit import create_tasks, new_task_id
from imageloom.domain.errors import RequestError
from imageloom.domain.tasks import NewTask, Status, Task
from imageloom.domain.workflow import (
    APPROVAL,
    Run,
    RunStatus,
    Step,
    StepSpec,
    StepStatus,
    ancestors,
    ready_steps,
    status_of_run,
    status_of_step,
    unreachable_steps,
)
from imageloom.store import runs, tasks
from imageloom.store.pool import Connection, after_commit
from imageloom.task_types.registry import get_task_type

_log = structlog.get_logger("imageloom.workflow")


async def is_held(conn: Connection, task: Task) -> bool:
    """Whether the task belongs to a run that a request has paused, so that it may not wait."""
    return task.run_id is not None and (await runs.lock_run(conn, task.run_id)).held


async def task_ended(services: Services, conn: Connection, task: Task) -> None:
    """Move the graph on where this was the last task of its step that had not ended."""
    if task.run_id is None or task.step is None:
        return
    run = await runs.lock_run(conn, task.run_id)
    if run.status.over:
        return
    stood = run.status
    if not await tasks.has_live(conn, task.run_id, task.step):
        await _end_step(conn, run, task.step)
        run = await advance(services, conn, run)
    if run.status is stood:
        await announce_part(conn, run)


async def advance(services: Services, conn: Connection, run: Run) -> Run:
    """Start every step whose turn it is, skip what cannot be reached, and say how the run stands.

    For a run that was started and is not cancelled. A held run starts nothing.
    """
    while True:
        steps = await runs.list_steps(conn, run.id)
        skipped = unreachable_steps(steps)
        for step in skipped:
            await runs.write_step(conn, run.id, step.position, StepStatus.SKIPPED)
        ready = [] if run.held else ready_steps(steps)
        for step in ready:
            await _start(services, conn, run, step, steps)
        if not skipped and not ready:
            break
    status = status_of_run(steps, held=run.held)
    if status is run.status:
        return run
    said = {"run_id": run.id, "workflow_id": run.workflow_id, "status": status.value}
    after_commit(partial(_log.info, "run", **said))
    error = _error_of(steps) if status is RunStatus.FAILED else None
    held = run.held and not status.over
    run = await runs.write_run_status(conn, run.id, status, held=held, error=error)
    if status is not RunStatus.RUNNING:
        await announce_run(conn, run)
    return run


async def restart(
    services: Services,
    conn: Connection,
    run: Run,
    step: Step,
    steps: Sequence[Step],
    *,
    keep: bool,
) -> None:
    """Give an ended step new tasks; the old ones stay on record.

    With `keep` only in place of those that did not complete; without it in place of all, as where
    the step says something else now. `steps` are all steps of the run, as they are to be.
    """
    ended = await tasks.list_of_run(conn, run.id, step=step.position)
    kept = frozenset(task.item for task in ended if keep and task.status is Status.COMPLETED)
    await tasks.mark_replaced(conn, [task.id for task in ended if task.item not in kept])
    await _start(services, conn, run, step, steps, kept=kept)


async def _start(
    services: Services,
    conn: Connection,
    run: Run,
    step: Step,
    steps: Sequence[Step],
    *,
    kept: frozenset[int | None] = frozenset(),
) -> None:
    """Give a step whose turn it is its tasks; where they cannot be made, the step has failed.

    `kept` are items that were made before.
    """
    spec = step.spec
    if spec.type == APPROVAL:
        wait = approval_config(spec).longest_wait
        await runs.write_step(conn, run.id, step.position, StepStatus.PAUSED, wait=wait)
        return
    try:
        new = await _new_tasks(services, conn, run, step, steps)
    except RequestError as exc:
        error = f"Invalid input: {exc.message}"
        await runs.write_step(conn, run.id, step.position, StepStatus.FAILED, error=error)
        return
    await create_tasks(conn, [task for task in new if task.item not in kept])
    await runs.write_step(conn, run.id, step.position, StepStatus.RUNNING)


async def _new_tasks(
    services: Services, conn: Connection, run: Run, step: Step, steps: Sequence[Step]
) -> list[NewTask]:
    """Return the tasks of a step. Raises: RequestError, where what came to it is not fit."""
    pieces = expand(step.spec, get_task_type(step.spec.type), _received(step.spec, run, steps))
    catalog = await read_catalog(conn, tenant=run.tenant)
    new = []
    for item, piece in enumerate(pieces):
        prepared, base = _prepared(services, catalog, run, step.spec, piece)
        new.append(
            NewTask(
                id=new_task_id(),
                tenant=run.tenant,
                type=step.spec.type,
                params=prepared.params,
                inputs=piece.inputs,
                max_attempts=step.spec.max_attempts or services.settings.max_attempts,
                priority=prepared.priority,
                webhook=prepared.webhook,
                workflow_id=run.workflow_id,
                run_id=run.id,
                step=step.position,
                step_name=step.spec.name,
                item=item,
                backoff_seconds=step.spec.backoff_seconds,
                cache_base=base,
                pace=prepared.effort.pace,
                units=prepared.effort.units,
            )
        )
    return new


def _received(spec: StepSpec, run: Run, steps: Sequence[Step]) -> Received:
    """Return what a step may draw on: the run's input and what the steps before it made."""
    before = ancestors([step.spec for step in steps], spec.name)
    return Received(
        input=run.input,
        inputs=run.inputs,
        pictures={step.spec.name: step.images or () for step in steps if step.spec.name in before},
    )


def _prepared(
    services: Services, catalog: Catalog, run: Run, spec: StepSpec, piece: Piece
) -> tuple[Prepared, str | None]:
    task_type = get_task_type(spec.type)
    prepared = prepare(task_type, piece.body, catalog=catalog, settings=services.settings)
    cached = run.cache and spec.cache
    return prepared, cache_base(task_type, piece.body, prepared.params) if cached else None


async def _end_step(conn: Connection, run: Run, position: int) -> None:
    """Write what the ended tasks of a step come to."""
    ended = await tasks.list_of_run(conn, run.id, step=position)
    status = status_of_step([task.status for task in ended])
    images = None
    if status is StepStatus.COMPLETED:
        images = [image for task in ended if task.output for image in task.output.images]
    error = next((task.error for task in ended if task.status is Status.FAILED), None)
    await runs.write_step(conn, run.id, position, status, images=images, error=error)


def _error_of(steps: Sequence[Step]) -> str:
    for step in steps:
        if step.status is StepStatus.FAILED:
            return f"{step.spec.name}: {step.error}"
    cancelled = next(step for step in steps if step.status is StepStatus.CANCELLED)
    return f"{cancelled.spec.name}: a task of this step was cancelled"
