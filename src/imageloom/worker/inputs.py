"""The inputs of an attempt: their bytes, each read once, and the pictures that they are."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence

from imageloom.domain.errors import InvalidInput, NotFound
from imageloom.domain.tasks import Task
from imageloom.fetch import Fetcher
from imageloom.images import Picture, Transparency, decode_picture
from imageloom.settings import Limits
from imageloom.storage.base import Storage
from imageloom.task_types.registry import get_task_type
from imageloom.task_types.spec import input_urls


class Inputs:
    """What the URLs among a task's parameters name, by `task_types.spec.input_urls`."""

    def __init__(self, storage: Storage, fetcher: Fetcher, limits: Limits, task: Task) -> None:
        self._storage = storage
        self._fetcher = fetcher
        self._limits = limits
        self._keys = task.inputs
        self._urls = input_urls(get_task_type(task.type).url_fields, task.params)
        self._read: dict[str, bytes] = {}

    async def digests(self, names: Sequence[str]) -> dict[str, str]:
        """Return the sha256 of these inputs. Raises: as `pictures`."""
        return {name: hashlib.sha256(await self._bytes(name)).hexdigest() for name in names}

    async def pictures(
        self, names: Sequence[str], *, transparency: Transparency
    ) -> dict[str, Picture]:
        """Return these inputs decoded. Raises: InvalidInput, naming it; StorageUnavailable."""
        return {name: await self._picture(name, transparency) for name in names}

    def forget(self, names: Iterable[str]) -> None:
        """Let go of the bytes of inputs that are not needed again."""
        for name in names:
            self._read.pop(name, None)

    async def _picture(self, name: str, transparency: Transparency) -> Picture:
        data = await self._bytes(name)
        try:
            return await asyncio.to_thread(
                decode_picture, data, max_pixels=self._limits.pixels, transparency=transparency
            )
        except InvalidInput as exc:
            raise InvalidInput(f"{name}: {exc.message}", param=name) from exc

    async def _bytes(self, name: str) -> bytes:
        if name not in self._read:
            try:
                self._read[name] = await self._get(name)
            except InvalidInput as exc:
                raise InvalidInput(f"{name}: {exc.message}", param=name) from exc
        return self._read[name]

    async def _get(self, name: str) -> bytes:
        """Return an input as it is: our own files straight from storage, others by `fetch`."""
        key = self._keys.get(name)
        if key is None:
            return (await self._fetcher.fetch(self._urls[name], max_bytes=self._limits.fetch)).data
        try:
            return await self._storage.get(key)
        except NotFound as exc:
            raise InvalidInput(
                "that file has expired or was deleted; upload it or make it again"
            ) from exc
