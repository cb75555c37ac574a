"""`Prefer: wait=N`: the answer comes when the task is over, and nobody asks the database meanwhile.

Every test waits for up to a minute where it must be woken, and gives up after half of one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from starlette.types import Message

from api_helpers import GENERATION, PROMPT, completed, failed
from conftest import PUBLIC_URL
from imageloom.api.app import create_app
from imageloom.core import cancel as core_cancel
from imageloom.core.services import Services
from imageloom.store.notices import CHANNEL
from imageloom.store.pool import transaction

if TYPE_CHECKING:
    from conftest import Live

WAIT = {"Prefer": "wait=60"}
PATIENCE = 30.0  # seconds; a client of `live` has no more either
QUICK = {"prompt": "a red dress", "steps": 1, "width": 64, "height": 64}
End = Callable[[Services, dict[str, Any]], Awaitable[object]]


@pytest.fixture
def services(shared_services: Services) -> Services:
    """Shared, for every test here has a tenant of its own."""
    return shared_services


@pytest.fixture
def api(tenant: httpx.AsyncClient) -> httpx.AsyncClient:
    """The app, called with a key of this test's own tenant. No worker: tests end its tasks."""
    return tenant


@asynccontextmanager
async def listening(services: Services) -> AsyncIterator[None]:
    """Hear notices while the block runs, as an API process does; the first is heard before."""
    hearing = asyncio.create_task(services.notices.listen())
    try:
        with services.notices.expected("none") as heard:
            while not heard.is_set():
                async with transaction(services.pool) as conn:
                    await conn.execute("select pg_notify(%s, 'none completed')", (CHANNEL,))
                await asyncio.sleep(0.01)
        yield
    finally:
        hearing.cancel()
        await asyncio.wait([hearing])


async def waiting_task(api: httpx.AsyncClient) -> dict[str, Any]:
    """Return the tenant's only task, once it is there."""
    while True:
        if found := (await api.get("/tasks")).json()["items"]:
            (task,) = found
            return dict(task)
        await asyncio.sleep(0.01)


async def cancelled(services: Services, task: dict[str, Any]) -> None:
    async with transaction(services.pool) as conn:
        row = await conn.execute("select tenant from task where id = %s", (task["id"],))
        found = await row.fetchone()
    assert found is not None
    await core_cancel.cancel(services, task["id"], tenant=found["tenant"])


