"""Expand: from a step and what it received to the bodies of its tasks, one per picture.

The same function checks a workflow before it runs, on stand-ins for what is not there yet, and
makes the tasks of a step whose turn it is. So what was accepted is what will be asked for.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from imageloom.domain.errors import InvalidParams
from imageloom.domain.sources import (
    OUTPUT_SCHEME,
    InputValue,
    PictureField,
    StepPictures,
    parse_source,
)
from imageloom.domain.tasks import OutputImage
from imageloom.domain.workflow import StepSpec
from imageloom.task_types.spec import TaskType

# Other names under which a mapping may fill in the picture to start from.
_PICTURE_NAMES: Final = frozenset({"image_url", "image_urls", "input_image_urls"})
STAND_IN: Final = OutputImage(
    key="", seed=0, width=512, height=512, media_type="image/png", size=0, sha256=""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What a step may draw on: the run's input and what other steps made, by name.

    `inputs` are the storage keys of those values of the input that name our own files. `input` is
    None while it is not known what a run will be started with.
    """

    input: Mapping[str, Any] | None
    inputs: Mapping[str, str]
    pictures: Mapping[str, Sequence[OutputImage]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One task of a step: its body, and the storage keys of the inputs that are ours.

    `unknown` are parameters that get their value only when a run is started.
    """

    body: dict[str, Any]
    inputs: dict[str, str]
    unknown: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Source:
    """A picture to start from: its URL, and where it is where it is ours."""

    url: str
    key: str | None = None


@dataclass(slots=True, kw_only=True)
class _Filled:
    """The parameters of a step while its mappings are carried out."""

    body: dict[str, Any]
    inputs: dict[str, str]
    sources: list[_Source] | None = None
    unknown: set[str] = field(default_factory=set)


def expand(spec: StepSpec, task_type: TaskType, received: Received) -> list[Piece]:
    """Return the tasks of a step: one per picture that it starts from, one where there is none.

    Where the step's pictures come from, the first that applies: a mapping, its own config, the
    steps that it depends on, the run's input.
    Raises: InvalidParams, naming the parameter, where a mapping has no value for it.
    """
    filled = _Filled(body=dict(spec.config), inputs=dict(spec.inputs))
    own = _own_sources(filled, task_type)
    for param, text in spec.mappings.items():
        _fill(filled, task_type, received, param, text)
    sources = filled.sources
    if sources is None:
        sources = own if own is not None else _flowing(spec, received)
    picture = task_type.url_fields[0]
    unknown = frozenset(filled.unknown)
    if not sources:
        return [Piece(body=filled.body, inputs=filled.inputs, unknown=unknown)]
    return [
        Piece(
            body={**filled.body, picture: source.url},
            inputs=filled.inputs if source.key is None else {**filled.inputs, picture: source.key},
            unknown=unknown,
        )
        for source in sources
    ]


def takes_input_pictures(spec: StepSpec, task_type: TaskType) -> bool:
    """Whether the pictures of the run's input are what a step starts from."""
    picture = task_type.url_fields[0]
    named = {*spec.config, *(_param(param, picture) for param in spec.mappings)}
    return not spec.depends_on and not named & {picture, *_PICTURE_NAMES}


def cache_base(task_type: TaskType, body: Mapping[str, Any], params: Mapping[str, Any]) -> str:
    """Return the part of a task's cache key that is known before its inputs are read.

    Two tasks without a seed of their own count as asking for the same pictures.
    """
    apart = {*task_type.url_fields, *task_type.asides}
    kept = {name: value for name, value in params.items() if name not in apart}
    if "seed" in kept and body.get("seed") is None:
        kept["seed"] = None
    asked = msgspec.json.encode([task_type.name, kept], order="sorted")
    return hashlib.sha256(asked).hexdigest()


def _own_sources(filled: _Filled, task_type: TaskType) -> list[_Source] | None:
    """Take the pictures that the config itself names out of `filled`."""
    picture = task_type.url_fields[0]
    own = None
    for name in (picture, f"{picture}s"):
        if (value := filled.body.get(name)) is None or name not in task_type.url_fields:
            continue
        urls = value if isinstance(value, list) else [value]
        names = [f"{name}.{index}" for index in range(len(urls))] if urls is value else [name]
        if not all(isinstance(url, str) for url in urls):
            continue  # for the task type to refuse, which knows what it wants
        own = [
            *(own or []),
            *(
                _Source(url=url, key=filled.inputs.pop(key_name, None))
                for url, key_name in zip(urls, names, strict=True)
            ),
        ]
        del filled.body[name]
    return own


def _fill(filled: _Filled, task_type: TaskType, received: Received, param: str, text: str) -> None:
    """Carry out one mapping."""
    picture = task_type.url_fields[0]
    name = _param(param, picture)
    place = f"input_mappings.{param}"
    try:
        source = parse_source(text, steps=received.pictures.keys())
    except ValueError as exc:
        raise InvalidParams(f"{place}: {exc}", param=place) from exc
    match source:
        case InputValue(name=wanted):
            _fill_from_input(filled, task_type, received, name, wanted, place)
        case StepPictures(step=step, index=index):
            made = received.pictures[step]
            chosen = list(made) if index is None else [_at(made, index, step, place)]
            if name == picture:
                filled.sources = [_named(image) for image in chosen]
            elif name not in task_type.url_fields:
                raise InvalidParams(f"{place}: this parameter takes no picture", param=place)
            elif index is None:
                raise InvalidParams(
                    f"{place}: takes one picture; use steps.{step}.images[0]", param=place
                )
            else:
                filled.body[name] = _named(chosen[0]).url
                filled.inputs[name] = chosen[0].key
        case PictureField(step=step, index=index, field=attribute):
            filled.body[name] = getattr(_at(received.pictures[step], index, step, place), attribute)


def _fill_from_input(
    filled: _Filled,
    task_type: TaskType,
    received: Received,
    name: str,
    wanted: str,
    place: str,
) -> None:
    """Give a parameter a value of the run's input."""
    is_picture = name == task_type.url_fields[0]
    if received.input is None:
        if is_picture:
            filled.sources = [_named(STAND_IN)]
        else:
            filled.body.pop(name, None)
            filled.unknown.add(name)
    elif wanted not in received.input:
        raise InvalidParams(f"{place}: the run's input has no {wanted!r}", param=place)
    elif is_picture:
        filled.sources = _sources_of_value(received, wanted)
    else:
        filled.body[name] = received.input[wanted]
        if wanted in received.inputs and name in task_type.url_fields:
            filled.inputs[name] = received.inputs[wanted]


def _flowing(spec: StepSpec, received: Received) -> list[_Source]:
    """Return what comes to a step by itself."""
    if not spec.depends_on:
        return _of_input(received)
    return [_named(image) for parent in spec.depends_on for image in received.pictures[parent]]


def _of_input(received: Received) -> list[_Source]:
    """Return the pictures of the run's input: `image_url` and `image_urls`."""
    if received.input is None:
        return [_named(STAND_IN)]
    found = []
    for name in ("image_url", "image_urls"):
        found += _sources_of_value(received, name)
    return found


def _param(param: str, picture: str) -> str:
    return picture if param in _PICTURE_NAMES else param


def _sources_of_value(received: Received, name: str) -> list[_Source]:
    match (received.input or {}).get(name):
        case str(url):
            return [_Source(url=url, key=received.inputs.get(name))]
        case list(urls):
            return [
                _Source(url=url, key=received.inputs.get(f"{name}.{index}"))
                for index, url in enumerate(urls)
            ]
        case _:
            return []


def _named(image: OutputImage) -> _Source:
    return _Source(url=f"{OUTPUT_SCHEME}{image.key}", key=image.key)


def _at(made: Sequence[OutputImage], index: int, step: str, place: str) -> OutputImage:
    if index >= len(made):
        raise InvalidParams(
            f"{place}: {step!r} makes {len(made)} pictures, so there is no images[{index}]",
            param=place,
        )
    return made[index]
