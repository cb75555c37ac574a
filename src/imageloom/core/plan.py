"""Plan: what a workflow will come to, found out before anything of it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

from imageloom.core.approval import approval_config
from imageloom.core.expansion import STAND_IN, Received, expand, takes_input_pictures
from imageloom.core.models import Catalog
from imageloom.core.prepare import prepare
from imageloom.domain.errors import InvalidWorkflow, RequestError
from imageloom.domain.sources import InputValue, parse_source
from imageloom.domain.tasks import OutputImage
from imageloom.domain.workflow import APPROVAL, StepSpec, ancestors, check_graph
from imageloom.settings import Settings
from imageloom.task_types.registry import TASK_TYPES, get_task_type


def check_steps(steps: Sequence[StepSpec]) -> None:
    """Make sure that every step is of a type there is, and that they make a graph.

    Raises: InvalidWorkflow, naming the step.
    """
    for position, step in enumerate(steps):
        if step.type not in (*TASK_TYPES, APPROVAL):
            raise InvalidWorkflow(
                f"steps.{position}.type: there is no type {step.type[:60]!r}; use one of "
                f"{', '.join((*TASK_TYPES, APPROVAL))}",
                param=f"steps.{position}.type",
            )
    check_graph(steps)


def check_plan(
    steps: Sequence[StepSpec],
    *,
    input_values: Mapping[str, Any] | None,
    catalog: Catalog,
    settings: Settings,
) -> None:
    """Make sure that every step can be asked for, and that a run is not too much.

    Every step is expanded on stand-ins for the pictures that will come to it. `input_values` is
    what the run starts with, None where that is not known yet.
    Raises: InvalidWorkflow, naming the step and the field.
    """
    check_steps(steps)
    if input_values is not None:
        _refuse_unused(steps, input_values)
    positions = {step.name: position for position, step in enumerate(steps)}
    made: dict[str, list[OutputImage]] = {}
    tasks = pictures = 0
    for name in TopologicalSorter({step.name: step.depends_on for step in steps}).static_order():
        position = positions[name]
        step = steps[position]
        received = Received(
            input=input_values,
            inputs={},
            pictures={parent: made[parent] for parent in ancestors(steps, name)},
        )
        try:
            if step.type == APPROVAL:
                approval_config(step)
                made[name] = [image for parent in step.depends_on for image in made[parent]]
                continue
            pieces, each = _ask(step, received, catalog=catalog, settings=settings)
        except RequestError as exc:
            raise _of_step(exc, step, position, known=input_values is not None) from exc
        tasks += pieces
        pictures += pieces * each
        if max(tasks, pictures) > settings.limits.run_tasks:
            raise InvalidWorkflow(
                f"steps: with {name!r} a run has {tasks} tasks and {pictures} pictures, over the "
                f"limit of {settings.limits.run_tasks}; let fewer pictures go on",
                param="steps",
            )
        made[name] = [STAND_IN] * (pieces * each)


def url_values(steps: Sequence[StepSpec]) -> set[str]:
    """Return the names of those values of a run's input that are URLs of pictures."""
    names = {"image_url", "image_urls"}
    for step in steps:
        if step.type == APPROVAL:
            continue
        fields = {*get_task_type(step.type).url_fields, "image_url", "image_urls"}
        for param, text in step.mappings.items():
            source = _input_value(steps, step, text)
            if source is not None and param in fields:
                names.add(source.name)
    return names


def _ask(
    step: StepSpec, received: Received, *, catalog: Catalog, settings: Settings
) -> tuple[int, int]:
    """Return how many tasks a step has and how many pictures each makes."""
    task_type = get_task_type(step.type)
    pieces = expand(step, task_type, received)
    first = pieces[0]
    try:
        prepared = prepare(task_type, first.body, catalog=catalog, settings=settings)
    except RequestError as exc:
        if (exc.param or "").partition(".")[0] in first.unknown:
            return len(pieces), 1  # judged again when a run is started and the value is known
        raise
    return len(pieces), task_type.output_count(prepared.params)


def _refuse_unused(steps: Sequence[StepSpec], input_values: Mapping[str, Any]) -> None:
    used = set()
    for step in steps:
        if step.type == APPROVAL:
            continue
        if takes_input_pictures(step, get_task_type(step.type)):
            used |= {"image_url", "image_urls"}
        for text in step.mappings.values():
            if (source := _input_value(steps, step, text)) is not None:
                used.add(source.name)
    for name in input_values:
        if name not in used:
            raise InvalidWorkflow(
                f"input.{name[:60]}: no step uses it; the steps use "
                f"{', '.join(sorted(used)) or 'no input'}",
                param=f"input.{name[:60]}",
            )


def _input_value(steps: Sequence[StepSpec], step: StepSpec, text: str) -> InputValue | None:
    try:
        source = parse_source(text, steps=ancestors(steps, step.name))
    except ValueError:
        return None  # said where the step is expanded
    return source if isinstance(source, InputValue) else None


def _of_step(exc: RequestError, step: StepSpec, position: int, *, known: bool) -> InvalidWorkflow:
    """Return a complaint about a step's parameter as one about the workflow."""
    param = exc.param or ""
    within = param.partition(".")[0] in ("input_mappings", "depends_on")
    if known and step.type != APPROVAL and not within:
        task_type = get_task_type(step.type)
        if param == task_type.url_fields[0] and takes_input_pictures(step, task_type):
            return InvalidWorkflow(
                f"input.image_url: the step {step.name!r} starts from a picture; give image_url "
                "or image_urls",
                param="input.image_url",
            )
    place = f"steps.{position}" if within else f"steps.{position}.config"
    return InvalidWorkflow(f"{place}.{exc.message}", param=f"{place}.{param}".rstrip("."))
