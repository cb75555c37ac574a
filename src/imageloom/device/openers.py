"""How the device begins an attempt: the heavy half of its task type, imported when first needed."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Protocol, cast

from imageloom.domain.errors import UnknownTaskType
from imageloom.runtime.units import Attempt, Units
from imageloom.task_types.registry import QUEUES

if TYPE_CHECKING:  # it imports torch, and the loop runs without
    from imageloom.runtime.residency import Residency


class _RunModule(Protocol):
    def open_units(self, work: bytes, attempt: Attempt, residency: Residency) -> Units: ...


def open_units(task_type: str, work: bytes, attempt: Attempt, residency: Residency) -> Units:
    """Return the units of an attempt: decodes its work and loads what it needs.

    Raises: whatever the task type's own `open_units` raises.
    """
    if task_type not in QUEUES:
        raise UnknownTaskType(f"type: there is no task type {task_type!r}")
    module = cast("_RunModule", import_module(f"imageloom.task_types.{task_type}.run"))
    return module.open_units(work, attempt, residency)
