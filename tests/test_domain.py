"""Decisions and values without I/O: the life of a task, the retry policy, ids and seeds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from imageloom.domain import errors
from imageloom.domain.ids import new_id
from imageloom.domain.retry import Decision, backoff, decide
from imageloom.domain.seeds import MAX_SEED, draw_seed, picture_seed
from imageloom.domain.tasks import (
    TRANSITIONS,
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
from imageloom.store import migrate

DOCS = Path(__file__).parent.parent / "docs" / "architecture.md"


# The life of a task


def test_transitions_are_those_of_the_documentation() -> None:
    life = DOCS.read_text("utf-8").partition("## The life of a task")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`.*`) \| (.*) \|$", life, re.MULTILINE)
    drawn = {
        Status(name): set(re.findall(r"`(\w+)`", after))
        for names, after in rows
        for name in re.findall(r"`(\w+)`", names)
    }
    assert drawn == {status: {after.value for after in TRANSITIONS[status]} for status in Status}


def test_three_statuses_are_final() -> None:
    final = {status for status in Status if status.terminal}
    assert final == {Status.COMPLETED, Status.FAILED, Status.CANCELLED}


def test_every_status_can_be_reached_and_left_for_an_end() -> None:
    reached, fresh = set(), {Status.PENDING}
    while fresh:
        reached |= fresh
        fresh = set().union(*(TRANSITIONS[status] for status in fresh)) - reached
    assert reached == set(Status)
    assert all(Status.CANCELLED in TRANSITIONS[s] for s in Status if not s.terminal)


def test_database_knows_the_same_statuses() -> None:
    schema = Path(migrate.__file__).parent / "migrations" / "0001_initial.sql"
    names = re.search(r"check \(status in \(([^)]*)\)\)", schema.read_text("utf-8"))
    assert names is not None
    assert re.findall(r"'(\w+)'", names[1]) == [status.value for status in Status]


# The retry policy

OUTPUT = Output()
OUT_OF_MEMORY = Failed(code="out_of_memory", message="CUDA out of memory", retryable=True)
FAULT = Failed(code="device_fault", message="the device failed", retryable=True)
REFUSED = Failed(
    code="invalid_input", message="Invalid input: no", retryable=False, param="input_image_url"
)
LOST = Lost(reason="its worker went silent")


def gave_up(outcome: Failed, attempt: int) -> Decision:
    detail = ErrorDetail(
        code=outcome.code, retryable=outcome.retryable, attempt=attempt, param=outcome.param
    )
    return Decision(status=Status.FAILED, error=outcome.message, error_detail=detail)


def again(delay: float) -> Decision:
    return Decision(status=Status.PENDING, delay=delay)


@pytest.mark.parametrize(
    ("outcome", "attempt", "spent", "decision"),
    [
        (Completed(output=OUTPUT), 1, 1, Decision(status=Status.COMPLETED, output=OUTPUT)),
        (Completed(output=OUTPUT), 9, 3, Decision(status=Status.COMPLETED, output=OUTPUT)),
        (Cancelled(), 0, 0, Decision(status=Status.CANCELLED)),
        (Cancelled(), 3, 3, Decision(status=Status.CANCELLED)),
        (Interrupted(), 1, 1, Decision(status=Status.PENDING, spends_attempt=False)),
        (Interrupted(), 9, 3, Decision(status=Status.PENDING, spends_attempt=False)),
        (FAULT, 1, 1, again(0.5)),
        (FAULT, 2, 2, again(1.0)),
        (FAULT, 3, 3, gave_up(FAULT, 3)),
        (FAULT, 7, 2, again(1.0)),
        (FAULT, 8, 3, gave_up(FAULT, 8)),
        (OUT_OF_MEMORY, 1, 1, again(0.5)),
        (OUT_OF_MEMORY, 2, 2, gave_up(OUT_OF_MEMORY, 2)),
        (REFUSED, 1, 1, gave_up(REFUSED, 1)),
        (LOST, 1, 1, again(0.0)),
        (LOST, 2, 2, again(0.0)),
    ],
)
def test_outcome_decides_what_becomes_of_the_task(
    outcome: Outcome, attempt: int, spent: int, decision: Decision
) -> None:
    assert decide(outcome, attempt=attempt, spent=spent, max_attempts=3) == decision


def test_third_loss_is_a_failure_that_names_the_worker() -> None:
    decision = decide(LOST, attempt=4, spent=3, max_attempts=3)
    assert decision.status is Status.FAILED
    assert decision.error_detail == ErrorDetail(code="worker_lost", retryable=True, attempt=4)
    assert decision.error == "The worker was lost in each of 3 attempts: its worker went silent"


def test_decision_is_one_of_the_transitions() -> None:
    for outcome in (Completed(output=OUTPUT), Cancelled(), Interrupted(), FAULT, REFUSED, LOST):
        for spent in range(1, 5):
            status = decide(outcome, attempt=spent, spent=spent, max_attempts=3).status
            assert status in TRANSITIONS[Status.RUNNING]


def test_only_an_interruption_spends_no_attempt() -> None:
    for outcome in (Completed(output=OUTPUT), Cancelled(), FAULT, REFUSED, LOST):
        assert decide(outcome, attempt=1, spent=1, max_attempts=3).spends_attempt
    assert not decide(Interrupted(), attempt=1, spent=1, max_attempts=3).spends_attempt


def test_waiting_doubles_up_to_half_a_minute() -> None:
    assert [backoff(spent) for spent in (1, 2, 3, 6, 7, 8, 1000)] == [0.5, 1, 2, 16, 30, 30, 30]


def test_retried_error_is_one_that_another_attempt_can_mend() -> None:
    final = {errors.InvalidParams, errors.InvalidInput, errors.UnknownModel, errors.BadWeights}
    assert not any(error.retryable for error in {*final, errors.ModelNotInstalled})
    passing = {errors.OutOfMemory, errors.DeviceFault, errors.DeviceLost, errors.StorageUnavailable}
    assert all(error.retryable for error in passing)


def test_every_error_has_a_code_of_its_own() -> None:
    found = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    assert len({kind.code for kind in found}) == len(found)
    assert all(kind.__name__ in (errors.__doc__ or "") for kind in found)


# Ids

CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"


def test_id_is_url_safe_and_has_130_random_bits() -> None:
    made = new_id("task", now_ms=1_705_314_600_000)
    assert re.fullmatch(rf"task_[{CROCKFORD}]{{36}}", made)
    assert 32**26 == 2**130


def test_ids_sort_by_time() -> None:
    times = [0, 1, 31, 32, 1_705_314_600_000, 1_705_314_600_001, 4_102_444_800_000, 2**50 - 1]
    made = [new_id("task", now_ms=time) for time in times]
    assert sorted(made) == made


def test_ids_of_one_moment_share_nothing_but_the_time() -> None:
    made = [new_id("task", now_ms=5)[-26:] for _ in range(2000)]
    assert len(set(made)) == len(made)
    for position in range(26):
        assert len({text[position] for text in made}) == 32


# Seeds


def test_pictures_have_consecutive_seeds() -> None:
    assert [picture_seed(12345, index) for index in range(4)] == [12345, 12346, 12347, 12348]


def test_seed_after_the_last_is_zero() -> None:
    assert picture_seed(MAX_SEED, 0) == MAX_SEED == 2**63 - 1
    assert picture_seed(MAX_SEED, 1) == 0


def test_picture_asked_for_alone_has_the_same_seed() -> None:
    for seed in (0, 5, MAX_SEED - 2, MAX_SEED):
        for index in range(16):
            assert picture_seed(picture_seed(seed, index), 0) == picture_seed(seed, index)


def test_drawn_seed_is_short_and_allowed() -> None:
    drawn = {draw_seed() for _ in range(100)}
    assert len(drawn) > 90
    assert all(0 <= seed < 2**32 for seed in drawn)
