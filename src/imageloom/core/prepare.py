"""Prepare: from a request's body to the parameters that a task keeps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from imageloom.core.models import Catalog, choose_model, read_catalog
from imageloom.core.services import Services
from imageloom.settings import Settings
from imageloom.store.pool import transaction
from imageloom.task_types.spec import TaskType


async def prepare_request(
    services: Services, task_type: TaskType, body: Mapping[str, Any]
) -> dict[str, Any]:
    """Do what `prepare` does, by today's catalog. Raises: InvalidParams, UnknownModel."""
    async with transaction(services.pool) as conn:
        catalog = await read_catalog(conn)
    return prepare(task_type, body, catalog=catalog, settings=services.settings)


def prepare(
    task_type: TaskType, body: Mapping[str, Any], *, catalog: Catalog, settings: Settings
) -> dict[str, Any]:
    """Return a body as parameters with every default filled in, checked against the limits.

    Raises: InvalidParams, UnknownModel, naming the parameter.
    """
    params = task_type.parse(body)
    name = task_type.model_name(params, defaults=settings.default_models)
    model = None if name is None else choose_model(catalog, name)
    return task_type.prepare(params, model=model, limits=settings.limits)
