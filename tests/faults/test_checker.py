"""What the judge says of ledgers that were written by hand: a table of every kind of fault."""

from __future__ import annotations

from dataclasses import replace

import pytest

from faults.checker import judge
from faults.ledgers import Change, Delivery, Ending, Fault, Ledgers, Named, Request, Run

KEY = "outputs/t1/1/0.jpg"
NAMED = Named(key=KEY, told="sha", served="sha")
GOOD = Ledgers(
    requests=(Request(key="k1", task="t1"),),
    runs=(
        Run(what="start", task="t1", attempt=1, pid=10, at=1.0),
        Run(what="finish", task="t1", attempt=1, pid=10, at=2.0),
    ),
    deliveries=(Delivery(id="m1", task="t1", type="task.completed", at=3.0),),
    stored={KEY: "sha"},
    endings=(Ending(task="t1", key="k1", status="completed", attempt=1, outputs=(NAMED,)),),
    changes=(
        Change(task="t1", before="pending", after="running", attempt=1),
        Change(task="t1", before="running", after="completed", attempt=1),
    ),
)
(END,) = GOOD.endings
(TOLD,) = GOOD.deliveries
AGAIN = Run(what="start", task="t1", attempt=2, pid=11, at=9.0)


def with_ending(**fields: object) -> Ledgers:
    return replace(GOOD, endings=(replace(END, **fields),))  # type: ignore[arg-type]


def also_changed(before: str, after: str) -> Ledgers:
    change = Change(task="t1", before=before, after=after, attempt=1)
    return replace(GOOD, changes=(*GOOD.changes, change))


BAD: dict[str, tuple[str, Ledgers]] = {
    "acknowledged and still pending": (
        "lost",
        replace(with_ending(status="pending", outputs=()), deliveries=(), changes=()),
    ),
    "acknowledged and gone": ("lost", replace(GOOD, endings=())),
    "a task that nobody asked for": (
        "unexpected",
        replace(GOOD, endings=(END, replace(END, task="t2", key="k2", outputs=(NAMED,)))),
    ),
    "two tasks of one key": (
        "unexpected",
        replace(GOOD, endings=(END, replace(END, task="t2"))),
    ),
    "two tasks that one key was told": (
        "unexpected",
        replace(
            GOOD,
            requests=(*GOOD.requests, Request(key="k1", task="t2")),
            endings=(END, replace(END, task="t2")),
        ),
    ),
    "two ends in the row": ("done twice", also_changed("running", "completed")),
    "two webhooks of its end": (
        "done twice",
        replace(GOOD, deliveries=(TOLD, replace(TOLD, id="m2"))),
    ),
    "outputs of two attempts": (
        "done twice",
        with_ending(outputs=(NAMED, replace(NAMED, key="outputs/t1/2/0.jpg"))),
    ),
    "one output named twice": ("done twice", with_ending(outputs=(NAMED, NAMED))),
    "an end that was left": ("illegal", also_changed("completed", "pending")),
    "an end that was written over": ("illegal", also_changed("completed", "completed")),
    "a start that was never claimed": ("illegal", also_changed("pending", "completed")),
    "outputs of what was cancelled": ("illegal", with_ending(status="cancelled")),
    "a webhook of another end": (
        "illegal",
        replace(GOOD, deliveries=(replace(TOLD, type="task.cancelled"),)),
    ),
    "bytes that are not there": ("unreadable", replace(GOOD, stored={})),
    "other bytes in storage": ("unreadable", replace(GOOD, stored={KEY: "other"})),
    "other bytes behind the URL": (
        "unreadable",
        with_ending(outputs=(replace(NAMED, served="other"),)),
    ),
    "a URL that cannot be read": (
        "unreadable",
        with_ending(outputs=(replace(NAMED, served=None),)),
    ),
    "completed with nothing": ("unreadable", replace(with_ending(outputs=()), stored={})),
    "begun again for no reason": (
        "redone without a fault",
        replace(GOOD, runs=(*GOOD.runs, AGAIN)),
    ),
    "begun again for a fault of others": (
        "redone without a fault",
        replace(
            GOOD,
            runs=(*GOOD.runs, AGAIN),
            faults=(Fault(kind="worker", at=1.5, pids=frozenset({99})),),
        ),
    ),
    "begun again for a fault that was over": (
        "redone without a fault",
        replace(
            GOOD,
            runs=(*GOOD.runs, AGAIN),
            faults=(Fault(kind="database", at=0.2, everywhere=True, until=0.9),),
        ),
    ),
}


def test_nothing_is_said_of_what_went_well() -> None:
    verdict = judge(GOOD)
    assert verdict.faults == {}
    assert (verdict.redone, verdict.recovered, verdict.orphans, verdict.recovery) == (0, (), (), {})


@pytest.mark.parametrize(("word", "ledgers"), BAD.values(), ids=BAD.keys())
def test_each_fault_has_its_word(word: str, ledgers: Ledgers) -> None:
    assert word in judge(ledgers).faults


def test_a_task_that_a_fault_hit_may_be_begun_again() -> None:
    fault = Fault(kind="worker", at=1.5, pids=frozenset({10}))
    claim = Change(task="t1", before="pending", after="running", attempt=2, at=7.0)
    verdict = judge(
        replace(GOOD, runs=(*GOOD.runs, AGAIN), faults=(fault,), changes=(*GOOD.changes[:1], claim))
    )
    assert verdict.faults == {}
    assert verdict.redone == 1
    assert verdict.restart == {"worker": (7.5,)}
    assert verdict.recovery == {"worker": (5.5,)}


def test_one_fault_excuses_one_attempt() -> None:
    fault = Fault(kind="worker", at=1.5, pids=frozenset({10}))
    third = replace(AGAIN, attempt=3, at=12.0)
    verdict = judge(replace(GOOD, runs=(*GOOD.runs, AGAIN, third), faults=(fault,)))
    assert verdict.redone_without_fault == ("t1",)


def test_what_the_client_did_not_hear_of_is_recovered_and_no_fault() -> None:
    verdict = judge(replace(GOOD, requests=(Request(key="k1", task=None, seen=0, errors=2),)))
    assert verdict.faults == {}
    assert verdict.recovered == ("k1",)


def test_what_no_task_names_is_an_orphan() -> None:
    left = "outputs/t1/2/0.jpg"
    assert judge(replace(GOOD, stored={**GOOD.stored, left: "sha"})).orphans == (left,)
