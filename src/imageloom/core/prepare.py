"""Prepare: from a request's body to the parameters that a task keeps."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from imageloom.core.models import Catalog, choose_model, read_catalog
from imageloom.core.services import Services
from imageloom.domain.catalog import Model
from imageloom.domain.errors import InvalidInput, InvalidParams, UnknownModel
from imageloom.domain.forecast import Effort
from imageloom.domain.webhooks import Webhook
from imageloom.fetch import check_web_url
from imageloom.settings import Settings
from imageloom.store.pool import statements
from imageloom.task_types.parsing import WebhookParams
from imageloom.task_types.spec import TaskType


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What a body comes down to: the parameters that make the pictures.

    And how much work that is, who is to be first, and who is to be told.
    """

    params: dict[str, Any]
    effort: Effort
    priority: int
    webhook: Webhook | None


async def prepare_request(
    services: Services, task_type: TaskType, body: Mapping[str, Any], *, tenant: str
) -> Prepared:
    """Do what `prepare` does, by today's catalog. Raises: InvalidParams, UnknownModel."""
    async with statements(services.pool) as conn:
        catalog = await read_catalog(conn, tenant=tenant)
    return prepare(task_type, body, catalog=catalog, settings=services.settings)


def prepare(
    task_type: TaskType, body: Mapping[str, Any], *, catalog: Catalog, settings: Settings
) -> Prepared:
    """Return a body as parameters with every default filled in, checked against the limits.

    Raises: InvalidParams, UnknownModel, naming the parameter.
    """
    asked = task_type.parse(body)
    name = task_type.model_name(asked, defaults=settings.default_models)
    model = None if name is None else choose_model(catalog, name)
    params = task_type.prepare(asked, model=model, limits=settings.limits)
    if params.get("loras") and model is not None:
        params["loras"] = _with_versions(params["loras"], catalog, model)
    return Prepared(
        params=params,
        effort=task_type.effort(params, model=model),
        priority=asked.priority,
        webhook=webhook_of(asked, allow=settings.fetch_allow),
    )


def webhook_of(asked: WebhookParams, *, allow: Collection[str]) -> Webhook | None:
    """Return whom a body wants to be told, None for nobody.

    Raises: InvalidParams where nothing could ever be sent there. A name is judged at each delivery.
    """
    if asked.webhook is not None:
        try:
            check_web_url(asked.webhook.url, allow=allow)
        except InvalidInput as exc:
            raise InvalidParams(f"webhook_url: {exc.message}", param="webhook_url") from exc
    return asked.webhook


def _with_versions(
    asked: Sequence[Mapping[str, Any]], catalog: Catalog, model: Model
) -> list[dict[str, Any]]:
    """Return the adapters that a request names as they are now: a later version is another one."""
    found: list[dict[str, Any]] = []
    for index, lora in enumerate(asked):
        place = f"loras.{index}.name"
        adapter = catalog.adapters.get(lora["name"])
        if adapter is None:
            raise UnknownModel(
                f"{place}: there is no adapter {lora['name']!r}; GET /models lists them",
                param=place,
            )
        if adapter.base_model != model.name:
            raise InvalidParams(
                f"{place}: {adapter.name!r} was trained on {adapter.base_model!r}, not on "
                f"{model.name!r}; name that model",
                param=place,
            )
        if any(other["name"] == adapter.name for other in found):
            raise InvalidParams(f"{place}: {adapter.name!r} is named twice", param=place)
        found.append({**lora, "version": adapter.version})
    return found
