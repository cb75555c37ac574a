"""The graph of a workflow: what a step is, which steps' turn it is, and how a run stands.

Values and pure functions; `core.advance` carries out what they decide.

The life of a run                       The life of a step
  created -> running, cancelled           pending -> running, paused, skipped, failed, cancelled
  running -> paused, or over              running, paused -> completed, failed, cancelled
  paused  -> running, or over             failed, cancelled, skipped -> pending, by resume
  failed  -> running, by resume           completed: over
  completed, cancelled: over
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from typing import Any

from imageloom.domain.errors import InvalidWorkflow
from imageloom.domain.tasks import OutputImage, Status
from imageloom.domain.webhooks import Webhook

APPROVAL = "approval"


class RunStatus(StrEnum):
    """Where a run stands. `paused` by a request, or because an approval waits for its choice."""

    CREATED = "created"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether nothing of the run goes on by itself."""
        return self in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)


class StepStatus(StrEnum):
    """Where a step stands. `paused` is an approval that waits."""

    PENDING = "pending"
    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def over(self) -> bool:
        """Whether the step has ended."""
        return self not in (StepStatus.PENDING, StepStatus.RUNNING, StepStatus.PAUSED)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSpec:
    """A step as its user wrote it, or as an edit of one run has it.

    `mappings` are parameters and where their values come from, as text (`domain.sources`).
    `inputs` are parameters of `config` that name our own files, and their storage keys.
    """

    name: str
    type: str
    config: dict[str, Any] = field(default_factory=dict)
    depends_on: tuple[str, ...] = ()
    mappings: dict[str, str] = field(default_factory=dict)
    max_attempts: int | None = None
    backoff_seconds: float | None = None
    cache: bool = True
    inputs: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of one run. `images` is its output once completed."""

    position: int
    spec: StepSpec
    status: StepStatus
    images: tuple[OutputImage, ...] | None
    error: str | None
    deadline: datetime | None
    started_at: datetime | None
    completed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A workflow as its user wrote it. `input` is what its runs start with unless they say."""

    name: str
    description: str | None
    origin_instance: str | None
    steps: tuple[StepSpec, ...]
    input: dict[str, Any] | None
    webhook: Webhook | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow(Draft):
    """A workflow that the store knows."""

    id: str
    tenant: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a workflow. Times are database time, UTC."""

    id: str
    workflow_id: str
    tenant: str
    number: int
    status: RunStatus
    held: bool
    input: dict[str, Any]
    inputs: dict[str, str]
    cache: bool
    error: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None
    cleaned_at: datetime | None
    webhook: Webhook | None


def check_graph(steps: Sequence[StepSpec]) -> None:
    """Make sure that names are unique and dependencies known, and that no step waits for itself.

    Raises: InvalidWorkflow, naming the step, and for a cycle every step on it.
    """
    names: set[str] = set()
    for position, step in enumerate(steps):
        if step.name in names:
            raise InvalidWorkflow(
                f"steps.{position}.name: there is already a step {step.name!r}",
                param=f"steps.{position}.name",
            )
        names.add(step.name)
    for position, step in enumerate(steps):
        param = f"steps.{position}.depends_on"
        for parent in step.depends_on:
            if parent == step.name:
                raise InvalidWorkflow(f"{param}: {step.name!r} depends on itself", param=param)
            if parent not in names:
                raise InvalidWorkflow(f"{param}: there is no step {parent!r}", param=param)
        if len(set(step.depends_on)) < len(step.depends_on):
            raise InvalidWorkflow(f"{param}: names a step twice", param=param)
    try:
        TopologicalSorter({step.name: step.depends_on for step in steps}).prepare()
    except CycleError as exc:
        # graphlib lists the cycle against the direction of the dependencies.
        path = " -> ".join(reversed(exc.args[1]))
        raise InvalidWorkflow(
            f"steps: the steps wait for one another: {path}", param="steps"
        ) from exc


def ancestors(steps: Sequence[StepSpec], name: str) -> set[str]:
    """Return the names of the steps that `name` depends on, directly or not."""
    parents = {step.name: step.depends_on for step in steps}
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for parent in parents[waiting.pop()]:
            if parent not in found:
                found.add(parent)
                waiting.append(parent)
    return found


def ready_steps(steps: Sequence[Step]) -> list[Step]:
    """Return the pending steps whose dependencies have all completed, in order."""
    status = {step.spec.name: step.status for step in steps}
    return [
        step
        for step in steps
        if step.status is StepStatus.PENDING
        and all(status[parent] is StepStatus.COMPLETED for parent in step.spec.depends_on)
    ]


def unreachable_steps(steps: Sequence[Step]) -> list[Step]:
    """Return the pending steps with a dependency that ended without completing, in order."""
    status = {step.spec.name: step.status for step in steps}
    return [
        step
        for step in steps
        if step.status is StepStatus.PENDING
        and any(
            status[parent].over and status[parent] is not StepStatus.COMPLETED
            for parent in step.spec.depends_on
        )
    ]


def candidates_of(spec: StepSpec, steps: Sequence[Step]) -> list[OutputImage]:
    """Return the pictures of a step's dependencies, in order: what an approval chooses among."""
    made = {step.spec.name: step.images or () for step in steps}
    return [image for parent in spec.depends_on for image in made[parent]]


def status_of_run(steps: Sequence[Step], *, held: bool) -> RunStatus:
    """Return how a started run stands, which nobody cancelled."""
    if all(step.status is StepStatus.COMPLETED for step in steps):
        return RunStatus.COMPLETED
    if all(step.status.over for step in steps):
        return RunStatus.FAILED
    if held or any(step.status is StepStatus.PAUSED for step in steps):
        return RunStatus.PAUSED
    return RunStatus.RUNNING


def status_of_step(tasks: Sequence[Status]) -> StepStatus:
    """Return how a step stands whose tasks stand so: a failed one decides, then a cancelled one."""
    if any(not status.terminal for status in tasks):
        return StepStatus.RUNNING
    if Status.FAILED in tasks:
        return StepStatus.FAILED
    if Status.CANCELLED in tasks:
        return StepStatus.CANCELLED
    return StepStatus.COMPLETED


def current_step(statuses: Sequence[StepStatus]) -> int:
    """Return the index of the first step that has not completed; their number once all have."""
    for index, status in enumerate(statuses):
        if status is not StepStatus.COMPLETED:
            return index
    return len(statuses)
