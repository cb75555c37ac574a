"""The shapes of answers about trainings, as the document has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, Field

from imageloom.api.outlook_shapes import Change, Expected, Reason, Runnable, outlook_fields
from imageloom.api.shapes import (
    Ahead,
    ErrorDetailView,
    HookEvents,
    HookUrl,
    ImageView,
    Time,
    image_view,
    webhook_fields,
)
from imageloom.api.urls import Urls
from imageloom.datasets import Report
from imageloom.domain.adapters import Adapter, Loss, TrainingState
from imageloom.domain.tasks import Task
from imageloom.runtime.training.estimate import Estimate


class MetricsView(BaseModel):
    """How a training goes. `loss` is null until the first step."""

    current_epoch: int = 0
    epochs: int
    step: int = 0
    steps: int | None = None
    loss: float | None = None
    held_out_loss: float | None = None
    learning_rate: float | None = None
    images_per_second: float | None = None
    eta_seconds: float | None = None


class SampleView(ImageView):
    """A picture that the training drew after `step` steps."""

    step: int
    prompt: str


class AdapterView(BaseModel):
    """What a training published. Requests name it in `loras`."""

    name: str
    version: int
    base_model: str
    url: str
    sha256: str
    size: int
    step: int | None
    created_at: Time


class TrainingOutputView(BaseModel):
    """What a training has made so far."""

    metrics: MetricsView
    samples: list[SampleView]
    adapter: AdapterView | None


class TrainingView(BaseModel):
    """A training. `progress` is 0 to 1, and 1 only when it is completed."""

    id: str
    type: str
    status: str
    priority: int
    queue_position: Ahead = None
    eta: Expected = None
    runnable: Runnable = None
    runnable_reason: Reason = None
    runnable_change: Change = None
    progress: float
    created_at: Time
    started_at: Time | None = None
    completed_at: Time | None = None
    cleaned_at: Time | None = None
    attempt: int
    params: dict[str, Any]
    output: TrainingOutputView
    webhook_url: HookUrl = None
    webhook_events: HookEvents = None
    error: str | None = None
    error_detail: ErrorDetailView | None = None


class LossView(BaseModel):
    """The loss of one step."""

    step: int
    loss: float
    learning_rate: float


class LossesView(BaseModel):
    """The loss of every step so far, without a gap."""

    items: list[LossView]


class ProblemView(BaseModel):
    """A picture that is left out of a data set, and why."""

    name: str
    kind: str
    message: str


class DatasetPictureView(BaseModel):
    """A picture that a training would see."""

    name: str
    caption: str
    width: int
    height: int


class EstimateView(BaseModel):
    """What a training will take, on a device that does nothing else; null is unknown."""

    steps: int
    minutes: float | None = Field(description="Caching, steps and checkpoints")
    memory_bytes: int | None = Field(description="What it adds to the memory of the device")
    based_on: str = Field(description="What was measured, computed or lacking")


class PreflightView(BaseModel):
    """What is in a data set. `buckets` are the sizes that pictures are trained at."""

    usable: int
    pictures: list[DatasetPictureView]
    problems: list[ProblemView]
    buckets: dict[str, int] = Field(description="Pictures by size, such as 64x64")
    warnings: list[str] = Field(description="What is usable but perhaps not meant")
    estimate: EstimateView


def training_view(
    task: Task, state: TrainingState, adapter: Adapter | None, urls: Urls
) -> TrainingView:
    """Return a training as its tenant sees it."""
    detail = task.error_detail
    epochs = task.params["config"]["epochs"]
    return TrainingView(
        id=task.id,
        type=task.type,
        status=task.status.value,
        priority=task.priority,
        queue_position=task.queue_position,
        **outlook_fields(task),
        progress=task.progress,
        created_at=task.created_at,
        started_at=task.started_at,
        completed_at=task.completed_at,
        cleaned_at=task.cleaned_at,
        attempt=task.attempt,
        params=task.params,
        **webhook_fields(task.webhook, "training"),
        output=TrainingOutputView(
            metrics=MetricsView(**{"epochs": epochs, **state.metrics}),
            samples=[]
            if task.cleaned_at is not None
            else [
                SampleView(
                    step=sample.step,
                    prompt=sample.prompt,
                    **image_view(sample.image, urls).model_dump(),
                )
                for sample in state.samples
            ],
            adapter=None if adapter is None else _adapter_view(adapter, urls),
        ),
        error=task.error,
        error_detail=ErrorDetailView(
            code=detail.code,
            retryable=detail.retryable,
            attempt=detail.attempt,
            param=detail.param,
        )
        if detail
        else None,
    )


def losses_view(losses: Sequence[Loss]) -> LossesView:
    """Return the losses of a training by step."""
    return LossesView(
        items=[
            LossView(step=loss.step, loss=loss.loss, learning_rate=loss.learning_rate)
            for loss in losses
        ]
    )


def preflight_view(report: Report, estimate: Estimate) -> PreflightView:
    """Return what is in a data set and what it will take, as its owner sees it."""
    return PreflightView(
        usable=len(report.items),
        pictures=[
            DatasetPictureView(
                name=item.name, caption=item.caption, width=item.width, height=item.height
            )
            for item in report.items
        ],
        problems=[
            ProblemView(name=each.name, kind=each.kind, message=each.message)
            for each in report.problems
        ],
        buckets={f"{width}x{height}": n for (width, height), n in report.buckets.items()},
        warnings=[*report.warnings, *estimate.warnings],
        estimate=estimate_view(estimate),
    )


def estimate_view(estimate: Estimate) -> EstimateView:
    """Return what a training will take, as its owner sees it."""
    return EstimateView(
        steps=estimate.steps,
        minutes=estimate.minutes,
        memory_bytes=estimate.memory_bytes,
        based_on=estimate.based_on,
    )


def _adapter_view(adapter: Adapter, urls: Urls) -> AdapterView:
    return AdapterView(
        name=adapter.name,
        version=adapter.version,
        base_model=adapter.base_model,
        url=urls.output(adapter.key),
        sha256=adapter.sha256,
        size=adapter.size,
        step=adapter.lineage.get("step"),
        created_at=adapter.created_at,
    )
