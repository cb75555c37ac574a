"""What happened to a task, in order: from its ledger of attempts and its events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from imageloom.domain.tasks import Status
from imageloom.store.attempts import Attempt
from imageloom.store.events import Stretch
from imageloom.store.summaries import TaskSummary


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A change of a task. `progress` is how far the attempt had come; `note` says why."""

    at: datetime
    status: str
    attempt: int
    progress: float
    note: str | None = None


def timeline(
    task: TaskSummary, attempts: Sequence[Attempt], stretches: Sequence[Stretch]
) -> list[Moment]:
    """Return its creation, the begin and end of every attempt, and what else changed its status.

    Old events are gone after a week; the ledger stays.
    """
    moments = [Moment(at=task.created_at, status=Status.PENDING.value, attempt=0, progress=0)]
    reached = {
        stretch.attempt: stretch.progress for stretch in stretches if stretch.status == "running"
    }
    for attempt in attempts:
        moments += _of_attempt(attempt, reached=reached.get(attempt.number, 0.0))
    told = {(moment.attempt, moment.status) for moment in moments}
    moments += [
        Moment(
            at=stretch.at,
            status=stretch.status,
            attempt=stretch.attempt,
            progress=stretch.progress,
        )
        for stretch in stretches
        if (stretch.attempt, stretch.status) not in told
    ]
    return sorted(moments, key=lambda moment: moment.at)


def _of_attempt(attempt: Attempt, *, reached: float) -> list[Moment]:
    begun = Moment(
        at=attempt.started_at,
        status=Status.RUNNING.value,
        attempt=attempt.number,
        progress=0,
        note=f"attempt {attempt.number} by {attempt.worker}",
    )
    if attempt.ended_at is None or attempt.next is None:
        return [begun]
    return [
        begun,
        Moment(
            at=attempt.ended_at,
            status=attempt.next,
            attempt=attempt.number,
            progress=1.0 if attempt.outcome == "completed" else reached,
            note=_end(attempt),
        ),
    ]


def _end(attempt: Attempt) -> str:
    said = f"attempt {attempt.number} {attempt.outcome}"
    if attempt.code is not None:
        said += f" ({attempt.code})"
    if attempt.message is not None:
        said += f": {attempt.message}"
    match attempt.next:
        case "pending":
            return f"{said}; it is tried again"
        case "running":
            return f"{said}; the next began"
        case "failed":
            return f"{said}; it is not tried again"
        case _:
            return said
