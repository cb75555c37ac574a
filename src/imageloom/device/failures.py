"""The one place where an exception on the device becomes the failure of an attempt."""

from __future__ import annotations

from imageloom.domain.errors import AttemptError, DeviceFault, ImageloomError, OutOfMemory
from imageloom.domain.messages import Errored
from imageloom.runtime.shortage import is_out_of_memory


def describe_failure(key: str, exc: Exception) -> Errored:
    """Return what to tell the parent: our own errors as they are, others by what is known."""
    error = _name(exc)
    return Errored(
        key=key,
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        param=error.param,
    )


def _name(exc: Exception) -> ImageloomError:
    if isinstance(exc, ImageloomError):
        return exc
    if isinstance(exc, MemoryError) or "can't allocate memory" in str(exc):
        return OutOfMemory("the worker is out of memory; ask for fewer or smaller pictures")
    if is_out_of_memory(exc):
        # The user's client looks for this phrase.
        return OutOfMemory(
            "CUDA out of memory: the task does not fit on this device; ask for fewer or smaller "
            "pictures, or a smaller model"
        )
    fault: AttemptError = DeviceFault(
        f"the device failed with {type(exc).__name__}; the worker's log has the details"
    )
    return fault
