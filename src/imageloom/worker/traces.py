"""The spans of one attempt: how long its task waited, and what the device did for it, to the step.

The device process sends no spans of its own: it tells what it did and when, and they are made here.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from opentelemetry.trace import Span, SpanKind

from imageloom.domain.messages import Spent
from imageloom.domain.tasks import Claim
from imageloom.tracing import Tracing, end, event
from imageloom.worker.device import DeviceProcess

# Steps of an attempt that are spans; those that come later, as of a training, are events of a span
# for each hundred: a span may have no more than 128 of them.
STEP_SPANS: Final = 200
RUN: Final = 100
_STEPS: Final = {"denoise": "denoising step", "work": "unit of work"}


@contextmanager
def attempt_traced(
    tracing: Tracing, device: DeviceProcess, claim: Claim, *, asked_at: float
) -> Iterator[None]:
    """Have a span around an attempt, which was asked for at that Unix time."""
    if not tracing.on:
        yield
        return
    task, now = claim.task, time.time()
    if claim.attempt == 1:
        created = task.created_at.timestamp()
        waited = max(created, task.started_at.timestamp() if task.started_at else now)
        tracing.record("queue wait", began=created, ended=waited, parent=task.traceparent)
    with tracing.span(
        "attempt",
        parent=task.traceparent,
        kind=SpanKind.CONSUMER,
        began=asked_at,
        task_id=task.id,
        attempt=claim.attempt,
        task_type=task.type,
        tenant=task.tenant,
        worker=task.worker,
    ) as span:
        tracing.record("claim", began=asked_at, ended=now, parent=span)
        heard = _OfDevice(tracing, span)
        try:
            with device.watched(f"{task.id}/{claim.attempt}", heard.note):
                yield
        finally:
            heard.close()


class _OfDevice:
    """Makes spans of what the device tells: a phase each, and steps in a row below one span."""

    def __init__(self, tracing: Tracing, attempt: Span) -> None:
        self._tracing = tracing
        self._attempt = attempt
        self._device: Span | None = None
        self._until = 0.0
        self._steps: list[Spent] = []
        self._told = 0

    def note(self, spent: Spent) -> None:
        """Note what the device did for the attempt."""
        if self._device is None:
            self._device = self._tracing.begin("device", began=spent.began, parent=self._attempt)
        self._until = max(self._until, spent.began + spent.seconds)
        if self._steps and (self._steps[0].phase != spent.phase or len(self._steps) == RUN):
            self._tell_steps(self._device)
        if spent.phase in _STEPS:
            self._steps.append(spent)
        else:
            ended = spent.began + spent.seconds
            self._tracing.record(spent.phase, began=spent.began, ended=ended, parent=self._device)

    def close(self) -> None:
        """End what is open."""
        if self._device is not None:
            if self._steps:
                self._tell_steps(self._device)
            end(self._device, at=self._until)

    def _tell_steps(self, device: Span) -> None:
        steps, self._steps = self._steps, []
        phase, name = steps[0].phase, _STEPS[steps[0].phase]
        run = self._tracing.begin(phase, began=steps[0].began, parent=device, steps=len(steps))
        for step in steps:
            ended = step.began + step.seconds
            also = {"rows": step.rows, "attempts": len(step.keys)} if step.rows else {}
            if self._told < STEP_SPANS:
                self._tracing.record(name, began=step.began, ended=ended, parent=run, **also)
            else:
                event(run, name, at=step.began, attributes={"seconds": step.seconds, **also})
            self._told += 1
        end(run, at=steps[-1].began + steps[-1].seconds)
