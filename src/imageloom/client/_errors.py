"""Everything that can go wrong for a caller, named for what the caller may do about it.

ImageloomError
  APIError            the server answered with an error: status, type, message, param, request_id
    Unauthorized        401  give a key, or another one
    Forbidden           403  the key is good, its scopes do not allow this
    NotFound            404  no such thing, or another tenant's
    Conflict            409  the state of the thing does not allow this verb
    Gone                410  it was deleted or has expired
    PayloadTooLarge     413
    UnsupportedMediaType  415
    InvalidParams       422  `param` names what to change; `type` says why
    RateLimited         429  tried again already; wait `retry_after` seconds
    ServerError         5xx  report it with `request_id`
      Unavailable         503  tried again already; wait `retry_after` seconds
  ConnectionFailed    no answer: wrong address, server down, network
  TaskFailed          the task ended without output; `task.error` says why
  TaskCancelled       somebody cancelled the task
  WaitTimeout         the task goes on; wait for it again
  WorkflowFailed      a step failed; `resume` redoes what did not complete
  WorkflowCancelled   somebody cancelled the run
  WorkflowPaused      it waits for a choice, or for `resume`
  WorkflowTimeout     the workflow goes on; wait for it again
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx

    from imageloom.client._types import TaskData
    from imageloom.client._workflow_types import WorkflowData


class ImageloomError(Exception):
    """Base of every error that this client raises on purpose."""


class APIError(ImageloomError):
    """The server answered with an error; the fields are those of its error envelope.

    `type` is the envelope's stable name, such as `unknown_model`, or `""` when something between
    you and the server answered in its stead.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str = "",  # noqa: A002 - the envelope's own word
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after

    def __str__(self) -> str:
        facts = [f"{self.status} {self.type}".strip()]
        if self.param and self.param not in self.message:
            facts.append(f"param {self.param}")
        if self.request_id:
            facts.append(f"request {self.request_id}")
        return f"{self.message} ({', '.join(facts)})"


class Unauthorized(APIError):
    """There was no key, or it is wrong or revoked."""


class Forbidden(APIError):
    """The key is good but its scopes do not allow this."""


class NotFound(APIError):
    """There is no such thing, or it belongs to another tenant."""


class Conflict(APIError):
    """The state of the thing does not allow this verb."""


class Gone(APIError):
    """It existed and was deleted or has expired."""


class PayloadTooLarge(APIError):
    """The file or body is over the server's limit."""


class UnsupportedMediaType(APIError):
    """The server does not take this kind of body."""


class InvalidParams(APIError):
    """A parameter is wrong; `param` names it and `type` says in what way."""


class RateLimited(APIError):
    """Too many requests, also after this client's own retries."""


class ServerError(APIError):
    """The server failed. `request_id` finds the reason in its log."""


class Unavailable(ServerError):
    """The server cannot answer now, also after this client's own retries."""


class ConnectionFailed(ImageloomError):
    """No answer came: a wrong address, a server that is down, or the network."""


class TaskFailed(ImageloomError):
    """The task ended without output. `task.error` and `task.error_detail` say why."""

    def __init__(self, task: TaskData) -> None:
        super().__init__(f"task {task.id} failed: {task.error or 'no reason given'}")
        self.task = task


class TaskCancelled(ImageloomError):
    """Somebody cancelled the task."""

    def __init__(self, task: TaskData) -> None:
        super().__init__(f"task {task.id} was cancelled")
        self.task = task


class WaitTimeout(ImageloomError):
    """The time given to `wait` is over. The task itself goes on."""

    def __init__(self, task: TaskData, *, seconds: float) -> None:
        super().__init__(f"task {task.id} is still {task.status} after {seconds:g} s")
        self.task = task


class WorkflowFailed(ImageloomError):
    """A step failed. `workflow` is as it stands, `steps` are the failed ones with their `error`."""

    def __init__(self, workflow: WorkflowData) -> None:
        self.workflow = workflow
        self.steps = [step for step in workflow.steps if step.status == "failed"]
        reasons = [f"step {step.name!r}: {step.error or 'no reason given'}" for step in self.steps]
        super().__init__(
            f"workflow {workflow.id} failed: "
            + ("; ".join(reasons) or workflow.error or "no reason given")
        )


