"""What the server's answers become: frozen values, and the readable half of a task.

Every value keeps the whole answer in `raw`, so a field that this version does not know is not
lost, and a field that is missing reads as None or as an empty value instead of failing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeVar

JSON = dict[str, Any]
T = TypeVar("T")

FINAL = frozenset({"completed", "failed", "cancelled"})
_SAID_ONCE = ("type", "created_at", "started_at")


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One picture that a task made. `url` is signed: it needs no key, and it expires.

    `method` and `confidence` (0 to 1) say how a subject was told from its background, where that
    was done. `receipt` is what a generation was made from; lists leave it out.
    """

    url: str
    seed: int | None = None
    width: int | None = None
    height: int | None = None
    method: str | None = None
    confidence: float | None = None
    receipt: JSON | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """When something will have happened with a probability of 0.5, and of 0.9."""

    p50: datetime
    p90: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Eta:
    """When a task will start and finish; None where it has, or with nothing to go by."""

    start: Moments | None = None
    finish: Moments | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What the picture `index` may become, seen after `step` of its `steps`, while it is made."""

    url: str
    index: int
    step: int
    steps: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Reproduction:
    """How an output that was made again compares with the first.

    `result` is identical, near or different; `largest_difference` that of a channel of a pixel, 0
    to 255. `changed` are the fields of the receipt that are not what they were.
    """

    result: str
    largest_difference: int | None = None
    changed: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a task made. A training makes no images of this kind: see `Training`."""

    images: list[Image] = field(default_factory=list)
    reproduction: Reproduction | None = None
    raw: JSON = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetail:
    """Why a task failed, for programs: a stable `code`, and whether trying again may help."""

    code: str
    retryable: bool = False
    attempt: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An uploaded input; every `*_url` field of the same tenant accepts its `url`."""

    id: str
    url: str
    size: int | None = None
    media_type: str | None = None
    sha256: str | None = None
    expires_at: datetime | None = None
    raw: JSON = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A base model or a trained adapter that a task may name.

    `base_model`, `version` and `trigger_word` are those of an adapter, whose `kind` is adapter.
    """

    name: str
    kind: str | None = None
    base_model: str | None = None
    version: int | None = None
    trigger_word: str | None = None
    raw: JSON = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """One line of waiting tasks. `oldest_age` is how many seconds the oldest of them has waited."""

    name: str
    pending: int = 0
    running: int = 0
    workers: int = 0
    oldest_age: float | None = None
    raw: JSON = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker:
    """One worker. `status` is idle, busy, draining or unhealthy; utilisation is 0 to 1.

    `device_kind` is cpu, cuda or mps, `models` are in memory, `reason` says why it is unhealthy.
    `tasks` are those that you may see of the `task_count` that it works at.
    """

    id: str
    status: str
    reason: str | None = None
    device_kind: str | None = None
    device: str = ""
    memory_bytes: int | None = None
    memory_used_bytes: int | None = None
    gpu_utilization: float | None = None
    models: list[str] = field(default_factory=list)
    tasks: list[str] = field(default_factory=list)
    task_count: int = 0
    version: str = ""
    last_heartbeat: datetime | None = None
    raw: JSON = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Page(Generic[T]):
    """One page of a longer list; iterate over it to get its items."""

    items: list[T]
    total: int
    page: int
    page_size: int

    @property
    def has_next(self) -> bool:
        """Whether there is a page after this one."""
        return self.page * self.page_size < self.total

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class TaskData:
    """The last answer about a task, read through properties."""

    raw: JSON

    def _take(self, raw: JSON) -> None:
        """Replace the answer, keeping what a short answer leaves out but cannot have changed."""
        before = getattr(self, "raw", {})
        self.raw = {name: before[name] for name in _SAID_ONCE if name in before} | raw

    @property
    def id(self) -> str:
        """The task's id, `task_…` or `train_…`."""
        return str(self.raw["id"])

    @property
    def type(self) -> str:
        """The task type: generation, processing or training."""
        return str(self.raw.get("type") or "")

    @property
    def status(self) -> str:
        """One of pending, running, completed, failed and cancelled."""
        return str(self.raw.get("status") or "")

    @property
    def done(self) -> bool:
        """Whether the status is final."""
        return self.status in FINAL

    @property
    def progress(self) -> float:
        """From 0 to 1; it is 1.0 only when the task is completed."""
        return float(self.raw.get("progress") or 0.0)

    @property
    def priority(self) -> int | None:
        """Which of its tenant's waiting tasks is first: the highest. -10 to 10."""
        return integer(self.raw.get("priority"))

    @property
    def queue_position(self) -> int | None:
        """How many tasks are ahead of a pending one; 0 is next."""
        return integer(self.raw.get("queue_position"))

    @property
    def eta(self) -> Eta | None:
        """When it will start and finish; None once it is over, and with nothing to go by."""
        return eta_from(self.raw.get("eta"))

    @property
    def runnable(self) -> bool | None:
        """Whether a live worker can ever run a pending task; None where it is not pending."""
        value = self.raw.get("runnable")
        return value if isinstance(value, bool) else None

    @property
    def runnable_reason(self) -> str | None:
        """Why no live worker can ever run it."""
        value = self.raw.get("runnable_reason")
        return None if value is None else str(value)

    @property
    def runnable_change(self) -> str | None:
        """The nearest change with which one could."""
        value = self.raw.get("runnable_change")
        return None if value is None else str(value)

    @property
    def error(self) -> str | None:
        """Why the task failed, for people."""
        value = self.raw.get("error")
        return None if value is None else str(value)

    @property
    def error_detail(self) -> ErrorDetail | None:
        """Why the task failed, for programs."""
        detail = self.raw.get("error_detail")
        if not isinstance(detail, dict):
            return None
        return ErrorDetail(
            code=str(detail.get("code") or ""),
            retryable=detail.get("retryable") is True,
            attempt=integer(detail.get("attempt")),
            param=detail.get("param"),
        )

    @property
    def output(self) -> Output | None:
        """What the task made; None while it has made nothing."""
        return output_from(self.raw.get("output"))

    @property
    def previews(self) -> list[Preview]:
        """What the pictures may become, while the task runs and was asked for previews."""
        return [
            Preview(url=each["url"], index=each["index"], step=each["step"], steps=each["steps"])
            for each in self.raw.get("previews") or ()
        ]

    @property
    def created_at(self) -> datetime | None:
        """When the task was created, in UTC."""
        return moment(self.raw.get("created_at"))

    @property
    def started_at(self) -> datetime | None:
        """When a worker began, in UTC."""
        return moment(self.raw.get("started_at"))

    @property
    def completed_at(self) -> datetime | None:
        """When the task ended, in UTC."""
        return moment(self.raw.get("completed_at"))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.status} {self.progress:.0%}>"