def said(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Return status code, the task's status, and the preference that was applied."""
    return (
        answer.status_code,
        answer.json()["status"],
        answer.headers.get("preference-applied"),
    )


# Over in time


@pytest.mark.parametrize(("path", "extra"), [(GENERATION, {}), ("/tasks/", {"type": "generation"})])
def test_answer_holds_the_finished_task(live: Live, path: str, extra: dict[str, str]) -> None:
    with live.client() as client:
        answer = client.post(path, json={**extra, **QUICK}, headers=WAIT)
    assert said(answer) == (201, "completed", "wait=60")
    (image,) = answer.json()["output"]["images"]
    assert httpx.get(image["url"]).status_code == 200


def test_reproduction_is_waited_for_too(live: Live) -> None:
    with live.client() as client:
        made = client.post(GENERATION, json=QUICK, headers=WAIT).json()
        answer = client.post(f"/tasks/{made['id']}/reproduce", json={"output": 0}, headers=WAIT)
    assert said(answer) == (201, "completed", "wait=60")


def test_training_that_its_worker_refuses_is_answered_as_failed(live: Live) -> None:
    body = {"dataset_url": "https://imageloom.invalid/none.zip", "output_name": "none"}
    with live.client() as client:
        answer = client.post("/training", json=body, headers=WAIT)
    assert said(answer) == (201, "failed", "wait=60")
    assert "Invalid input" in answer.json()["error"]


@pytest.mark.parametrize("end", [completed, failed, cancelled])
async def test_every_end_wakes_who_waits(
    api: httpx.AsyncClient, services: Services, end: End
) -> None:
    async with listening(services), asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        answer = group.create_task(api.post(GENERATION, json=PROMPT, headers=WAIT))
        await end(services, await waiting_task(api))
    assert said(answer.result()) == (201, end.__name__, "wait=60")


async def test_run_that_is_cancelled_wakes_who_waits_for_its_tasks(
    api: httpx.AsyncClient, services: Services
) -> None:
    step = {"name": "draw", "type": "generation", "config": PROMPT}
    made = (await api.post("/workflows?start=true", json={"name": "w", "steps": [step]})).json()
    task = await waiting_task(api)
    async with listening(services), asyncio.timeout(PATIENCE):
        with services.notices.expected(task["id"]) as over:
            await api.post(f"/workflows/{made['id']}/cancel")
            await over.wait()


async def test_repeated_request_waits_for_the_first_task(
    api: httpx.AsyncClient, services: Services
) -> None:
    headers = {**WAIT, "Idempotency-Key": "order-12"}
    async with listening(services), asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        answers = [
            group.create_task(api.post(GENERATION, json=PROMPT, headers=headers)) for _ in range(2)
        ]
        task = await waiting_task(api)
        await completed(services, task)
    again = await api.post(GENERATION, json=PROMPT, headers=headers)
    every = [answer.result() for answer in answers] + [again]
    assert [said(answer) for answer in every] == [(201, "completed", "wait=60")] * 3
    assert {answer.json()["id"] for answer in every} == {task["id"]}


async def test_what_was_told_while_nobody_listened_is_looked_for(
    api: httpx.AsyncClient, services: Services
) -> None:
    answer = asyncio.create_task(api.post(GENERATION, json=PROMPT, headers=WAIT))
    await completed(services, await waiting_task(api))
    async with listening(services), asyncio.timeout(PATIENCE):
        assert said(await answer) == (201, "completed", "wait=60")


# Not over in time


@pytest.mark.parametrize("seconds", [0, 1])
async def test_task_that_is_not_over_in_time_is_answered_as_it_is(
    api: httpx.AsyncClient, seconds: int
) -> None:
    answer = await api.post(GENERATION, json=PROMPT, headers={"Prefer": f"wait={seconds}"})
    assert said(answer) == (201, "pending", f"wait={seconds}")


async def test_caller_who_leaves_ends_the_wait(api: httpx.AsyncClient, services: Services) -> None:
    began, gone = asyncio.Event(), asyncio.Event()
    messages = iter([{"type": "http.request", "body": b'{"prompt": "a hat"}', "more_body": False}])

    async def receive() -> Message:
        if (message := next(messages, None)) is not None:
            return message
        began.set()
        await gone.wait()
        return {"type": "http.disconnect"}

    async def nobody_listens(_message: Message) -> None:
        return

    request = api.build_request("POST", GENERATION, headers=WAIT)
    headers = {**request.headers, "content-type": "application/json"}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": request.url.path,
        "raw_path": b"",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": None,
        "server": ("imageloom.test", 80),
    }
    app = create_app(services, public_url=PUBLIC_URL)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        group.create_task(app(scope, receive, nobody_listens))
        await began.wait()
        gone.set()
    assert (await waiting_task(api))["status"] == "pending"


# What is asked for


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("wait=3600", "wait=60"),
        ('respond-async, Wait="5"; foo=1', "wait=5"),
        ("handling=lenient, wait = 7, wait=9", "wait=7"),
    ],
)
async def test_preference_is_read_as_rfc_7240_has_it(
    api: httpx.AsyncClient, services: Services, prefer: str, applied: str
) -> None:
    key = {"Idempotency-Key": "order-12"}
    first = await api.post(GENERATION, json=PROMPT, headers=key)
    await failed(services, first.json())
    answer = await api.post(GENERATION, json=PROMPT, headers={**key, "Prefer": prefer})
    assert said(answer) == (201, "failed", applied)


@pytest.mark.parametrize(
    "prefer",
    ["wait", "wait=", "wait=soon", "wait=-1", "wait=1.5", "wait=٣", "wait=9999999999", "waits=5"],
)
async def test_preference_that_makes_no_sense_is_ignored(
    api: httpx.AsyncClient, prefer: str
) -> None:
    answer = await api.post(GENERATION, json=PROMPT, headers={"Prefer": prefer.encode()})  # type: ignore[dict-item]
    assert said(answer) == (201, "pending", None)
