"""Whose tasks a monitoring route shows: the caller's tenant's, or everybody's."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from imageloom.domain.errors import InvalidParams, NotPermitted
from imageloom.store.keys import ApiKey
from imageloom.task_types.registry import QUEUES

AllTenants = Annotated[
    bool, Field(description="Of all tenants, not only your own; needs the scope monitor")
]


class SeenQuery(BaseModel):
    """Whose tasks are shown."""

    model_config = ConfigDict(extra="forbid")

    all_tenants: AllTenants = False


def tenant_seen(viewer: ApiKey, *, all_tenants: bool) -> str | None:
    """Return whose tasks the caller looks at, None for everybody's. Raises: NotPermitted."""
    if not all_tenants:
        return viewer.tenant
    if not sees_all(viewer):
        raise NotPermitted(
            f"this key has the scopes {', '.join(viewer.scopes)}; all_tenants=true needs monitor"
        )
    return None


def sees_all(viewer: ApiKey) -> bool:
    """Whether the caller may see what other tenants do."""
    return "monitor" in viewer.scopes


def check_task_type(name: str | None) -> None:
    """Make sure that there is such a task type. Raises: InvalidParams."""
    if name is not None and name not in QUEUES:
        raise InvalidParams(
            f"task_type: there is no task type {name[:60]!r}; use one of {', '.join(QUEUES)}",
            param="task_type",
        )
