"""Store bytes in a bucket, through obstore: S3, Google Cloud Storage, Azure, and memory for tests.

A bucket shows an object only when its upload is complete, and keeps it once it has answered, so
`put` is atomic and durable. What was stored is looked at once more before it counts: a store that
keeps less than it got, and answers that all is well, fails the write. S3 is sent the SHA-256 of
each request besides, and refuses what arrives otherwise. A multipart upload that was broken off
leaves hidden parts: give the bucket a lifecycle rule that deletes incomplete uploads after a day.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Collection, Sequence
from typing import TYPE_CHECKING

import obstore
from obstore.exceptions import BaseError

from imageloom.domain.errors import StorageUnavailable
from imageloom.storage.base import LONG_CALL, SHORT_CALL, Storage, StoredStream
from imageloom.storage.keys import check_key, is_key

if TYPE_CHECKING:  # exists for type checkers only
    from obstore.store import ObjectStore

_PART = 8 << 20  # bytes of one request up or down; S3 takes at most 10,000 parts of an upload
_TRIES = 3  # of an upload that is answered and then not there as it was sent
_PARTS_AT_ONCE = 4  # 32 MiB in memory for one upload


class ObjectStorage(Storage):
    """A store of obstore. Retries are the store's: `opening` configures them."""

    failures = (OSError, BaseError, NotImplementedError)

    def __init__(self, store: ObjectStore) -> None:
        super().__init__()
        self._store = store

    async def put(self, key: str, data: bytes, *, media_type: str) -> None:
        """Store `data`, and read it back: an answer alone says little of what lies there.

        See Storage. What is read back are other bytes three times in a row: then it is away.
        """
        await self._run(LONG_CALL, self._put, check_key(key), data, media_type)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes], *, media_type: str) -> int:
        """Store a stream; see Storage."""
        size = 0
        writer = obstore.open_writer(
            self._store,
            check_key(key),
            attributes={"Content-Type": media_type},
            buffer_size=_PART,
            max_concurrency=_PARTS_AT_ONCE,
        )
        async for chunk in chunks:
            size += await self._run(LONG_CALL, writer.write, chunk)
        # Only this makes the object visible; a writer that is dropped before it stores nothing.
        await self._run(LONG_CALL, writer.close)
        await self._run(SHORT_CALL, self._check, key, size)
        return size

    async def get(self, key: str) -> bytes:
        """Return the bytes; see Storage."""
        size, chunks = await self.open(key)
        data = bytearray()
        async for chunk in chunks:
            data += chunk
        if len(data) != size:
            raise StorageUnavailable(f"the storage answered {len(data)} of {size} bytes")
        return bytes(data)

    async def open(self, key: str) -> StoredStream:
        """Return size and stream; see Storage. A reader may be slow: each part is a request."""
        found = await self._read(SHORT_CALL, obstore.head, self._store, check_key(key))
        return StoredStream(found["size"], self._parts(key, found["size"]))

    async def exists(self, key: str) -> bool:
        """Return whether the object is there; see Storage."""
        return is_key(key) and await self._run(SHORT_CALL, self._exists, key)

    async def list(self, prefix: str = "") -> Sequence[str]:
        """Return the keys below a folder; see Storage."""
        folder = check_key(prefix.rstrip("/")) if prefix else None
        return await self._run(LONG_CALL, self._list, folder)

    async def delete(self, keys: Collection[str]) -> None:
        """Delete objects, in bulk where the store can; see Storage."""
        if keys:
            await self._run(LONG_CALL, self._delete, [check_key(key) for key in keys])

    async def _parts(self, key: str, size: int) -> AsyncGenerator[bytes, None]:
        for start in range(0, size, _PART):
            end = min(start + _PART, size)
            yield await self._read(LONG_CALL, self._get_range, key, start, end)

    def _check(self, key: str, size: int) -> None:
        """Raise OSError when the store does not have an object of that size: one short request."""
        found = obstore.head(self._store, key)["size"]
        if found != size:
            raise OSError(f"the storage has {found} of {size} bytes of {key}")

    def _put(self, key: str, data: bytes, media_type: str) -> None:
        for _ in range(_TRIES):
            obstore.put(
                self._store,
                key,
                data,
                attributes={"Content-Type": media_type},
                chunk_size=_PART,
                max_concurrency=_PARTS_AT_ONCE,
            )
            try:
                if obstore.get(self._store, key).bytes() == data:
                    return
            except FileNotFoundError:
                pass
        raise OSError(f"the storage has other bytes at {key} than it was given")

    def _get_range(self, key: str, start: int, end: int) -> bytes:
        return obstore.get_range(self._store, key, start=start, end=end).to_bytes()

    def _exists(self, key: str) -> bool:
        try:
            obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

    def _list(self, folder: str | None) -> Sequence[str]:
        found = [entry["path"] for batch in obstore.list(self._store, folder) for entry in batch]
        return sorted(filter(is_key, found))

    def _delete(self, keys: Sequence[str]) -> None:
        try:
            obstore.delete(self._store, keys)
        except FileNotFoundError:
            # Google and Azure call a missing object an error, and which ones were done is unknown.
            for key in keys:
                try:
                    obstore.delete(self._store, key)
                except FileNotFoundError:
                    pass
