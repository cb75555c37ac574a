"""The shapes of what operators see of tasks, workflows and their statistics."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, Field

from imageloom.api.shapes import (
    AttemptView,
    ErrorDetailView,
    ImageView,
    PreviewView,
    RunView,
    Time,
    WorkflowView,
    attempt_view,
    output_view,
    preview_view,
    shown_params,
    workflow_view,
)
from imageloom.api.urls import Urls
from imageloom.core.overview import RunStatistics, Statistics, TaskDetail
from imageloom.core.workflows import WorkflowState
from imageloom.domain.sources import OUTPUT_SCHEME
from imageloom.domain.tasks import Status, Task
from imageloom.domain.workflow import RunStatus
from imageloom.store.statistics import Quantiles, Times
from imageloom.store.summaries import TaskSummary
from imageloom.task_types.registry import QUEUES, TASK_TYPES
from imageloom.task_types.spec import input_urls

_ENDED = (Status.COMPLETED, Status.FAILED, Status.CANCELLED)


class SummaryPlaceView(BaseModel):
    """Which step of which run a task belongs to."""

    id: str
    run_id: str
    step: str


class TaskSummaryView(BaseModel):
    """A task in brief.

    `wait_seconds` is from its creation to the start of its latest attempt, `run_seconds` what that
    one took; both grow until then.
    """

    id: str
    type: str
    status: str
    tenant: str
    priority: int
    progress: float
    attempt: int
    worker: str | None
    model: str | None
    created_at: Time
    started_at: Time | None
    completed_at: Time | None
    wait_seconds: float
    run_seconds: float | None
    error: str | None
    error_code: str | None
    workflow: SummaryPlaceView | None


class MomentView(BaseModel):
    """A change of a task. `progress` is how far its attempt had come; `note` says why."""

    at: Time
    status: str
    attempt: int
    progress: float
    note: str | None


class TaskDetailView(TaskSummaryView):
    """A task with its parameters, the attempts at it and what happened to it, in order."""

    params: dict[str, Any]
    error_detail: ErrorDetailView | None
    attempts: list[AttemptView]
    timeline: list[MomentView]


class InputView(BaseModel):
    """A picture that a task starts from, by the name of its parameter."""

    name: str
    url: str


class MediaView(BaseModel):
    """The pictures of a task. `previews` while it runs and was asked for them."""

    inputs: list[InputView]
    outputs: list[ImageView]
    previews: list[PreviewView]


class WorkflowSummaryView(BaseModel):
    """A workflow and its latest run, in brief. `steps` is how many it has."""

    id: str
    name: str
    status: str
    tenant: str
    progress: float
    current_step: int
    steps: int
    run: RunView
    created_at: Time
    started_at: Time | None
    completed_at: Time | None
    error: str | None


class RunSummaryView(BaseModel):
    """A run of a workflow, in brief."""

    id: str
    number: int
    status: str
    progress: float
    created_at: Time
    started_at: Time | None
    completed_at: Time | None
    error: str | None


class WorkflowDetailView(WorkflowView):
    """A workflow with its latest run in full, and its runs, newest first."""

    tenant: str
    runs: list[RunSummaryView]


class QuantilesView(BaseModel):
    """Seconds: half took at most `p50`, nine of ten at most `p90`; null where there were none."""

    p50: float | None
    p90: float | None


class CountsView(BaseModel):
    """How many tasks wait and run now, and how many ended since."""

    pending: int
    running: int
    completed: int
    failed: int
    cancelled: int


class TypeView(CountsView):
    """The same of one task type, with how long its tasks waited and ran."""

    type: str
    wait_seconds: QuantilesView
    run_seconds: QuantilesView


class HourView(BaseModel):
    """How many tasks of a type ended in the hour that begins then."""

    hour: Time
    type: str
    completed: int
    failed: int
    cancelled: int


class FailureView(BaseModel):
    """How many tasks failed for the same reason; `code` is that of `error_detail`."""

    code: str
    count: int


class StatsView(BaseModel):
    """What became of tasks since the beginning of the hour that was `hours` ago.

    Waits and runs are of tasks that ended since; only those that were completed count as run.
    """

    hours: int
    since: Time
    until: Time
    by_status: CountsView
    by_type: list[TypeView]
    wait_seconds: QuantilesView
    run_seconds: QuantilesView
    throughput: list[HourView] = Field(
        description="Every hour (UTC) and type, also those with nothing"
    )
    failures: list[FailureView]


class RunCountsView(BaseModel):
    """How many runs are not over now, and how many ended since."""

    created: int
    running: int
    paused: int
    completed: int
    failed: int
    cancelled: int


class WorkflowStatsView(BaseModel):
    """What became of runs since; `run_seconds` is of those that were completed."""

    hours: int
    since: Time
    until: Time
    by_status: RunCountsView
    run_seconds: QuantilesView


def summary_view(task: TaskSummary) -> TaskSummaryView:
    """Return a task as a list of monitoring shows it."""
    return TaskSummaryView(**_summary(task))


def detail_view(detail: TaskDetail, urls: Urls) -> TaskDetailView:
    """Return a task with all that is known of it."""
    failure = detail.task.error_detail
    return TaskDetailView(
        **_summary(detail.summary),
        params=shown_params(detail.task, urls),
        error_detail=ErrorDetailView(
            code=failure.code,
            retryable=failure.retryable,
            attempt=failure.attempt,
            param=failure.param,
        )
        if failure
        else None,
        attempts=[attempt_view(attempt) for attempt in detail.attempts],
        timeline=[
            MomentView(
                at=moment.at,
                status=moment.status,
                attempt=moment.attempt,
                progress=moment.progress,
                note=moment.note,
            )
            for moment in detail.timeline
        ],
    )


def media_view(task: Task, urls: Urls) -> MediaView:
    """Return the pictures of a task; a picture that another step made has a URL that works."""
    kind = TASK_TYPES.get(task.type)
    named = input_urls(kind.url_fields, task.params) if kind else {}
    inputs = []
    for name, url in named.items():
        key = task.inputs.get(name)
        shown = urls.output(key) if key is not None and url == f"{OUTPUT_SCHEME}{key}" else url
        inputs.append(InputView(name=name, url=shown))
    return MediaView(
        inputs=inputs,
        outputs=output_view(task.output, urls).images if task.output else [],
        previews=[preview_view(preview, urls) for preview in task.previews],
    )


def workflow_summary_view(state: WorkflowState, urls: Urls) -> WorkflowSummaryView:
    """Return a workflow as a list of monitoring shows it."""
    seen = workflow_view(state, urls)
    return WorkflowSummaryView(
        id=seen.id,
        name=seen.name,
        status=seen.status,
        tenant=state.workflow.tenant,
        progress=seen.progress,
        current_step=seen.current_step,
        steps=len(seen.steps),
        run=seen.run,
        created_at=seen.created_at,
        started_at=seen.started_at,
        completed_at=seen.completed_at,
        error=seen.error,
    )


def workflow_detail_view(
    state: WorkflowState, runs: list[WorkflowState], urls: Urls
) -> WorkflowDetailView:
    """Return a workflow with its latest run in full and the others in brief."""
    return WorkflowDetailView(
        **dict(workflow_view(state, urls)),
        tenant=state.workflow.tenant,
        runs=[_run_summary(each, urls) for each in runs],
    )


def stats_view(found: Statistics, *, hours: int) -> StatsView:
    """Return what became of tasks, with a zero wherever nothing did."""
    ended: Counter[tuple[str, str]] = Counter()
    hourly: Counter[tuple[object, str, str]] = Counter()
    for each in found.ended:
        ended[each.type, each.status] += each.count
        hourly[each.hour, each.type, each.status] += each.count
    counts = {**found.live, **ended}
    starts = [found.span.since + timedelta(hours=hour) for hour in range(hours + 1)]
    in_all = found.times.get(None, Times())
    return StatsView(
        hours=hours,
        since=found.span.since,
        until=found.span.until,
        by_status=CountsView(
            **{
                status.value: sum(counts.get((name, status.value), 0) for name in QUEUES)
                for status in Status
            }
        ),
        by_type=[
            TypeView(
                type=name,
                **{status.value: counts.get((name, status.value), 0) for status in Status},
                wait_seconds=_quantiles(found.times.get(name, Times()).waits),
                run_seconds=_quantiles(found.times.get(name, Times()).durations),
            )
            for name in QUEUES
        ],
        wait_seconds=_quantiles(in_all.waits),
        run_seconds=_quantiles(in_all.durations),
        throughput=[
            HourView(
                hour=start,
                type=name,
                **{status.value: hourly[start, name, status.value] for status in _ENDED},
            )
            for start in starts
            for name in QUEUES
        ],
        failures=[FailureView(code=code, count=count) for code, count in found.failures],
    )


def workflow_stats_view(found: RunStatistics, *, hours: int) -> WorkflowStatsView:
    """Return what became of runs."""
    return WorkflowStatsView(
        hours=hours,
        since=found.span.since,
        until=found.span.until,
        by_status=RunCountsView(
            **{status.value: found.by_status.get(status.value, 0) for status in RunStatus}
        ),
        run_seconds=_quantiles(found.durations),
    )


def _summary(task: TaskSummary) -> dict[str, Any]:
    place = None
    if task.workflow_id is not None and task.run_id is not None:
        place = SummaryPlaceView(id=task.workflow_id, run_id=task.run_id, step=task.step_name or "")
    return {
        "id": task.id,
        "type": task.type,
        "status": task.status.value,
        "tenant": task.tenant,
        "priority": task.priority,
        "progress": task.progress,
        "attempt": task.attempt,
        "worker": task.worker,
        "model": task.model,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "completed_at": task.completed_at,
        "wait_seconds": task.wait_seconds,
        "run_seconds": task.run_seconds,
        "error": task.error,
        "error_code": task.error_code,
        "workflow": place,
    }


def _run_summary(state: WorkflowState, urls: Urls) -> RunSummaryView:
    seen = workflow_view(state, urls)
    return RunSummaryView(
        id=seen.run.id,
        number=seen.run.number,
        status=seen.status,
        progress=seen.progress,
        created_at=seen.created_at,
        started_at=seen.started_at,
        completed_at=seen.completed_at,
        error=seen.error,
    )


def _quantiles(found: Quantiles) -> QuantilesView:
    return QuantilesView(p50=found.p50, p90=found.p90)
