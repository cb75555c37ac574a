"""The life of a task: its statuses, the transitions between them, and how an attempt can end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Literal

from imageloom.domain.forecast import Effort
from imageloom.domain.receipts import OutputRef, Receipt, Reproduction
from imageloom.domain.runnable import Verdict
from imageloom.domain.webhooks import Webhook


class Status(StrEnum):
    """Where a task stands. The last three are terminal."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        """Whether nothing can change the task any more."""
        return not TRANSITIONS[self]


# running -> running is a second claim: the first worker died and the reaper has not seen it yet.
TRANSITIONS: dict[Status, frozenset[Status]] = {
    Status.PENDING: frozenset({Status.RUNNING, Status.CANCELLED}),
    Status.RUNNING: frozenset(
        {Status.PENDING, Status.RUNNING, Status.COMPLETED, Status.FAILED, Status.CANCELLED}
    ),
    Status.COMPLETED: frozenset(),
    Status.FAILED: frozenset(),
    Status.CANCELLED: frozenset(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputImage:
    """One picture that a task made; `key` names its bytes in storage.

    `method` and `confidence` (0 to 1) say how a subject was told from its background.
    """

    key: str
    seed: int | None
    width: int
    height: int
    media_type: str
    size: int
    sha256: str
    method: str | None = None
    confidence: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What output `index` may become, seen after `step` of its `steps`, while it is made.

    `width` and `height` are those of the preview, in pixels.
    """

    index: int
    step: int
    steps: int
    key: str
    width: int
    height: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterFile:
    """An adapter that a training made after `step` steps, published or not."""

    key: str
    sha256: str
    size: int
    step: int
    held_out_loss: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a completed task made, in the order that was asked for.

    A training made an `adapter`; `lineage` are the digests of what it was made from.

    `cache` says whether it was made (`miss`) or found under `cache_key` among the pictures of an
    earlier task (`hit`), which had taken `seconds_saved`; None where it was not looked for.
    `receipts` are those of `images`, in their order, of pictures that were drawn from a seed.
    `reproduction` compares an output that was made again with the first.
    """

    images: tuple[OutputImage, ...] = ()
    adapter: AdapterFile | None = None
    lineage: dict[str, Any] | None = None
    cache: Literal["hit", "miss"] | None = None
    cache_key: str | None = None
    seconds_saved: float | None = None
    receipts: tuple[Receipt, ...] = ()
    reproduction: Reproduction | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetail:
    """Why a task failed, for programs: `code` is stable, `attempt` is the one that failed."""

    code: str
    retryable: bool
    attempt: int
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """When something will have happened with a probability of 0.5, and of 0.9."""

    p50: datetime
    p90: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Eta:
    """When a task will start and finish; None where it has, or where there is nothing to go by."""

    start: Moments | None
    finish: Moments | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What lies before a task that is not over; `verdict` is None once it runs."""

    eta: Eta | None
    verdict: Verdict | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A durable request for work, as the store knows it. Times are database time, UTC.

    A task of a workflow knows its run, its step by position and name, and which item of the step it
    makes.
    `cache_base` is the part of its cache key that is known before its inputs are read.
    `reproduces` is the output that it makes again, `retries` the task that it does over.
    `previews` are of a running attempt.
    `traceparent` is the span, as W3C says it, in which it was made.
    It is `units` of work at a `pace`, as `domain.forecast.Effort` says.
    `queue_position` is how many tasks come before it, None where it does not wait or nobody asked,
    as nobody may have for its `outlook`.
    """

    id: str
    tenant: str
    type: str
    status: Status
    params: dict[str, Any]
    inputs: dict[str, str]
    priority: int
    attempt: int
    interruptions: int
    max_attempts: int
    worker: str | None
    job_id: int | None
    progress: float
    output: Output | None
    error: str | None
    error_detail: ErrorDetail | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    cleaned_at: datetime | None
    workflow_id: str | None
    run_id: str | None
    step: int | None
    step_name: str | None
    item: int | None
    backoff_seconds: float | None
    cache_base: str | None
    reproduces: OutputRef | None
    retries: str | None
    previews: tuple[Preview, ...]
    webhook: Webhook | None
    traceparent: str | None
    pace: str | None = None
    units: float | None = None
    queue_position: int | None = None
    outlook: Outlook | None = None

    @property
    def effort(self) -> Effort | None:
        """How much work it is; None of one from before that was noted."""
        return None if self.pace is None else Effort(pace=self.pace, units=self.units)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A task to be made: what `Task` says of it before anybody worked on it."""

    id: str
    tenant: str
    type: str
    params: dict[str, Any]
    inputs: dict[str, str]
    max_attempts: int
    priority: int = 0
    workflow_id: str | None = None
    run_id: str | None = None
    step: int | None = None
    step_name: str | None = None
    item: int | None = None
    backoff_seconds: float | None = None
    cache_base: str | None = None
    reproduces: OutputRef | None = None
    retries: str | None = None
    webhook: Webhook | None = None
    traceparent: str | None = None
    pace: str | None = None
    units: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """The right to one attempt: every later write carries its number."""

    task: Task
    attempt: int


# How one attempt ended. A closed set: `domain.retry.decide` matches it exhaustively.


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """The output is in storage."""

    output: Output


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt raised; `message` is what the user reads."""

    code: str
    message: str
    retryable: bool
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cancelled:
    """The user asked for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interrupted:
    """A living worker hands the task back, as on a drain. Spends no attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The worker or its device went silent. Spends the attempt, or a poison task lives for ever."""

    reason: str


Outcome = Completed | Failed | Cancelled | Interrupted | Lost
