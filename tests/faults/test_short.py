"""The short form of the scenarios, one after another on one installation.

Figures of time are judged by the long form only: here a busy machine would decide them.
"""

from __future__ import annotations

from faults.figures import Figure
from faults.laboratory import Laboratory
from faults.scenarios.cancels import cancels
from faults.scenarios.database import restarts
from faults.scenarios.kills import kills
from faults.scenarios.poison import poison
from faults.scenarios.races import races
from faults.scenarios.replies import replies
from faults.scenarios.storage import bad_storage
from faults.scenarios.workflows import workflows
from faults.scenarios.zombies import zombies
from imageloom.device.drill import KILL, OUT_OF_MEMORY


def unreached(figures: list[Figure]) -> list[str]:
    """Return the figures that are not what they must be, those of time left out."""
    print(*figures, sep="\n")
    return [str(each) for each in figures if not each.good and not each.timed]


def test_kills_lose_nothing_and_do_nothing_twice(lab: Laboratory) -> None:
    assert unreached(kills(lab, tasks=40, kills=4, steps=(5, 50), pause=(0.2, 0.6))) == []


def test_restarts_of_the_database_lose_nothing_and_redo_nothing(lab: Laboratory) -> None:
    assert unreached(restarts(lab, tasks=20, restarts=2, pause=(0.2, 0.5))) == []


def test_zombies_change_nothing(lab: Laboratory) -> None:
    assert unreached(zombies(lab, rounds=2)) == []


def test_a_cancel_is_answered_as_the_task_ends(lab: Laboratory) -> None:
    assert unreached(cancels(lab, races=60)) == []


def test_graphs_go_on_under_fire(lab: Laboratory) -> None:
    assert unreached(workflows(lab, count=4, faults=2, struck=10, pause=(0.2, 0.5))) == []


def test_dropped_answers_make_no_task_twice(lab: Laboratory) -> None:
    assert unreached(replies(lab, tasks=40)) == []


def test_poison_fails_and_good_tasks_do_not(lab: Laboratory) -> None:
    # One that hangs has a test of its own: here it would take half of the time.
    assert unreached(poison(lab, good=20, bad=1, kinds=(KILL, OUT_OF_MEMORY))) == []


def test_nothing_that_can_happen_to_an_attempt_is_believed_twice(lab: Laboratory) -> None:
    assert unreached(races(seed=lab.seed, tasks=60)) == []


def test_nothing_completes_on_storage_that_lies(lab: Laboratory) -> None:
    # The last one: its workers stay behind the proxy.
    assert unreached(bad_storage(lab, tasks=12)) == []
