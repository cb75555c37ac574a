"""Read a workflow from a YAML file, and tell where in it a mistake is.

The file is the body of `POST /workflows`: `name`, `description`, `steps`, and with `input` the
defaults of what a run is started with. YAML's older surprises are left out: `4:5` is text and not
285 seconds, `no` and `on` are words, a date is text, and a key that stands twice is a mistake.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FIELDS = ("name", "description", "steps", "input")


class WorkflowFileError(ValueError):
    """The file is no workflow; the message names file, line and step."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkflowFile:
    """What a file says, and where it says it."""

    path: Path
    name: str
    description: str | None
    steps: list[dict[str, Any]]
    input: dict[str, Any]
    root: yaml.Node

    def place(self, param: str) -> str:
        """Return where in the file the field is that an error of the server names.

        `param` is such as `steps.1.config.scale`; a part that the file does not have ends the
        search at what does. Such as `f.yaml, line 9 (step 'upscale')`.
        """
        parts = param.split(".")
        step = ""
        if parts[0] == "steps" and len(parts) > 1 and parts[1].isdigit():
            index = int(parts[1])
            if index < len(self.steps):
                step = f" ({_step_called(self.steps[index], index)})"
        return f"{self.path}, line {_line_of(self.root, parts)}{step}"


def read_workflow_file(path: Path) -> WorkflowFile:
    """Return the workflow of a file.

    Raises: OSError when it cannot be read, WorkflowFileError when it is no workflow.
    """
    try:
        loader = _Loader(path.read_text(encoding="utf-8"))
        root = loader.get_single_node()
        body = loader.construct_document(root) if root is not None else None
    except UnicodeDecodeError as exc:
        raise WorkflowFileError(f"{path}: is not UTF-8 text") from exc
    except yaml.MarkedYAMLError as exc:
        raise WorkflowFileError(f"{_where(path, exc)}: {exc.problem or exc.context}") from exc
    except yaml.YAMLError as exc:
        raise WorkflowFileError(f"{path}: {exc}") from exc
    except RecursionError:
        raise WorkflowFileError(f"{path}: nests too deep") from None
    if root is None or not isinstance(body, dict):
        raise WorkflowFileError(f"{path}: is not a workflow, which has a name and steps")
    return _checked(path, body, root)


def _checked(path: Path, body: dict[str, Any], root: yaml.Node) -> WorkflowFile:
    def refuse(parts: list[str], message: str) -> WorkflowFileError:
        return WorkflowFileError(f"{path}, line {_line_of(root, parts)}: {message}")

    for name in body:
        if name not in FIELDS:
            raise refuse([str(name)], f"unknown field {name!r}; there are {', '.join(FIELDS)}")
    if not isinstance(body.get("name"), str):
        raise refuse(["name"], "name: give the workflow a name")
    steps = body.get("steps")
    if not isinstance(steps, list) or not steps:
        raise refuse(["steps"], "steps: give a list of steps")
    for index, step in enumerate(steps):
        place = ["steps", str(index)]
        if not isinstance(step, dict):
            raise refuse(place, f"step {index} is no mapping with a name and a type")
        if not ({"name", "id"} & step.keys() and {"type", "task_type"} & step.keys()):
            raise refuse(place, f"{_step_called(step, index)} needs a name and a type")
    given = body.get("input")
    if given is not None and not isinstance(given, dict):
        raise refuse(["input"], "input: give names and values")
    return WorkflowFile(
        path=path,
        name=body["name"],
        description=body.get("description"),
        steps=steps,
        input=given or {},
        root=root,
    )


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema: fewer words and numbers that are something else than they look."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - PyYAML's

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return a mapping whose keys are text, each once."""
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(
                    None, None, "a key must be text", key.start_mark
                )
            if key.value in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"{key.value!r} stands here twice", key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


# Source: YAML 1.2.2, 10.3.2, core schema; numbers without octal and hexadecimal forms.
for _tag, _pattern, _first in (
    ("null", r"null|Null|NULL|~|", ["n", "N", "~", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*)([eE][-+]?[0-9]+)?", list("-+.0123456789")),
    ("float", r"[-+]?[0-9]+[eE][-+]?[0-9]+", list("-+0123456789")),
    ("merge", r"<<", ["<"]),
):
    _Loader.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), _first
    )


def _line_of(node: yaml.Node, parts: list[str]) -> int:
    """Return the line, from 1, of the field that `parts` lead to, or as far as they lead."""
    line = node.start_mark.line
    for part in parts:
        match node:
            case yaml.MappingNode():
                found = [(key, value) for key, value in node.value if key.value == part]
                if not found:
                    break
                line, node = found[0][0].start_mark.line, found[0][1]
            case yaml.SequenceNode() if part.isdigit() and int(part) < len(node.value):
                node = node.value[int(part)]
                line = node.start_mark.line
            case _:
                break
    return line + 1


def _where(path: Path, exc: yaml.MarkedYAMLError) -> str:
    mark = exc.problem_mark or exc.context_mark
    return str(path) if mark is None else f"{path}, line {mark.line + 1}"


def _step_called(step: dict[str, Any], index: int) -> str:
    name = step.get("name", step.get("id"))
    return f"step {index}" if name is None else f"step {name!r}"
