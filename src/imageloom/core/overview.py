"""What an operator sees of tasks and workflows: a tenant's, or everybody's where it is None."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from imageloom.core import workflows
from imageloom.core.services import Services
from imageloom.core.timeline import Moment, timeline
from imageloom.core.workflows import WorkflowState
from imageloom.domain.errors import NotFound
from imageloom.domain.tasks import Task
from imageloom.store import attempts, events, runs, statistics, summaries, tasks
from imageloom.store.attempts import Attempt
from imageloom.store.pool import transaction
from imageloom.store.statistics import HourCount, Quantiles, Span, Times
from imageloom.store.summaries import TaskSummary
from imageloom.store.tasks import Filter, SortField

_MOST = 500  # attempts and runs that are shown of one task or workflow


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDetail:
    """A task with all that is known of it."""

    summary: TaskSummary
    task: Task
    attempts: list[Attempt]
    timeline: list[Moment]


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What waits and runs now, by type and status, and what ended in the span.

    `times` has the types of which something ended, and under None all of them.
    """

    span: Span
    live: Mapping[tuple[str, str], int]
    ended: list[HourCount]
    times: Mapping[str | None, Times]
    failures: list[tuple[str, int]]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatistics:
    """How many runs stand how: those that are not over now, and those that ended in the span."""

    span: Span
    by_status: Mapping[str, int]
    durations: Quantiles


async def list_tasks(
    services: Services,
    *,
    tenant: str | None,
    wanted: Filter,
    sort_by: SortField,
    descending: bool,
    page: int,
    page_size: int,
) -> tuple[list[TaskSummary], int]:
    """Return one page of tasks, the first page being 1, and how many there are."""
    async with transaction(services.pool) as conn:
        return await summaries.list_page(
            conn,
            tenant=tenant,
            wanted=wanted,
            sort_by=sort_by,
            descending=descending,
            limit=page_size,
            offset=(page - 1) * page_size,
        )


async def get_task(services: Services, task_id: str, *, tenant: str | None) -> TaskDetail:
    """Return a task, its attempts and what happened to it. Raises: NotFound."""
    async with transaction(services.pool) as conn:
        summary = await summaries.get(conn, task_id, tenant=tenant)
        task = await tasks.get(conn, task_id, tenant=summary.tenant) if summary else None
        if summary is None or task is None:
            raise NotFound(f"there is no task {task_id}")
        made, _ = await attempts.list_page(conn, task_id, limit=_MOST, offset=0)
        stretches = await events.stretches(conn, task_id)
    return TaskDetail(
        summary=summary,
        task=task,
        attempts=made,
        timeline=timeline(summary, made, stretches),
    )


async def get_workflow(
    services: Services, workflow_id: str, *, tenant: str | None
) -> tuple[WorkflowState, list[WorkflowState]]:
    """Return a workflow with its latest run, and its runs, newest first. Raises: NotFound."""
    async with transaction(services.pool) as conn:
        owner = await runs.owner(conn, workflow_id)
    if owner is None or tenant not in (None, owner):
        raise NotFound(f"there is no workflow {workflow_id}")
    state = await workflows.read(services, workflow_id, tenant=owner)
    made, _ = await workflows.list_runs(
        services, workflow_id, tenant=owner, page=1, page_size=_MOST
    )
    return state, made


async def statistics_of(services: Services, *, tenant: str | None, hours: int) -> Statistics:
    """Return what became of tasks in the last full hours and the one that has begun."""
    async with transaction(services.pool) as conn:
        span = await statistics.span(conn, hours)
        return Statistics(
            span=span,
            live=await statistics.live_tasks(conn, tenant=tenant),
            ended=await statistics.ended_tasks(conn, tenant=tenant, since=span.since),
            times=await statistics.times(conn, tenant=tenant, since=span.since),
            failures=await statistics.failures(conn, tenant=tenant, since=span.since),
        )


async def run_statistics(services: Services, *, tenant: str | None, hours: int) -> RunStatistics:
    """Return what became of runs in the same span."""
    async with transaction(services.pool) as conn:
        span = await statistics.span(conn, hours)
        return RunStatistics(
            span=span,
            by_status=Counter(
                await statistics.runs_by_status(conn, tenant=tenant, since=span.since)
            ),
            durations=await statistics.run_durations(conn, tenant=tenant, since=span.since),
        )
