"""Every task type there is. A new one is a folder beside this file and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from imageloom.domain.errors import UnknownTaskType
from imageloom.task_types.generation.spec import Generation
from imageloom.task_types.processing.spec import Processing
from imageloom.task_types.spec import TaskType
from imageloom.task_types.training.spec import NAME as TRAINING

_ALL: tuple[TaskType, ...] = (Generation(), Processing())
# What a worker serves: those, and trainings, which have routes and a life of their own.
QUEUES = (*(task_type.name for task_type in _ALL), TRAINING)
TASK_TYPES: Mapping[str, TaskType] = {task_type.name: task_type for task_type in _ALL}
# Those whose tasks share denoising steps.
ROW_QUEUES = frozenset(task_type.name for task_type in _ALL if task_type.draws_rows)


def get_task_type(name: str) -> TaskType:
    """Return the task type of that name. Raises: UnknownTaskType, which lists those there are."""
    try:
        return TASK_TYPES[name]
    except KeyError:
        raise UnknownTaskType(
            f"type: there is no task type {name[:60]!r}; use one of {', '.join(TASK_TYPES)}",
            param="type",
        ) from None
