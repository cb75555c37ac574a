"""What a task type is to everything but the device: its parameters, its limits, its inputs.

A task type is one folder: `spec.py` (light, an instance of `TaskType`) and `run.py` (heavy, read
only by the device process), and one line in `registry.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel

from imageloom.domain.catalog import Model
from imageloom.images import Format, Picture
from imageloom.settings import Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What the worker sends to the device for one attempt, and how it finishes each picture.

    `message` is the task type's own struct, encoded. Pictures come back at the size the device
    drew them; `width` and `height` are what the user gets, in pixels.
    """

    message: bytes
    width: int
    height: int
    output_format: Format


class TaskType(Protocol):
    """One kind of task. The API, the docs and the command line are made from it."""

    @property
    def name(self) -> str:
        """The `type` of its tasks, the name of its queue and the last part of its route."""
        ...

    @property
    def summary(self) -> str:
        """One line for the documentation."""
        ...

    @property
    def params(self) -> type[BaseModel]:
        """What a request may say."""
        ...

    @property
    def example(self) -> Mapping[str, Any]:
        """A request body for the documentation."""
        ...

    @property
    def input_fields(self) -> tuple[str, ...]:
        """The parameters that hold URLs of pictures."""
        ...

    def model_name(self, params: BaseModel, *, default: str) -> str:
        """Return the name of the model that a request needs."""
        ...

    def prepare(self, params: BaseModel, *, model: Model, limits: Limits) -> dict[str, Any]:
        """Return the parameters to store: defaults filled in, checked against the limits.

        Raises: InvalidParams, naming the parameter.
        """
        ...

    def build_work(
        self,
        params: Mapping[str, Any],
        *,
        model: Model,
        inputs: Mapping[str, Picture],
        limits: Limits,
    ) -> Work:
        """Return what the device needs for one attempt. Raises: InvalidInput."""
        ...
