"""The life of a task: its statuses, the transitions between them, and how an attempt can end."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any


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
    """One picture that a task made; `key` names its bytes in storage."""

    key: str
    seed: int | None
    width: int
    height: int
    media_type: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What a completed task made, in the order that was asked for."""

    images: tuple[OutputImage, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDetail:
    """Why a task failed, for programs: `code` is stable, `attempt` is the one that failed."""

    code: str
    retryable: bool
    attempt: int
    param: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A durable request for work, as the store knows it. Times are database time, UTC."""

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
