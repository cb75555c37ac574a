"""When a waiting task will begin and end: arithmetic on the queue ahead and on measured paces.

A device is shared equally by the tasks in its slots, and whoever waits takes the next slot that
gets free, first come first served. In the time that one slot's share amounts to, this is a queue
with a server for each slot; while all slots are busy, that time goes by as fast as the devices do
over the slots. What this leaves out (newcomers that are put ahead, tasks that find their pictures
in the step cache, what the worker does beside its device) is in the ratios of earlier forecasts to
what became of them, which set it right.

Source: Zhang and Zwart 2008, Steady state approximations of limited processor sharing queues in
heavy traffic (Queueing Systems 60), section 2, for the discipline.
"""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

# Between the row of a task and the claim of a worker that is idle: bench/README.md, latency.
CLAIM_SECONDS: Final = 0.02
# Tasks ahead that are put into slots one by one; of those beyond, every slot gets its part.
_PLACED: Final = 200
# Earlier forecasts of up to so many times the wait, and down to that part of it, are like it.
_LIKE: Final = 4.0
# The same of the company in which something was measured.
_COMPANY_LIKE: Final = 2.0
# So many of them must be known to say how far off they are. Until then the arithmetic is the
# median, and nine in ten are taken to need at most twice as long and a bit: a claim on a busy
# machine took up to 60 ms.
LEAST_KNOWN: Final = 20
DEFAULT_P90: Final = 2.0
DEFAULT_P90_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much work a task is: `units` of those that take the same time, at the same `pace`.

    `pace` names what decides that time, such as `generation/sd-xl-base`; `units` is None where
    nobody can know before.
    """

    pace: str
    units: float | None


class Past(NamedTuple):
    """An earlier wait in seconds: as computed at today's pace, as computed then, as it came."""

    today: float
    then: float
    real: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast the last tasks of a pace went, and how many seconds they needed beside the device.

    `measured` are pairs of company and device seconds a unit: a step of many rows costs each less,
    so what was measured alone says little of a full device. Company is about how many tasks shared
    the device: the time that one took by its own share of the device.

    `starts` and `finishes` are those of tasks that were told some.
    """

    measured: tuple[tuple[float, float], ...]
    beside_seconds: float
    starts: tuple[Past, ...] = ()
    finishes: tuple[Past, ...] = ()

    def unit_seconds(self, company: float) -> float:
        """Return the median device seconds of a unit in about that company, else in any."""
        like = [
            unit
            for shared, unit in self.measured
            if company / _COMPANY_LIKE <= shared <= company * _COMPANY_LIKE
        ]
        return statistics.median(like or [unit for _, unit in self.measured])


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A queue and who serves it.

    `slots` are those of all `devices` together, `share` is what the queue gets of their time, above
    0 to 1. `running` are the device seconds that each task in a slot still needs, `mean` is what
    those that wait need on average, None where that is not known.
    """

    slots: int
    devices: int
    share: float
    running: tuple[float, ...]
    mean: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """Seconds from now to the start and to the finish; None where there is nothing to go by."""

    start: float
    finish: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Seconds from now that one in two, and that nine in ten, need at most."""

    p50: float
    p90: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """When a task starts and finishes; `start` is None once it runs."""

    start: Span | None
    finish: Span | None


def foresee(line: Line, *, ahead: int, seconds: float | None, beside: float) -> Wait | None:
    """Return the wait of a task that `ahead` others come before, by arithmetic alone.

    `seconds` are those that it needs of a device, `beside` those that it needs besides. None where
    nobody serves the queue, or nothing is known of those ahead.
    """
    if line.slots < 1 or line.devices < 1 or line.share <= 0:
        return None
    busy = sorted(line.running)[-line.slots :]
    slots = sorted([*busy, *[0.0] * (line.slots - len(busy))])  # a sorted list is a heap
    if line.mean is None:
        if ahead or len(line.running) >= line.slots:
            return None
    else:
        for _ in range(min(ahead, _PLACED)):
            heapq.heapreplace(slots, slots[0] + line.mean)
        beyond = max(0, ahead - _PLACED) * line.mean / line.slots
        slots = [each + beyond for each in slots]
    free_at = min(slots)
    start = CLAIM_SECONDS + free_at * line.slots / line.devices / line.share
    if seconds is None:
        return Wait(start=start, finish=None)
    others = [each - free_at for each in slots]
    others.remove(0.0)
    return Wait(start=start, finish=start + _shared(others, seconds, line) + beside)


def foresee_running(
    line: Line, *, others: Sequence[float], seconds: float, beside: float
) -> float | None:
    """Return the seconds in which a task in a slot finishes, beside `others` that run."""
    if line.devices < 1 or line.share <= 0:
        return None
    return _shared(others, seconds, line) + beside


def spread(computed: float, known: Sequence[Past]) -> Span:
    """Return a computed wait as it should be told, by those that are `known`.

    How far off the arithmetic is shows at today's pace; how far off a forecast can be, in those
    that were made at a pace which then changed.
    """
    like = [
        past
        for past in known
        if min(past.today, past.then) > 0 and computed / _LIKE <= past.today <= computed * _LIKE
    ]
    if len(like) < LEAST_KNOWN:
        return Span(p50=computed, p90=computed * DEFAULT_P90 + DEFAULT_P90_SECONDS)
    p50, p90 = _p50_and_p90([past.real / past.today for past in like])
    told_p50, told_p90 = _p50_and_p90([past.real / past.then for past in like])
    drifted = p50 * told_p90 / told_p50 if told_p50 > 0 else p90
    return Span(p50=computed * p50, p90=computed * max(p90, drifted))


def told(wait: Wait, pace: Pace | None) -> Forecast:
    """Return a wait as it should be told: set right, and finished no earlier than started."""
    start = spread(wait.start, pace.starts if pace else ())
    if wait.finish is None:
        return Forecast(start=start, finish=None)
    finish = spread(wait.finish, pace.finishes if pace else ())
    return Forecast(
        start=start,
        finish=Span(p50=max(start.p50, finish.p50), p90=max(start.p90, finish.p90)),
    )


def _p50_and_p90(ratios: Sequence[float]) -> tuple[float, float]:
    tenths = statistics.quantiles(ratios, n=10, method="inclusive")
    return max(0.0, tenths[4]), max(0.0, tenths[8])


def _shared(others: Sequence[float], seconds: float, line: Line) -> float:
    """Return how long a task takes beside others that leave as they end.

    Each has had as much as it when it ends, or was done before; at best it has a device alone.
    """
    work = seconds + sum(min(each, seconds) for each in others)
    return max(seconds, work / line.devices) / line.share
