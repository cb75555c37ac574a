"""Everything that can go wrong, named for what the caller may do about it.

ImageloomError            code, public message, retryable
  RequestError            the caller must change something        -> 4xx, never retried
    InvalidParams  InvalidWorkflow  UnknownTaskType  UnknownModel  InvalidInput  Unauthorized
    NotPermitted  CrossSite  NotFound  Gone  Conflict  PayloadTooLarge  UnsupportedMediaType
    IdempotencyMismatch  TooManySignIns
  AttemptError            this try failed; the policy decides      -> recorded on the attempt
    OutOfMemory  ModelNotInstalled  BadWeights  DeviceFault
  WorkerError             not the task's fault: DeviceLost  DeviceAway  CutOff  LeaseLost
                          (stop, write nothing)
  InfrastructureError     retried in place, bounded                -> 503 at the edge
    StoreUnavailable  StorageUnavailable  NoWorker
"""

from __future__ import annotations

from typing import ClassVar


class ImageloomError(Exception):
    """Base of the tree. `str(error)` is the public message: it names no secret and no internals."""

    code: ClassVar[str] = "internal_error"
    retryable: ClassVar[bool] = False

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


class RequestError(ImageloomError):
    """The caller must change the request; sending it again gives the same answer."""

    code = "invalid_request"


class InvalidParams(RequestError):
    """A parameter is missing, of the wrong type, unknown or out of range. `param` names it."""

    code = "invalid_params"


class InvalidWorkflow(RequestError):
    """The steps of a workflow do not make a graph that can run. `param` names where."""

    code = "workflow_invalid"


class UnknownTaskType(RequestError):
    """The `type` of a task is not registered."""

    code = "unknown_task_type"


class UnknownModel(RequestError):
    """The `model` is not in the catalog."""

    code = "unknown_model"


class InvalidInput(RequestError):
    """What a URL answered is not a usable input; the task fails with `Invalid input: …`."""

    code = "invalid_input"


class Unauthorized(RequestError):
    """No key, or one that is wrong or revoked."""

    code = "unauthorized"


class NotPermitted(RequestError):
    """The key is good but its scopes do not allow this."""

    code = "forbidden"


class CrossSite(RequestError):
    """The page of another site made a browser send this with its cookie."""

    code = "csrf"


class NotFound(RequestError):
    """There is no such thing, or it belongs to another tenant."""

    code = "not_found"


class Gone(RequestError):
    """It existed and was deleted or has expired."""

    code = "gone"


class Conflict(RequestError):
    """The state of the thing does not allow this verb."""

    code = "conflict"


class PayloadTooLarge(RequestError):
    """The body is over the limit."""

    code = "payload_too_large"


class UnsupportedMediaType(RequestError):
    """The body's content type is not the one that the route takes."""

    code = "unsupported_media_type"


class IdempotencyMismatch(RequestError):
    """The Idempotency-Key was used before with another body."""

    code = "idempotency_key_reused"


class TooManySignIns(RequestError):
    """Too many wrong keys came from this address; `retry_after` seconds on, one more may."""

    code = "too_many_requests"

    def __init__(self, message: str, *, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class AttemptError(ImageloomError):
    """This try at a task failed; `domain.retry` decides what follows."""

    code = "attempt_failed"


class OutOfMemory(AttemptError):
    """The device ran out of memory. The message contains `CUDA out of memory` on a GPU."""

    code = "out_of_memory"
    retryable = True


class ModelNotInstalled(AttemptError):
    """The model is in the catalog but its weights are not on this machine."""

    code = "model_not_installed"


class BadWeights(AttemptError):
    """The weights are not safetensors, or do not fit the family."""

    code = "bad_weights"


class DeviceFault(AttemptError):
    """The device raised something that we have no better name for."""

    code = "device_fault"
    retryable = True


class WorkerError(ImageloomError):
    """Not the task's fault."""

    code = "worker_error"
    retryable = True


class DeviceLost(WorkerError):
    """The device process died under the task."""

    code = "worker_lost"


class DeviceAway(DeviceLost):
    """There was no device process to begin the attempt on: nothing was tried."""

    code = "device_away"


class CutOff(WorkerError):
    """The worker was not heard for a lease: others may have the attempt. Stop, hand it back."""

    code = "cut_off"


class LeaseLost(WorkerError):
    """The attempt is no longer this worker's: stop, write nothing."""

    code = "lease_lost"


class InfrastructureError(ImageloomError):
    """A service that we stand on did not answer in time."""

    code = "unavailable"
    retryable = True


class StoreUnavailable(InfrastructureError):
    """PostgreSQL did not answer."""

    code = "database_unavailable"


class NoWorker(InfrastructureError):
    """No worker is alive; tasks would wait."""

    code = "no_worker"


class StorageUnavailable(InfrastructureError):
    """The object storage did not answer."""

    code = "storage_unavailable"
