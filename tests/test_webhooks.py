"""Webhooks: what happened is told to a real receiver, signed, at least once, and only if it did.

Real PostgreSQL, a receiver on loopback, and the reference library to verify. Delays are multiplied
by 0, so that a retry is due at once; where a delay matters it is read from the row.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from structlog.testing import capture_logs

from api_helpers import GENERATION, PROMPT, begun, completed, created, failed, refusal
from conftest import PUBLIC_URL, called_with, serve, wait_for
from imageloom.api import dispatch
from imageloom.api.dispatch import Dispatcher
from imageloom.api.urls import Urls
from imageloom.client import AsyncClient
from imageloom.core.cancel import cancel
from imageloom.core.claim import note_progress
from imageloom.core.deliver import OF_ENDPOINT, Answer, claim_events, note
from imageloom.core.keys import create_key
from imageloom.core.maintain import sweep
from imageloom.core.services import Services, open_services
from imageloom.core.settle import settle, settle_in
from imageloom.core.webhooks import get_secret, shown
from imageloom.domain.tasks import Cancelled, Failed
from imageloom.domain.webhooks import delay_after
from imageloom.fetch import Poster
from imageloom.fetch.dialing import Resolve
from imageloom.settings import Settings
from imageloom.store.outbox import Event
from imageloom.store.pool import transaction
from workflow_helpers import BAD, IMAGE_URL, made, play, said, step

Reply = bytes | Callable[[asyncio.StreamWriter], Awaitable[None]]
ALL = ["started", "progress", "completed", "failed", "cancelled"]
TRAINING = {"dataset_url": "https://example.com/a.zip", "output_name": "red"}


def answer(status: str = "200 OK", *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@dataclass(frozen=True, kw_only=True)
class Received:
    path: str
    headers: dict[str, str]
    body: str

    @property
    def id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def event(self) -> Any:
        return json.loads(self.body)

    def verify(self, secret: str) -> Any:
        return Webhook(secret).verify(self.body, self.headers)


@dataclass(kw_only=True)
class Receiver:
    """A server on loopback. `replies` are taken one by one, by path; then all is well."""

    port: int = 0
    speaks_first: bool = False
    replies: dict[str, list[Reply]] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    arrived: asyncio.Event = field(default_factory=asyncio.Event)
    handlers: set[asyncio.Task[None]] = field(default_factory=set)

    def url(self, path: str = "/hook") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def allow(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def types(self) -> list[str]:
        return [each.event["type"] for each in self.received]

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.handlers.add(task)
        try:
            if self.speaks_first:
                writer.write(b"220 mail.example ESMTP\r\n")
                return
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            pairs = (line.split(": ", 1) for line in head[1:] if line)
            headers = {name.lower(): value for name, value in pairs}
            body = (await reader.readexactly(int(headers["content-length"]))).decode()
            path = head[0].split(" ")[1]
            self.received.append(Received(path=path, headers=headers, body=body))
            self.arrived.set()
            waiting = self.replies.get(path)
            reply = waiting.pop(0) if waiting else answer()
            if isinstance(reply, bytes):
                writer.write(reply)
                await writer.drain()
            else:
                await reply(writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    server = await asyncio.start_server(receiver.handle, "127.0.0.1", 0)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for handler in receiver.handlers:
            handler.cancel()
        await asyncio.gather(*receiver.handlers)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as running:
        yield running


@pytest.fixture
def settings(tmp_path: Path, receiver: Receiver) -> Settings:
    return Settings(
        data_dir=tmp_path,
        device="cpu",
        fetch_allow=(receiver.allow, "127.0.0.1:1"),
        webhook_delay_factor=0,
        webhook_rate=1000,
    )


@asynccontextmanager
async def dispatching(
    services: Services, *, within: float = 15.0, resolve: Resolve | None = None
) -> AsyncIterator[Dispatcher]:
    """Yield a dispatcher of its own, as another API process has one."""
    poster = Poster(services.settings.fetch_allow, most=32, timeout=within, resolve=resolve)
    urls = Urls(PUBLIC_URL, services.signer, life=services.settings.url_ttl)
    try:
        yield Dispatcher(services, urls, poster)
    finally:
        await poster.aclose()


async def deliver(services: Services, *, times: int = 1000, **options: Any) -> None:
    """Send what is due, and what is due again after that, until nothing is or so often."""
    async with dispatching(services, **options) as dispatcher:
        for _ in range(times):
            async with asyncio.TaskGroup() as group:
                begun_now = await dispatcher.begin(group)
            if not begun_now:
                return


async def secret_of(api: httpx.AsyncClient) -> str:
    return str((await api.get("/webhooks/secret")).json()["secret"])


async def deliveries(api: httpx.AsyncClient, **query: Any) -> list[dict[str, Any]]:
    found = await api.get("/webhooks/deliveries", params=query)
    assert found.status_code == 200, found.text
    return list(found.json()["items"])


async def cancelled(
    services: Services, api: httpx.AsyncClient, url: str, **body: Any
) -> dict[str, Any]:
    """Return a task that was cancelled at once: the quickest event there is."""
    task = await created(api, webhook_url=url, **body)
    await cancel(services, task["id"], tenant="default")
    return task


async def sql(services: Services, query: str, *values: Any) -> None:
    async with transaction(services.pool) as conn:
        await conn.execute(query, values)  # type: ignore[arg-type]


# What is told


@pytest.mark.parametrize(
    ("end", "told"),
    [(completed, "completed"), (failed, "failed"), (None, "cancelled")],
    ids=["completed", "failed", "cancelled"],
)
async def test_every_turn_of_a_task_is_told_once_and_verifies(
    services: Services,
    api: httpx.AsyncClient,
    receiver: Receiver,
    end: Callable[[Services, Any], Awaitable[Any]] | None,
    told: str,
) -> None:
    task = await created(api, webhook_url=receiver.url(), webhook_events=ALL)
    if end is None:
        await begun(services, task)
        await cancel(services, task["id"], tenant="default")
    else:
        await end(services, task)
    await deliver(services)
    secret = await secret_of(api)
    events = sorted(
        (each.verify(secret) for each in receiver.received), key=lambda e: e["timestamp"]
    )
    assert [each["type"] for each in events] == ["task.started", f"task.{told}"]
    begin, final = (each["data"] for each in events)
    now = (await api.get(f"/tasks/{task['id']}")).json()
    assert final == now
    # As it was then, although it is told now.
    assert begin == now | {
        "status": "running",
        "progress": 0,
        "output": None,
        "error": None,
        "error_detail": None,
        "completed_at": None,
    }
    assert [each["state"] for each in await deliveries(api)] == ["delivered", "delivered"]


async def test_a_second_attempt_is_told_as_another_start(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    task = await created(api, webhook_url=receiver.url(), webhook_events=ALL)
    held = await begun(services, task)
    broken = Failed(code="device_fault", message="the device failed", retryable=True)
    assert await settle(services, task["id"], attempt=held.attempt, outcome=broken)
    await completed(services, task)
    await deliver(services)
    told = sorted((each.event for each in receiver.received), key=lambda each: each["timestamp"])
    assert [(each["type"], each["data"]["attempt"]) for each in told] == [
        ("task.started", 1),
        ("task.started", 2),
        ("task.completed", 2),
    ]


async def test_of_progress_only_the_newest_waits_to_be_told(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    task = await created(api, webhook_url=receiver.url(), webhook_events=["task.progress"])
    held = await begun(services, task)
    for progress in (0.1, 0.2, 0.3):
        assert await note_progress(services, held, progress)
    (waiting,) = await deliveries(api)
    await deliver(services)
    assert await note_progress(services, held, 0.5)
    await deliver(services)
    told = [
        (each.id, each.event["type"], each.event["data"]["progress"]) for each in receiver.received
    ]
    assert told[0] == (waiting["id"], "task.progress", 0.3)
    assert told[1][1:] == ("task.progress", 0.5)
    assert await note_progress(services, held, 0.7)
    await cancel(services, task["id"], tenant="default")  # what was not told of it is outrun
    await deliver(services)
    assert len(receiver.received) == 2


async def test_a_task_says_where_it_tells_and_what(api: httpx.AsyncClient) -> None:
    url = "https://hooks.example.com/in?token=mine"
    task = await created(api, webhook_url=url)
    events = ["task.completed", "task.failed", "task.cancelled"]
    listed = (await api.get("/tasks")).json()["items"][0]
    for view in (task, listed):
        assert (view["webhook_url"], view["webhook_events"]) == (url, events)
    silent = await created(api)
    assert (silent["webhook_url"], silent["webhook_events"]) == (None, None)


async def test_a_training_tells_of_itself(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    body = {
        **TRAINING,
        "webhook_url": receiver.url(),
        "webhook_events": ["started", "training.cancelled"],
    }
    training = (await api.post("/training", json=body)).json()
    await begun(services, training)
    await api.post(f"/training/{training['id']}/cancel")
    await deliver(services)
    assert sorted(receiver.types) == ["training.cancelled", "training.started"]
    now = (await api.get(f"/training/{training['id']}")).json()
    assert [e.event["data"] for e in receiver.received if "cancelled" in e.event["type"]] == [now]
    told = {"webhook_url": body["webhook_url"]}
    told["webhook_events"] = ["training.started", "training.cancelled"]
    assert {name: now[name] for name in told} == told
    assert {name: (await api.get(f"/tasks/{training['id']}")).json()[name] for name in told} == told


async def test_a_workflow_tells_of_its_run_and_its_tasks_do_not(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    steps = [
        {**step("draw"), "config": {"prompt": "a dress", "num_outputs": 2}},
        step("other"),
        {"name": "choose", "type": "approval", "depends_on": ["draw", "other"]},
        step("grow", "choose"),
    ]
    events = ["started", "progress", "completed", "failed", "cancelled", "paused"]
    workflow = await made(api, *steps, webhook_url=receiver.url(), webhook_events=events)
    workflow = await said(api, workflow, "start")
    await play(services, workflow)
    await deliver(services)
    await said(api, workflow, "resume", {"select": [1]})
    await play(services, workflow)
    await deliver(services)
    told = sorted((each.event for each in receiver.received), key=lambda each: each["timestamp"])
    assert [(each["type"], each["data"]["status"]) for each in told] == [
        ("workflow.started", "running"),
        ("workflow.progress", "running"),
        ("workflow.paused", "paused"),
        ("workflow.completed", "completed"),
    ]
    now = (await api.get(f"/workflows/{workflow['id']}")).json()
    for each in now["steps"]:
        each["tasks"] = None  # left out, as in lists
    assert told[-1]["data"] == now
    assert now["webhook_url"] == receiver.url()
    assert now["webhook_events"] == [f"workflow.{each}" for each in events]


@pytest.mark.parametrize("how", ["pause", "cancel", "fail"])
async def test_a_workflow_tells_by_default_how_it_ended_and_that_it_waits(
    services: Services, api: httpx.AsyncClient, receiver: Receiver, how: str
) -> None:
    workflow = await made(api, step("draw"), webhook_url=receiver.url())
    workflow = await said(api, workflow, "start")
    if how == "fail":
        await play(services, workflow, outcome=lambda _task: BAD)
    else:
        for _ in range(2):  # asked twice, told once
            await said(api, workflow, how)
    await deliver(services)
    kind = {"pause": "paused", "cancel": "cancelled", "fail": "failed"}[how]
    assert receiver.types == [f"workflow.{kind}"]


async def test_a_step_tells_of_its_own_tasks_when_it_says_so(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    config = {"prompt": "a dress", "webhook_url": receiver.url()}
    workflow = await made(api, {**step("draw"), "config": config}, step("plain"))
    await said(api, workflow, "start")
    await said(api, workflow, "cancel")
    await deliver(services)
    assert receiver.types == ["task.cancelled"]


async def test_what_was_rolled_back_is_not_told(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    task = await created(api, webhook_url=receiver.url(), webhook_events=ALL)

    async def settle_and_fail() -> None:
        async with transaction(services.pool) as conn:
            await settle_in(services, conn, task["id"], attempt=0, outcome=Cancelled())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await settle_and_fail()
    await deliver(services)
    assert (receiver.received, await deliveries(api)) == ([], [])


async def test_being_told_is_not_part_of_what_is_made(
    api: httpx.AsyncClient, receiver: Receiver
) -> None:
    told = await created(api, seed=1, webhook_url=receiver.url(), webhook_events=["completed"])
    assert told["params"] == (await created(api, seed=1))["params"]


# Tries


async def drip(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n")
    while True:
        writer.write(b"secret" * 10_000)
        await writer.drain()


async def silent(writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("reply", "tried"),
    [
        (answer("500 Internal Server Error", body=b"inside"), (500, None)),
        (answer("404 Not Found"), (404, None)),
        (answer("302 Found", "Location: http://127.0.0.1:1/"), (302, None)),
        (b"SSH-2.0-OpenSSH\r\n", (None, "invalid_answer")),
        (b"", (None, "invalid_answer")),
        (silent, (None, "timeout")),
    ],
    ids=["500", "404", "redirect", "no-http", "closed", "silent"],
)
async def test_a_failure_is_tried_again_with_the_same_id_and_body(
    services: Services,
    api: httpx.AsyncClient,
    receiver: Receiver,
    reply: Reply,
    tried: tuple[int | None, str | None],
) -> None:
    receiver.replies["/hook"] = [reply, reply]
    task = await cancelled(services, api, receiver.url())
    await deliver(services, within=1.0 if reply is silent else 15.0)
    first, second, third = receiver.received
    assert first.id == second.id == third.id
    assert first.body == second.body == third.body
    third.verify(await secret_of(api))
    (delivery,) = await deliveries(api, resource_id=task["id"], state="delivered")
    log = (await api.get(f"/webhooks/deliveries/{delivery['id']}")).json()
    assert [(each["status"], each["error"]) for each in log["attempts"]] == [
        tried,
        tried,
        (200, None),
    ]
    assert "inside" not in json.dumps(log)


@pytest.mark.parametrize("reply", [endless, drip], ids=["endless", "drip"])
async def test_of_an_answer_little_is_read_and_nothing_kept(
    services: Services, api: httpx.AsyncClient, receiver: Receiver, reply: Reply
) -> None:
    receiver.replies["/hook"] = [reply]
    await cancelled(services, api, receiver.url())
    await deliver(services, within=1.5)
    (delivery,) = await deliveries(api, state="delivered")
    assert len(receiver.received) == 1
    assert "secret" not in json.dumps(delivery)


async def no_address(_host: str, _port: int) -> list[str]:
    raise OSError("no such host")


@pytest.mark.parametrize(
    ("url", "error"),
    [
        ("http://127.0.0.1:1/", "unreachable"),
        ("http://localhost:{port}/", "address_refused"),  # a name that turns out to be private
        ("http://nowhere.example/", "unknown_host"),
        ("https://127.0.0.1:{port}/", "tls"),
    ],
)
async def test_what_cannot_be_reached_is_said_by_kind(
    services: Services, api: httpx.AsyncClient, receiver: Receiver, url: str, error: str
) -> None:
    receiver.speaks_first = url.startswith("https")
    await cancelled(services, api, url.format(port=receiver.port))
    resolve = no_address if error == "unknown_host" else None
    await deliver(services, times=1, resolve=resolve)
    (delivery,) = await deliveries(api, state="pending")
    assert (delivery["last_attempt"]["status"], delivery["last_attempt"]["error"]) == (None, error)
    assert receiver.received == []


async def test_it_is_given_up_after_a_day_and_can_be_replayed(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.replies["/hook"] = [answer("503 Service Unavailable")] * 42
    await cancelled(services, api, receiver.url())
    await deliver(services)
    (delivery,) = await deliveries(api, state="failed")
    assert (delivery["attempt_count"], delivery["next_attempt_at"]) == (42, None)
    replayed = (await api.post(f"/webhooks/deliveries/{delivery['id']}/replay")).json()
    assert (replayed["id"], replayed["state"]) == (delivery["id"], "pending")
    await deliver(services)
    assert receiver.received[-1].body == receiver.received[0].body
    assert receiver.received[-1].id == receiver.received[0].id
    (delivery,) = await deliveries(api, state="delivered")
    assert delivery["attempt_count"] == 43


def test_tries_go_on_for_a_day_and_are_close_together_in_the_first_hours() -> None:
    delays = []
    while (delay := _delay(len(delays) + 1)) is not None:
        delays.append(delay)
    assert sum(delays) >= 24 * 3600
    assert max(delay for index, delay in enumerate(delays) if sum(delays[:index]) < 2 * 3600) <= 900
    assert _delay(1, jitter=1.0) == 6.0


@pytest.mark.parametrize(("asked", "waited"), [(60.0, 60.0), (1.0, 5.0), (86_400.0, 3600.0)])
def test_a_receiver_may_ask_for_up_to_an_hour(asked: float, waited: float) -> None:
    assert _delay(1, retry_after=asked) == waited


def _delay(tries: int, *, jitter: float = 0.0, retry_after: float | None = None) -> float | None:
    return delay_after(tries, factor=1.0, jitter=jitter, retry_after=retry_after)


async def test_retry_after_is_kept_to(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    busy = answer("429 Too Many Requests", "Retry-After: 3000")
    receiver.replies["/hook"] = [busy]
    await cancelled(services, api, receiver.url())
    await deliver(services)
    (delivery,) = await deliveries(api, state="pending")
    async with transaction(services.pool) as conn:
        row = await conn.execute("select due_at - now() as wait from webhook_event")
        (found,) = await row.fetchall()
    assert timedelta(minutes=45) < found["wait"] <= timedelta(minutes=50)
    assert delivery["attempt_count"] == 1


async def test_gone_turns_the_endpoint_off_until_it_is_turned_on(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.replies["/hook"] = [answer("410 Gone")]
    await cancelled(services, api, receiver.url())
    await deliver(services)
    await cancelled(services, api, receiver.url())
    await cancelled(services, api, receiver.url("/other"))
    await deliver(services)
    assert [each.path for each in receiver.received] == ["/hook", "/other"]
    listed = (await api.get("/webhooks/endpoints")).json()
    assert [
        (each["url"], each["pending"], each["disabled_at"] is None) for each in listed["items"]
    ] == [
        (receiver.url(), 2, False),
        (receiver.url("/other"), 0, True),
    ]
    (waiting, *_) = await deliveries(api, state="pending")
    refused = await api.post(f"/webhooks/deliveries/{waiting['id']}/replay")
    assert refusal(refused) == (409, "conflict", None)
    body = {"url": receiver.url()}
    enabled = (await api.post("/webhooks/endpoints/enable", json=body)).json()
    assert enabled["disabled_at"] is None
    await deliver(services)
    assert [each.path for each in receiver.received] == ["/hook", "/other", "/hook", "/hook"]
    assert len(await deliveries(api, state="delivered")) == 3


# Who sends


async def test_what_a_dead_dispatcher_had_claimed_is_sent_by_another(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    await cancelled(services, api, receiver.url())
    (lost,) = await _claimed(services)
    assert await _claimed(services) == []  # while the lease lasts, it is nobody else's
    await sql(services, "update webhook_event set due_at = now()")
    await deliver(services)
    assert [each.id for each in receiver.received] == [lost.id]
    # And should it have been slow rather than dead, what it says does not count.
    late = Answer(status=500, error=None)
    assert await note(services, lost, late, at=lost.occurred_at, seconds=1.0) is None
    assert [each["state"] for each in await deliveries(api)] == ["delivered"]


async def test_two_dispatchers_send_each_event_once(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    for index in range(12):
        await cancelled(services, api, receiver.url(f"/{index % 4}"))
    await asyncio.gather(*(deliver(services) for _ in range(3)))
    await deliver(services)
    assert len({each.id for each in receiver.received}) == len(receiver.received) == 12


async def test_a_hanging_endpoint_does_not_delay_the_others(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.replies["/slow"] = [silent] * 10
    for _ in range(10):
        await cancelled(services, api, receiver.url("/slow"))
    for _ in range(10):
        await cancelled(services, api, receiver.url("/quick"))
    async with dispatching(services) as dispatcher:
        running = asyncio.create_task(dispatcher.run())
        while sum(each.path == "/quick" for each in receiver.received) < 10:
            receiver.arrived.clear()
            async with asyncio.timeout(30):
                await receiver.arrived.wait()
        running.cancel()
        await asyncio.wait([running])
    assert 0 < sum(each.path == "/slow" for each in receiver.received) <= OF_ENDPOINT


async def test_what_happens_wakes_the_dispatcher(
    services: Services,
    api: httpx.AsyncClient,
    receiver: Receiver,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dispatch, "POLL", 3600.0)
    async with dispatching(services) as dispatcher, asyncio.TaskGroup() as group:
        hearing = group.create_task(services.notices.listen())
        running = group.create_task(dispatcher.run())
        for count in (1, 2):
            await cancelled(services, api, receiver.url())
            while len(receiver.received) < count:
                receiver.arrived.clear()
                async with asyncio.timeout(30):
                    await receiver.arrived.wait()
        dispatcher.stop()
        await running
        hearing.cancel()


async def test_an_endpoint_gets_so_many_a_second_from_all_dispatchers(
    settings: Settings, database_url: str, receiver: Receiver
) -> None:
    slow = settings.model_copy(update={"webhook_rate": 3})
    async with open_services(slow, database_url, pool_timeout=5) as services:
        made = await create_key(services.pool, tenant="default")
        async with called_with(services, made.key) as api:
            for _ in range(5):
                await cancelled(services, api, receiver.url())
        assert len(await _claimed(services)) == 3
        # Ended at once; their second is made a long one, so that it is not over meanwhile.
        began = "update webhook_event set sending = false, begun_at = now() + %s where attempt > 0"
        await sql(services, began, timedelta(hours=1))
        assert await _claimed(services) == []
        await sql(services, began, timedelta(hours=-1))
        assert len(await _claimed(services)) == 2


async def _claimed(services: Services) -> list[Event]:
    return await claim_events(services, Counter())


# Secrets


async def test_the_first_users_of_a_secret_get_the_same(services: Services) -> None:
    found = await asyncio.gather(*(get_secret(services, tenant="new") for _ in range(8)))
    assert len(set(found)) == 1


async def test_after_a_rotation_both_secrets_sign_for_a_day(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    old = await secret_of(api)
    made = [(await api.post("/webhooks/secret/rotate")).json()["secret"] for _ in range(2)]
    new = made[1]
    assert len({old, *made}) == 3
    assert await secret_of(api) == new
    await cancelled(services, api, receiver.url())
    await deliver(services)
    receiver.received[0].verify(old)
    receiver.received[0].verify(new)
    await sql(services, "update webhook_secret set replaced_at = replaced_at - interval '1 day'")
    await cancelled(services, api, receiver.url())
    await deliver(services)
    receiver.received[1].verify(new)
    with pytest.raises(WebhookVerificationError):
        receiver.received[1].verify(old)


async def test_a_changed_body_or_another_secret_does_not_verify(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    await cancelled(services, api, receiver.url())
    await deliver(services)
    (got,) = receiver.received
    secret = await secret_of(api)
    other = await create_key(services.pool, tenant="other")
    async with called_with(services, other.key) as stranger:
        theirs = await secret_of(stranger)
    for received, key in (
        (got, theirs),
        (Received(path=got.path, headers=got.headers, body=got.body.replace("c", "k", 1)), secret),
    ):
        with pytest.raises(WebhookVerificationError):
            received.verify(key)


async def test_the_first_tenants_secret_can_be_given(settings: Settings, database_url: str) -> None:
    first, second = (shown(letter * 32) for letter in (b"a", b"b"))

    async def told(given: str | None, *, rotate: bool = False) -> str:
        chosen = Settings(data_dir=settings.data_dir, webhook_secret=given)
        async with open_services(chosen, database_url, pool_timeout=5) as services:
            made = await create_key(services.pool, tenant="default")
            async with called_with(services, made.key) as api:
                if rotate:
                    await api.post("/webhooks/secret/rotate")
                return await secret_of(api)

    assert await told(first) == first
    rotated = await told(first, rotate=True)
    assert rotated != first
    assert await told(first) == rotated  # a restart does not undo a rotation
    assert await told(second) == second
    assert await told(None) == second


@pytest.mark.parametrize("given", ["whsec_AAAA", "whsec_not base64 at all, and long", ""])
def test_a_secret_that_is_none_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Settings(webhook_secret=given)
    (error,) = caught.value.errors()
    assert error["loc"] == ("webhook_secret",)
    assert not given or given not in error["msg"]


async def test_secrets_stay_out_of_logs(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    secret = await secret_of(api)
    receiver.replies["/hook"] = [answer("500 No")]
    with capture_logs() as logs:
        await cancelled(services, api, f"{receiver.url()}?token=hidden", prompt="a canary")
        await deliver(services)
    lines = json.dumps(logs, default=str)
    assert [each["status"] for each in logs if each["event"] == "webhook"] == [200]
    assert not [word for word in (secret, "hidden", "canary") if word in lines]
    shown = Settings(webhook_secret=f"whsec_{'A' * 43}=")
    assert "AAAA" not in repr(shown) + str(shown.model_dump())


# Tenants, and what is kept


async def test_what_is_anothers_is_not_there(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.replies["/hook"] = [answer("410 Gone")]
    task = await cancelled(services, api, receiver.url())
    await deliver(services)
    (mine,) = await deliveries(api)
    other = await create_key(services.pool, tenant="other")
    async with called_with(services, other.key) as stranger:
        assert await deliveries(stranger) == []
        assert await deliveries(stranger, resource_id=task["id"]) == []
        assert (await stranger.get("/webhooks/endpoints")).json()["items"] == []
        for verb, path, body in (
            ("GET", f"/webhooks/deliveries/{mine['id']}", None),
            ("POST", f"/webhooks/deliveries/{mine['id']}/replay", None),
            ("POST", "/webhooks/endpoints/enable", {"url": receiver.url()}),
        ):
            refused = await stranger.request(verb, path, json=body)
            assert refusal(refused) == (404, "not_found", None)
    assert (await api.get("/webhooks/endpoints")).json()["items"][0]["disabled_at"] is not None


@pytest.mark.parametrize(("scopes", "status"), [(("read", "write"), 403), (("admin",), 200)])
async def test_the_secret_is_for_an_admin(
    services: Services, scopes: tuple[str, ...], status: int
) -> None:
    made = await create_key(services.pool, tenant="default", scopes=scopes)
    async with called_with(services, made.key) as api:
        assert (await api.get("/webhooks/secret")).status_code == status
        assert (await api.post("/webhooks/secret/rotate")).status_code == status


async def test_the_log_is_filtered_and_paged(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    first = await cancelled(services, api, receiver.url())
    second = await created(api, webhook_url=receiver.url())
    await completed(services, second)
    page = (await api.get("/webhooks/deliveries", params={"page_size": 1, "page": 2})).json()
    assert (page["total"], [each["resource_id"] for each in page["items"]]) == (2, [first["id"]])
    (found,) = await deliveries(api, type="task.completed")
    assert found["resource_id"] == second["id"]
    assert [each["id"] for each in await deliveries(api, resource_id=second["id"])] == [found["id"]]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"type": "task.paused"}, "type"),
        ({"state": "lost"}, "state"),
        ({"resource_id": "a'b"}, "resource_id"),
        ({"page": 0}, "page"),
        ({"colour": "red"}, "colour"),
    ],
)
async def test_a_senseless_filter_is_refused(
    shared_api: httpx.AsyncClient, query: dict[str, Any], param: str
) -> None:
    refused = await shared_api.get("/webhooks/deliveries", params=query)
    assert refusal(refused) == (422, "invalid_params", param)


async def test_old_events_are_forgotten_and_undelivered_ones_are_not(
    services: Services, api: httpx.AsyncClient, receiver: Receiver
) -> None:
    receiver.replies = {"/gone": [answer("410 Gone")], "/down": [answer("500 No")]}
    for path in ("/hook", "/gone", "/down"):
        await cancelled(services, api, receiver.url(path))
    await deliver(services, times=1)
    age = "update webhook_event set occurred_at = now() - %s, ended_at = ended_at - %s"
    await sql(services, age, *2 * (timedelta(days=6),))
    await sweep(services)
    assert len(await deliveries(api)) == 3
    await sql(services, age, timedelta(days=8), timedelta(days=2))
    await sweep(services)
    assert [each["url"] for each in await deliveries(api)] == [receiver.url("/down")]


# Bad input

BAD_HOOKS: list[tuple[dict[str, Any], str]] = [
    ({"webhook_url": "http://127.0.0.1:9/"}, "webhook_url"),
    ({"webhook_url": "http://2130706433/"}, "webhook_url"),
    ({"webhook_url": "http://[::1]/"}, "webhook_url"),
    ({"webhook_url": "http://169.254.169.254/latest"}, "webhook_url"),
    ({"webhook_url": "ftp://example.com/"}, "webhook_url"),
    ({"webhook_url": "data:text/plain,x"}, "webhook_url"),
    ({"webhook_url": "https://user:pw@example.com/"}, "webhook_url"),
    ({"webhook_url": "https://example.com/\r\nX: y"}, "webhook_url"),
    ({"webhook_url": ""}, "webhook_url"),
    ({"webhook_url": 5}, "webhook_url"),
    ({"webhook_url": f"https://example.com/{'x' * 2048}"}, "webhook_url"),
    ({"webhook_events": ["completed"]}, "webhook_events"),
    ({"webhook_url": IMAGE_URL, "webhook_events": []}, "webhook_events"),
    ({"webhook_url": IMAGE_URL, "webhook_events": ["done"]}, "webhook_events"),
    ({"webhook_url": IMAGE_URL, "webhook_events": "completed"}, "webhook_events"),
    ({"webhook_url": IMAGE_URL, "webhook_events": [5]}, "webhook_events.0"),
    ({"webhook_url": IMAGE_URL, "webhook_events": ["failed", "failed"]}, "webhook_events"),
]


@pytest.mark.parametrize(("hook", "param"), BAD_HOOKS)
async def test_a_bad_webhook_is_refused_by_name(
    shared_api: httpx.AsyncClient, hook: dict[str, Any], param: str
) -> None:
    assert refusal(await shared_api.post(GENERATION, json={**PROMPT, **hook})) == (
        422,
        "invalid_params",
        param,
    )


async def test_a_bad_webhook_of_a_step_is_refused_by_its_place(
    shared_api: httpx.AsyncClient,
) -> None:
    config = {"prompt": "a dress", "webhook_url": "http://10.0.0.1/"}
    body = {"name": "w", "steps": [{**step("draw"), "config": config}]}
    refused = await shared_api.post("/workflows", json=body)
    assert refusal(refused) == (422, "workflow_invalid", "steps.0.config.webhook_url")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/training", TRAINING),
        ("/workflows", {"name": "w", "steps": [step("draw")]}),
        ("/tasks", {"type": "generation", **PROMPT}),
    ],
)
async def test_a_private_address_is_refused_wherever_it_is_given(
    shared_api: httpx.AsyncClient, path: str, body: dict[str, Any]
) -> None:
    refused = await shared_api.post(path, json={**body, "webhook_url": "http://[::ffff:7f00:1]/"})
    assert refusal(refused) == (422, "invalid_params", "webhook_url")


@pytest.mark.parametrize(
    ("path", "body", "events"),
    [
        (GENERATION, PROMPT, ["task.paused"]),
        (GENERATION, PROMPT, ["training.completed"]),
        (GENERATION, PROMPT, ["completed", "task.completed"]),
        ("/training", TRAINING, ["task.completed"]),
        ("/tasks/processing", {"operation": "upscale", "input_image_url": IMAGE_URL}, ["paused"]),
        (
            "/workflows",
            {"name": "w", "steps": [{"name": "a", "type": "generation"}]},
            ["task.failed"],
        ),
    ],
)
async def test_each_resource_has_its_own_events(
    shared_api: httpx.AsyncClient, path: str, body: dict[str, Any], events: list[str]
) -> None:
    hook = {"webhook_url": IMAGE_URL, "webhook_events": events}
    refused = await shared_api.post(path, json={**body, **hook})
    assert refusal(refused) == (422, "invalid_params", "webhook_events")


# From Python


async def test_the_client_asks_to_be_told_and_reads_what_was(
    services: Services, api: httpx.AsyncClient, key: str, receiver: Receiver
) -> None:
    receiver.replies["/hook"] = [answer("410 Gone")]
    async with AsyncClient(PUBLIC_URL, key, transport=api._transport) as client:
        hook: dict[str, Any] = {"webhook_url": receiver.url(), "webhook_events": ["cancelled"]}
        task = await client.generate("a red dress", **hook)
        await task.cancel()
        training = await client.train("https://example.com/a.zip", name="red", **hook)
        await training.cancel()
        workflow = await client.workflows.create(name="w", steps=[step("draw")], **hook)
        await workflow.cancel()
        await deliver(services, times=1)
        (off,) = await client.webhooks.endpoints()
        assert off.disabled_at is not None
        assert (await client.webhooks.enable(off.url)).disabled_at is None
        await deliver(services)
        page = await client.webhooks.deliveries(state="delivered")
        assert {each.resource_id for each in page} == {task.id, training.id, workflow.id}
        (delivery,) = await client.webhooks.deliveries(resource_id=task.id)
        whole = await client.webhooks.delivery(delivery.id)
        assert whole.attempts[-1] == delivery.last_attempt
        assert (await client.webhooks.replay(delivery.id)).state == "pending"
        await deliver(services)
        again = [each for each in receiver.received if each.id == delivery.id]
        assert len(again) == whole.attempt_count + 1
        again[-1].verify(await client.webhooks.secret())


# The whole way


async def test_a_real_task_is_told_by_a_real_server(tmp_path: Path) -> None:
    secret = f"whsec_{'A' * 43}="
    async with receiving() as receiver:
        with serve(
            tmp_path / "data", IMAGELOOM_FETCH_ALLOW=receiver.allow, IMAGELOOM_WEBHOOK_SECRET=secret
        ) as live:
            await asyncio.to_thread(live.wait_ready)
            body = {**PROMPT, "steps": 2, "webhook_url": receiver.url(), "webhook_events": ALL}

            def create() -> Any:
                with live.client() as client:
                    return client.post(GENERATION, json=body).json()

            task = await asyncio.to_thread(create)
            await asyncio.to_thread(
                wait_for,
                lambda: "task.completed" in receiver.types or None,
                what="the task being told as completed",
            )
        events = {
            each["type"]: each["data"] for each in (e.verify(secret) for e in receiver.received)
        }
        assert events["task.completed"]["id"] == task["id"]
        assert events["task.completed"]["output"]["images"][0]["url"].startswith(live.url)
        assert events["task.started"]["status"] == "running"
