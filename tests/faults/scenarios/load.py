"""C12, C13 and C15: how soon submissions are answered, and what a long queue does to the rest."""

from __future__ import annotations

import asyncio
import json
import statistics
import time
from collections.abc import Sequence

import httpx
import psycopg

from faults.client import wanted
from faults.figures import Figure, Table
from faults.laboratory import Laboratory
from faults.waiting import wait_for
from imageloom.core.keys import create_key
from imageloom.core.submit import create_tasks, new_task_id
from imageloom.domain.tasks import NewTask
from imageloom.store.pool import open_pool, transaction

PATIENCE = 900.0  # seconds for everything to end
BATCH = 1000  # tasks of one transaction while a queue is filled


def accepting(
    lab: Laboratory, *, seconds: float, posts: float = 100, gets: float = 200
) -> list[Figure]:
    """Send that many POSTs and GETs a second, however many wait; then all it takes."""
    post, get, refused = asyncio.run(_open_loop(lab, seconds=seconds, posts=posts, gets=gets))
    most = asyncio.run(_closed_loop(lab, seconds=min(seconds, 30.0)))
    table = Table.of(lab, "C12")
    return [
        table.line("answers that were not 2xx", len(refused), 0, said=refused),
        table.line("POST, median ms", statistics.median(post), 15, timed=True),
        table.line("POST, p99 ms", _p99(post), 100, timed=True),
        table.line("GET, median ms", statistics.median(get), 15, timed=True),
        table.line("GET, p99 ms", _p99(get), 100, timed=True),
        Table.of(lab, "C13").line("POSTs a second at most (400 wanted)", most, None),
    ]


def backlog(lab: Laboratory, *, queued: int, measured: int) -> list[Figure]:
    """Put `queued` tasks before the workers, and measure beside the same with an empty queue."""
    empty = _rate(lab, measured)
    rival = asyncio.run(_fill(lab, queued))
    fetches = _fetches(lab, 300)
    before = _completed(lab)
    began = time.monotonic()
    wait_for(lambda: _completed(lab) >= before + measured, what="tasks", timeout=PATIENCE)
    full = measured / (time.monotonic() - began)
    started = _started(lab, rival)
    table = Table.of(lab, "C15")
    return [
        table.line("waiting when it was measured", lab.unfinished(), None),
        table.line("claim by the queue, p99 ms", _p99(fetches), 20, timed=True),
        table.line("tasks a second, empty queue", empty, None),
        table.line("tasks a second, long queue", full, None),
        table.line("loss of throughput, %", (1 - full / empty) * 100, 20, timed=True),
        table.line("start of a new tenant's task, s", started, 5, timed=True),
    ]


async def _open_loop(
    lab: Laboratory, *, seconds: float, posts: float, gets: float
) -> tuple[list[float], list[float], list[str]]:
    took: dict[str, list[float]] = {"POST": [], "GET": []}
    refused: list[str] = []
    known: list[str] = []
    async with _client(lab) as client, asyncio.TaskGroup() as group:

        async def ask(method: str) -> None:
            if method == "GET" and not known:
                return
            path = "/tasks/generation" if method == "POST" else f"/tasks/{lab.dice.choice(known)}"
            body = wanted("load", steps=1) if method == "POST" else None
            began = time.perf_counter()
            answer = await client.request(method, path, json=body)
            took[method].append((time.perf_counter() - began) * 1000)
            if not answer.is_success:
                refused.append(f"{method} {answer.status_code}")
            elif method == "POST":
                known.append(str(answer.json()["id"]))

        until = time.monotonic() + seconds
        while time.monotonic() < until:
            chosen = "POST" if lab.dice.random() < posts / (posts + gets) else "GET"
            group.create_task(ask(chosen))
            await asyncio.sleep(lab.dice.expovariate(posts + gets))
    return took["POST"], took["GET"], refused


async def _closed_loop(lab: Laboratory, *, seconds: float, callers: int = 16) -> float:
    count = 0
    async with _client(lab) as client, asyncio.TaskGroup() as group:
        until = time.monotonic() + seconds

        async def call() -> None:
            nonlocal count
            while time.monotonic() < until:
                answer = await client.post("/tasks/generation", json=wanted("most", steps=1))
                count += answer.is_success

        for _ in range(callers):
            group.create_task(call())
    return count / seconds


def _client(lab: Laboratory) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=lab.apis[0].url, headers={"Authorization": f"Bearer {lab.key}"}, timeout=30
    )


async def _fill(lab: Laboratory, count: int) -> str:
    """Add tasks of two tenants, and return the key of a third, which has none."""
    params = await _params(lab)
    async with open_pool(lab.database.url, max_size=2, wait=10) as pool:
        for start in range(0, count, BATCH):
            new = [
                NewTask(
                    id=new_task_id(),
                    tenant=("full-a", "full-b")[start // BATCH % 2],
                    type="generation",
                    params=params,
                    inputs={},
                    max_attempts=3,
                )
                for _ in range(min(BATCH, count - start))
            ]
            async with transaction(pool) as conn:
                await create_tasks(conn, new)
        return (await create_key(pool, tenant="rival", scopes=("read", "write"))).key


async def _params(lab: Laboratory) -> dict[str, object]:
    """Return what the API makes of a small generation."""
    async with _client(lab) as client:
        made = await client.post("/tasks/generation", json=wanted("like", steps=1))
    (row,) = lab.ask("select params::text from task where id = %s", made.json()["id"])
    params: dict[str, object] = json.loads(row["params"])
    return params


def _rate(lab: Laboratory, count: int) -> float:
    """Return how many tasks complete a second that are there before the worker looks."""
    before, began = _completed(lab), time.monotonic()

    async def post() -> None:
        async with _client(lab) as client:
            left = iter(range(count))

            async def call() -> None:
                for _ in left:
                    await client.post("/tasks/generation", json=wanted("empty", steps=1))

            await asyncio.gather(*(call() for _ in range(16)))

    asyncio.run(post())
    wait_for(lambda: _completed(lab) >= before + count, what="tasks", timeout=PATIENCE)
    return count / (time.monotonic() - began)


def _completed(lab: Laboratory) -> int:
    return int(lab.ask("select count(*) as n from task where status = 'completed'")[0]["n"])


def _fetches(lab: Laboratory, count: int) -> list[float]:
    """Return the milliseconds of the queue's own fetches, each taken back."""
    found = []
    with psycopg.connect(lab.database.url) as conn:
        for _ in range(count):
            began = time.perf_counter()
            conn.execute("select * from procrastinate_fetch_job_v2(array['generation'], null)")
            found.append((time.perf_counter() - began) * 1000)
            conn.rollback()
    return found


def _started(lab: Laboratory, key: str) -> float:
    """Return the seconds from a POST of a new tenant to the start of its task."""
    headers = {"Authorization": f"Bearer {key}"}
    url = f"{lab.apis[0].url}/tasks/generation"
    made = httpx.post(url, json=wanted("rival", steps=1), headers=headers, timeout=30)
    task = made.raise_for_status().json()["id"]
    query = (
        "select extract(epoch from started_at - created_at)::float8 as s from task"
        " where id = %s and started_at is not null"
    )
    return float(wait_for(lambda: lab.ask(query, task), what="its start", timeout=PATIENCE)[0]["s"])


def _p99(found: Sequence[float]) -> float:
    return statistics.quantiles(found, n=100, method="inclusive")[98]
