"""What a task type is to everything but the device: its parameters, its limits, its inputs.

A task type is one folder: `spec.py` (light, an instance of `TaskType`) and `run.py` (heavy, read
only by the device process), and one line in `registry.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from imageloom.domain.catalog import Kind, Model
from imageloom.domain.forecast import Effort
from imageloom.domain.work import LoraUse
from imageloom.images import Format, Picture, Transparency
from imageloom.settings import Limits
from imageloom.task_types.parsing import TaskParams


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the worker sends to the device for one part, and how it finishes each picture.

    `message` is the task type's own struct, encoded. `size` is width and height in pixels of what
    the user gets, None where pictures come back at their final size. A picture with transparency
    becomes PNG where `output_format` is JPEG.
    """

    message: bytes
    output_format: Format
    size: tuple[int, int] | None = None
    quality: int | None = None


class TaskType(Protocol):
    """One kind of task. The API, the docs and the command line are made from it."""

    @property
    def name(self) -> str:
        """The `type` of its tasks, the name of its queue and the last part of its route."""
        ...

    @property
    def draws_rows(self) -> bool:
        """Whether tasks of this type share denoising steps, so that a worker does many at once.

        Others are done one at a time: a second would wait behind the first, with its pictures in
        memory.
        """
        ...

    @property
    def summary(self) -> str:
        """One line for the documentation."""
        ...

    @property
    def example(self) -> Mapping[str, Any]:
        """A request body for the documentation."""
        ...

    @property
    def url_fields(self) -> tuple[str, ...]:
        """The parameters that hold the URL of a picture, or a list of them.

        The first is the picture to start from, which a workflow fills in.
        """
        ...

    @property
    def asides(self) -> tuple[str, ...]:
        """The parameters that do not change what a task makes."""
        ...

    @property
    def transparency(self) -> Transparency:
        """Whether inputs keep their transparency or lie on white."""
        ...

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of a request."""
        ...

    def parse(self, body: Mapping[str, Any]) -> TaskParams:
        """Return a request's parameters. Raises: InvalidParams, naming the field."""
        ...

    def model_name(self, params: BaseModel, *, defaults: Mapping[Kind, str]) -> str | None:
        """Return the name of the model that a request needs, None where it needs none."""
        ...

    def prepare(self, params: BaseModel, *, model: Model | None, limits: Limits) -> dict[str, Any]:
        """Return the parameters to store: defaults filled in, checked against the limits.

        Raises: InvalidParams, naming the parameter.
        """
        ...

    def output_count(self, params: Mapping[str, Any]) -> int:
        """Return how many pictures a task with these stored parameters makes."""
        ...

    def effort(self, params: Mapping[str, Any], *, model: Model | None) -> Effort:
        """Return how much work a task with these stored parameters is for its device."""
        ...

    def parts(self, params: Mapping[str, Any]) -> tuple[tuple[str, ...], ...]:
        """Return the runs on the device that make up an attempt: the inputs that each needs.

        Inputs are named as by `input_urls`. More than one part keeps memory at one picture's worth.
        """
        ...

    def build_work(
        self,
        params: Mapping[str, Any],
        *,
        model: Model | None,
        inputs: Mapping[str, Picture],
        limits: Limits,
        loras: tuple[LoraUse, ...] = (),
    ) -> Work:
        """Return what the device needs for one part, given its inputs and its adapters.

        Raises: InvalidInput.
        """
        ...


def input_urls(fields: tuple[str, ...], params: Mapping[str, Any]) -> dict[str, str]:
    """Return the URLs in `params` by name; those of a list are named `field.0`, `field.1`, …"""
    found: dict[str, str] = {}
    for name in fields:
        match params.get(name):
            case str(url):
                found[name] = url
            case list(urls):
                found |= {f"{name}.{index}": url for index, url in enumerate(urls)}
    return found
