"""The short form of the scenarios, one after another on one installation.

Figures of time are measured by the long form only: here a busy machine would decide them.
"""

from __future__ import annotations

from faults.figures import Figure
from faults.laboratory import Laboratory
from faults.scenarios.kills import kills


def unreached(figures: list[Figure]) -> list[str]:
    """Return the figures that are not what they must be, those of time left out."""
    print(*figures, sep="\n")
    return [str(figure) for figure in figures if figure.name != "C2" and not figure.good]


def test_no_task_is_lost_or_done_twice_by_kills(lab: Laboratory) -> None:
    assert unreached(kills(lab, tasks=40, kills=4, steps=(5, 50), pause=(0.2, 0.6))) == []
