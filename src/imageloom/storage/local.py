"""Store bytes in a folder, so that they survive a crash of the machine once `put` has returned.

A file is written under a private name in `.staging`, synced, renamed to its key, and its folder is
synced: a reader, and whoever comes after a kill or a power cut, finds the whole file or none.
Not the local store of obstore: it renames but does not sync, and 0.12 has no option for it.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Collection, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from imageloom.storage.base import CHUNK, LONG_CALL, SHORT_CALL, Storage, StoredStream
from imageloom.storage.keys import check_key, is_key

_STAGING = ".staging"  # no key begins with a dot
_STALE = 24 * 3600.0  # seconds after which a staged file belongs to nobody: uploads are bounded


class LocalStorage(Storage):
    """A folder of files, on this machine or on a network file system that all machines mount."""

    def __init__(self, root: Path) -> None:
        """Open the folder and create it if need be. Removes what a killed process left staged.

        Raises: OSError when the folder cannot be created.
        """
        super().__init__()
        _make_folder(root.absolute())
        self._root = root.resolve(strict=True)
        self._staging = self._root / _STAGING
        _make_folder(self._staging)
        _sweep(self._staging, older_than=time.time() - _STALE)

    async def put(self, key: str, data: bytes, *, media_type: str) -> None:
        """Store `data`; see Storage. The media type is kept by the row, not by the file system."""
        await self._run(LONG_CALL, self._write, check_key(key), data)

    async def put_stream(self, key: str, chunks: AsyncIterator[bytes], *, media_type: str) -> int:
        """Store a stream; see Storage."""
        path = self._path(key)
        size = 0
        staged = self._staged_path()
        file = await self._run(SHORT_CALL, staged.open, "xb")
        try:
            async for chunk in chunks:
                size += await self._run(SHORT_CALL, file.write, chunk)
            await self._run(LONG_CALL, _sync_and_close, file)
            await self._run(SHORT_CALL, self._publish, staged, path)
        finally:
            file.close()
            staged.unlink(missing_ok=True)
        return size

    async def get(self, key: str) -> bytes:
        """Return the bytes; see Storage."""
        return await self._read(LONG_CALL, self._read_all, check_key(key))

    async def open(self, key: str) -> StoredStream:
        """Return size and stream; see Storage."""
        path, size = await self._read(SHORT_CALL, self._find, check_key(key))
        return StoredStream(size, self._chunks(path))

    async def exists(self, key: str) -> bool:
        """Return whether the file is there; see Storage."""
        return is_key(key) and await self._run(SHORT_CALL, self._is_file, key)

    async def list(self, prefix: str = "") -> Sequence[str]:
        """Return the keys below a folder; see Storage."""
        folder = self._path(prefix.rstrip("/")) if prefix else self._root
        return await self._run(LONG_CALL, lambda: sorted(self._walk(folder)))

    async def delete(self, keys: Collection[str]) -> None:
        """Delete files and the folders that this empties; see Storage."""
        await self._run(LONG_CALL, self._remove, [check_key(key) for key in keys])

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _staged_path(self) -> Path:
        return self._staging / secrets.token_hex(16)

    def _write(self, key: str, data: bytes) -> None:
        staged = self._staged_path()
        try:
            with staged.open("xb") as file:
                file.write(data)
                _sync_and_close(file)
            self._publish(staged, self._path(key))
        finally:
            staged.unlink(missing_ok=True)

    def _publish(self, staged: Path, path: Path) -> None:
        while True:
            try:
                _make_folder(path.parent)
                self._refuse_link(path.parent)
                staged.replace(path)
                break
            except FileNotFoundError:
                # A concurrent `delete` pruned the folder as empty. The staged file is ours alone:
                # if that is what is missing, trying again would not help.
                if not staged.exists():
                    raise
        try:
            _sync_folder(path.parent)
        except FileNotFoundError:
            pass  # a concurrent `delete` of this very key came after us

    def _refuse_link(self, folder: Path) -> None:
        """Raise OSError when `folder` is, or lies behind, a link: it could lead anywhere."""
        if folder.resolve() != folder:
            raise NotADirectoryError(f"{folder} is behind a symbolic link")

    def _find(self, key: str) -> tuple[Path, int]:
        """Return the file of `key` and its size; a link, or what lies behind one, is no file."""
        path = self._path(key)
        if path.resolve() != path or not path.is_file():
            raise FileNotFoundError(key)
        return path, path.stat().st_size

    def _is_file(self, key: str) -> bool:
        try:
            self._find(key)
        except FileNotFoundError:
            return False
        return True

    def _read_all(self, key: str) -> bytes:
        return self._find(key)[0].read_bytes()

    async def _chunks(self, path: Path) -> AsyncGenerator[bytes, None]:
        file = await self._read(SHORT_CALL, path.open, "rb")
        try:
            while chunk := await self._run(SHORT_CALL, file.read, CHUNK):
                yield chunk
        finally:
            file.close()

    def _walk(self, folder: Path) -> Iterator[str]:
        if folder.resolve() != folder:
            return
        for parent, _, names in os.walk(folder):  # follows no links
            for name in names:
                key = Path(parent, name).relative_to(self._root).as_posix()
                if is_key(key):
                    yield key

    def _remove(self, keys: Collection[str]) -> None:
        for key in keys:
            path = self._path(key)
            self._refuse_link(path.parent)
            try:
                path.unlink(missing_ok=True)
                for folder in path.parents:
                    if folder == self._root:
                        break
                    folder.rmdir()
            except OSError:
                # Not empty, already pruned, or beneath a file: all fine if the file is gone.
                if path.is_file():
                    raise


def _sync_and_close(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
    file.close()


def _make_folder(folder: Path) -> None:
    """Create `folder` and its parents, each one durable in the folder above it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(staging: Path, *, older_than: float) -> None:
    for path in staging.iterdir():
        try:
            if path.stat().st_mtime < older_than:
                path.unlink()
        except FileNotFoundError:
            pass  # another process swept it
