"""Adapters: published by trainings, named by requests, retired by their owner."""

from __future__ import annotations

from typing import Any

from imageloom.core.services import Services
from imageloom.domain.adapters import Adapter
from imageloom.domain.errors import NotFound
from imageloom.domain.tasks import AdapterFile, Task
from imageloom.store import adapters
from imageloom.store.pool import Connection, transaction


async def publish_in(
    conn: Connection, task: Task, file: AdapterFile, *, lineage: dict[str, Any]
) -> Adapter:
    """Make a training's adapter the next version of its name, in the caller's transaction.

    `lineage` are digests of what it was made from.
    """
    config = task.params["config"]
    await adapters.lock_names(conn, task.tenant)
    return await adapters.insert(
        conn,
        tenant=task.tenant,
        name=task.params["output_name"],
        base_model=task.params["base_model"],
        file=file,
        rank=config["rank"],
        trigger_word=config["trigger_word"],
        task_id=task.id,
        lineage={
            **lineage,
            "config": config,
            "step": file.step,
            "held_out_loss": file.held_out_loss,
        },
    )


async def list_adapters(services: Services, *, tenant: str) -> list[Adapter]:
    """Return the newest version of each of the tenant's adapters, by name."""
    async with transaction(services.pool) as conn:
        return await adapters.list_newest(conn, tenant=tenant)


async def find_adapter(services: Services, *, tenant: str, name: str, version: int) -> Adapter:
    """Return that version of an adapter, for a task that was accepted with it.

    Raises: NotFound where it was retired since.
    """
    async with transaction(services.pool) as conn:
        found = await adapters.get(conn, tenant=tenant, name=name, version=version)
    if found is None or found.retired_at is not None:
        raise NotFound(f"the adapter {name!r} was deleted after this task was accepted")
    return found


async def retire(services: Services, name: str, *, tenant: str) -> None:
    """Take an adapter out of use; tasks that wait for it will fail, and say so.

    Its bytes stay: URLs of the training's output go on to work until they expire.
    Raises: NotFound.
    """
    async with transaction(services.pool) as conn:
        if not await adapters.retire(conn, tenant=tenant, name=name):
            raise NotFound(f"there is no adapter {name!r}")
