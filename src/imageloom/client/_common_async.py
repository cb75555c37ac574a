"""What tasks and workflows have in common: waiting, uploading and downloading."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from imageloom.client import _io_async as _io
from imageloom.client._connection_async import AsyncConnection
from imageloom.client._errors import ConnectionFailed, Unavailable
from imageloom.client._files import Source, Told, is_url, prepare_upload, save
from imageloom.client._requests import new_key, retry_path, task_path, upload_key
from imageloom.client._types import JSON, File, file_from, task_raw

_POLL_GROWTH = 1.2  # 0.25 s becomes 2 s after 12 polls, about 10 s into a task
_LONGEST_POLL = 2.0
_PATIENCE = 60.0  # a server takes up to 30 s to stop, and some to start: a task outlives both


async def follow(
    connection: AsyncConnection,
    refresh: _io.Thunk[object],
    *,
    over: Callable[[], bool],
    timeout: float | None,  # noqa: ASYNC109 - what is followed goes on, so nothing is cancelled
    poll: float,
) -> bool:
    """Ask until `over` says so of the latest answer; return False if the time is over first.

    `over` is called for what is known already, then after each answer. A server that is away for
    less than a minute is waited for.
    """
    if poll <= 0:
        raise ValueError(f"poll is {poll}; it must be above 0 seconds")
    clock = connection.clock
    answered = clock()
    deadline = math.inf if timeout is None else answered + timeout
    pause = poll
    while not over():
        remaining = deadline - clock()
        if remaining <= 0:
            return False
        await connection.sleep(min(pause, remaining))
        pause = min(pause * _POLL_GROWTH, max(poll, _LONGEST_POLL))
        try:
            await refresh()
            answered = clock()
        except (ConnectionFailed, Unavailable):
            if clock() - answered > _PATIENCE:
                raise
    return True


async def reproduced(connection: AsyncConnection, task_id: str, output: int) -> JSON:
    """Return a new task that makes an output of another again."""
    path, body = task_path(task_id, "/reproduce"), {"output": output}
    return await connection.call("POST", path, body=body, key=new_key(), read=task_raw)


async def retried(connection: AsyncConnection, task_id: str) -> JSON:
    """Return a new task that does over one that failed or was cancelled."""
    path = retry_path(task_id)
    return await connection.call("POST", path, key=new_key(), read=task_raw)


async def upload(
    connection: AsyncConnection, source: Source, *, key: str, progress: Told | None = None
) -> File:
    """Upload a file or bytes under a key; `progress` hears of a file's bytes, sent and in all."""
    prepared = await _io.blocking(prepare_upload, source, progress=progress)
    return await connection.upload("/files", prepared, key=key, read=file_from)


async def image_url(connection: AsyncConnection, source: Source, *, key: str) -> str:
    """Return the URL of an image argument: itself, or that of the file once uploaded."""
    if is_url(source):
        return source
    return (await upload(connection, source, key=upload_key(key))).url


async def with_uploads(connection: AsyncConnection, value: Any, *, key: str) -> Any:
    """Return `value` with every path object and every bytes in it uploaded and become a URL.

    Plain text stays text, as it may be a prompt.
    """
    if isinstance(value, bytes | os.PathLike):
        return await image_url(connection, value, key=key)
    if isinstance(value, Mapping):
        return {
            name: await with_uploads(connection, each, key=f"{key}.{name}")
            for name, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [
            await with_uploads(connection, each, key=f"{key}.{index}")
            for index, each in enumerate(value)
        ]
    return value


async def download(
    connection: AsyncConnection,
    files: Iterable[tuple[str, str]],
    *,
    folder: Path,
    progress: Told | None,
) -> list[Path]:
    """Write each of `files`, a stem and a URL, into `folder` and return the paths, in order."""
    wanted = list(files)
    paths: list[Path] = []
    for stem, url in wanted:
        answer = await connection.fetch(url)
        path = await _io.blocking(
            save,
            answer.content,
            folder=folder,
            stem=stem,
            media_type=answer.headers.get("Content-Type"),
        )
        paths.append(path)
        if progress is not None:
            progress(len(paths), len(wanted))
    return paths
