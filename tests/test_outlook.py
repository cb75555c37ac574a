"""Where is my task: eta, runnable, `?dry_run=true`, and how good the forecasts were."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest

from api_helpers import GENERATION, PROMPT, begun, created, picture, refusal
from conftest import Live, called_with
from imageloom.core.keys import create_key
from imageloom.core.maintain import sweep
from imageloom.core.services import Services
from imageloom.core.settle import settle
from imageloom.domain.messages import Usage
from imageloom.domain.tasks import Claim, Completed, Output, OutputImage
from imageloom.store import workers
from imageloom.store.pool import one, transaction
from imageloom.store.workers import WorkerReport

WORKER = WorkerReport(
    id="worker-1",
    host="h",
    pid=1,
    version="0",
    status="idle",
    queues=("generation", "processing"),
    device="cpu",
    memory_bytes=None,
    gpu_utilization=None,
    models=(),
    tasks=(),
    slots=1,
    lacking=("sd-xl-base",),
)
IMAGE = OutputImage(
    key="k", seed=1, width=64, height=64, media_type="image/jpeg", size=1, sha256="00"
)
TABLES = ("task", "procrastinate_jobs", "idempotency", "forecast", "event", "attempt")


async def beat(services: Services, report: WorkerReport = WORKER) -> None:
    async with transaction(services.pool) as conn:
        await workers.heartbeat(conn, report)
    forget_looks(services)


def forget_looks(services: Services) -> None:
    """Have the next forecast look at the database as it is now."""
    services.outlooks.forget()


async def taken(services: Services, task: dict[str, Any]) -> Claim:
    """Let a worker fetch the task's job and claim it."""
    held = await begun(services, task)
    async with transaction(services.pool) as conn:
        await conn.execute("delete from procrastinate_jobs where id = %s", (held.task.job_id,))
    return held


async def done(services: Services, task: dict[str, Any], *, seconds: float) -> None:
    """Let a worker complete the task with so many seconds of its device."""
    held = await taken(services, task)
    outcome = Completed(output=Output(images=(IMAGE,)))
    usage = Usage(seconds=seconds, memory_bytes=1)
    assert await settle(services, task["id"], attempt=held.attempt, outcome=outcome, usage=usage)
    forget_looks(services)


def after(task: dict[str, Any], moment: str) -> float:
    """Return the seconds from the task's creation to a moment."""
    passed = datetime.fromisoformat(moment) - datetime.fromisoformat(task["created_at"])
    return passed.total_seconds()


async def counts(services: Services) -> dict[str, int]:
    async with transaction(services.pool) as conn:
        found = {}
        for table in TABLES:
            row = await conn.execute(f"select count(*) as n from {table}")  # type: ignore[arg-type]
            found[table] = one(await row.fetchone())["n"]
        return found


@pytest.fixture
async def serving(services: Services, api: httpx.AsyncClient) -> httpx.AsyncClient:
    """The API beside a worker with one slot that has done a task of 10 device seconds."""
    await beat(services)
    await done(services, await created(api, steps=10), seconds=10.0)
    return api


# Eta


async def test_nothing_is_told_before_anything_was_measured(
    api: httpx.AsyncClient, services: Services
) -> None:
    await beat(services)
    first = await created(api)
    assert first["eta"]["start"]["p50"] <= first["eta"]["start"]["p90"]  # the device is free
    assert first["eta"]["finish"] is None
    forget_looks(services)
    assert (await created(api))["eta"] is None


async def test_a_task_waits_for_the_work_ahead_of_it(
    serving: httpx.AsyncClient, services: Services
) -> None:
    tasks = [await created(serving, steps=10) for _ in range(3)]
    forget_looks(services)
    tasks.append(await created(serving, steps=10))
    first, last = tasks[0], tasks[3]
    assert after(first, first["eta"]["start"]["p50"]) == pytest.approx(0.02, abs=0.3)
    assert after(first, first["eta"]["finish"]["p50"]) == pytest.approx(10, abs=0.5)
    assert last["queue_position"] == 3
    assert after(last, last["eta"]["start"]["p50"]) == pytest.approx(30, abs=0.5)
    assert after(last, last["eta"]["start"]["p90"]) == pytest.approx(60, abs=0.5)
    assert after(last, last["eta"]["finish"]["p50"]) == pytest.approx(40, abs=0.5)
    listed = (await serving.get("/tasks", params={"status": "pending"})).json()["items"]
    assert [each["eta"] is not None for each in listed] == [True] * 4
    await taken(services, first)
    forget_looks(services)
    running = (await serving.get(f"/tasks/{first['id']}")).json()
    assert running["eta"]["start"] is None
    assert after(running, running["eta"]["finish"]["p50"]) == pytest.approx(10, abs=2)
    assert running["runnable"] is None
    await serving.post(f"/tasks/{first['id']}/cancel")
    over = (await serving.get(f"/tasks/{first['id']}")).json()
    assert (over["eta"], over["runnable"]) == (None, None)


