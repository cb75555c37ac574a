"""The graph of a workflow as values: whose turn it is, how a run stands, where values come from."""

from __future__ import annotations

import itertools
import random

import pytest

from imageloom.domain.errors import InvalidWorkflow
from imageloom.domain.retry import ASKED_BACKOFF_LIMIT, backoff
from imageloom.domain.sources import InputValue, PictureField, Source, StepPictures, parse_source
from imageloom.domain.tasks import Status
from imageloom.domain.workflow import (
    RunStatus,
    Step,
    StepSpec,
    StepStatus,
    ancestors,
    check_graph,
    current_step,
    ready_steps,
    status_of_run,
    status_of_step,
    unreachable_steps,
)


def graph(**parents: str) -> list[StepSpec]:
    """Steps by name with what they depend on, as in `graph(a="", b="a")`."""
    return [
        StepSpec(name=name, type="generation", depends_on=tuple(before.split()))
        for name, before in parents.items()
    ]


def steps_of(specs: list[StepSpec], *statuses: StepStatus) -> list[Step]:
    return [
        Step(
            position=position,
            spec=spec,
            status=status,
            images=(),
            error=None,
            deadline=None,
            started_at=None,
            completed_at=None,
        )
        for position, (spec, status) in enumerate(zip(specs, statuses, strict=True))
    ]


DIAMOND = graph(a="", b="a", c="a", d="b c")
PENDING, RUNNING, PAUSED, COMPLETED, FAILED, CANCELLED, SKIPPED = StepStatus


def names(steps: list[Step]) -> list[str]:
    return [step.spec.name for step in steps]


def test_a_step_has_its_turn_when_all_before_it_have_completed() -> None:
    assert names(ready_steps(steps_of(DIAMOND, *[PENDING] * 4))) == ["a"]
    assert names(ready_steps(steps_of(DIAMOND, COMPLETED, PENDING, PENDING, PENDING))) == ["b", "c"]
    assert names(ready_steps(steps_of(DIAMOND, COMPLETED, COMPLETED, RUNNING, PENDING))) == []
    assert names(ready_steps(steps_of(DIAMOND, *[COMPLETED] * 3, PENDING))) == ["d"]


@pytest.mark.parametrize("ended", [FAILED, CANCELLED, SKIPPED])
def test_what_waits_for_a_step_that_did_not_complete_is_unreachable(ended: StepStatus) -> None:
    steps = steps_of(DIAMOND, COMPLETED, ended, RUNNING, PENDING)
    assert names(unreachable_steps(steps)) == ["d"]
    assert ready_steps(steps) == []


def test_any_order_of_endings_leads_every_graph_to_its_end() -> None:
    """Play 300 random graphs: nothing starts early or twice, nothing is left over."""
    dice = random.Random(7)
    for _ in range(300):
        count = dice.randint(1, 9)
        specs = [
            StepSpec(
                name=str(index),
                type="generation",
                depends_on=tuple(str(p) for p in range(index) if dice.random() < 0.4),
            )
            for index in range(count)
        ]
        dice.shuffle(specs)
        check_graph(specs)
        status = {spec.name: PENDING for spec in specs}
        started: list[str] = []
        while True:
            steps = steps_of(specs, *(status[spec.name] for spec in specs))
            for step in unreachable_steps(steps):
                status[step.spec.name] = SKIPPED
            ready = ready_steps(steps)
            for step in ready:
                started.append(step.spec.name)
                status[step.spec.name] = RUNNING
            running = [name for name in status if status[name] is RUNNING]
            if not running and not ready and not unreachable_steps(steps):
                break
            if running:
                status[dice.choice(running)] = COMPLETED if dice.random() < 0.85 else FAILED
        assert len(started) == len(set(started))
        assert all(each.over for each in status.values())
        for spec in specs:
            completed = all(status[parent] is COMPLETED for parent in spec.depends_on)
            assert (status[spec.name] is SKIPPED) == (not completed)


