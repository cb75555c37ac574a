"""The shapes of answers, as the document has them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, TypeVar

from pydantic import AfterValidator, BaseModel, Field

from imageloom.api.urls import Urls
from imageloom.domain.catalog import Model
from imageloom.domain.tasks import Output, Task
from imageloom.store.files import File
from imageloom.store.workers import Worker

T = TypeVar("T")
Time = Annotated[datetime, AfterValidator(lambda value: value.astimezone(UTC))]
_SHOWN_URL = 200  # characters: a data: URL holds a whole picture


class ErrorBody(BaseModel):
    """What went wrong, for programs and people."""

    type: str
    message: str
    param: str | None
    request_id: str


class ErrorView(BaseModel):
    """The body of every error answer."""

    error: ErrorBody


class ImageView(BaseModel):
    """One finished picture. `url` needs no header and expires."""

    url: str
    seed: int | None
    width: int
    height: int


class OutputView(BaseModel):
    """What a task made."""

    images: list[ImageView]


class ErrorDetailView(BaseModel):
    """Why a task failed, for programs."""

    code: str
    retryable: bool
    attempt: int
    param: str | None = None


class TaskView(BaseModel):
    """A task. `progress` is 0 to 1, and 1 only when it is completed."""

    id: str
    type: str
    status: str
    progress: float
    created_at: Time
    started_at: Time | None = None
    completed_at: Time | None = None
    cleaned_at: Time | None = None
    attempt: int
    params: dict[str, Any]
    output: OutputView | None = None
    error: str | None = None
    error_detail: ErrorDetailView | None = None


class FileView(BaseModel):
    """An upload. `url` works in every *_url field, and without a header until `expires_at`."""

    id: str
    url: str
    size: int
    media_type: str
    sha256: str
    expires_at: Time


class ModelView(BaseModel):
    """A base model that a task may name."""

    name: str
    kind: str = "base"
    family: str
    source: str
    revision: str | None
    licence: str
    description: str
    default_size: int
    native_size: int | None = Field(
        description="The model draws near this side; larger pictures are enlarged from it"
    )
    steps: int
    guidance_scale: float
    default: bool


class QueueView(BaseModel):
    """How many tasks of one type wait and run, and how many live workers serve them."""

    name: str
    pending: int
    running: int
    workers: int


class QueuesView(BaseModel):
    """All queues."""

    queues: list[QueueView]


class WorkerView(BaseModel):
    """A worker. `gpu_utilization` is 0 to 1, null without a GPU."""

    id: str
    status: str
    gpu_utilization: float | None
    last_heartbeat: Time
    started_at: Time
    host: str
    version: str
    queues: list[str]
    device: str
    memory_bytes: int | None
    models: list[str]
    tasks: list[str]


class WorkersView(BaseModel):
    """All workers of the last hour and how they are."""

    healthy: int
    unhealthy: int
    total: int
    workers: list[WorkerView]


class PageView(BaseModel, Generic[T]):
    """One page of a list."""

    items: list[T]
    total: int
    page: int
    page_size: int


class HealthView(BaseModel):
    """That the process is well."""

    status: str


def task_view(task: Task, urls: Urls) -> TaskView:
    """Return a task as its tenant sees it."""
    detail = task.error_detail
    return TaskView(
        id=task.id,
        type=task.type,
        status=task.status.value,
        progress=task.progress,
        created_at=task.created_at,
        started_at=task.started_at,
        completed_at=task.completed_at,
        cleaned_at=task.cleaned_at,
        attempt=task.attempt,
        params={name: _shorten(value) for name, value in task.params.items()},
        output=output_view(task.output, urls) if task.output is not None else None,
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


def output_view(output: Output, urls: Urls) -> OutputView:
    """Return what a task made, with URLs that anyone may fetch until they expire."""
    return OutputView(
        images=[
            ImageView(
                url=urls.output(image.key), seed=image.seed, width=image.width, height=image.height
            )
            for image in output.images
        ]
    )


def file_view(file: File, urls: Urls) -> FileView:
    """Return an upload as its tenant sees it."""
    return FileView(
        id=file.id,
        url=urls.file(file.id, int(file.expires_at.timestamp())),
        size=file.size,
        media_type=file.media_type,
        sha256=file.sha256,
        expires_at=file.expires_at,
    )


def model_view(model: Model, *, default: str) -> ModelView:
    """Return a catalog entry; a local folder's path is the operator's, not the tenant's."""
    return ModelView(
        name=model.name,
        family=model.family,
        source=model.source if not model.source.startswith("folder:") else "folder",
        revision=model.revision,
        licence=model.licence,
        description=model.description,
        default_size=model.default_size,
        native_size=model.native_size,
        steps=model.steps,
        guidance_scale=model.guidance_scale,
        default=model.name == default,
    )


def worker_view(worker: Worker) -> WorkerView:
    """Return a worker as an operator sees it; a silent one is unhealthy whatever it said last."""
    return WorkerView(
        id=worker.id,
        status=worker.status if worker.alive else "unhealthy",
        gpu_utilization=worker.gpu_utilization,
        last_heartbeat=worker.last_heartbeat,
        started_at=worker.started_at,
        host=worker.host,
        version=worker.version,
        queues=list(worker.queues),
        device=worker.device,
        memory_bytes=worker.memory_bytes,
        models=list(worker.models),
        tasks=list(worker.tasks),
    )


def _shorten(value: Any) -> Any:
    if isinstance(value, str) and value[:5].lower() == "data:" and len(value) > _SHOWN_URL:
        return f"{value[:_SHOWN_URL]}…"
    return value