# Runnable


@pytest.mark.parametrize(
    ("changes", "body", "change"),
    [
        (None, {}, "start a worker that serves generation"),
        ({"queues": ("training",)}, {}, "start a worker that serves generation"),
        ({"status": "draining"}, {}, "start a worker that serves generation"),
        ({}, {"model": "sd-xl-base"}, "imageloom models pull sd-xl-base"),
        ({}, {}, None),
        ({"status": "unhealthy"}, {}, None),  # it may be well soon
    ],
)
async def test_a_task_says_at_once_whether_it_can_run(
    api: httpx.AsyncClient,
    services: Services,
    changes: dict[str, Any] | None,
    body: dict[str, Any],
    change: str | None,
) -> None:
    if changes is not None:
        await beat(services, replace(WORKER, **changes))
    task = await created(api, **body)
    assert (task["runnable"], task["runnable_change"]) == (change is None, change)
    assert (task["runnable_reason"] is None) == (change is None)
    assert task["status"] == "pending"
    again = (await api.get(f"/tasks/{task['id']}")).json()
    assert again["runnable"] == task["runnable"]


async def test_a_worker_that_comes_makes_a_task_runnable(
    api: httpx.AsyncClient, services: Services
) -> None:
    task = await created(api)
    assert task["runnable"] is False
    async with transaction(services.pool) as conn:
        await workers.heartbeat(conn, WORKER)
    services.outlooks.forget()
    assert (await api.get(f"/tasks/{task['id']}")).json()["runnable"] is True


# Dry run


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (GENERATION, {**PROMPT, "steps": 10}),
        ("/tasks", {"type": "generation", **PROMPT, "steps": 10}),
        (
            "/tasks/processing",
            {"operation": "upscale", "input_image_url": "https://example.com/a.jpg"},
        ),
        (
            "/training",
            {"dataset_url": "https://example.com/a.zip", "output_name": "a"},
        ),
    ],
)
async def test_a_dry_run_says_what_would_be_and_makes_nothing(
    serving: httpx.AsyncClient, services: Services, path: str, body: dict[str, Any]
) -> None:
    before = await counts(services)
    answer = await serving.post(
        path, params={"dry_run": "true"}, json=body, headers={"Idempotency-Key": "k"}
    )
    assert answer.status_code == 200, answer.text
    told = answer.json()
    assert told["dry_run"] is True
    assert told["queue_position"] == 0
    assert told["runnable"] is (path != "/training")
    assert await counts(services) == before
    real = await serving.post(
        path, params={"dry_run": "false"}, json=body, headers={"Idempotency-Key": "k"}
    )
    assert real.status_code == 201, real.text
    made = real.json()
    for name in ("type", "runnable", "runnable_reason", "runnable_change"):
        assert told[name] == made[name]
    same = {"seed", "config"}  # drawn anew
    assert told["params"].keys() == made["params"].keys()
    assert {k: v for k, v in told["params"].items() if k not in same} == {
        k: v for k, v in made["params"].items() if k not in same
    }
    if path == GENERATION:
        # 10 steps with guidance and a picture decoded, of 64 x 64 pixels.
        assert told["units"] == pytest.approx(21.5 * 64 * 64 / 1e6)
        assert told["eta"]["finish"] is not None


async def test_a_dry_run_stands_where_the_task_would(
    serving: httpx.AsyncClient, services: Services
) -> None:
    for _ in range(3):
        await created(serving)
    waiting = (await serving.get("/tasks", params={"status": "pending"})).json()["items"]

    async def place(priority: int) -> int:
        body = {**PROMPT, "priority": priority}
        answer = await serving.post(GENERATION, params={"dry_run": "true"}, json=body)
        position: int = answer.json()["queue_position"]
        return position

    assert [await place(priority) for priority in (0, 5)] == [3, 0]
    assert (await serving.get("/tasks", params={"status": "pending"})).json()["items"][0][
        "queue_position"
    ] == waiting[0]["queue_position"]


