"""When a waiting task will begin and end: tables, and what must hold whatever the queue."""

from __future__ import annotations

import itertools
import random

import pytest

from imageloom.domain.forecast import (
    CLAIM_SECONDS,
    DEFAULT_P90,
    DEFAULT_P90_SECONDS,
    LEAST_KNOWN,
    Line,
    Pace,
    Past,
    Span,
    Wait,
    foresee,
    foresee_running,
    spread,
    told,
)


def line(
    *running: float,
    slots: int = 2,
    devices: int = 1,
    share: float = 1.0,
    mean: float | None = 4.0,
) -> Line:
    return Line(slots=slots, devices=devices, share=share, running=running, mean=mean)


@pytest.mark.parametrize(
    ("queue", "ahead", "start", "finish"),
    [
        (line(), 0, 0, 4),  # a free device
        (line(3), 0, 0, 4 + 3),  # shared with one that leaves first
        (line(9), 0, 0, 4 + 4),  # shared to the end
        (line(3, 5), 0, 6, 6 + 4 + 2),  # the first slot is free when both had 3 seconds
        (line(3, 5), 1, 10, 10 + 4 + 2),  # and again after one more
        (line(4, 4, slots=1), 0, 4, 8),  # one at a time: a claim that overlaps does not count twice
        (line(3, 5, slots=4, devices=2), 0, 0, 5.5),  # two devices
        (line(3, 5, slots=2, devices=2), 0, 3, 3 + 4),  # each with a slot of its own
        (line(slots=2, share=0.5), 0, 0, 8),  # half of the device's time
        (line(3, 5, slots=8, mean=None), 0, 0, 4 + 3 + 4),  # nobody waits, so it does not matter
    ],
)
def test_wait_of_a_task(queue: Line, ahead: int, start: float, finish: float) -> None:
    found = foresee(queue, ahead=ahead, seconds=4.0, beside=0.5)
    assert found is not None
    assert found.finish is not None
    assert found.start == pytest.approx(start + CLAIM_SECONDS)
    assert found.finish == pytest.approx(finish + CLAIM_SECONDS + 0.5)


@pytest.mark.parametrize(
    ("queue", "ahead"),
    [
        (line(slots=0, devices=0), 0),  # nobody serves it
        (line(share=0.0), 0),  # a training that gets nothing of a busy device
        (line(mean=None), 1),  # nothing is known of who is ahead
        (line(1, 1, mean=None), 0),  # nor of who is in the slots
    ],
)
def test_nothing_is_told_with_nothing_to_go_by(queue: Line, ahead: int) -> None:
    assert foresee(queue, ahead=ahead, seconds=4.0, beside=0.0) is None


def test_a_task_of_unknown_length_is_told_its_start_alone() -> None:
    found = foresee(line(3, 5), ahead=1, seconds=None, beside=0.0)
    assert found == Wait(start=10 + CLAIM_SECONDS, finish=None)
    assert told(Wait(start=1.0, finish=None), None).finish is None


def test_a_running_task_shares_with_those_beside_it() -> None:
    assert foresee_running(line(), others=[1.0, 9.0], seconds=4.0, beside=0.5) == 4 + 1 + 4 + 0.5
    assert foresee_running(line(devices=0), others=[], seconds=4.0, beside=0.0) is None


def any_line(draw: random.Random) -> Line:
    devices = draw.randint(1, 4)
    slots = devices * draw.randint(1, 8)
    running = [draw.uniform(0, 20) for _ in range(draw.randint(0, slots))]
    return line(
        *running, slots=slots, devices=devices, share=draw.uniform(0.05, 1), mean=draw.uniform(0, 9)
    )


@pytest.mark.parametrize("seed", range(40))
def test_more_ahead_never_makes_a_task_earlier(seed: int) -> None:
    draw = random.Random(seed)
    queue, seconds = any_line(draw), draw.uniform(0, 20)
    waits = [
        foresee(queue, ahead=ahead, seconds=seconds, beside=0.0)
        for ahead in (*range(12), 199, 200, 201, 202, 500, 10_000)
    ]
    for before, after in itertools.pairwise(waits):
        assert before is not None
        assert after is not None
        assert before.finish is not None
        assert after.finish is not None
        assert before.start <= after.start * (1 + 1e-9)
        assert before.finish <= after.finish * (1 + 1e-9)
        assert after.start <= after.finish


@pytest.mark.parametrize("seed", range(40))
def test_what_is_told_is_in_order(seed: int) -> None:
    draw = random.Random(seed)
    wait = foresee(
        any_line(draw), ahead=draw.randint(0, 50), seconds=draw.uniform(0, 9), beside=0.1
    )
    assert wait is not None
    known = draw.choice([0, LEAST_KNOWN - 1, LEAST_KNOWN, 80])
    pairs = [
        tuple(
            Past(wait.start * draw.uniform(0.2, 5), draw.uniform(0, 9), draw.uniform(0, 30))
            for _ in range(known)
        )
        for _ in range(2)
    ]
    pace = Pace(measured=((1.0, 1.0),), beside_seconds=0, starts=pairs[0], finishes=pairs[1])
    forecast = told(wait, pace)
    start, finish = forecast.start, forecast.finish
    assert start is not None
    assert finish is not None
    assert start.p50 <= start.p90
    assert finish.p50 <= finish.p90
    assert start.p50 <= finish.p50
    assert start.p90 <= finish.p90


def test_a_wait_is_set_right_by_what_became_of_waits_like_it() -> None:
    # Those of 10 s took twice as long, one in ten of them three times; one of 100 s is unlike.
    known = [Past(10.0, 10.0, real) for real in [20.0] * 27 + [30.0] * 3]
    known += [Past(100.0, 100.0, 1.0)] * 50
    assert spread(10.0, known) == Span(p50=20.0, p90=pytest.approx(21, abs=1))
    assert spread(10.0, known[27:]) == Span(
        p50=10.0, p90=10.0 * DEFAULT_P90 + DEFAULT_P90_SECONDS
    )  # too few


def test_a_unit_costs_what_it_did_in_like_company() -> None:
    pace = Pace(measured=((1.1, 6.0), (1.2, 6.2), (8.0, 3.0), (7.0, 3.2)), beside_seconds=0.0)
    assert pace.unit_seconds(1) == pytest.approx(6.1)
    assert pace.unit_seconds(8) == pytest.approx(3.1)
    assert pace.unit_seconds(64) == pytest.approx(4.6)  # all, where none is like


def test_a_pace_that_changed_widens_the_spread_and_moves_nothing() -> None:
    # At today's pace all are right; but half of them were told half of what came.
    known = [Past(10.0, 10.0, 10.0)] * 16 + [Past(10.0, 5.0, 10.0)] * 14
    assert spread(10.0, known) == Span(p50=10.0, p90=20.0)
