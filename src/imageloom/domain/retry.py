"""The retry policy: one function from how an attempt ended to what becomes of the task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from imageloom.domain.tasks import (
    Cancelled,
    Completed,
    ErrorDetail,
    Failed,
    Interrupted,
    Lost,
    Outcome,
    Output,
    Status,
)

# Tries that an error code gets at most, whatever the task's own limit. Memory that did not suffice
# twice on the same kind of device will not suffice the third time.
ATTEMPT_CAPS = {"out_of_memory": 2}

BACKOFF_BASE = 0.5  # seconds before the second attempt; doubles with each one
BACKOFF_LIMIT = 30.0  # seconds
ASKED_BACKOFF_LIMIT = 3600.0  # seconds, where the user named the first one


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What `settle` writes. `delay` is in seconds and counts only where the task goes back."""

    status: Status
    output: Output | None = None
    error: str | None = None
    error_detail: ErrorDetail | None = None
    spends_attempt: bool = True
    delay: float = 0.0


def decide(
    outcome: Outcome,
    *,
    attempt: int,
    spent: int,
    max_attempts: int,
    first_backoff: float | None = None,
) -> Decision:
    """Return what an outcome means for its task.

    `attempt` is the number of the attempt that ended, `spent` how many attempts count against
    `max_attempts`, this one included (interrupted ones do not count). `first_backoff` is the
    seconds that the user wants before the second attempt.
    """
    match outcome:
        case Completed(output=output):
            return Decision(status=Status.COMPLETED, output=output)
        case Cancelled():
            return Decision(status=Status.CANCELLED)
        case Interrupted():
            return Decision(status=Status.PENDING, spends_attempt=False)
        case Failed(code=code, message=message, retryable=retryable, param=param):
            limit = min(max_attempts, ATTEMPT_CAPS.get(code, max_attempts))
            if retryable and spent < limit:
                return Decision(status=Status.PENDING, delay=backoff(spent, first_backoff))
            detail = ErrorDetail(code=code, retryable=retryable, attempt=attempt, param=param)
            return Decision(status=Status.FAILED, error=message, error_detail=detail)
        case Lost(reason=reason):
            if spent < max_attempts:
                # No delay: the fault was most likely the machine's, and another one may be free.
                return Decision(status=Status.PENDING)
            detail = ErrorDetail(code="worker_lost", retryable=True, attempt=attempt)
            text = f"The worker was lost in each of {spent} attempts: {reason}"
            return Decision(status=Status.FAILED, error=text, error_detail=detail)
        case _:
            assert_never(outcome)


# The rungs of `runtime.relief`, as a user reads them.
_RELIEF = {
    "fewer_rows": "half of the rows in a step",
    "others_evicted": "other models off the device",
    "tiles": "the picture in tiles",
    "offloaded": "the parts of the model in turns",
}


def next_in_words(
    outcome: Outcome, decision: Decision, *, held: bool, alone: bool, relief: Sequence[str] = ()
) -> str | None:
    """Return what was tried after an outcome, None where nothing had to be.

    `relief` was tried before it, for want of memory. `held` where the workflow is paused, `alone`
    where the next attempt has its device to itself.
    """
    before = ", ".join(_RELIEF[rung] for rung in relief if rung in _RELIEF)
    told = _next(outcome, decision, held=held, alone=alone)
    if not before or told is None:
        return f"{before}: that sufficed" if before else told
    return f"{before}; then {told}"


def _next(outcome: Outcome, decision: Decision, *, held: bool, alone: bool) -> str | None:
    if decision.status is Status.PENDING:
        when = f"after {decision.delay:g} s" if decision.delay else "at once"
        if held:
            when = "once its workflow goes on"
        return f"again {when}{', alone on its device' if alone else ''}"
    match outcome:
        case Completed():
            return None
        case Cancelled():
            return "none: it was cancelled"
        case Failed(retryable=False):
            return "none: it would fail again"
        case Failed() | Lost() | Interrupted():
            return "none: attempts are used up"
        case _:
            assert_never(outcome)


def backoff(spent: int, first: float | None = None) -> float:
    """Return the seconds to wait after `spent` attempts: `first`, twice that, … up to an hour.

    Without `first`: 0.5, 1, 2, … up to 30.
    """
    if first is None:
        return float(min(BACKOFF_LIMIT, BACKOFF_BASE * 2 ** (spent - 1)))
    return float(min(ASKED_BACKOFF_LIMIT, first * 2 ** (spent - 1)))
