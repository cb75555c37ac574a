"""How it shows that memory did not suffice; no torch: what is not imported has raised nothing."""

from __future__ import annotations

import sys
from typing import Final

# How libraries that allocate by themselves say it, in an error of no class of its own.
_SIGNS: Final = (
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "MPS backend out of memory",
    "can't allocate memory",
)


def is_out_of_memory(exc: BaseException) -> bool:
    """Whether memory did not suffice, the device's or that of the host."""
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(exc, torch.OutOfMemoryError):
        return True
    return isinstance(exc, RuntimeError) and any(sign in str(exc) for sign in _SIGNS)


def forget_frames(exc: BaseException) -> None:
    """Free what the frames hold that an exception went through: the tensors of a failed pass.

    The log says no more where it was raised. To clear the frames alone leaves what functions inside
    functions refer to, as torch has one around every layer that a hook is on.
    """
    exc.__traceback__ = exc.__context__ = None