def test_a_cycle_is_named_in_full_wherever_it_is() -> None:
    for order in itertools.permutations(graph(a="c", b="a", c="b", d="", e="d")):
        with pytest.raises(InvalidWorkflow, match="wait for one another") as caught:
            check_graph(order)
        path = caught.value.message.rpartition(": ")[2].split(" -> ")
        assert path[0] == path[-1]
        assert sorted(path[1:]) == ["a", "b", "c"]
        waits_for = {"a": "c", "b": "a", "c": "b"}
        assert all(waits_for[one] == other for one, other in itertools.pairwise(path))


def test_ancestors_are_all_steps_before() -> None:
    assert ancestors(DIAMOND, "d") == {"a", "b", "c"}
    assert ancestors(DIAMOND, "a") == set()


@pytest.mark.parametrize(
    ("statuses", "held", "expected"),
    [
        ((COMPLETED,) * 4, False, RunStatus.COMPLETED),
        ((COMPLETED,) * 4, True, RunStatus.COMPLETED),
        ((COMPLETED, FAILED, COMPLETED, SKIPPED), False, RunStatus.FAILED),
        ((COMPLETED, CANCELLED, COMPLETED, SKIPPED), False, RunStatus.FAILED),
        ((COMPLETED, FAILED, RUNNING, SKIPPED), False, RunStatus.RUNNING),
        ((COMPLETED, PAUSED, RUNNING, PENDING), False, RunStatus.PAUSED),
        ((COMPLETED, RUNNING, RUNNING, PENDING), True, RunStatus.PAUSED),
    ],
)
def test_a_run_stands_as_its_steps_do(
    statuses: tuple[StepStatus, ...], held: bool, expected: RunStatus
) -> None:
    assert status_of_run(steps_of(DIAMOND, *statuses), held=held) is expected


def test_a_step_stands_as_its_tasks_do() -> None:
    assert status_of_step([Status.COMPLETED, Status.FAILED, Status.PENDING]) is RUNNING
    assert status_of_step([Status.COMPLETED, Status.CANCELLED, Status.FAILED]) is FAILED
    assert status_of_step([Status.COMPLETED, Status.CANCELLED]) is CANCELLED
    assert status_of_step([Status.COMPLETED] * 2) is COMPLETED


def test_current_step_is_the_first_that_has_not_completed() -> None:
    assert current_step([PENDING, PENDING]) == 0
    assert current_step([COMPLETED, FAILED, SKIPPED]) == 1
    assert current_step([COMPLETED, SKIPPED, COMPLETED]) == 1
    assert current_step([COMPLETED, COMPLETED]) == 2


SOURCES: list[tuple[str, Source]] = [
    ("input.headline", InputValue(name="headline")),
    ("${{ input.headline }}", InputValue(name="headline")),
    ("$.input.image_url", InputValue(name="image_url")),
    ("steps.a.images", StepPictures(step="a")),
    ("a", StepPictures(step="a")),
    ("a.output", StepPictures(step="a")),
    ("steps.a.output.images", StepPictures(step="a")),
    ("{{steps.a.images[*]}}", StepPictures(step="a")),
    ("steps.a.images[2]", StepPictures(step="a", index=2)),
    ("steps.a.output.images[2].url", StepPictures(step="a", index=2)),
    ("a.images.2.url", StepPictures(step="a", index=2)),
    ("a.image_url", StepPictures(step="a", index=0)),
    ("a.output.image_url", StepPictures(step="a", index=0)),
    ("steps.a.images[1].seed", PictureField(step="a", index=1, field="seed")),
    ("steps.a.b.images[0].width", PictureField(step="a.b", index=0, field="width")),
]


@pytest.mark.parametrize(("text", "expected"), SOURCES)
def test_a_source_is_understood(text: str, expected: Source) -> None:
    assert parse_source(text, steps={"a", "a.b"}) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "input.",
        "headline",
        "steps.z.images",
        "steps.a.images[x]",
        "steps.a.images[-1]",
        "steps.a.images.seed",
        "steps.a.images[0].key",
        "steps.a.images[0].__class__",
        "steps.a.tasks",
    ],
)
def test_a_source_that_means_nothing_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"use|say"):
        parse_source(text, steps={"a"})


def test_an_asked_backoff_doubles_up_to_an_hour() -> None:
    assert [backoff(spent, 10) for spent in (1, 2, 3)] == [10, 20, 40]
    assert backoff(20, 10) == ASKED_BACKOFF_LIMIT
    assert backoff(1, 0) == 0