class WorkflowCancelled(ImageloomError):
    """Somebody cancelled the run, or an approval whose time was over did."""

    def __init__(self, workflow: WorkflowData) -> None:
        super().__init__(f"workflow {workflow.id} was cancelled")
        self.workflow = workflow


class WorkflowPaused(ImageloomError):
    """It goes on by `workflow.resume` only.

    `steps` are the approvals that wait, each with its `candidates`; none when it was paused by a
    request.
    """

    def __init__(self, workflow: WorkflowData) -> None:
        self.workflow = workflow
        self.steps = workflow.waiting
        names = ", ".join(repr(step.name) for step in self.steps)
        super().__init__(
            f"workflow {workflow.id} waits for a choice at {names}: resume it with select=[…]"
            if self.steps
            else f"workflow {workflow.id} is paused: resume it"
        )


class WorkflowTimeout(ImageloomError):
    """The time given to `wait` is over. The workflow itself goes on."""

    def __init__(self, workflow: WorkflowData, *, seconds: float) -> None:
        super().__init__(f"workflow {workflow.id} is still {workflow.status} after {seconds:g} s")
        self.workflow = workflow


_BY_TYPE: dict[str, type[APIError]] = {
    "invalid_params": InvalidParams,
    "unknown_task_type": InvalidParams,
    "unknown_model": InvalidParams,
    "invalid_input": InvalidParams,
    "workflow_invalid": InvalidParams,
    "idempotency_key_reused": InvalidParams,
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
    "not_found": NotFound,
    "gone": Gone,
    "conflict": Conflict,
    "payload_too_large": PayloadTooLarge,
    "unsupported_media_type": UnsupportedMediaType,
    "internal_error": ServerError,
    "unavailable": Unavailable,
}
_BY_STATUS: dict[int, type[APIError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
    410: Gone,
    413: PayloadTooLarge,
    415: UnsupportedMediaType,
    422: InvalidParams,
    429: RateLimited,
    503: Unavailable,
}


def error_from(response: httpx.Response) -> APIError:
    """Return the error that a read, unsuccessful response means.

    The envelope's `type` decides; without one that we know, the status does. An answer that is no
    envelope (a proxy's page, a storage's XML) keeps its status and gets a message of our own.
    """
    envelope = _envelope(response)
    type_ = _text(envelope.get("type")) or ""
    status = response.status_code
    fallback = ServerError if status >= 500 else APIError
    made = _BY_TYPE.get(type_) or _BY_STATUS.get(status, fallback)
    request = response.request
    return made(
        _text(envelope.get("message"))
        or f"{request.method} {request.url.copy_with(query=None)} answered {status}",
        status=status,
        type=type_,
        param=_text(envelope.get("param")),
        request_id=_text(envelope.get("request_id")) or response.headers.get("X-Request-Id"),
        retry_after=_seconds(response.headers.get("Retry-After")),
    )


def not_understood(response: httpx.Response, expected: str) -> APIError:
    """Return the error for a successful answer that is not what the route promises."""
    url = response.request.url.copy_with(query=None)
    return APIError(
        f"{url} did not answer with {expected}: is this the address of an Imageloom server?",
        status=response.status_code,
        request_id=response.headers.get("X-Request-Id"),
    )


def _envelope(response: httpx.Response) -> dict[str, object]:
    try:
        body = response.json()
    except ValueError:
        return {}
    envelope = body.get("error") if isinstance(body, dict) else None
    return envelope if isinstance(envelope, dict) else {}


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _seconds(value: str | None) -> float | None:
    """Return Retry-After in seconds; its other form, a date, counts as none given."""
    try:
        seconds = float(value or "")
    except ValueError:
        return None
    return seconds if math.isfinite(seconds) and seconds >= 0 else None
