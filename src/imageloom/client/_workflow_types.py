"""What the server's answers about workflows become, as `_types` does it for tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from imageloom.client._types import (
    FINAL,
    JSON,
    Image,
    Output,
    image_from,
    integer,
    moment,
    output_from,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTask:
    """One task of a step; it makes the pictures that one picture becomes."""

    id: str
    status: str
    progress: float = 0.0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One picture that an approval may choose, by its `index`."""

    index: int
    url: str
    seed: int | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step of a run.

    `status` is pending, running, paused (an approval that waits), completed, failed, cancelled or
    skipped. `progress` is 0 to 1. `cache` is hit, miss or None; `seconds_saved` is what a hit took
    when it was computed. `candidates`, `message` and `expires_at` are those of a waiting approval.
    """

    name: str
    type: str
    status: str
    depends_on: list[str] = field(default_factory=list)
    config: JSON = field(default_factory=dict)
    progress: float = 0.0
    output: Output | None = None
    error: str | None = None
    cache: str | None = None
    seconds_saved: float | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    tasks: list[StepTask] = field(default_factory=list)
    candidates: list[Candidate] = field(default_factory=list)
    message: str | None = None
    expires_at: datetime | None = None
    raw: JSON = field(default_factory=dict, repr=False)

    @property
    def images(self) -> list[Image]:
        """The pictures that the step made; empty until it is completed."""
        return [] if self.output is None else self.output.images


class WorkflowData:
    """The last answer about one run of a workflow, read through properties."""

    raw: JSON

    @property
    def id(self) -> str:
        """The workflow's id, `wf_…`."""
        return str(self.raw["id"])

    @property
    def run_id(self) -> str | None:
        """The id of the run, `run_…`; None before there is one."""
        run = self.raw.get("run")
        return str(run["id"]) if isinstance(run, dict) and run.get("id") else None

    @property
    def run_number(self) -> int | None:
        """Which run of the workflow this is, from 1; None before there is one."""
        run = self.raw.get("run")
        return integer(run.get("number")) if isinstance(run, dict) else None

    @property
    def name(self) -> str:
        """The name that its author gave it."""
        return str(self.raw.get("name") or "")

    @property
    def description(self) -> str | None:
        """What its author says about it."""
        return self._text("description")

    @property
    def status(self) -> str:
        """One of created, running, paused, completed, failed and cancelled."""
        return str(self.raw.get("status") or "")

    @property
    def done(self) -> bool:
        """Whether the run is over; a failed one may still be resumed."""
        return self.status in FINAL

    @property
    def progress(self) -> float:
        """The mean of the steps' progress, from 0 to 1."""
        return float(self.raw.get("progress") or 0.0)

    @property
    def current_step(self) -> int | None:
        """The index of the first step that has not completed; the number of steps after that."""
        return integer(self.raw.get("current_step"))

    @property
    def steps(self) -> list[Step]:
        """The steps, in the order of the definition."""
        return [_step(each) for each in self.raw.get("steps") or ()]

    @property
    def last_steps(self) -> list[Step]:
        """The steps that no other depends on: what they make is the workflow's result."""
        steps = self.steps
        needed = {parent for step in steps for parent in step.depends_on}
        return [step for step in steps if step.name not in needed]

    @property
    def waiting(self) -> list[Step]:
        """The approvals that wait for a choice, each with its candidates."""
        return [step for step in self.steps if step.status == "paused"]

    @property
    def images(self) -> list[Image]:
        """The pictures of the last steps, in order; those of steps that have completed."""
        return [image for step in self.last_steps for image in step.images]

    @property
    def input(self) -> JSON:
        """What the run was started with."""
        value = self.raw.get("input")
        return value if isinstance(value, dict) else {}

    @property
    def error(self) -> str | None:
        """Why the run failed, for people."""
        return self._text("error")

    @property
    def created_at(self) -> datetime | None:
        """When it was created, in UTC."""
        return moment(self.raw.get("created_at"))

    @property
    def started_at(self) -> datetime | None:
        """When the run was started, in UTC."""
        return moment(self.raw.get("started_at"))

    @property
    def completed_at(self) -> datetime | None:
        """When the run ended, in UTC."""
        return moment(self.raw.get("completed_at"))

    @property
    def cleaned_at(self) -> datetime | None:
        """When the run's outputs were deleted, in UTC."""
        return moment(self.raw.get("cleaned_at"))

    def step(self, name: str) -> Step:
        """Return the step of that name. Raises: KeyError, naming the steps that there are."""
        for step in self.steps:
            if step.name == name:
                return step
        names = ", ".join(step.name for step in self.steps)
        raise KeyError(f"workflow {self.id} has no step {name!r}; it has {names}")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {self.name!r} {self.status} {self.progress:.0%}>"

    def _text(self, name: str) -> str | None:
        value = self.raw.get(name)
        return None if value is None else str(value)


def workflow_raw(raw: JSON) -> JSON:
    """Return the answer about a workflow. Raises: KeyError when it has no id or no status."""
    _ = raw["id"], raw["status"]
    return raw


def _step(raw: JSON) -> Step:
    return Step(
        name=str(raw["name"]),
        type=str(raw.get("type") or ""),
        status=str(raw.get("status") or ""),
        depends_on=[str(each) for each in raw.get("depends_on") or ()],
        config=raw.get("config") or {},
        progress=float(raw.get("progress") or 0.0),
        output=output_from(raw.get("output")),
        error=raw.get("error"),
        cache=raw.get("cache"),
        seconds_saved=raw.get("seconds_saved"),
        started_at=moment(raw.get("started_at")),
        completed_at=moment(raw.get("completed_at")),
        tasks=[_task(each) for each in raw.get("tasks") or ()],
        candidates=[
            _candidate(each, position) for position, each in enumerate(raw.get("candidates") or ())
        ],
        message=raw.get("message"),
        expires_at=moment(raw.get("expires_at")),
        raw=raw,
    )


def _task(raw: JSON) -> StepTask:
    return StepTask(
        id=str(raw["id"]),
        status=str(raw.get("status") or ""),
        progress=float(raw.get("progress") or 0.0),
        error=raw.get("error"),
    )


def _candidate(raw: JSON, position: int) -> Candidate:
    image = image_from(raw)
    index = integer(raw.get("index"))
    return Candidate(
        index=position if index is None else index,
        url=image.url,
        seed=image.seed,
        width=image.width,
        height=image.height,
    )
