"""Training, asynchronous; `_training_sync.py` is generated from this file."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Self

from imageloom.client import _io_async as _io
from imageloom.client._common_async import download, follow, upload
from imageloom.client._connection_async import AsyncConnection
from imageloom.client._dataset import Dataset
from imageloom.client._errors import ImageloomError, TaskCancelled, TaskFailed, WaitTimeout
from imageloom.client._files import Source, Told, is_url, save_as
from imageloom.client._requests import new_key, task_path, training_body, upload_key
from imageloom.client._training_types import (
    Adapter,
    Loss,
    Preflight,
    TrainingData,
    loss_from,
    preflight_from,
)
from imageloom.client._types import JSON, items_from, task_raw


class AsyncTraining(TrainingData):
    """One training: the last answer about it, and the verbs that act on it.

    Its properties do not change by themselves: every verb updates this object in place.
    """

    def __init__(self, connection: AsyncConnection, raw: JSON) -> None:
        self._connection = connection
        self._take(raw)

    async def refresh(self) -> Self:
        """Ask how the training stands now, and return it.

        >>> training = await client.train(pictures, name="my-dress")
        >>> training = await training.refresh()
        >>> training.metrics.epochs
        2
        """
        return await self._call("GET")

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - the training goes on, nothing is cancelled
        poll: float = 0.25,
        on_change: Callable[[Self], object] | None = None,
    ) -> Self:
        """Ask until the training is completed, and return it.

        `timeout` and `poll` are seconds; the time between two questions begins at `poll` and
        grows gently to 2. `on_change` is called with this training at once, and whenever it got
        further. A server that is away for less than a minute is waited for.

        Raises: TaskFailed, TaskCancelled, WaitTimeout (the training goes on; wait again).

        >>> training = await client.train(pictures, name="my-dress")
        >>> training = await training.wait(
        ...     on_change=lambda training: print(training.metrics.step, training.metrics.loss)
        ... )
        0 None
        0 None
        1 1.0
        8 0.125
        >>> training.adapter.name
        'my-dress'
        """
        seen: list[object] = []

        def over() -> bool:
            if on_change is not None and seen != [state := _state(self)]:
                seen[:] = [state]
                on_change(self)
            return self.done

        if not await follow(self._connection, self.refresh, over=over, timeout=timeout, poll=poll):
            raise WaitTimeout(self, seconds=timeout or 0.0)
        match self.status:
            case "failed":
                raise TaskFailed(self)
            case "cancelled":
                raise TaskCancelled(self)
            case _:
                return self

    async def cancel(self, *, keep: bool = False) -> Self:
        """Cancel the training, and return it; repeating it is harmless.

        With `keep` its last checkpoint, if there is one, is published as the adapter.

        Raises: Conflict when it already completed or failed.

        >>> training = await client.train(pictures, name="my-dress")
        >>> training = await training.cancel(keep=True)
        >>> training.status
        'cancelled'
        """
        return await self._call("POST", "/cancel", body={"keep": True} if keep else None)

    async def losses(self) -> list[Loss]:
        """Return the loss of every step so far.

        >>> training = await client.train(pictures, name="my-dress")
        >>> training = await training.wait()
        >>> [loss.loss for loss in await training.losses()][-2:]
        [0.1429, 0.125]
        """
        read = partial(items_from, name="items", each=loss_from)
        return await self._connection.call("GET", task_path(self.id, "/losses"), read=read)

    async def download(
        self, folder: str | Path = "outputs", *, progress: Told | None = None
    ) -> list[Path]:
        """Write the adapter and the samples into `folder`, and return the paths, it first.

        Files are named such as `my-dress.safetensors` and `sample_50_0.png`, of step 50; files
        of these names are replaced. The adapter's bytes are checked against its digest.
        `progress` is called with the number written and the number in all.

        Raises: ImageloomError when nothing is published, or other bytes came than were; Gone or
        Forbidden when URLs expired (refresh for new ones); OSError when the folder cannot be
        written.

        >>> training = await client.train(pictures, name="my-dress")
        >>> training = await training.wait()
        >>> [path.name for path in await training.download(folder)]
        ['my-dress.safetensors', 'sample_8_0.jpg']
        """
        adapter = self.adapter
        if adapter is None:
            raise ImageloomError(f"training {self.id} is {self.status}: it published no adapter")
        samples = _sample_files(self)

        def written(count: int) -> None:
            if progress is not None:
                progress(count, 1 + len(samples))

        first = await _download_adapter(self._connection, adapter, folder=Path(folder))
        written(1)
        rest = await download(
            self._connection,
            samples,
            folder=Path(folder),
            progress=lambda count, _: written(1 + count),
        )
        return [first, *rest]

    async def _call(self, method: str, verb: str = "", *, body: JSON | None = None) -> Self:
        path = task_path(self.id, verb)
        self._take(await self._connection.call(method, path, body=body, read=task_raw))
        return self


async def start_training(
    connection: AsyncConnection,
    dataset: Source | Dataset,
    *,
    name: str,
    base_model: str | None,
    trigger_word: str | None,
    priority: int | None,
    webhook_url: str | None,
    webhook_events: Sequence[str] | None,
    config: Mapping[str, Any],
    key: str | None,
    progress: Told | None,
) -> AsyncTraining:
    """Create a training, its data set uploaded where it is a local one."""
    key = key or new_key()
    body = training_body(
        dataset_url=await _dataset_url(connection, dataset, key=key, progress=progress),
        name=name,
        base_model=base_model,
        trigger_word=trigger_word,
        priority=priority,
        webhook_url=webhook_url,
        webhook_events=webhook_events,
        config=config,
    )
    return await connection.call(
        "POST", "/training", body=body, key=key, read=partial(training_from, connection)
    )


async def look_at_dataset(
    connection: AsyncConnection,
    dataset: Source | Dataset,
    *,
    base_model: str | None,
    trigger_word: str | None,
    config: Mapping[str, Any],
    progress: Told | None,
) -> Preflight:
    """Return what training on a data set would be, uploaded where it is a local one."""
    url = await _dataset_url(connection, dataset, key=new_key(), progress=progress)
    body = training_body(
        dataset_url=url,
        name=None,
        base_model=base_model,
        trigger_word=trigger_word,
        priority=None,
        config=config,
    )
    read = partial(preflight_from, dataset_url=url)
    return await connection.call("POST", "/training/preflight", body=body, read=read)


def training_from(connection: AsyncConnection, raw: JSON) -> AsyncTraining:
    """Return a training from its answer."""
    return AsyncTraining(connection, task_raw(raw))


async def _dataset_url(
    connection: AsyncConnection,
    dataset: Source | Dataset,
    *,
    key: str,
    progress: Told | None,
) -> str:
    """Return the URL of a data set: itself, or that of the archive or folder once uploaded."""
    if isinstance(dataset, str | bytes) and is_url(dataset):
        return dataset
    key = upload_key(key)
    if not isinstance(dataset, bytes | Dataset) and await _io.blocking(_is_folder, dataset):
        dataset = await _io.blocking(Dataset.read, dataset)
    if not isinstance(dataset, Dataset):
        return (await upload(connection, dataset, key=key, progress=progress)).url
    with tempfile.TemporaryDirectory(prefix="imageloom-") as folder:
        archive = Path(folder) / "dataset.zip"
        await _io.blocking(dataset.pack, archive)
        return (await upload(connection, archive, key=key, progress=progress)).url


async def _download_adapter(connection: AsyncConnection, adapter: Adapter, *, folder: Path) -> Path:
    content = (await connection.fetch(adapter.url)).content
    digest = hashlib.sha256(content).hexdigest()
    if adapter.sha256 not in (None, digest):
        raise ImageloomError(
            f"the adapter's file has the digest {digest}, not {adapter.sha256}: download it again"
        )
    stem = re.sub(r"[^\w.-]+", "-", adapter.name).lstrip(".") or "adapter"
    return await _io.blocking(save_as, folder / f"{stem}.safetensors", content)


def _is_folder(source: str | os.PathLike[str]) -> bool:
    return Path(source).expanduser().is_dir()


def _sample_files(training: TrainingData) -> list[tuple[str, str]]:
    """Return stem and URL of each sample, numbered within its step."""
    steps: list[int] = []
    files = []
    for sample in training.samples:
        files.append((f"sample_{sample.step}_{steps.count(sample.step)}", sample.url))
        steps.append(sample.step)
    return files


def _state(training: TrainingData) -> object:
    """Return what `wait` calls a change; not the URLs, whose signatures may differ each time."""
    steps = [sample.step for sample in training.samples]
    return training.status, training.metrics, steps, training.adapter is None
