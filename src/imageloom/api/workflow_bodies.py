"""What a request says of a workflow, in both dialects, as the domain has it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from imageloom.domain.errors import InvalidParams
from imageloom.domain.webhooks import Resource
from imageloom.domain.workflow import StepSpec
from imageloom.task_types.parsing import WebhookParams, parse_params

LARGEST_GRAPH = 100  # steps
MOST_EDGES = 500
StepName = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, pattern=r"^[^\s\x00-\x1f]([^\x00-\x1f]*\S)?$"),
]
Short = Annotated[str, StringConstraints(max_length=200)]


class Retry(BaseModel):
    """How often each task of a step is tried, and how long to wait before the second try."""

    model_config = ConfigDict(extra="forbid", strict=True)

    max_attempts: int | None = Field(None, ge=1, le=20)
    backoff_seconds: float | None = Field(
        None, ge=0, le=3600, allow_inf_nan=False, description="Doubles with each further try"
    )


class Mapped(BaseModel):
    """One entry of the other dialect's `input_mappings`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    from_step: Annotated[str, StringConstraints(max_length=64)] | None = None
    from_field: Annotated[str, StringConstraints(min_length=1, max_length=200)]
    to_field: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class StepBody(BaseModel):
    """A step. `id` and `task_type` are the other dialect's words for `name` and `type`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: StepName = Field(description="Unique in the workflow; `id` is accepted too")
    type: Annotated[str, StringConstraints(min_length=1, max_length=64)] = Field(
        description="A task type, or approval; `task_type` in capitals is accepted too"
    )
    config: dict[str, Any] = Field(
        default_factory=dict, description="The body of a task of that type"
    )
    depends_on: Annotated[list[StepName], Field(max_length=LARGEST_GRAPH)] | None = Field(
        None, description="The steps whose pictures this one receives"
    )
    input_mappings: (
        dict[str, Annotated[str, StringConstraints(min_length=1, max_length=300)]]
        | list[Mapped]
        | None
    ) = Field(
        None,
        description="Parameters and where their values come from: input.NAME, "
        "steps.NAME.images, steps.NAME.images[0].seed",
    )
    retry: Retry | None = None
    cache: bool = Field(True, description="Whether pictures made before may be used again")


class WorkflowBody(WebhookParams):
    """The body of `POST /workflows`."""

    resource: ClassVar[Resource] = "workflow"

    name: Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"\S")]
    description: Annotated[str, StringConstraints(max_length=4000)] | None = None
    origin_instance: Short | None = None
    steps: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=LARGEST_GRAPH)]
    input: dict[str, Any] | None = Field(
        None, description="What a run starts with unless it says otherwise"
    )


class StartBody(BaseModel):
    """The body of `start` and of `runs`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    input: dict[str, Any] | None = Field(
        None, description="image_url or image_urls, and whatever input_mappings name"
    )
    cache: bool = Field(True, description="Whether pictures made before may be used again")


class ResumeBody(BaseModel):
    """The body of `resume`; it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    select: Annotated[list[int], Field(max_length=10_000)] | None = Field(
        None, description="Indices of the candidates that go on, in that order"
    )
    step: str | None = Field(None, description="Which approval, where several wait")
    edits: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="New values in the config of later steps, by step"
    )


def parse_steps(bodies: list[dict[str, Any]]) -> tuple[StepSpec, ...]:
    """Return the steps of a workflow. Raises: InvalidParams, naming the step and the field."""
    steps = tuple(_parse_step(body, position) for position, body in enumerate(bodies))
    edges = sum(len(step.depends_on) for step in steps)
    if edges > MOST_EDGES:
        raise InvalidParams(
            f"steps: {edges} dependencies in all, over the limit of {MOST_EDGES}", param="steps"
        )
    return steps


def workflow_schema() -> dict[str, Any]:
    """Return the JSON schema of a workflow, in the first dialect."""
    schema = WorkflowBody.model_json_schema()
    step = StepBody.model_json_schema()
    schema["$defs"] = {**schema.get("$defs", {}), **step.pop("$defs")}
    schema["properties"]["steps"]["items"] = step
    return schema


def _parse_step(body: dict[str, Any], position: int) -> StepSpec:
    place = f"steps.{position}"
    try:
        step = parse_params(StepBody, _in_first_dialect(body))
    except InvalidParams as exc:
        raise InvalidParams(f"{place}.{exc.message}", param=f"{place}.{exc.param}") from exc
    return StepSpec(
        name=step.name,
        type=step.type,
        config=step.config,
        depends_on=tuple(step.depends_on or ()),
        mappings=_mappings(step.input_mappings, place),
        max_attempts=step.retry.max_attempts if step.retry else None,
        backoff_seconds=step.retry.backoff_seconds if step.retry else None,
        cache=step.cache,
    )


def _in_first_dialect(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a step with `name` for `id` and a small `type` for `task_type`."""
    step = dict(body)
    for theirs, ours in (("id", "name"), ("task_type", "type")):
        if theirs not in step:
            continue
        if ours in step:
            raise InvalidParams(f"{theirs}: means {ours}; give one of them", param=theirs)
        step[ours] = step.pop(theirs)
    if isinstance(kind := step.get("type"), str):
        step["type"] = kind.lower()
    return step


def _mappings(given: Mapping[str, str] | list[Mapped] | None, place: str) -> dict[str, str]:
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    mappings: dict[str, str] = {}
    for index, entry in enumerate(given):
        if entry.to_field in mappings:
            param = f"{place}.input_mappings.{index}.to_field"
            raise InvalidParams(f"{param}: {entry.to_field!r} is mapped twice", param=param)
        source = "input" if entry.from_step in (None, "input") else f"steps.{entry.from_step}"
        mappings[entry.to_field] = f"{source}.{entry.from_field}"
    return mappings
