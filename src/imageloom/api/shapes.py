"""The shapes of answers, as the document has them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import (
    BaseModel,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)

from imageloom.api.outlook_shapes import Change, Expected, Reason, Runnable, outlook_fields
from imageloom.api.times import Time as Time
from imageloom.api.urls import Urls
from imageloom.core.workflows import WorkflowState
from imageloom.domain.adapters import Adapter
from imageloom.domain.catalog import Kind, Model
from imageloom.domain.receipts import Receipt
from imageloom.domain.sources import OUTPUT_SCHEME
from imageloom.domain.tasks import Output, OutputImage, Preview, Task
from imageloom.domain.webhooks import Resource, Webhook, resource_of
from imageloom.domain.workflow import Step, StepStatus, candidates_of, current_step
from imageloom.store.attempts import Attempt
from imageloom.store.files import File
from imageloom.store.workers import Worker

T = TypeVar("T")
_LOCAL = ("folder", "file")
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


class _Sparse(BaseModel):
    """Leaves out what it does not have: processing has no seed, generation no method."""

    @model_serializer(mode="wrap")
    def _leave_out(self, serialize: SerializerFunctionWrapHandler):  # type: ignore[no-untyped-def]  # the schema stays the model's own
        return {name: value for name, value in serialize(self).items() if value is not None}


class AdapterReceiptView(BaseModel):
    """An adapter that acted on a picture."""

    name: str
    sha256: str
    weight: float


class ReceiptView(BaseModel):
    """What a picture was made from, beyond its task's parameters.

    `weights` and `input` are digests, `sha256` that of the picture's own file.
    """

    sha256: str
    seed: int
    model: str
    weights: str
    adapters: list[AdapterReceiptView]
    input: str | None
    scheduler: dict[str, Any]
    device: dict[str, str]
    versions: dict[str, str]


class ImageView(_Sparse):
    """One finished picture. `url` needs no header and expires.

    `method` and `confidence` (0 to 1) say how a subject was told from its background.
    """

    url: str
    seed: int | None = None
    width: int
    height: int
    method: str | None = None
    confidence: float | None = None
    receipt: ReceiptView | None = Field(
        None, description="Of a generation: what it was made from; left out of lists"
    )


class ReproductionView(BaseModel):
    """How an output that was made again compares with the first.

    `largest_difference` is that of a channel of a pixel, 0 to 255. `near` is at most 2 of a PNG and
    24 of a JPEG or WebP, which make so much of one. `changed` are the fields of the receipt that
    are not what they were.
    """

    result: Literal["identical", "near", "different"]
    largest_difference: int | None
    changed: list[str]


class OutputView(_Sparse):
    """What a task made; where the step cache was asked, whether it knew and what that saved."""

    images: list[ImageView]
    cache: Literal["hit", "miss"] | None = None
    seconds_saved: float | None = None
    reproduction: ReproductionView | None = None


class OutputRefView(BaseModel):
    """One output of a task."""

    task_id: str
    output: int


class TaskRefView(BaseModel):
    """Another task."""

    task_id: str


class ErrorDetailView(BaseModel):
    """Why a task failed, for programs."""

    code: str
    retryable: bool
    attempt: int
    param: str | None = None


class PreviewView(BaseModel):
    """What output `index` may become, seen after `step` of its `steps`; `url` works until then."""

    index: int
    step: int
    steps: int
    url: str
    width: int
    height: int


class RunStepView(BaseModel):
    """How a step of a run stands, in brief."""

    name: str
    status: str
    progress: float


class PlaceView(BaseModel):
    """Where a task stands in a workflow. `item` is which picture of its step it makes."""

    id: str
    run_id: str
    step: str
    item: int


Ahead = Annotated[
    int | None, Field(description="How many tasks come before it; null where it does not wait")
]


HookUrl = Annotated[str | None, Field(description="Where it tells of itself, as it was given")]
HookEvents = Annotated[
    list[str] | None, Field(description="What it tells there, such as task.completed")
]


class TaskView(BaseModel):
    """A task. `progress` is 0 to 1, and 1 only when it is completed."""

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
    output: OutputView | None = None
    error: str | None = None
    error_detail: ErrorDetailView | None = None
    workflow: PlaceView | None = None
    previews: list[PreviewView] | None = Field(
        None, description="While it runs and was asked for `preview_every`"
    )
    reproduces: OutputRefView | None = Field(None, description="The output that it makes again")
    retries: TaskRefView | None = Field(
        None, description="The failed or cancelled task that it does over"
    )
    webhook_url: HookUrl = None
    webhook_events: HookEvents = None


class AttemptView(BaseModel):
    """One try at a task by one worker.

    `outcome` is completed, failed, cancelled, interrupted (handed back by a living worker) or lost,
    null while it runs. `next` is the status that the task had afterwards, `next_at` when it is
    tried again, `tried_next` what was tried, in words; null where nothing had to be.
    `device_seconds` is its share of the device: the time of a step is divided over the pictures in
    it. `device_memory_bytes` is the most that the device's process had meanwhile, models and the
    pictures of others included: on CUDA what was allocated, on a CPU the resident set of the
    process. Both are null where the attempt was lost or had no device.
    """

    attempt: int
    worker: str
    started_at: Time
    ended_at: Time | None
    outcome: str | None
    error_code: str | None
    error: str | None
    next: str | None
    next_at: Time | None
    tried_next: str | None
    device_seconds: float | None
    device_memory_bytes: int | None


class RunView(BaseModel):
    """Which run of its workflow this is; the first has the number 1."""

    id: str
    number: int


class StepTaskView(BaseModel):
    """One task of a step, in brief."""

    id: str
    status: str
    progress: float
    error: str | None


class CandidateView(ImageView):
    """A picture that an approval may choose, by its index."""

    index: int


class StepOutputView(BaseModel):
    """What a step made: the pictures of its tasks, in order."""

    images: list[ImageView]


class StepView(BaseModel):
    """A step of a run. `progress` is the mean over its tasks, 0 to 1."""

    name: str
    type: str
    depends_on: list[str]
    config: dict[str, Any]
    status: str
    progress: float
    output: StepOutputView | None = None
    error: str | None = None
    cache: Literal["hit", "miss"] | None = None
    seconds_saved: float | None = None
    started_at: Time | None = None
    completed_at: Time | None = None
    tasks: list[StepTaskView] | None = Field(None, description="null in lists")
    candidates: list[CandidateView] | None = Field(
        None, description="What an approval that waits may choose from"
    )
    message: str | None = Field(None, description="What an approval asks")
    expires_at: Time | None = Field(None, description="When an approval takes its default")


class WorkflowView(BaseModel):
    """A workflow and one of its runs. `current_step` is the first that has not completed."""

    id: str
    name: str
    description: str | None = None
    origin_instance: str | None = None
    status: str
    progress: float
    current_step: int
    steps: list[StepView]
    run: RunView
    input: dict[str, Any]
    webhook_url: HookUrl = None
    webhook_events: HookEvents = None
    error: str | None = None
    created_at: Time
    started_at: Time | None = None
    completed_at: Time | None = None
    cleaned_at: Time | None = None


class FileView(BaseModel):
    """An upload. `url` works in every *_url field, and without a header until `expires_at`."""

    id: str
    url: str
    size: int
    media_type: str
    sha256: str
    expires_at: Time


class ModelView(BaseModel):
    """A model that a task may name: one that draws (`base`), enlarges or segments."""

    name: str
    kind: Kind | Literal["adapter"]
    base_model: str | None = Field(None, description="What an adapter was trained on")
    version: int | None = Field(None, description="Of an adapter")
    trigger_word: str | None = None
    family: str
    source: str
    revision: str | None
    licence: str
    description: str
    scale: int | None = Field(description="How many times an upscaler enlarges in one pass")
    default_size: int | None
    native_size: int | None = Field(
        description="The model draws near this side; larger pictures are enlarged from it"
    )
    steps: int | None
    guidance_scale: float | None
    default: bool = Field(description="Used where a request names none of its kind")


class RetiredView(BaseModel):
    """That an adapter is out of use."""

    name: str
    retired: bool


class QueueView(BaseModel):
    """How many tasks of one type wait and run, and how many live workers serve them.

    `oldest_age` is how many seconds ago the oldest that waits was created, null where none does.
    """

    name: str
    pending: int
    running: int
    workers: int
    oldest_age: float | None


class QueuesView(BaseModel):
    """All queues."""

    queues: list[QueueView]


class WorkerView(BaseModel):
    """A worker. `gpu_utilization` is 0 to 1; it and `memory_used_bytes` are null without a GPU.

    `status` is idle, busy, draining or unhealthy, and `reason` says why it is unhealthy. `models`
    are in memory. `tasks` are those that you may see of the `task_count` that it works at. It takes
    no task of a model that it does not serve (`serves`; null where it is any), whose weights it
    lacks, or that is too large for its device.
    """

    id: str
    status: str
    reason: str | None
    gpu_utilization: float | None
    last_heartbeat: Time
    started_at: Time
    host: str
    version: str
    queues: list[str]
    device_kind: str | None = Field(description="cpu, cuda or mps")
    device: str
    memory_bytes: int | None
    memory_used_bytes: int | None
    models: list[str]
    serves: list[str] | None
    lacking: list[str]
    too_large: list[str]
    tasks: list[str]
    task_count: int


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


def task_view(task: Task, urls: Urls, *, receipts: bool = True) -> TaskView:
    """Return a task as its tenant sees it; without `receipts` its pictures have none."""
    detail = task.error_detail
    return TaskView(
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
        params=shown_params(task, urls),
        output=output_view(task.output, urls, receipts=receipts) if task.output else None,
        error=task.error,
        error_detail=ErrorDetailView(
            code=detail.code,
            retryable=detail.retryable,
            attempt=detail.attempt,
            param=detail.param,
        )
        if detail
        else None,
        workflow=_place(task),
        previews=[preview_view(preview, urls) for preview in task.previews] or None,
        reproduces=OutputRefView(**asdict(task.reproduces)) if task.reproduces else None,
        retries=TaskRefView(task_id=task.retries) if task.retries else None,
        **webhook_fields(task.webhook, resource_of(task.type)),
    )


def webhook_fields(webhook: Webhook | None, resource: Resource) -> dict[str, Any]:
    """Return what a view says of a webhook: its tenant wrote the URL, and reads it as it is."""
    if webhook is None:
        return {}
    events = [f"{resource}.{each}" for each in webhook.events]
    return {"webhook_url": webhook.url, "webhook_events": events}


def attempt_view(attempt: Attempt) -> AttemptView:
    """Return an attempt as its tenant sees it."""
    return AttemptView(
        attempt=attempt.number,
        worker=attempt.worker,
        started_at=attempt.started_at,
        ended_at=attempt.ended_at,
        outcome=attempt.outcome,
        error_code=attempt.code,
        error=attempt.message,
        next=attempt.next,
        next_at=attempt.next_at,
        tried_next=attempt.tried_next,
        device_seconds=attempt.device_seconds,
        device_memory_bytes=attempt.device_memory_bytes,
    )


def output_view(output: Output, urls: Urls, *, receipts: bool = True) -> OutputView:
    """Return what a task made, with URLs that anyone may fetch until they expire."""
    told = output.receipts if receipts else ()
    reproduction = output.reproduction
    return OutputView(
        images=[
            image_view(image, urls, receipt=receipt)
            for image, receipt in zip_longest(output.images, told)
        ],
        cache=output.cache,
        seconds_saved=output.seconds_saved,
        reproduction=ReproductionView(**asdict(reproduction)) if reproduction else None,
    )


def image_view(image: OutputImage, urls: Urls, *, receipt: Receipt | None = None) -> ImageView:
    """Return a picture with a URL that anyone may fetch until it expires."""
    return ImageView(
        url=urls.output(image.key),
        seed=image.seed,
        width=image.width,
        height=image.height,
        method=image.method,
        confidence=image.confidence,
        receipt=ReceiptView(sha256=image.sha256, **asdict(receipt)) if receipt else None,
    )


def preview_view(preview: Preview, urls: Urls) -> PreviewView:
    """Return a preview with a URL that works until a newer one takes its place."""
    told = asdict(preview)
    return PreviewView(url=urls.output(told.pop("key")), **told)


def workflow_view(state: WorkflowState, urls: Urls) -> WorkflowView:
    """Return a workflow as its tenant sees it, with one of its runs."""
    workflow, run = state.workflow, state.run
    steps = [_step_view(step, state, urls) for step in state.steps]
    return WorkflowView(
        id=workflow.id,
        name=workflow.name,
        description=workflow.description,
        origin_instance=workflow.origin_instance,
        status=run.status.value,
        progress=sum(step.progress for step in steps) / len(steps),
        current_step=current_step([step.status for step in state.steps]),
        steps=steps,
        run=RunView(id=run.id, number=run.number),
        input=_shorten(run.input),
        **webhook_fields(run.webhook, "workflow"),
        error=run.error,
        created_at=run.created_at,
        started_at=run.started_at,
        completed_at=run.completed_at,
        cleaned_at=run.cleaned_at,
    )


def _step_view(step: Step, state: WorkflowState, urls: Urls) -> StepView:
    spec, tally = step.spec, state.tallies.get(step.position)
    progress = 0.0 if tally is None else tally.progress
    if step.status is StepStatus.COMPLETED:
        progress = 1.0
    waits = step.status is StepStatus.PAUSED
    output = None
    if step.images is not None:
        output = StepOutputView(images=[image_view(image, urls) for image in step.images])
    return StepView(
        name=spec.name,
        type=spec.type,
        depends_on=list(spec.depends_on),
        config=_shorten(spec.config),
        status=step.status.value,
        progress=progress,
        output=output,
        error=step.error,
        cache=None if tally is None else tally.cache,
        seconds_saved=None if tally is None else tally.seconds_saved,
        started_at=step.started_at,
        completed_at=step.completed_at,
        tasks=None
        if state.tasks is None
        else [
            StepTaskView(
                id=task.id, status=task.status.value, progress=task.progress, error=task.error
            )
            for task in state.tasks
            if task.step == step.position
        ],
        candidates=_candidates(step, state, urls) if waits else None,
        message=spec.config.get("message") if waits else None,
        expires_at=step.deadline if waits else None,
    )


def _candidates(step: Step, state: WorkflowState, urls: Urls) -> list[CandidateView]:
    return [
        CandidateView(index=index, **image_view(image, urls).model_dump())
        for index, image in enumerate(candidates_of(step.spec, state.steps))
    ]


def _place(task: Task) -> PlaceView | None:
    if task.workflow_id is None or task.run_id is None:
        return None
    return PlaceView(
        id=task.workflow_id, run_id=task.run_id, step=task.step_name or "", item=task.item or 0
    )


def shown_params(task: Task, urls: Urls) -> dict[str, Any]:
    """Return the parameters; a picture that another step made is shown by a URL that works."""
    shown = {}
    for name, value in task.params.items():
        key = task.inputs.get(name)
        if key is not None and value == f"{OUTPUT_SCHEME}{key}":
            shown[name] = urls.output(key)
        else:
            shown[name] = _shorten(value)
    return shown


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


def model_view(model: Model, *, defaults: Collection[str]) -> ModelView:
    """Return a catalog entry; a local path is the operator's, not the tenant's."""
    draws = model.kind == "base"
    return ModelView(
        name=model.name,
        family=model.family,
        kind=model.kind,
        source=kind if (kind := model.source.partition(":")[0]) in _LOCAL else model.source,
        revision=model.revision,
        licence=model.licence,
        description=model.description,
        scale=model.scale,
        default_size=model.default_size if draws else None,
        native_size=model.native_size,
        steps=model.steps if draws else None,
        guidance_scale=model.guidance_scale if draws else None,
        default=model.name in defaults,
    )


def adapter_model_view(adapter: Adapter) -> ModelView:
    """Return an adapter as an entry of the catalog."""
    return ModelView(
        name=adapter.name,
        kind="adapter",
        base_model=adapter.base_model,
        version=adapter.version,
        trigger_word=adapter.trigger_word,
        family="lora",
        source=f"training:{adapter.task_id}",
        revision=adapter.sha256,
        licence="yours",
        description=f"LoRA of rank {adapter.rank} on {adapter.base_model}",
        scale=None,
        default_size=None,
        native_size=None,
        steps=None,
        guidance_scale=None,
        default=False,
    )


def worker_view(worker: Worker, *, tasks: Sequence[str]) -> WorkerView:
    """Return a worker as who may see these of its tasks sees it.

    A silent one is unhealthy whatever it said last.
    """
    reason = worker.reason if worker.alive else f"no heartbeat for {worker.silent:.0f} s"
    return WorkerView(
        id=worker.id,
        status=worker.status if worker.alive else "unhealthy",
        reason=reason,
        gpu_utilization=worker.gpu_utilization,
        last_heartbeat=worker.last_heartbeat,
        started_at=worker.started_at,
        host=worker.host,
        version=worker.version,
        queues=list(worker.queues),
        device_kind=worker.device_kind,
        device=worker.device,
        memory_bytes=worker.memory_bytes,
        memory_used_bytes=worker.memory_used_bytes,
        models=list(worker.models),
        serves=None if worker.serves is None else list(worker.serves),
        lacking=list(worker.lacking),
        too_large=list(worker.too_large),
        tasks=list(tasks),
        task_count=len(worker.tasks),
    )


def _shorten(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _shorten(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_shorten(inner) for inner in value]
    if isinstance(value, str) and value[:5].lower() == "data:" and len(value) > _SHOWN_URL:
        return f"{value[:_SHOWN_URL]}…"
    return value
