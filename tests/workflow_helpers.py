"""What tests of workflows share: the user's graph, and a worker that is played by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import httpx

from imageloom.core.claim import claim
from imageloom.core.services import Services
from imageloom.core.settle import settle
from imageloom.domain.tasks import (
    Claim,
    Completed,
    Failed,
    Outcome,
    Output,
    OutputImage,
    Status,
    Task,
)
from imageloom.storage.keys import output_key
from imageloom.store import tasks
from imageloom.store.pool import transaction
from imageloom.task_types.registry import get_task_type

IMAGE_URL = "https://example.com/dress.jpg"
BAD = Failed(code="invalid_input", message="Invalid input: no picture", retryable=False)
# The user's own workflow, letter by letter.
STEPS: list[dict[str, Any]] = [
    {
        "name": "generate-base",
        "type": "generation",
        "config": {"prompt": "model wearing product", "num_outputs": 4},
    },
    {
        "name": "upscale",
        "type": "processing",
        "config": {"operation": "upscale", "scale": 2},
        "depends_on": ["generate-base"],
    },
    {
        "name": "background-removal",
        "type": "processing",
        "config": {"operation": "remove-background"},
        "depends_on": ["upscale"],
    },
]


def step(name: str, *parents: str, **fields: Any) -> dict[str, Any]:
    """Return a cheap step: roots generate one picture, the others adjust what they receive."""
    config = {"operation": "adjust", "brightness": 1.1} if parents else {"prompt": name}
    kind = "processing" if parents else "generation"
    return {"name": name, "type": kind, "config": config, "depends_on": list(parents), **fields}


async def made(api: httpx.AsyncClient, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """Create a workflow and return it."""
    answer = await api.post("/workflows", json={"name": "test", "steps": list(steps), **fields})
    assert answer.status_code == 201, answer.text
    workflow: dict[str, Any] = answer.json()
    return workflow


async def started(
    api: httpx.AsyncClient,
    *steps: dict[str, Any],
    input: dict[str, Any] | None = None,  # noqa: A002
) -> dict[str, Any]:
    """Create a workflow, start it and return it."""
    workflow = await made(api, *steps)
    return await said(api, workflow, "start", {"input": input or {}})


async def said(
    api: httpx.AsyncClient, workflow: dict[str, Any], verb: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Do a verb on a workflow, which must succeed, and return the workflow."""
    answer = await api.post(f"/workflows/{workflow['id']}/{verb}", json=body)
    assert answer.status_code in (200, 201), answer.text
    told: dict[str, Any] = answer.json()
    return told


async def read(api: httpx.AsyncClient, workflow: dict[str, Any]) -> dict[str, Any]:
    """Return the workflow as it is now."""
    answer = await api.get(f"/workflows/{workflow['id']}")
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def tasks_of(
    services: Services, workflow: dict[str, Any], name: str | None = None
) -> list[Task]:
    """Return the tasks of the workflow's run, or of one of its steps."""
    async with transaction(services.pool) as conn:
        found = await tasks.list_of_run(conn, workflow["run"]["id"])
    return [task for task in found if name in (None, task.step_name)]


async def begin(services: Services, task: Task) -> Claim:
    """Claim a task as a worker does."""
    async with transaction(services.pool) as conn:
        now = await tasks.lock(conn, task.id)
    assert now is not None
    assert now.job_id is not None, "the task has no place in the queue"
    claimed = await claim(services, task.id, job_id=now.job_id, worker="worker-1")
    assert claimed is not None
    return claimed


async def end(services: Services, claimed: Claim, outcome: Outcome | None = None) -> None:
    """Settle a claimed task, as completed unless `outcome` says otherwise."""
    ended = outcome or Completed(output=output_of(claimed.task, attempt=claimed.attempt))
    assert await settle(services, claimed.task.id, attempt=claimed.attempt, outcome=ended)


async def finish(services: Services, task: Task, outcome: Outcome | None = None) -> None:
    """Claim a task and settle it."""
    await end(services, await begin(services, task), outcome)


async def play(
    services: Services,
    workflow: dict[str, Any],
    *,
    outcome: Callable[[Task], Outcome | None] = lambda _task: None,
) -> None:
    """Do every task of the run until none is pending; `outcome` says how each ends."""
    while pending := [
        task for task in await tasks_of(services, workflow) if task.status is Status.PENDING
    ]:
        for task in pending:
            await finish(services, task, outcome(task))


def output_of(task: Task, *, attempt: int = 1) -> Output:
    """Return an output with as many pictures as the task makes; nothing is stored for them."""
    count = get_task_type(task.type).output_count(task.params)
    return Output(images=tuple(image_of(task, index, attempt=attempt) for index in range(count)))


def image_of(task: Task, index: int, *, attempt: int = 1) -> OutputImage:
    """Return a picture that a task could have made."""
    return OutputImage(
        key=output_key(task.id, attempt, index, "png"),
        seed=100 + index if task.type == "generation" else None,
        width=64,
        height=48,
        media_type="image/png",
        size=1,
        sha256="00",
    )


def statuses(workflow: dict[str, Any]) -> list[str]:
    """Return the statuses of a workflow's steps."""
    return [each["status"] for each in workflow["steps"]]


def by_name(workflow: dict[str, Any], name: str) -> dict[str, Any]:
    """Return a step of a workflow."""
    (found,) = [each for each in workflow["steps"] if each["name"] == name]
    return found


def fails_at(*items: tuple[str, int]) -> Callable[[Task], Outcome | None]:
    """Return an `outcome` for `play` by which those items of those steps fail for good."""
    return lambda task: BAD if (task.step_name, task.item) in items else None


def keys(found: Sequence[Task]) -> list[str]:
    """Return the picture that each task starts from, as its storage key."""
    return [task.inputs["input_image_url"] for task in found]