def moment(value: object) -> datetime | None:
    """Return an RFC 3339 time as an aware datetime in UTC; None for anything else."""
    try:
        parsed = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    if parsed is None:
        return None
    return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)


def task_raw(raw: JSON) -> JSON:
    """Return the answer about a task. Raises: KeyError when it has no id or no status."""
    _ = raw["id"], raw["status"]
    return raw


def items_from(raw: JSON, *, name: str, each: Callable[[JSON], T]) -> list[T]:
    """Return the values of the list that stands under `name`."""
    return [each(item) for item in raw[name]]


def page_from(raw: JSON, *, each: Callable[[JSON], T]) -> Page[T]:
    """Return one page of a list answer."""
    items = items_from(raw, name="items", each=each)
    return Page(
        items=items,
        total=int(raw.get("total", len(items))),
        page=int(raw.get("page", 1)),
        page_size=int(raw.get("page_size", len(items))),
    )


def file_from(raw: JSON) -> File:
    """Return an uploaded file from its answer."""
    return File(
        id=str(raw["id"]),
        url=str(raw["url"]),
        size=integer(raw.get("size")),
        media_type=raw.get("media_type"),
        sha256=raw.get("sha256"),
        expires_at=moment(raw.get("expires_at")),
        raw=raw,
    )


def model_from(raw: JSON) -> Model:
    """Return a model or adapter from an item of the list."""
    return Model(
        name=str(raw.get("name") or raw["id"]),
        kind=raw.get("kind"),
        base_model=raw.get("base_model"),
        version=integer(raw.get("version")),
        trigger_word=raw.get("trigger_word"),
        raw=raw,
    )


def queue_from(raw: JSON) -> Queue:
    """Return a queue from an item of the list."""
    return Queue(
        name=str(raw["name"]),
        pending=integer(raw.get("pending")) or 0,
        running=integer(raw.get("running")) or 0,
        workers=integer(raw.get("workers")) or 0,
        oldest_age=raw.get("oldest_age"),
        raw=raw,
    )


def worker_from(raw: JSON) -> Worker:
    """Return a worker from an item of the list."""
    return Worker(
        id=str(raw["id"]),
        status=str(raw.get("status") or ""),
        reason=raw.get("reason"),
        device_kind=raw.get("device_kind"),
        device=str(raw.get("device") or ""),
        memory_bytes=integer(raw.get("memory_bytes")),
        memory_used_bytes=integer(raw.get("memory_used_bytes")),
        gpu_utilization=raw.get("gpu_utilization"),
        models=[str(name) for name in raw.get("models") or ()],
        tasks=[str(task) for task in raw.get("tasks") or ()],
        task_count=integer(raw.get("task_count")) or 0,
        version=str(raw.get("version") or ""),
        last_heartbeat=moment(raw.get("last_heartbeat")),
        raw=raw,
    )


def output_from(raw: object) -> Output | None:
    """Return what a task or step made; None where it has made nothing."""
    if not isinstance(raw, dict):
        return None
    images = [image_from(each) for each in raw.get("images") or () if each.get("url")]
    return Output(images=images, reproduction=_reproduction(raw.get("reproduction")), raw=raw)


def image_from(raw: JSON) -> Image:
    """Return a picture from its answer."""
    return Image(
        url=str(raw["url"]),
        seed=integer(raw.get("seed")),
        width=integer(raw.get("width")),
        height=integer(raw.get("height")),
        method=raw.get("method"),
        confidence=raw.get("confidence"),
        receipt=raw.get("receipt"),
    )


def _reproduction(raw: object) -> Reproduction | None:
    if not isinstance(raw, dict):
        return None
    return Reproduction(
        result=str(raw.get("result") or ""),
        largest_difference=integer(raw.get("largest_difference")),
        changed=[str(name) for name in raw.get("changed") or ()],
    )


def eta_from(raw: Any) -> Eta | None:
    """Return the `eta` of an answer."""
    if not isinstance(raw, dict):
        return None
    return Eta(start=_moments(raw.get("start")), finish=_moments(raw.get("finish")))


def _moments(raw: Any) -> Moments | None:
    if not isinstance(raw, dict):
        return None
    p50, p90 = moment(raw.get("p50")), moment(raw.get("p90"))
    return None if p50 is None or p90 is None else Moments(p50=p50, p90=p90)


def integer(value: object) -> int | None:
    """Return a whole number; None for anything else."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None
