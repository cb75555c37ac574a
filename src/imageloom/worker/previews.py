"""Keep the newest preview of each picture where its user can see it, while the picture is made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import structlog

from imageloom.domain.errors import ImageloomError
from imageloom.domain.messages import Preview as PreviewMessage
from imageloom.domain.tasks import Claim, Preview
from imageloom.images import Encoded, Picture, encode_picture, resize_picture
from imageloom.storage.base import Storage
from imageloom.storage.keys import preview_key
from imageloom.worker.patience import to_the_end

_log = structlog.get_logger("imageloom.worker")

INTERVAL: Final = 0.5  # seconds between two writes
_QUALITY: Final = 80
# Pixels of the longer side: a latent of a picture of 64 pixels would be a dot.
_LONGEST: Final = 256

Write = Callable[[Sequence[Preview]], Awaitable[object]]


class PreviewWriter:
    """Stores previews in the background while its `async with` block runs, and then drops them.

    A preview that cannot be stored is left out: the picture itself is what counts.
    """

    def __init__(self, storage: Storage, claim: Claim, write: Write) -> None:
        """`write` puts the previews that are stored on record."""
        self._storage = storage
        self._claim = claim
        self._write = write
        self._newest: dict[int, PreviewMessage] = {}
        self._shown: dict[int, Preview] = {}
        self._arrived = asyncio.Event()
        self._over = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None

    def note(self, message: PreviewMessage, *, index: int) -> None:
        """Remember the newest preview of the output `index`; drops the one before."""
        self._newest[index] = message
        self._arrived.set()

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._run(), name="previews")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await to_the_end(self._end())

    async def _end(self) -> None:
        self._over.set()
        self._arrived.set()
        if self._writer is not None:
            # Not cancelled: a write goes on in its thread, and would arrive after the deletion.
            await asyncio.wait([self._writer])
        if not self._shown:
            return
        try:
            await self._storage.delete([preview.key for preview in self._shown.values()])
        except ImageloomError as exc:
            _log.warning("previews_left_behind", error=exc.message)

    async def _run(self) -> None:
        while not self._over.is_set():
            await self._arrived.wait()
            self._arrived.clear()
            newest, self._newest = self._newest, {}
            try:
                await self._store(newest)
            except ImageloomError as exc:
                _log.warning("preview_not_written", error=exc.message)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), INTERVAL)

    async def _store(self, newest: dict[int, PreviewMessage]) -> None:
        """Bytes come before the row that names them, and go after it names others."""
        if not newest:
            return
        replaced = [self._shown[index] for index in newest if index in self._shown]
        for index, message in newest.items():
            self._shown[index] = await self._kept(message, index)
        await self._write([self._shown[index] for index in sorted(self._shown)])
        await self._storage.delete([preview.key for preview in replaced])

    async def _kept(self, message: PreviewMessage, index: int) -> Preview:
        size, encoded = await asyncio.to_thread(_encode, message)
        key = preview_key(self._claim.task.id, self._claim.attempt, index, message.step)
        await self._storage.put(key, encoded.data, media_type=encoded.media_type)
        return Preview(
            index=index,
            step=message.step,
            steps=message.steps,
            key=key,
            width=size[0],
            height=size[1],
        )


def _encode(message: PreviewMessage) -> tuple[tuple[int, int], Encoded]:
    times = max(1, _LONGEST // max(message.width, message.height))
    size = message.width * times, message.height * times
    picture = Picture(width=message.width, height=message.height, rgb=message.rgb)
    return size, encode_picture(resize_picture(picture, *size), "jpeg", quality=_QUALITY)
