"""A call that cannot yield, cut into stretches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator

import pytest

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

from imageloom.runtime.training.stretches import in_stretches  # noqa: E402  # needs torch
from imageloom.runtime.units import Dropped  # noqa: E402


def answer_of(stretches: Generator[None, None, str], *, note: Callable[[], None]) -> str:
    while True:
        try:
            next(stretches)
        except StopIteration as end:
            return str(end.value)
        note()


def test_a_call_is_done_by_turns_and_its_modes_stay_on_its_side() -> None:
    order: list[str] = []

    def work(hold: Callable[[], None]) -> str:
        with torch.no_grad():
            for number in range(3):
                order.append(f"work {number} {torch.is_grad_enabled()}")
                hold()
        return "done"

    def note() -> None:
        order.append(f"caller {torch.is_grad_enabled()}")

    with torch.enable_grad():
        assert answer_of(in_stretches(work), note=note) == "done"
    assert order == [
        text for number in range(3) for text in (f"work {number} False", "caller True")
    ]


def test_what_it_raises_reaches_the_caller() -> None:
    def work(hold: Callable[[], None]) -> None:
        hold()
        raise ValueError("bad")

    stretches = in_stretches(work)
    next(stretches)
    with pytest.raises(ValueError, match="bad"):
        next(stretches)


def test_closing_leaves_it() -> None:
    left: list[type[BaseException]] = []

    def work(hold: Callable[[], None]) -> None:
        try:
            hold()
        except Dropped as exc:
            left.append(type(exc))
            raise

    stretches = in_stretches(work)
    next(stretches)
    before = threading.active_count()
    stretches.close()
    assert left == [Dropped]
    assert threading.active_count() == before - 1
