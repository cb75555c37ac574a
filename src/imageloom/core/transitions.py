"""What is said and counted of each change of a task's status: one log line, once it is committed.

Nothing that a user wrote is among it: no parameters, no text of an error, only its code.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import partial

import structlog

from imageloom.core.meters import Meters
from imageloom.domain.metrics import ATTEMPTS_ENDED, PICTURES, TASK_RUN, TASK_WAIT, TASKS_ENDED
from imageloom.domain.retry import Decision
from imageloom.domain.tasks import Failed, Outcome, Status, Task
from imageloom.store.pool import after_commit
from imageloom.store.tasks import Withdrawn
from imageloom.tracing import trace_of

_log = structlog.get_logger("imageloom.task")


def note_submitted(made: Iterable[Task]) -> None:
    """Note that tasks wait for the first time."""
    for task in made:
        after_commit(partial(_say, "submitted", task))


def note_claimed(meters: Meters, task: Task) -> None:
    """Note that an attempt began."""
    first = task.attempt == 1
    waited = _seconds(task.created_at, task.started_at) if first else None

    def note() -> None:
        _say("claimed", task, worker=task.worker, duration_s=waited)
        if waited is not None:
            meters.observe(TASK_WAIT, waited, type=task.type)

    after_commit(note)


def note_settled(
    meters: Meters, task: Task, settled: Task, *, outcome: Outcome, decision: Decision
) -> None:
    """Note how the attempt of `task` ended and what became of it."""
    kind = type(outcome).__name__.lower()
    code = outcome.code if isinstance(outcome, Failed) else None
    seconds = _seconds(settled.started_at, settled.completed_at)

    def note() -> None:
        _say(
            "settled",
            settled,
            worker=task.worker,
            outcome=kind,
            code=decision.error_detail.code if decision.error_detail else code,
            duration_s=seconds,
        )
        if task.status is Status.RUNNING:
            meters.count(ATTEMPTS_ENDED, type=task.type, outcome=kind, code=code or "")
        if settled.status.terminal:
            meters.count(TASKS_ENDED, type=task.type, status=settled.status.value)
            if seconds is not None:
                meters.observe(TASK_RUN, seconds, type=task.type, status=settled.status.value)
        if settled.output is not None and settled.output.cache != "hit":
            meters.count(PICTURES, len(settled.output.images), type=task.type)

    after_commit(note)


def note_withdrawn(meters: Meters, cancelled: Iterable[Withdrawn]) -> None:
    """Note that tasks were cancelled before anybody claimed them."""
    for each in cancelled:
        after_commit(partial(_withdraw, meters, each))


def begin_counting(meters: Meters, *, types: Iterable[str]) -> None:
    """Have the counters of these task types at 0, so that a rate sees the first count."""
    for name in types:
        for status in Status:
            if status.terminal:
                meters.count(TASKS_ENDED, 0, type=name, status=status.value)
        meters.count(PICTURES, 0, type=name)


def _withdraw(meters: Meters, each: Withdrawn) -> None:
    _log.info(
        "settled",
        task_id=each.id,
        attempt=each.attempt,
        task_type=each.type,
        tenant=each.tenant,
        status=Status.CANCELLED.value,
        outcome="cancelled",
    )
    meters.count(TASKS_ENDED, type=each.type, status=Status.CANCELLED.value)


def _say(event: str, task: Task, **fields: object) -> None:
    if task.traceparent is not None:
        fields["trace_id"] = trace_of(task.traceparent)  # its own, whoever cancels it
    _log.info(
        event,
        task_id=task.id,
        attempt=task.attempt,
        task_type=task.type,
        tenant=task.tenant,
        status=task.status.value,
        **{name: value for name, value in fields.items() if value is not None},
    )


def _seconds(began: datetime | None, ended: datetime | None) -> float | None:
    if began is None or ended is None:
        return None
    return round(max(0.0, (ended - began).total_seconds()), 6)
