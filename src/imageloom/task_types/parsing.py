"""Turn a body into typed parameters, and pydantic's complaints into one sentence."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from imageloom.domain.errors import InvalidParams
from imageloom.domain.webhooks import LONGEST_URL, Resource, Webhook, parse_events

M = TypeVar("M", bound=BaseModel)
_SHOWN = 60  # characters of a wrong value that an error repeats


class FieldError(ValueError):
    """What a model validator raises: a complaint about several fields, told of one of them."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class WebhookParams(BaseModel):
    """What every body that creates something may say of being told about it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    resource: ClassVar[Resource] = "task"

    webhook_url: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_URL)] | None = (
        Field(None, exclude=True, description="Where it tells of itself by signed requests")
    )
    webhook_events: list[str] | None = Field(
        None,
        exclude=True,
        description="What it tells, such as completed or task.completed; else how it ended, and "
        "of a workflow that it is paused",
    )

    @model_validator(mode="after")
    def _known_events(self) -> Self:
        if self.webhook_events is not None:
            if self.webhook_url is None:
                raise FieldError("webhook_events", "goes with webhook_url; give both")
            try:
                parse_events(self.webhook_events, resource=self.resource)
            except ValueError as exc:
                raise FieldError("webhook_events", str(exc)) from exc
        return self

    @property
    def webhook(self) -> Webhook | None:
        """Where it tells of itself and what; None where it does not."""
        if self.webhook_url is None:
            return None
        events = parse_events(self.webhook_events, resource=self.resource)
        return Webhook(url=self.webhook_url, events=events)


class TaskParams(WebhookParams):
    """What a request for a task of any type may say. What it dumps are parameters of its type."""

    priority: int = Field(
        0,
        ge=-10,
        le=10,
        exclude=True,  # it changes when a task is done, not what is made, nor its cache key
        description="Which of your own waiting tasks is first: the highest. Those of others do "
        "not wait for it",
    )


def parse_params(model: type[M], body: Mapping[str, Any]) -> M:
    """Return the body as `model`. Raises: InvalidParams, naming the field and what was found."""
    try:
        return model.model_validate(body)
    except ValidationError as exc:
        raise _explain(exc, tuple(model.model_fields)) from exc


def _explain(exc: ValidationError, known: Sequence[str]) -> InvalidParams:
    """Turn pydantic's first complaint into one sentence, without echoing the input."""
    first = exc.errors(include_url=False)[0]
    param = ".".join(str(part) for part in first["loc"])[:_SHOWN] or "''"
    match first["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return InvalidParams(f"{param}: there is no such field{hint}", param=param)
        case "missing":
            return InvalidParams(f"{param}: is required", param=param)
        case "value_error":
            error = first["ctx"]["error"]
            if isinstance(error, FieldError):
                param = ".".join([*(str(part) for part in first["loc"]), error.field])
            return InvalidParams(f"{param}: {error}", param=param)
        case _:
            found = repr(first["input"])
            shown = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}…"
            message = first["msg"][:1].lower() + first["msg"][1:]
            return InvalidParams(f"{param}: {message}; found {shown}", param=param)
