"""Events of tasks and runs: each change once, in order, and again for who asks from an earlier one.

Streams of the app in this process are read whole, so these tests watch what is over or ends; the
live server shows that events come as they happen.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from api_helpers import begun, completed, created, failed, refusal
from imageloom.core import watching as core_watching
from imageloom.core.claim import note_progress
from imageloom.core.services import Services
from imageloom.core.settle import settle
from imageloom.core.watching import Feeds, overhear
from imageloom.domain.errors import StoreUnavailable
from imageloom.domain.tasks import Claim, Completed, Output
from imageloom.store import events
from imageloom.store.notices import MOST_HEARD, Notice, Overheard
from imageloom.store.pool import transaction
from workflow_helpers import fails_at, play, said, started, step

if TYPE_CHECKING:
    from conftest import Live

Told = tuple[str, dict[str, Any]]


def parsed(lines: Iterator[str]) -> Iterator[Told]:
    """Yield the id and data of each event of a stream."""
    event: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and "data" in event:
            yield event["id"], json.loads(event["data"])
            event = {}
        elif name in ("id", "data"):
            event[name] = value


@pytest.fixture
def services(shared_services: Services) -> Services:
    return shared_services


@pytest.fixture
async def hearing(services: Services) -> AsyncIterator[None]:
    """Hear notices, as an API process does."""
    with services.notices.watched("the beginning") as begun_to_listen:
        listening = asyncio.create_task(services.notices.listen())
        await begun_to_listen.wait()
    yield
    listening.cancel()
    await asyncio.wait([listening])


async def ended(services: Services, mine: Claim) -> None:
    outcome = Completed(output=Output(images=()))
    assert await settle(services, mine.task.id, attempt=mine.attempt, outcome=outcome)


async def number(event: events.Event) -> bytes:
    return str(event.seq).encode()


async def events_of(client: httpx.AsyncClient, path: str, after: str | None = None) -> list[Told]:
    headers = {} if after is None else {"Last-Event-ID": after}
    answer = await client.get(f"{path}/events", headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith("text/event-stream")
    return list(parsed(iter(answer.text.split("\n"))))


async def test_every_change_is_an_event_and_can_be_replayed(
    tenant: httpx.AsyncClient, services: Services, hearing: None
) -> None:
    task = await created(tenant)
    path = f"/tasks/{task['id']}"
    watching = asyncio.create_task(events_of(tenant, path))
    mine = await begun(services, task)
    for progress in (0.25, 0.25, 0.5):
        await note_progress(services, mine, progress)
    await ended(services, mine)
    live = await watching
    assert live[-1][1]["status"] == "completed"
    assert live[-1][1]["output"] == {"images": []}
    every = await events_of(tenant, path, after=f"{task['id']}.0")
    told = [(each["status"], each["progress"], each["attempt"]) for _, each in every]
    assert told == [
        ("pending", 0, 0),
        ("running", 0, 1),
        ("running", 0.25, 1),
        ("running", 0.5, 1),
        ("completed", 1, 1),
    ]
    assert live == [each for each in every if each in live]  # none twice, none out of order
    assert await events_of(tenant, path, after=every[2][0]) == every[3:]
    assert await events_of(tenant, path) == every[-1:]
    over = await tenant.get(f"{path}/events", headers={"Last-Event-ID": every[-1][0]})
    assert over.status_code == 204


async def test_a_stream_is_its_tenants_and_its_ids_are_its_own(
    tenant: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    first, second = [(await created(tenant))["id"] for _ in range(2)]
    assert (await stranger.get(f"/tasks/{first}/events")).status_code == 404
    assert (await tenant.get(f"/training/{first}/events")).status_code == 404
    for wrong in (f"{second}.1", "7", f"{first}.", f"{first}.x", f"{first}.1.1", "\x7f" * 300):
        answer = await tenant.get(f"/tasks/{first}/events", headers={"Last-Event-ID": wrong})
        error = answer.json()["error"]
        assert (answer.status_code, error["param"]) == (422, "Last-Event-ID")
        assert len(error["message"]) < 450


async def test_a_thousand_watchers_of_one_task_read_it_once(
    tenant: httpx.AsyncClient,
    services: Services,
    hearing: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reads: list[int] = []
    read = events.after

    async def counted(conn: Any, subject: str, seq: int) -> list[events.Event]:
        reads.append(seq)
        return await read(conn, subject, seq)

    monkeypatch.setattr(core_watching.events, "after", counted)
    task = await created(tenant)
    feeds = Feeds(services.pool, services.notices)
    opening = await feeds.open(task["id"], after=None)
    began = asyncio.Semaphore(0)
    told: list[int] = []

    async def tell(event: events.Event) -> bytes:
        told.append(event.seq)
        return await number(event)

    async def watch() -> list[bytes]:
        seen = []
        async for event in feeds.follow(opening, tell):
            assert event is not None
            seen.append(event)
            began.release()
        return seen

    watchers = [asyncio.create_task(watch()) for _ in range(1000)]
    for _ in watchers:
        await began.acquire()
    mine = await begun(services, task)
    await note_progress(services, mine, 0.5)
    await ended(services, mine)
    assert await asyncio.gather(*watchers) == [[b"1", b"2", b"3", b"4"]] * 1000
    assert len(reads) < 10  # to begin, once listening began, and at each change
    assert told == [1, 2, 3, 4]  # the same bytes for all of them
    assert feeds._feeds == {}


async def test_an_event_that_could_not_be_told_is_told_to_the_next_who_asks(
    tenant: httpx.AsyncClient, services: Services, hearing: None
) -> None:
    task = await created(tenant)
    feeds = Feeds(services.pool, services.notices)

    async def fail(_event: events.Event) -> bytes:
        raise StoreUnavailable("it is away")

    stays = feeds.follow(await feeds.open(task["id"], after=None), number)
    assert await anext(stays) == b"1"
    await ended(services, await begun(services, task))
    broken = feeds.follow(await feeds.open(task["id"], after=1), fail)
    with pytest.raises(StoreUnavailable):
        await anext(broken)
    assert [event async for event in stays] == [b"2", b"3"]


async def test_a_watcher_that_is_too_slow_reads_again_what_it_missed(
    tenant: httpx.AsyncClient,
    services: Services,
    hearing: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(core_watching, "KEPT", 2)
    task = await created(tenant)
    feeds = Feeds(services.pool, services.notices)
    slow, quick = [feeds.follow(await feeds.open(task["id"], after=None), number) for _ in "ab"]
    mine = await begun(services, task)
    assert await anext(slow) is not None
    for progress in range(1, 8):
        await note_progress(services, mine, progress / 10)
    await ended(services, mine)
    # Once the quick one has seen everything, most of it is no longer kept for the slow one.
    assert [event async for event in quick] == [str(seq).encode() for seq in range(1, 11)]
    assert [event async for event in slow] == [str(seq).encode() for seq in range(2, 11)]


async def test_whoever_names_an_event_to_come_begins_with_the_next(
    tenant: httpx.AsyncClient, services: Services, hearing: None
) -> None:
    task = await created(tenant)
    feeds = Feeds(services.pool, services.notices)
    stream = feeds.follow(await feeds.open(task["id"], after=99), number)
    await ended(services, await begun(services, task))
    assert [event async for event in stream] == [b"2", b"3"]


async def test_watchers_leave_when_the_process_is_about_to_end(
    tenant: httpx.AsyncClient, services: Services
) -> None:
    task = await created(tenant)
    notices = type(services.notices)(services.notices._conninfo)
    feeds = Feeds(services.pool, notices)
    stream = feeds.follow(await feeds.open(task["id"], after=None), number)
    assert await anext(stream) is not None
    notices.close()
    assert [event async for event in stream] == []


async def test_a_run_tells_of_its_steps_and_ends_with_its_end(
    tenant: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(tenant, step("a"), step("b", "a"))
    path, run = f"/workflows/{workflow['id']}", workflow["run"]["id"]
    await play(services, workflow, outcome=fails_at(("b", 0)))
    every = await events_of(tenant, path, after=f"{run}.0")
    assert [id_ for id_, _ in every] == [f"{run}.{seq}" for seq in range(1, len(every) + 1)]
    told = [each for _, each in every]
    assert {(each["id"], each["run_id"]) for each in told} == {(workflow["id"], run)}
    assert [told[0]["status"], told[-1]["status"]] == ["created", "failed"]
    assert (told[-1]["progress"], told[-1]["current_step"]) == (0.5, 1)
    assert told[-1]["steps"] == [
        {"name": "a", "status": "completed", "progress": 1},
        {"name": "b", "status": "failed", "progress": 0},
    ]
    over = await tenant.get(f"{path}/events", headers={"Last-Event-ID": every[-1][0]})
    assert over.status_code == 204
    (task, *_) = (await tenant.get("/tasks", params={"workflow_id": run})).json()["items"]
    for wrong in (f"{task['id']}.1", f"{workflow['id']}.1"):
        answer = await tenant.get(f"{path}/events", headers={"Last-Event-ID": wrong})
        assert refusal(answer) == (422, "invalid_params", "Last-Event-ID")

    await said(tenant, workflow, "resume")
    await play(services, workflow)
    more = await events_of(tenant, f"{path}/runs/{run}", after=every[-1][0])
    assert [more[0][1]["status"], more[-1][1]["status"]] == ["running", "completed"]
    assert more[-1][1]["progress"] == 1
    assert await events_of(tenant, path) == more[-1:]


async def test_what_is_old_is_forgotten_but_for_how_it_ended(
    tenant: httpx.AsyncClient, services: Services
) -> None:
    task, other = await created(tenant), await created(tenant)
    await failed(services, task)
    await completed(services, other)
    async with transaction(services.pool) as conn:
        await conn.execute(
            "update event set at = at - interval '8 days' where subject = %s", (task["id"],)
        )
        await events.delete_old(conn)
        kept = [await events.after(conn, each["id"], 0) for each in (task, other)]
    assert [event.data["status"] for event in kept[0]] == ["failed"]
    assert len(kept[1]) == 3
    (told,) = await events_of(tenant, f"/tasks/{task['id']}", after=f"{task['id']}.1")
    assert told[1]["error"].startswith("Invalid input")


def test_as_many_may_watch_as_the_machine_lets_files_be_open() -> None:
    code = """if True:
        import resource
        from imageloom.api.main import _allow_many_streams

        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
        _allow_many_streams()
        print(resource.getrlimit(resource.RLIMIT_NOFILE) == (most, most))
    """
    said = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert said == "True\n"


async def heard(stream: AsyncIterator[Notice | None], *, until: str) -> list[tuple[str, str]]:
    """Return what a watcher of everything is told, up to a subject that is over."""
    told = []
    async for notice in stream:
        if notice is not None:
            told.append((notice.subject, notice.status))
            if notice.subject == until and notice.status in ("completed", "failed", "cancelled"):
                return told
    raise AssertionError("the stream ended")


async def test_who_watches_everything_hears_of_its_own_tenant(
    tenant: httpx.AsyncClient, stranger: httpx.AsyncClient, services: Services, hearing: None
) -> None:
    first = await created(tenant)
    async with transaction(services.pool) as conn:
        row = await (
            await conn.execute("select tenant from task where id = %s", (first["id"],))
        ).fetchone()
    assert row is not None
    mine, all_of_it = [overhear(services.notices, tenant=name) for name in (row["tenant"], None)]
    assert await anext(mine) is await anext(all_of_it) is None
    other = await created(stranger)
    await stranger.post(f"/tasks/{other['id']}/cancel")
    workflow = await started(tenant, step("a"))
    await play(services, workflow)
    await completed(services, await created(tenant))
    last = await created(tenant)
    await tenant.post(f"/tasks/{last['id']}/cancel")
    told = await heard(mine, until=last["id"])
    everything = await heard(all_of_it, until=last["id"])
    assert other["id"] not in dict(told)
    assert dict(everything)[other["id"]] == "cancelled"
    assert dict(told)[workflow["run"]["id"]] == "completed"
    assert dict(told)[last["id"]] == "cancelled"


async def test_of_what_changes_often_only_the_newest_is_told(
    tenant: httpx.AsyncClient, services: Services, hearing: None
) -> None:
    stream = overhear(services.notices, tenant=None)
    assert await anext(stream) is None
    busy, last = [await created(tenant) for _ in range(2)]
    mine = await begun(services, busy)
    for progress in range(1, 10):
        await note_progress(services, mine, progress / 10)
    await ended(services, mine)
    with services.notices.expected(last["id"]) as over:
        await tenant.post(f"/tasks/{last['id']}/cancel")
        await over.wait()
    told = await heard(stream, until=last["id"])
    assert told == [(busy["id"], "completed"), (last["id"], "cancelled")]


async def test_of_what_nobody_takes_the_oldest_is_dropped() -> None:
    everything = Overheard(None)
    for number in range(MOST_HEARD + 1):
        subject = f"task_{number}"
        everything.add(Notice(subject=subject, status="pending", kind="task", tenant="a"))
    kept = everything.take()
    assert (len(kept), kept[0].subject) == (MOST_HEARD, "task_1")


async def test_who_watches_everything_is_let_go_where_something_may_be_missed(
    services: Services, hearing: None
) -> None:
    stream = overhear(services.notices, tenant=None)
    assert await anext(stream) is None
    async with transaction(services.pool) as conn:
        # The last that the listening connection asked.
        broken = await conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where state = 'idle'"
            " and datname = current_database() and query like 'select id from task where id = any%'"
        )
        assert broken.rowcount > 0
    async with asyncio.timeout(30):
        assert [event async for event in stream] == []


async def test_who_watches_everything_is_let_go_when_the_process_ends(
    services: Services, tenant: httpx.AsyncClient
) -> None:
    notices = type(services.notices)(services.notices._conninfo)
    stream = overhear(notices, tenant=None)
    assert await anext(stream) is None
    notices.close()
    assert [event async for event in stream] == []
    assert notices._overhearing == set()


def test_everything_is_watched_over_http(live: Live) -> None:
    with live.client() as client:
        with client.stream("GET", "/monitoring/events", params={"all_tenants": True}) as stream:
            lines = stream.iter_lines()
            assert next(lines) == ": here"
            task = client.post("/tasks/generation", json={"prompt": "a red hat", "steps": 1}).json()
            told = (json.loads(line[6:]) for line in lines if line.startswith("data: "))
            end = {"id": task["id"], "status": "completed", "kind": "task"}
            assert end in told  # reads until it is there
        assert client.get("/monitoring/events", params={"since": 1}).status_code == 422


def test_events_come_as_they_happen(live: Live) -> None:
    body = {"prompt": "a red hat", "steps": 60, "num_outputs": 2, "preview_every": 2}
    with live.client() as client:
        task = client.post("/tasks/generation", json=body).json()
        with client.stream("GET", f"/tasks/{task['id']}/events") as stream:
            told = list(parsed(stream.iter_lines()))
    assert {each["status"] for _, each in told} >= {"running", "completed"}
    progress = [each["progress"] for _, each in told]
    assert progress == sorted(progress)
    assert any(0 < each < 1 for each in progress)
    assert any(each["previews"] for _, each in told)
    ids = [int(id_.rpartition(".")[2]) for id_, _ in told]
    assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert len(told[-1][1]["output"]["images"]) == 2
