"""The client, asynchronous; `_sync.py` is generated from this file by `tools/unasync.py`."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx

from imageloom import __version__
from imageloom.client import _io_async as _io
from imageloom.client._common_async import (
    download,
    follow,
    image_url,
    reproduced,
    retried,
    upload,
    with_uploads,
)
from imageloom.client._connection_async import AsyncConnection
from imageloom.client._dataset import Dataset
from imageloom.client._env import read_environment
from imageloom.client._errors import (
    ImageloomError,
    TaskCancelled,
    TaskFailed,
    WaitTimeout,
)
from imageloom.client._files import Source, Told
from imageloom.client._monitoring_async import AsyncMonitoring
from imageloom.client._outlook_types import DryRun, dry_run_from
from imageloom.client._requests import (
    Loras,
    generation_body,
    given,
    headers_for,
    model_path,
    new_key,
    normalized_base,
    query,
    task_path,
)
from imageloom.client._retry import RetryPolicy
from imageloom.client._training_async import (
    AsyncTraining,
    look_at_dataset,
    start_training,
    training_from,
)
from imageloom.client._training_types import Preflight
from imageloom.client._types import (
    JSON,
    File,
    Model,
    Page,
    Queue,
    TaskData,
    Worker,
    items_from,
    model_from,
    page_from,
    queue_from,
    task_raw,
    worker_from,
)
from imageloom.client._webhooks_async import AsyncWebhooks
from imageloom.client._workflows_async import AsyncWorkflows

DEFAULT_URL = "http://127.0.0.1:9000"

# What was so when somebody asked for the task.
_ASKED = ("queue_position", "eta", "runnable", "runnable_reason", "runnable_change")


class AsyncTask(TaskData):
    """One task: the last answer about it, and the verbs that act on it.

    Its properties do not change by themselves: `refresh` and `wait` ask the server and update
    this object in place.
    """

    def __init__(self, connection: AsyncConnection, raw: JSON) -> None:
        self._connection = connection
        self._take(raw)

    async def refresh(self) -> Self:
        """Ask for the task's state now, and return this task.

        >>> task = await client.generate("a red dress")
        >>> task = await task.refresh()
        >>> task.status
        'running'
        """
        self._take(await self._connection.call("GET", task_path(self.id), read=task_raw))
        return self

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - the task goes on, so nothing is cancelled
        poll: float = 0.25,
        progress: Callable[[Self], object] | None = None,
    ) -> Self:
        """Ask until the task is completed, and return this task.

        `timeout` and `poll` are seconds; the time between two questions begins at `poll` and
        grows gently to 2. `progress` is called with this task after each answer. A server that
        is away for less than a minute is waited for.

        Raises: TaskFailed, TaskCancelled, WaitTimeout (the task goes on; wait again).

        >>> task = await client.generate("a red dress", num_outputs=2)
        >>> task = await task.wait(timeout=300, progress=lambda task: print(task.progress))
        0.0
        0.5
        1.0
        >>> [image.seed for image in task.output.images]
        [7, 8]
        """

        def over() -> bool:
            if progress is not None:
                progress(self)
            return self.done

        if not await follow(self._connection, self.refresh, over=over, timeout=timeout, poll=poll):
            raise WaitTimeout(self, seconds=timeout or 0.0)
        self._require_completed()
        return self

    async def events(self) -> AsyncIterator[Self]:
        """Yield this task whenever something became of it, until it is over.

        The server tells by itself, so nothing is asked again and again. A stream that breaks is
        taken up where it was; a server that is away for less than a minute is waited for.

        >>> task = await client.generate("a red dress", num_outputs=2)
        >>> [each.status async for each in task.events()]
        ['pending', 'running', 'completed']
        """
        async for told in self._connection.events(task_path(self.id, "/events")):
            waits = told.get("status") == "pending"
            # Not among what is told: it was that of the moment when somebody asked.
            asked = {name: self.raw.get(name) if waits else None for name in _ASKED}
            self._take(self.raw | told | asked)
            yield self

    async def cancel(self) -> Self:
        """Cancel the task, pending or running, and return it; repeating it is harmless.

        Raises: Conflict when it already completed or failed.

        >>> task = await client.generate("a red dress")
        >>> task = await task.cancel()
        >>> task.status
        'cancelled'
        """
        self._take(
            await self._connection.call("POST", task_path(self.id, "/cancel"), read=task_raw)
        )
        return self

    async def reproduce(self, output: int = 0) -> Self:
        """Make one output of this generation again, and return the new task; `wait` for it.

        Its `output.reproduction` says how the two compare.

        Raises: Conflict before the task is completed; Gone after a cleanup.

        >>> task = await client.generate("a red dress", num_outputs=2)
        >>> task = await task.wait()
        >>> again = await task.reproduce(output=1)
        >>> again = await again.wait()
        >>> again.output.reproduction.result
        'identical'
        """
        return type(self)(self._connection, await reproduced(self._connection, self.id, output))

    async def retry(self) -> Self:
        """Do this task over that failed or was cancelled, and return the new task.

        Raises: Conflict when it has not ended, has completed, or belongs to a workflow; Gone when
        an upload that it started from is.

        >>> task = await client.generate("a red dress")
        >>> task = await task.cancel()
        >>> again = await task.retry()
        >>> again = await again.wait()
        >>> again.status
        'completed'
        """
        return type(self)(self._connection, await retried(self._connection, self.id))

    async def download(
        self,
        folder: str | Path = "outputs",
        *,
        progress: Callable[[int, int], object] | None = None,
    ) -> list[Path]:
        """Write every image of a completed task into `folder` and return the paths, in order.

        Files are named `output_0.jpg`, `output_1.jpg` and so on, by what they are; files of
        these names are replaced. `progress` is called with the number written and the number in
        all. The API key is not sent to the images' URLs.

        Raises: ImageloomError when the task is not completed, Gone or Forbidden when its URLs
        expired (refresh the task for new ones), OSError when the folder cannot be written.

        >>> task = await client.generate("a red dress", num_outputs=2)
        >>> task = await task.wait()
        >>> [path.name for path in await task.download(folder)]
        ['output_0.jpg', 'output_1.jpg']
        """
        self._require_completed()
        images = self.output.images if self.output else []
        files = [(f"output_{index}", image.url) for index, image in enumerate(images)]
        return await download(self._connection, files, folder=Path(folder), progress=progress)

    def _require_completed(self) -> None:
        match self.status:
            case "completed":
                return
            case "failed":
                raise TaskFailed(self)
            case "cancelled":
                raise TaskCancelled(self)
            case status:
                raise ImageloomError(f"task {self.id} is {status}: wait for it first")


class AsyncClient:
    """A connection to one Imageloom server under one key.

    `base_url` may stand with or without `/api/v1`. `timeout` is the patience for one answer, in
    seconds. Failed requests are tried again where that can help, as `retry` says: connection
    errors, 429 and 503; nothing is ever made twice by it. `transport` and `http_client` are for
    proxies and tests: the second is used as it is and not closed. `sleep`, `jitter` and `clock`
    are what time is made of.

    >>> async with AsyncClient("http://127.0.0.1:9000", api_key="il_example") as client:
    ...     task = await client.generate("a red dress, studio light")
    ...     task = await task.wait()
    >>> task.status
    'completed'
    """

    def __init__(
        self,
        base_url: str = DEFAULT_URL,
        api_key: str | None = None,
        *,
        timeout: float = 30.0,
        transport: httpx.AsyncBaseTransport | None = None,
        http_client: httpx.AsyncClient | None = None,
        retry: RetryPolicy | None = None,
        sleep: _io.Sleep = _io.sleep,
        jitter: Callable[[], float] = random.random,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if transport is not None and http_client is not None:
            raise ValueError("give transport or http_client, not both")
        self._owned = http_client is None
        self._connection = AsyncConnection(
            http_client or httpx.AsyncClient(transport=transport),
            base_url=normalized_base(base_url),
            headers=headers_for(api_key, agent=f"imageloom/{__version__}"),
            timeout=timeout,
            retry=retry or RetryPolicy(),
            sleep=sleep,
            jitter=jitter,
            clock=clock,
        )

    @classmethod
    def from_env(
        cls,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        environment: Mapping[str, str] | None = None,
        **options: Any,
    ) -> Self:
        """Return a client for IMAGELOOM_URL and IMAGELOOM_API_KEY; arguments go before them.

        >>> client = AsyncClient.from_env(base_url="http://gpu-box:9000")
        >>> client.base_url
        'http://gpu-box:9000/api/v1'
        """
        url, key = read_environment(environment)
        return cls(base_url or url or DEFAULT_URL, api_key or key, **options)

    @property
    def base_url(self) -> str:
        """Where requests go, `/api/v1` included."""
        return self._connection.base_url

    async def generate(
        self,
        prompt: str,
        *,
        image: Source | None = None,
        negative_prompt: str | None = None,
        strength: float | None = None,
        num_outputs: int | None = None,
        steps: int | None = None,
        guidance_scale: float | None = None,
        width: int | None = None,
        height: int | None = None,
        seed: int | None = None,
        scheduler: str | None = None,
        model: str | None = None,
        loras: Loras | None = None,
        determinism: str | None = None,
        preview_every: int | None = None,
        priority: int | None = None,
        output_format: str | None = None,
        wait: int | None = None,
        webhook_url: str | None = None,
        webhook_events: Sequence[str] | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncTask:
        """Create a generation task and return it; `wait` for its images.

        `image` is a URL, or a local file or bytes, which are uploaded first; with one it is image
        to image. `loras` is `{name: weight}` or the API's list of `{"name", "weight"}`. With
        `preview_every` a running task has `previews`, new ones after so many denoising steps.
        `priority` is -10 to 10: of your own waiting tasks the highest is first. With `wait`, whole
        seconds up to 60, the server answers when the task is over, or then: what is quick needs no
        polls. The task tells `webhook_url` how it ended, or its `webhook_events`. What is not given
        is the server's to choose. Calling again under the same `idempotency_key` with the same
        arguments returns the first task instead of making another.

        Raises: InvalidParams, `param` naming what is wrong; OSError when `image` cannot be read.

        >>> task = await client.generate(
        ...     "a model wearing the dress", image="https://example.com/dress.jpg", num_outputs=4
        ... )
        >>> task.status
        'pending'
        """
        key = idempotency_key or new_key()
        input_image_url = (
            None if image is None else await image_url(self._connection, image, key=key)
        )
        body = generation_body(
            prompt=prompt,
            input_image_url=input_image_url,
            negative_prompt=negative_prompt,
            strength=strength,
            num_outputs=num_outputs,
            steps=steps,
            guidance_scale=guidance_scale,
            width=width,
            height=height,
            seed=seed,
            scheduler=scheduler,
            model=model,
            loras=loras,
            determinism=determinism,
            preview_every=preview_every,
            priority=priority,
            output_format=output_format,
            webhook_url=webhook_url,
            webhook_events=None if webhook_events is None else list(webhook_events),
        )
        return await self._connection.call(
            "POST", "/tasks/generation", body=body, key=key, wait=wait, read=self._task
        )

    async def estimate(self, task_type: str = "generation", **params: Any) -> DryRun:
        """Return what would become of a task, making none: whether it can run, and when.

        `params` are those of the request, as the API has them.

        Raises: InvalidParams, `param` naming what is wrong.

        >>> found = await client.estimate(prompt="a red dress", num_outputs=4)
        >>> found.runnable, found.queue_position
        (True, 3)
        """
        path = f"/tasks/{quote(task_type, safe='')}"
        return await self._connection.call(
            "POST", path, params={"dry_run": "true"}, body=given(params), read=dry_run_from
        )

    async def process(
        self,
        operation: str,
        *,
        image: Source | None = None,
        images: Sequence[Source] | None = None,
        wait: int | None = None,
        idempotency_key: str | None = None,
        **params: Any,
    ) -> AsyncTask:
        """Create a processing task and return it; `wait` for its images.

        `operation` is upscale, remove-background, replace-background, resize, crop, convert or
        adjust. Give `image` or `images`: URLs, or local files or bytes, which are uploaded first.
        `params` are `priority`, `webhook_url`, `webhook_events` and those of the operation, by
        their names in the API, such as `scale=4`; a path object or bytes among them, such as
        `background_image_url=Path("studio.jpg")`, is uploaded too. `wait` is that of `generate`.

        Raises: InvalidParams, `param` naming what is wrong; OSError when a file cannot be read.

        >>> task = await client.process("upscale", image="https://example.com/dress.jpg", scale=4)
        >>> task.type
        'processing'
        """
        key = idempotency_key or new_key()
        body = {"operation": operation, **await with_uploads(self._connection, params, key=key)}
        if image is not None:
            body["input_image_url"] = await image_url(self._connection, image, key=key)
        if images is not None:
            body["input_image_urls"] = [
                await image_url(self._connection, each, key=f"{key}.{index}")
                for index, each in enumerate(images)
            ]
        return await self._connection.call(
            "POST", "/tasks/processing", body=given(body), key=key, wait=wait, read=self._task
        )

    @property
    def workflows(self) -> AsyncWorkflows:
        """The verbs that make and find workflows."""
        return AsyncWorkflows(self._connection)

    @property
    def webhooks(self) -> AsyncWebhooks:
        """The verbs about what was told by webhooks."""
        return AsyncWebhooks(self._connection)

    @property
    def monitoring(self) -> AsyncMonitoring:
        """The verbs about what is in work and what became of it."""
        return AsyncMonitoring(self._connection)

    async def train(
        self,
        dataset: Source | Dataset,
        *,
        name: str,
        base_model: str | None = None,
        trigger_word: str | None = None,
        priority: int | None = None,
        webhook_url: str | None = None,
        webhook_events: Sequence[str] | None = None,
        idempotency_key: str | None = None,
        progress: Told | None = None,
        **config: Any,
    ) -> AsyncTraining:
        """Start training an adapter called `name`, and return the training; `wait` for it.

        `dataset` is a URL, or a zip, or a folder of pictures with their captions as `.txt`
        beside them or in one `metadata.jsonl`; a folder is zipped, and what is local is uploaded.
        `trigger_word` is the caption of pictures that have none. `priority` is -10 to 10: of your
        own waiting trainings the highest is first. It tells `webhook_url` how it ended, or its
        `webhook_events`. `config` is as the API has it:
        epochs, learning_rate, batch_size, rank, resolution, seed, checkpoint_every,
        sample_prompts and so on; what is not given fits the base model. `progress` is called
        with the bytes uploaded and those in all.

        Raises: InvalidParams, `param` naming what is wrong, the data set included; Conflict when
        the name is taken (`version=True` makes a new version of it); OSError when files cannot
        be read; ValueError when a folder holds no pictures.

        >>> training = await client.train(
        ...     "https://example.com/pictures.zip", name="my-dress", trigger_word="sks", epochs=2
        ... )
        >>> training = await training.wait()
        >>> task = await client.generate("a photo of sks", loras={training.adapter.name: 0.8})
        """
        return await start_training(
            self._connection,
            dataset,
            name=name,
            base_model=base_model,
            trigger_word=trigger_word,
            priority=priority,
            webhook_url=webhook_url,
            webhook_events=webhook_events,
            config=config,
            key=idempotency_key,
            progress=progress,
        )

    async def preflight(
        self,
        dataset: Source | Dataset,
        *,
        base_model: str | None = None,
        trigger_word: str | None = None,
        progress: Told | None = None,
        **config: Any,
    ) -> Preflight:
        """Return what is in a data set and what training on it will take, training nothing.

        The arguments are those of `train`. What is local is uploaded; the answer's `dataset_url`
        can be trained on without uploading again.

        Raises: InvalidParams when the data set is of no use, saying why.

        >>> report = await client.preflight(b"the bytes of a zip")
        >>> report.usable, [problem.name for problem in report.problems]
        (4, ['tiny.png'])
        >>> training = await client.train(report.dataset_url, name="my-dress")
        """
        return await look_at_dataset(
            self._connection,
            dataset,
            base_model=base_model,
            trigger_word=trigger_word,
            config=config,
            progress=progress,
        )

    async def training(self, training_id: str) -> AsyncTraining:
        """Return a training by its id.

        Raises: NotFound when there is none, or it is another tenant's.

        >>> made = await client.train("https://example.com/pictures.zip", name="my-dress")
        >>> training = await client.training(made.id)
        >>> training.name
        'my-dress'
        """
        read = partial(training_from, self._connection)
        return await self._connection.call("GET", task_path(training_id), read=read)

    async def task(self, task_id: str) -> AsyncTask:
        """Return a task by its id.

        Raises: NotFound when there is none, or it is another tenant's.

        >>> made = await client.generate("a red dress")
        >>> task = await client.task(made.id)
        >>> task.created_at.year
        2024
        """
        return await self._connection.call("GET", task_path(task_id), read=self._task)

    async def tasks(
        self,
        *,
        status: str | None = None,
        task_type: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        search: str | None = None,
        page: int | None = None,
        page_size: int | None = None,
        sort_by: str | None = None,
        sort_order: str | None = None,
    ) -> Page[AsyncTask]:
        """Return one page of your tasks, newest first; `search` is the beginning of an id.

        >>> task = await client.generate("a red dress")
        >>> page = await client.tasks(status="pending", page_size=10)
        >>> [each.status for each in page]
        ['pending']
        """
        params = query(
            status=status,
            task_type=task_type,
            created_after=created_after,
            created_before=created_before,
            search=search,
            page=page,
            page_size=page_size,
            sort_by=sort_by,
            sort_order=sort_order,
        )
        return await self._connection.call(
            "GET", "/tasks", params=params, read=partial(page_from, each=self._task)
        )

    async def cancel(self, task_id: str) -> AsyncTask:
        """Cancel a task, pending or running, and return it; repeating it is harmless.

        Raises: NotFound; Conflict when it already completed or failed.

        >>> task = await client.generate("a red dress")
        >>> task = await client.cancel(task.id)
        >>> task.status
        'cancelled'
        """
        return await self._connection.call("POST", task_path(task_id, "/cancel"), read=self._task)

    async def reproduce(self, task_id: str, output: int = 0) -> AsyncTask:
        """Make one output of a generation again, and return the new task: see `Task.reproduce`.

        Raises: NotFound; Conflict before the task is completed; Gone after a cleanup.

        >>> task = await client.generate("a red dress", num_outputs=2)
        >>> task = await task.wait()
        >>> again = await client.reproduce(task.id, output=1)
        >>> again.raw["reproduces"]["output"]
        1
        """
        return self._task(await reproduced(self._connection, task_id, output))

    async def retry(self, task_id: str) -> AsyncTask:
        """Do a task over that failed or was cancelled, and return the new task: see `Task.retry`.

        Raises: NotFound; Conflict and Gone as there.

        >>> task = await client.generate("a red dress")
        >>> task = await client.cancel(task.id)
        >>> again = await client.retry(task.id)
        >>> again.raw["retries"]["task_id"] == task.id
        True
        """
        return self._task(await retried(self._connection, task_id))

    async def upload(self, source: Source) -> File:
        """Upload a file or bytes and return it; its `url` stands wherever the API takes a URL.

        >>> file = await client.upload(b"a picture's bytes")
        >>> file.size
        17
        """
        return await upload(self._connection, source, key=new_key())

    async def models(self) -> list[Model]:
        """Return the base models and trained adapters that a task may name.

        >>> [model.name for model in await client.models()]
        ['imageloom-tiny']
        """
        read = partial(page_from, each=model_from)
        page = await self._connection.call("GET", "/models", read=read)
        models = page.items
        while page.has_next and page.items:
            params = {"page": page.page + 1, "page_size": page.page_size}
            page = await self._connection.call("GET", "/models", params=params, read=read)
            models = models + page.items
        return models

    async def delete_model(self, name: str) -> None:
        """Take one of your adapters out of use; tasks that wait for it will fail.

        Raises: NotFound when you have no adapter of that name.

        >>> training = await client.train("https://example.com/pictures.zip", name="my-dress")
        >>> training = await training.wait()
        >>> await client.delete_model("my-dress")
        """
        await self._connection.call("DELETE", model_path(name), read=bool)

    async def queues(self) -> list[Queue]:
        """Return the queues and how much waits in them.

        >>> [(queue.name, queue.pending) for queue in await client.queues()]
        [('generation', 12)]
        """
        read = partial(items_from, name="queues", each=queue_from)
        return await self._connection.call("GET", "/monitoring/queues", read=read)

    async def workers(self) -> list[Worker]:
        """Return the workers and what they do.

        >>> [(worker.id, worker.status) for worker in await client.workers()]
        [('worker-01', 'busy')]
        """
        read = partial(items_from, name="workers", each=worker_from)
        return await self._connection.call("GET", "/monitoring/workers", read=read)

    async def aclose(self) -> None:
        """Close the connections; `async with` does it for you.

        >>> await client.aclose()
        """
        if self._owned:
            await self._connection.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.base_url}>"

    def _task(self, raw: JSON) -> AsyncTask:
        return AsyncTask(self._connection, task_raw(raw))
