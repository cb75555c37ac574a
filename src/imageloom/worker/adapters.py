"""The adapters that a task names, as files on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import os
from pathlib import Path

from imageloom.core.adapters import find_adapter
from imageloom.core.services import Services
from imageloom.domain.adapters import Adapter
from imageloom.domain.errors import InvalidInput, NotFound, StorageUnavailable
from imageloom.domain.tasks import Task
from imageloom.domain.work import LoraUse


async def local_adapters(services: Services, task: Task) -> tuple[LoraUse, ...]:
    """Return the adapters of a task, fetched from storage where they are not here yet.

    Raises: InvalidInput where one was deleted since the task was accepted; StorageUnavailable.
    """
    uses = []
    for index, lora in enumerate(task.params.get("loras") or ()):
        try:
            adapter = await find_adapter(
                services, tenant=task.tenant, name=lora["name"], version=lora["version"]
            )
            path = await _local(services, adapter)
        except NotFound as exc:
            param = f"loras.{index}.name"
            raise InvalidInput(f"{param}: {exc.message}", param=param) from exc
        uses.append(
            LoraUse(name=adapter.name, path=str(path), sha256=adapter.sha256, weight=lora["weight"])
        )
    return tuple(uses)


async def _local(services: Services, adapter: Adapter) -> Path:
    """Return a local file of the adapter's bytes; named by their digest, so it is never stale."""
    folder = services.settings.data_dir.resolve() / "adapters"
    path = folder / f"{adapter.sha256}.safetensors"
    if not await asyncio.to_thread(path.exists):
        data = await services.storage.get(adapter.key)
        if hashlib.sha256(data).hexdigest() != adapter.sha256:
            # Its digest is what caches know it by: other bytes under it would stay for ever.
            raise StorageUnavailable(f"the stored bytes of {adapter.name!r} are not those it has")
        await asyncio.to_thread(_write, path, data)
    return path


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_bytes(data)
    part.replace(path)
