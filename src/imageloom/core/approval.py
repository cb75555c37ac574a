"""Approval: a step that waits for a person's choice among pictures."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from imageloom.domain.errors import InvalidParams
from imageloom.domain.tasks import OutputImage
from imageloom.domain.workflow import StepSpec
from imageloom.task_types.parsing import parse_params

Index = Annotated[int, Field(ge=0)]


class ApprovalConfig(BaseModel):
    """The `config` of a step of type `approval`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    message: Annotated[str, StringConstraints(max_length=4000)] | None = Field(
        None, description="What the person is asked"
    )
    timeout_seconds: float | None = Field(
        None, ge=10, le=30 * 24 * 3600, allow_inf_nan=False, description="Then `default` is taken"
    )
    default: Literal["all", "first", "cancel"] | list[Index] | None = Field(
        None, description="The choice after the timeout: all, first, cancel, or a list of indices"
    )

    @property
    def longest_wait(self) -> timedelta | None:
        """How long the step waits, None for ever."""
        return None if self.timeout_seconds is None else timedelta(seconds=self.timeout_seconds)


def approval_config(spec: StepSpec) -> ApprovalConfig:
    """Return what an approval step says. Raises: InvalidParams, naming the field."""
    if not spec.depends_on:
        raise InvalidParams(
            "depends_on: an approval chooses among what other steps made; name one",
            param="depends_on",
        )
    if spec.mappings:
        raise InvalidParams("input_mappings: an approval takes none", param="input_mappings")
    config = parse_params(ApprovalConfig, spec.config)
    if (config.timeout_seconds is None) != (config.default is None):
        raise InvalidParams(
            "default: goes with timeout_seconds; give both or neither", param="default"
        )
    return config


def choose(
    candidates: Sequence[OutputImage], select: Sequence[int], *, param: str
) -> list[OutputImage]:
    """Return the selected pictures, in the order of the selection.

    Raises: InvalidParams, naming `param`, where nothing, something twice, or something that is not
    there is selected.
    """
    if not select:
        raise InvalidParams(f"{param}: is empty; name at least one candidate", param=param)
    if len(set(select)) < len(select):
        raise InvalidParams(f"{param}: names a candidate twice", param=param)
    for index in select:
        if not 0 <= index < len(candidates):
            raise InvalidParams(
                f"{param}: there is no candidate {index}; there are 0 to {len(candidates) - 1}",
                param=param,
            )
    return [candidates[index] for index in select]
