"""A figure of an experiment: what was found, what it has to be, and how to find it again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from faults.checker import Verdict
from faults.laboratory import Laboratory


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table.

    `threshold` is the most that `value` may be, None where it may be anything. One that is `timed`
    says nothing on a machine that does other things meanwhile.
    """

    name: str
    what: str
    value: float
    threshold: float | None
    seed: int
    minutes: float
    said: str = ""
    timed: bool = False

    @property
    def good(self) -> bool:
        """Whether it is within its threshold."""
        return self.threshold is None or self.value <= self.threshold

    def __str__(self) -> str:
        mark = "ok  " if self.good else "FAIL"
        limit = "-" if self.threshold is None else f"{self.threshold:g}"
        line = (
            f"{mark} {self.name:<4} {self.what:<56} {self.value:>9.6g} of {limit:>6}"
            f"  seed {self.seed}  {self.minutes:.1f} min"
        )
        return f"{line}  {self.said}" if self.said else line


@dataclass(frozen=True, kw_only=True)
class Table:
    """Makes the figures of one experiment, which began at that moment of the monotonic clock."""

    name: str
    seed: int
    began: float

    @classmethod
    def of(cls, lab: Laboratory, name: str) -> Table:
        """Return the table of an experiment in a laboratory."""
        return cls(name=name, seed=lab.seed, began=lab.began)

    def line(
        self,
        what: str,
        value: float,
        threshold: float | None,
        *,
        said: Sequence[object] = (),
        timed: bool = False,
    ) -> Figure:
        """Return a figure; `said` are the first of what was found."""
        return Figure(
            name=self.name,
            what=what,
            value=value,
            threshold=threshold,
            seed=self.seed,
            minutes=(time.monotonic() - self.began) / 60,
            timed=timed,
            said=", ".join(str(each) for each in list(said)[:3]),
        )

    def never(self, verdict: Verdict, *, leases: bool = True) -> list[Figure]:
        """Return the figures that are 0 in every experiment.

        Where there are `leases`, one of them is of time: who gets no processor for as long as a
        lease lasts is rightly thought dead.
        """
        found = {
            "lost": verdict.lost,
            "unexpected": verdict.unexpected,
            "done twice": verdict.done_twice,
            "illegal": verdict.illegal,
            "completed with unreadable or wrong output": verdict.unreadable,
            "outputs that no task names": verdict.orphans,
        }
        again = verdict.redone_without_fault
        return [
            *(self.line(what, len(tasks), 0, said=tasks) for what, tasks in found.items()),
            self.line("redone without a fault", len(again), 0, said=again, timed=leases),
        ]
