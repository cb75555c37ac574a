"""Workflows, asynchronous; `_workflows_sync.py` is generated from this file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Self

from imageloom.client._common_async import download, follow, image_url, with_uploads
from imageloom.client._connection_async import AsyncConnection
from imageloom.client._errors import (
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowPaused,
    WorkflowTimeout,
)
from imageloom.client._files import Source, file_stems
from imageloom.client._requests import (
    new_key,
    query,
    resume_body,
    run_body,
    workflow_body,
    workflow_path,
)
from imageloom.client._types import JSON, Page, page_from
from imageloom.client._workflow_types import Step, WorkflowData, workflow_raw


class AsyncWorkflow(WorkflowData):
    """One workflow in one of its runs: the last answer about it, and the verbs that act on it.

    Its properties do not change by themselves: every verb updates this object in place and
    returns it, so that `create(…)`, `start(…)` and `wait()` can follow one another.
    """

    def __init__(self, connection: AsyncConnection, raw: JSON) -> None:
        self._connection = connection
        self.raw = raw

    async def start(
        self,
        *,
        image: Source | None = None,
        images: Sequence[Source] | None = None,
        image_url: str | None = None,
        image_urls: Sequence[str] | None = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the API's own word
        cache: bool | None = None,
    ) -> Self:
        """Start the workflow's first run.

        `image_url` or `image_urls` are what steps without dependencies start from. `image` and
        `images` are the same from local files or bytes, uploaded first; a path object or bytes
        inside `input` is uploaded too. `input` holds further values that `input_mappings` name.
        `cache=False` computes every step anew. Starting twice with the same input is one run.

        Raises: InvalidParams, Conflict when it was started with another input; OSError when a
        file cannot be read.

        >>> workflow = await client.workflows.create(name="base", steps=steps)
        >>> workflow = await workflow.start(image_url="https://example.com/dress.jpg")
        >>> workflow.status
        'running'
        """
        body = await _run_body(
            self._connection,
            key=new_key(),
            image=image,
            images=images,
            image_url=image_url,
            image_urls=image_urls,
            input=input,
            cache=cache,
        )
        return await self._call("POST", workflow_path(self.id, verb="/start"), body=body)

    async def refresh(self) -> Self:
        """Ask how the run stands now.

        >>> workflow = await client.workflows.create(name="base", steps=steps)
        >>> workflow = await workflow.refresh()
        >>> workflow.status
        'created'
        """
        return await self._call("GET", self._path())

    async def wait(
        self,
        timeout: float | None = None,  # noqa: ASYNC109 - the run goes on, so nothing is cancelled
        poll: float = 0.25,
        on_change: Callable[[Self], object] | None = None,
    ) -> Self:
        """Ask until the run is completed, and return this workflow.

        `timeout` and `poll` are seconds; the time between two questions begins at `poll` and
        grows gently to 2. `on_change` is called with this workflow at once, and whenever a step
        changed. A server that is away for less than a minute is waited for.

        Raises: WorkflowFailed, naming the failed steps; WorkflowCancelled; WorkflowPaused when an
        approval waits, with its candidates: `resume` with a choice, and wait again;
        WorkflowTimeout (the run goes on; wait again).

        >>> workflow = await client.workflows.create(name="base", steps=steps)
        >>> workflow = await workflow.start(image_url="https://example.com/dress.jpg")
        >>> workflow = await workflow.wait(timeout=600)
        >>> [len(step.images) for step in workflow.steps]
        [2, 2]
        """
        seen: list[object] = []

        def over() -> bool:
            if on_change is not None and seen != [state := _state(self)]:
                seen[:] = [state]
                on_change(self)
            return self.done or self.status == "paused"

        if not await follow(self._connection, self.refresh, over=over, timeout=timeout, poll=poll):
            raise WorkflowTimeout(self, seconds=timeout or 0.0)
        match self.status:
            case "failed":
                raise WorkflowFailed(self)
            case "cancelled":
                raise WorkflowCancelled(self)
            case "paused":
                raise WorkflowPaused(self)
            case _:
                return self

    async def pause(self) -> Self:
        """Let what is running finish, and start nothing more until `resume`.

        >>> workflow = await client.workflows.create(name="base", steps=steps)
        >>> workflow = await workflow.start()
        >>> workflow = await workflow.pause()
        >>> workflow.status
        'paused'
        """
        return await self._call("POST", self._path("/pause"))

    async def resume(
        self,
        select: Sequence[int] | None = None,
        edits: Mapping[str, Mapping[str, Any]] | None = None,
        step: str | None = None,
    ) -> Self:
        """Go on: after a pause, with an approval's choice, or redoing what failed.

        `select` are the indices of the candidates that go on, in the order in which they do.
        `edits` changes the config of later steps in this run. `step` names the approval; it is
        needed only when several wait.

        Raises: InvalidParams, Conflict when there is nothing to resume.

        >>> workflow = await client.workflows.create(name="chosen", steps=with_approval)
        >>> workflow = await workflow.start()
        >>> try:
        ...     workflow = await workflow.wait()
        ... except WorkflowPaused as paused:
        ...     print([candidate.index for candidate in paused.steps[0].candidates])
        [0, 1]
        >>> workflow = await workflow.resume(select=[1], edits={"upscale": {"scale": 4}})
        >>> workflow = await workflow.wait()
        >>> len(workflow.images)
        1
        """
        waiting = self.waiting
        if select is not None and step is None and len(waiting) == 1:
            # Named, so that a request that is sent twice cannot choose for the next approval.
            step = waiting[0].name
        body = resume_body(select=select, edits=edits, step=step)
        return await self._call("POST", self._path("/resume"), body=body)

    async def cancel(self) -> Self:
        """Cancel the run for good; repeating it is harmless.

        Raises: Conflict when it is over already.

        >>> workflow = await client.workflows.create(name="base", steps=steps)
        >>> workflow = await workflow.cancel()
        >>> workflow.status
        'cancelled'
        """
        return await self._call("POST", self._path("/cancel"))

    async def cleanup(self) -> Self:
        """Delete the outputs of a run that is over, wherever the step cache reused them too.

        Raises: Conflict while it is not over.

        >>> workflow = await client.workflows.create(name="base", steps=steps)
        >>> workflow = await workflow.start()
        >>> workflow = await workflow.wait()
        >>> workflow = await workflow.cleanup()
        >>> workflow.cleaned_at.year
        2024
        """
        return await self._call("POST", self._path("/cleanup"))

    async def runs(
        self, *, page: int | None = None, page_size: int | None = None
    ) -> Page[AsyncWorkflow]:
        """Return one page of the workflow's runs, newest first.

        >>> workflow = await client.workflows.create(name="base", steps=steps)
        >>> workflow = await workflow.start()
        >>> [run.run_number for run in await workflow.runs()]
        [1]
        """
        return await self._connection.call(
            "GET",
            workflow_path(self.id, verb="/runs"),
            params=query(page=page, page_size=page_size),
            read=partial(page_from, each=partial(_workflow, self._connection)),
        )

    async def download(
        self,
        folder: str | Path = "outputs",
        *,
        step: str | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> list[Path]:
        """Write the pictures of the last steps, or of `step`, into `folder`; return the paths.

        Files are named by step and number, such as `upscale_0.png`; files of these names are
        replaced. `progress` is called with the number written and the number in all. The API key
        is not sent to the images' URLs.

        Raises: KeyError when there is no such step; Gone or Forbidden when its URLs expired
        (refresh for new ones); OSError when the folder cannot be written.

        >>> workflow = await client.workflows.create(name="base", steps=steps)
        >>> workflow = await workflow.start()
        >>> workflow = await workflow.wait()
        >>> [path.name for path in await workflow.download(folder)]
        ['upscale_0.jpg', 'upscale_1.jpg']
        """
        chosen: list[Step] = self.last_steps if step is None else [self.step(step)]
        files = [
            (f"{stem}_{index}", image.url)
            for stem, each in zip(file_stems(each.name for each in chosen), chosen, strict=True)
            for index, image in enumerate(each.images)
        ]
        return await download(self._connection, files, folder=Path(folder), progress=progress)

    def _path(self, verb: str = "") -> str:
        return workflow_path(self.id, self.run_id, verb)

    async def _call(self, method: str, path: str, *, body: JSON | None = None) -> Self:
        self.raw = await self._connection.call(method, path, body=body, read=workflow_raw)
        return self


class AsyncWorkflows:
    """Make workflows and find them: `client.workflows`."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def create(
        self,
        *,
        name: str,
        steps: Sequence[Mapping[str, Any]],
        description: str | None = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the API's own word
        webhook_url: str | None = None,
        webhook_events: Sequence[str] | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncWorkflow:
        """Create a workflow and return it; `start` it.

        `steps` are as the API has them: `name`, `type`, `config`, `depends_on` and so on. A path
        object or bytes inside them or inside `input` is uploaded and becomes a URL. Each run tells
        `webhook_url` of itself: how it ended, that it is paused, or `webhook_events`. Calling again
        under the same `idempotency_key` with the same arguments returns the first workflow.

        Raises: InvalidParams, `param` naming the step and field that is wrong; OSError when a
        file cannot be read.

        >>> workflow = await client.workflows.create(
        ...     name="product-to-model",
        ...     steps=[
        ...         {"name": "base", "type": "generation", "config": {"prompt": "a red dress"}},
        ...         {"name": "upscale", "type": "processing",
        ...          "config": {"operation": "upscale", "scale": 2}, "depends_on": ["base"]},
        ...     ],
        ... )
        >>> workflow.status
        'created'
        """
        key = idempotency_key or new_key()
        body = workflow_body(
            name=name,
            steps=steps,
            description=description,
            input=input,
            webhook_url=webhook_url,
            webhook_events=webhook_events,
        )
        return await self._connection.call(
            "POST",
            "/workflows",
            body=await with_uploads(self._connection, body, key=key),
            key=key,
            read=partial(_workflow, self._connection),
        )

    async def get(self, workflow_id: str, *, run: str | None = None) -> AsyncWorkflow:
        """Return a workflow by its id, in its latest run or in the one named.

        Raises: NotFound when there is none, or it is another tenant's.

        >>> made = await client.workflows.create(name="base", steps=steps)
        >>> workflow = await client.workflows.get(made.id)
        >>> workflow.name
        'base'
        """
        return await self._connection.call(
            "GET", workflow_path(workflow_id, run), read=partial(_workflow, self._connection)
        )

    async def run(
        self,
        workflow_id: str,
        *,
        image: Source | None = None,
        images: Sequence[Source] | None = None,
        image_url: str | None = None,
        image_urls: Sequence[str] | None = None,
        input: Mapping[str, Any] | None = None,  # noqa: A002 - the API's own word
        cache: bool | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncWorkflow:
        """Run a workflow again and return it in its new run; arguments are those of `start`.

        One that was never started is started.

        Runs may go on side by side. Calling again under the same `idempotency_key` with the same
        arguments returns the first run.

        Raises: NotFound, InvalidParams; OSError when a file cannot be read.

        >>> made = await client.workflows.create(name="base", steps=steps)
        >>> workflow = await client.workflows.run(made.id, cache=False)
        >>> workflow.status
        'running'
        """
        key = idempotency_key or new_key()
        body = await _run_body(
            self._connection,
            key=key,
            image=image,
            images=images,
            image_url=image_url,
            image_urls=image_urls,
            input=input,
            cache=cache,
        )
        return await self._connection.call(
            "POST",
            workflow_path(workflow_id, verb="/runs"),
            body=body,
            key=key,
            read=partial(_workflow, self._connection),
        )

    async def list(
        self,
        *,
        status: str | None = None,
        search: str | None = None,
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        page: int | None = None,
        page_size: int | None = None,
    ) -> Page[AsyncWorkflow]:
        """Return one page of your workflows, newest first, each in its latest run.

        `search` is the beginning of an id, or a part of the name.

        >>> workflow = await client.workflows.create(name="base", steps=steps)
        >>> [each.name for each in await client.workflows.list(status="created")]
        ['base']
        """
        params = query(
            status=status,
            search=search,
            created_after=created_after,
            created_before=created_before,
            page=page,
            page_size=page_size,
        )
        return await self._connection.call(
            "GET",
            "/workflows",
            params=params,
            read=partial(page_from, each=partial(_workflow, self._connection)),
        )


async def _run_body(
    connection: AsyncConnection,
    *,
    key: str,
    image: Source | None,
    images: Sequence[Source] | None,
    input: Mapping[str, Any] | None,  # noqa: A002 - the API's own word
    cache: bool | None,
    **urls: Any,
) -> JSON:
    """Return the body that starts a run, its local files uploaded."""
    if image is not None and urls["image_url"] is not None:
        raise ValueError("give either image or image_url")
    if images is not None and urls["image_urls"] is not None:
        raise ValueError("give either images or image_urls")
    if image is not None:
        urls["image_url"] = await image_url(connection, image, key=key)
    if images is not None:
        urls["image_urls"] = [
            await image_url(connection, each, key=f"{key}.{index}")
            for index, each in enumerate(images)
        ]
    return run_body(await with_uploads(connection, input, key=key), cache=cache, **urls)


def _workflow(connection: AsyncConnection, raw: JSON) -> AsyncWorkflow:
    return AsyncWorkflow(connection, workflow_raw(raw))


def _state(workflow: WorkflowData) -> object:
    """Return what `wait` calls a change; not the URLs, whose signatures may differ each time."""
    return (
        workflow.status,
        [(step.name, step.status, step.progress, step.cache) for step in workflow.steps],
    )
