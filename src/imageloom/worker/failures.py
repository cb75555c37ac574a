"""How an attempt's errors are told to its user."""

from __future__ import annotations

from imageloom.domain.errors import ImageloomError
from imageloom.domain.messages import Errored
from imageloom.domain.tasks import Failed

_INPUT_CODES = frozenset({"invalid_input", "invalid_params"})


class DeviceRefusedError(Exception):
    """The device named the failure; carries it out of the message loop."""

    def __init__(self, message: Errored) -> None:
        super().__init__(message.message)
        self.failure = Failed(
            code=message.code,
            message=_public(message.code, message.message),
            retryable=message.retryable,
            param=message.param,
        )


def failed(error: ImageloomError) -> Failed:
    """Return one of our errors as the end of an attempt."""
    return Failed(
        code=error.code,
        message=_public(error.code, error.message),
        retryable=error.retryable,
        param=error.param,
    )


def _public(code: str, message: str) -> str:
    """Return the text of `task.error`; the user's client looks for the phrase `Invalid input`."""
    return f"Invalid input: {message}" if code in _INPUT_CODES else message