@pytest.mark.parametrize(
    ("path", "query", "body", "param"),
    [
        (GENERATION, "dry_run=maybe", PROMPT, "dry_run"),
        (GENERATION, "dry_run=true&dry_run=false", PROMPT, "dry_run"),
        (GENERATION, "dry_run=true&x=1", PROMPT, "x"),
        (GENERATION, "dry_run=true", {"prompt": ""}, "prompt"),
        (GENERATION, "dry_run=true", {**PROMPT, "model": "none"}, "model"),
        (GENERATION, "dry_run=true", {**PROMPT, "input_image_url": "ftp://x"}, "input_image_url"),
        ("/training", "dry_run=yes", {}, "dry_run"),
        ("/workflows", "dry_run=true", {}, "dry_run"),
    ],
)
async def test_a_dry_run_refuses_what_would_be_refused(
    shared_api: httpx.AsyncClient, path: str, query: str, body: dict[str, Any], param: str
) -> None:
    answer = await shared_api.post(f"{path}?{query}", json=body)
    status, _, named = refusal(answer)
    assert (status, named) == (422, param)


# How good they were


async def test_forecasts_are_held_against_what_came(
    serving: httpx.AsyncClient, services: Services
) -> None:
    for _ in range(2):
        await done(services, await created(serving, steps=10), seconds=10.0)
    failed = await created(serving)
    await serving.post(f"/tasks/{failed['id']}/cancel")
    told = (await serving.get("/monitoring/eta-accuracy")).json()
    # The first of all had a start alone; who was cancelled is not scored.
    assert (told["overall"]["scored"], told["overall"]["scored_finishes"]) == (3, 2)
    assert told["overall"]["finished_before_p50"] == 1.0  # they took no 10 seconds here
    assert told["overall"]["finish_error_seconds"] == pytest.approx(10, abs=2)
    assert told["by_type"]["generation"] == told["overall"]
    newest = told["newest"][0]
    assert newest["made_at"] < newest["started_at"] < newest["completed_at"]
    assert newest["completed_at"] < newest["eta"]["finish"]["p50"] < newest["eta"]["finish"]["p90"]
    none = (await serving.get("/monitoring/eta-accuracy", params={"newest": 0})).json()["newest"]
    assert none == []


async def test_other_tenants_forecasts_need_the_scope_monitor(
    serving: httpx.AsyncClient, services: Services
) -> None:
    other = await create_key(services.pool, tenant="other", scopes=("read", "monitor"))
    async with called_with(services, other.key) as monitor:
        own = (await monitor.get("/monitoring/eta-accuracy")).json()
        everybody = (
            await monitor.get("/monitoring/eta-accuracy", params={"all_tenants": True})
        ).json()
    assert own["overall"] == {**own["overall"], "scored": 0, "started_before_p50": None}
    assert everybody["overall"]["scored"] == 1
    assert [each["task_id"] for each in everybody["newest"]] == [None]
    plain = await create_key(services.pool, tenant="other", scopes=("read",))
    async with called_with(services, plain.key) as reader:
        answer = await reader.get("/monitoring/eta-accuracy", params={"all_tenants": True})
    assert answer.status_code == 403


async def test_old_forecasts_are_swept(serving: httpx.AsyncClient, services: Services) -> None:
    await created(serving)
    async with transaction(services.pool) as conn:
        await conn.execute(
            "update forecast set made_at = made_at - %s where finish_p50 is null",
            (timedelta(days=8),),
        )
    await sweep(services)
    assert (await counts(services))["forecast"] == 1


# Through everything


def test_a_live_worker_says_which_models_it_lacks(live: Live) -> None:
    with live.client() as client:
        body = {**PROMPT, "model": "flux-schnell"}
        answer = client.post(GENERATION, params={"dry_run": "true"}, json=body).json()
        assert answer["runnable_change"] == "imageloom models pull flux-schnell"
        small = {**PROMPT, "steps": 2}
        assert client.post(GENERATION, params={"dry_run": "true"}, json=small).json()["runnable"]


async def test_a_dry_run_of_a_training_looks_at_its_data_set(
    serving: httpx.AsyncClient, services: Services
) -> None:
    data = zip_of_pictures()
    uploaded = await serving.post("/files", files={"file": ("a.zip", data, "application/zip")})
    body = {"dataset_url": uploaded.json()["url"], "output_name": "a"}
    answer = await serving.post("/training", params={"dry_run": "true"}, json=body)
    told = answer.json()
    assert answer.status_code == 200, answer.text
    assert told["units"] > 0
    assert told["estimate"]["steps"] > 0
    assert told["runnable_reason"] == "no live worker serves training"


def zip_of_pictures() -> bytes:
    """Return a data set of four pictures."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(4):
            archive.writestr(f"{number}.png", picture("PNG", size=(64 + number, 64)))
            archive.writestr(f"{number}.txt", "a dress")
    return file.getvalue()
