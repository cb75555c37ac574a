"""F11 and the heart of F5, F6, F9: everything that can happen to an attempt, in the smallest space.

No process is started: workers are played by hand on the real verbs of `core`, against a real
PostgreSQL in which a share of all commits end their session instead. A job is given to two at once,
a worker comes back from the dead while another is at its task, an outcome is settled twice, three
reapers look at the same time, and requests with one key arrive together. That is dense enough to
show in seconds what an hour of kills may not meet, which is why the mutants are tried on it.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from psycopg.rows import dict_row

from faults.checker import Verdict, judge
from faults.figures import Figure, Table
from faults.laboratory import watched_database
from faults.ledgers import TERMINAL, Change, Delivery, Ending, Fault, Ledgers, Named, Request, Run
from imageloom.core.cancel import cancel
from imageloom.core.claim import claim
from imageloom.core.idempotency import Idempotency
from imageloom.core.recover import recover_orphans, recover_silent
from imageloom.core.services import Services, open_services
from imageloom.core.settle import settle
from imageloom.core.submit import submit
from imageloom.core.together import Together
from imageloom.domain.errors import Conflict, ImageloomError, StoreUnavailable
from imageloom.domain.tasks import Claim, Completed, Failed, Outcome, Output, OutputImage
from imageloom.domain.webhooks import Happening, Webhook
from imageloom.settings import Settings
from imageloom.storage.keys import output_key
from imageloom.store.pool import transaction
from imageloom.store.queue import drop_job

WORKERS = 8
REAPERS = 3
STRIKES = 10  # of a hundred commits
TWINS = 3  # requests with one key at once
WITHIN = 120.0  # seconds
_ENDS = (Happening.COMPLETED, Happening.FAILED, Happening.CANCELLED)

T = TypeVar("T")


def races(*, seed: int, tasks: int) -> list[Figure]:
    """Play `tasks`, each asked for by requests that arrive together."""
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True) as name,
        watched_database(Path(name), seed=seed) as database,
    ):
        found = asyncio.run(_played(Path(name), database.url, seed=seed, tasks=tasks))
    table = Table(name="F11", seed=seed, began=began)
    return [
        *table.never(found.verdict, leases=False),
        table.line("stale outcomes that were accepted", found.accepted, 0),
        table.line("stale outcomes that were refused", found.refused, None),
        table.line(
            "cancels answered otherwise than the task ended",
            len(found.disagreements),
            0,
            said=found.disagreements,
        ),
        table.line("attempts beyond the first", found.verdict.redone, None),
    ]


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What came of it: the verdict, and outcomes settled by who had no right to it any more."""

    verdict: Verdict
    accepted: int
    refused: int
    disagreements: list[str]


@dataclass
class _Play:
    """What the players share."""

    services: Services
    dice: random.Random
    tasks: int
    runs: list[Run] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    cancels: dict[str, bool] = field(default_factory=dict)
    zombies: list[asyncio.Task[None]] = field(default_factory=list)
    accepted: int = 0
    refused: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event)
    pids: int = 0

    def new_pid(self) -> int:
        self.pids += 1
        return self.pids

    def begin(self, made: Claim, pid: int) -> None:
        self.runs.append(
            Run(what="start", task=made.task.id, attempt=made.attempt, pid=pid, at=time.time())
        )

    def hit(self, kind: str, pid: int) -> None:
        self.faults.append(Fault(kind=kind, at=time.time(), pids=frozenset({pid})))


async def _played(folder: Path, url: str, *, seed: int, tasks: int) -> _Found:
    settings = Settings(data_dir=folder, device="drill", max_attempts=100, lease_seconds=600)
    async with open_services(settings, url, pool_timeout=5) as services:
        play = _Play(services=services, dice=random.Random(seed), tasks=tasks)
        async with _struck(url), asyncio.timeout(WITHIN), asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(_work(play))
            for _ in range(REAPERS):
                group.create_task(_reap(play))
            try:
                await _submit_all(play)
                await _until_over(play, url)
                await asyncio.gather(*play.zombies)
            finally:
                # Said, and not left to a cancellation: a driver may make an error of its own of it.
                play.over.set()
        ledgers = await _ledgers(play, url)
        return _Found(
            verdict=judge(ledgers),
            accepted=play.accepted,
            refused=play.refused,
            disagreements=_disagreements(play, ledgers),
        )


@asynccontextmanager
async def _struck(url: str) -> AsyncIterator[None]:
    """Let commits fail until the block ends."""
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        await conn.execute("update lab.strike set percent = %s", (STRIKES,))
        yield
        await conn.execute("update lab.strike set percent = 0")


async def _insist(ask: Callable[[], Awaitable[T]]) -> T:
    """Return what a verb answers, asked again where its commit was struck."""
    while True:
        try:
            return await ask()
        except StoreUnavailable:
            await asyncio.sleep(0.01)


# Who asks


async def _submit_all(play: _Play) -> None:
    # Each of the twins asks another process: one alone never lets them meet in the database.
    doors = [replace(play.services, submissions=Together()) for _ in range(TWINS)]
    for number in range(play.tasks):
        twins = [_ask(play, door, f"r{number}") for door in doors]
        await asyncio.gather(*twins)


async def _ask(play: _Play, door: Services, key: str) -> None:
    use = Idempotency(route="/tasks/generation", key=key, body_hash=key.encode())

    async def once() -> str:
        task = await submit(
            door,
            tenant="default",
            task_type="generation",
            params={"negative_prompt": key},
            inputs={},
            webhook=Webhook(url="http://127.0.0.1:1/hook", events=_ENDS),
            idempotency_use=use,
        )
        return task.id

    task_id = await _insist(once)
    play.requests.append(Request(key=key, task=task_id))
    if play.dice.random() < 0.05:
        await asyncio.sleep(play.dice.uniform(0, 0.1))
        play.cancels[task_id] = await _cancelled(play, task_id)


async def _cancelled(play: _Play, task_id: str) -> bool:
    """Cancel a task; False where the answer is that it was over already."""
    try:
        await _insist(lambda: cancel(play.services, task_id, tenant="default"))
    except Conflict:
        return False
    return True


# Who works, badly


async def _work(play: _Play) -> None:
    jobs = play.services.queue.app.job_manager
    worker = await _new_worker(play)
    while not play.over.is_set():
        try:
            job = await jobs.fetch_job(queues=["generation"], worker_id=worker)
        except Exception:  # noqa: BLE001  # the queue's own errors of a struck session
            continue
        if job is None or job.id is None:
            await asyncio.sleep(0.01)
            continue
        task_id, job_id = str(job.task_kwargs["task_id"]), job.id
        # Delivered twice: each player believes that the job is its own.
        players = 2 if play.dice.random() < 0.2 else 1
        acts = [_attempt(play, task_id, job_id, worker, twin=players > 1) for _ in range(players)]
        if not all(await asyncio.gather(*acts)):
            # The worker died with what it had: its jobs are its last, and another comes.
            await _die(play, worker)
            worker = await _new_worker(play)
        elif play.dice.random() < 0.5:
            # Half of those who end their attempt do not live to end the job too.
            await _database(lambda: _end_job(play, job_id))  # noqa: B023  # called at once


async def _attempt(play: _Play, task_id: str, job_id: int, worker: int, *, twin: bool) -> bool:
    """Try the task of a job; False where the worker dies of it."""
    made = await _insist(
        lambda: claim(play.services, task_id, job_id=job_id, worker=f"played-{worker}")
    )
    if made is None:
        return True
    pid = play.new_pid()
    play.begin(made, pid)
    if twin:
        # Who claims a job that another has claimed ends that other's attempt.
        play.hit("delivered twice", pid)
    fate = play.dice.random()
    await asyncio.sleep(play.dice.uniform(0, 0.02))
    if fate < 0.25:
        # It is thought dead, and comes back when another may be at the task.
        play.hit("zombie", pid)
        play.zombies.append(asyncio.create_task(_come_back(play, made)))
        return False
    if fate < 0.35:
        play.hit("failure", pid)
        failure = Failed(code="device_fault", message="the device failed", retryable=True)
        await _settle(play, made, failure)
        return True
    times = 2 if fate < 0.55 else 1
    await asyncio.gather(*(_settle(play, made, _completed(made)) for _ in range(times)))
    return True


async def _come_back(play: _Play, made: Claim) -> None:
    """Finish an attempt that was taken back: once another has begun, and is not over."""

    async def look() -> tuple[str, int]:
        async with play.services.pool.connection() as conn:
            rows = await conn.execute(
                "select status, attempt from task where id = %s", (made.task.id,)
            )
            row = await rows.fetchone()
            assert row is not None
            return row["status"], row["attempt"]

    while True:
        try:
            status, attempt = await look()
        except psycopg.OperationalError:
            continue
        if attempt > made.attempt or status in TERMINAL:
            break
        await asyncio.sleep(0.002)
    settled = await _insist(
        lambda: settle(play.services, made.task.id, attempt=made.attempt, outcome=_completed(made))
    )
    if settled is None:
        play.refused += 1
    else:
        play.accepted += 1


async def _settle(play: _Play, made: Claim, outcome: Outcome) -> None:
    await _insist(
        lambda: settle(play.services, made.task.id, attempt=made.attempt, outcome=outcome)
    )


def _completed(made: Claim) -> Completed:
    key = output_key(made.task.id, made.attempt, 0, "png")
    image = OutputImage(
        key=key, seed=1, width=1, height=1, media_type="image/png", size=1, sha256=key
    )
    return Completed(output=Output(images=(image,)))


async def _new_worker(play: _Play) -> int:
    async def register() -> int:
        return await play.services.queue.app.job_manager.register_worker()

    return await _database(register)


async def _end_job(play: _Play, job_id: int) -> None:
    async with transaction(play.services.pool) as conn:
        await drop_job(conn, job_id)


async def _die(play: _Play, worker: int) -> None:
    """Let the worker's last heartbeat be long ago."""

    async def silence() -> None:
        async with play.services.pool.connection() as conn:
            await conn.execute(
                "update procrastinate_workers set last_heartbeat = now() - interval '1 hour'"
                " where id = %s",
                (worker,),
            )

    await _database(silence)


async def _database(ask: Callable[[], Coroutine[Any, Any, T]]) -> T:
    while True:
        try:
            return await ask()
        except Exception:  # noqa: BLE001  # a struck session, by whatever name
            await asyncio.sleep(0.01)


# Who takes back


async def _reap(play: _Play) -> None:
    while not play.over.is_set():
        try:
            await recover_silent(play.services)
            await recover_orphans(play.services)
        except ImageloomError:
            pass
        await asyncio.sleep(play.dice.uniform(0.005, 0.02))


# What is read


async def _until_over(play: _Play, url: str) -> None:
    async with await psycopg.AsyncConnection.connect(url, autocommit=True) as conn:
        while True:
            rows = await conn.execute(
                "select count(*) from task where status in ('pending', 'running')"
            )
            if (await rows.fetchone()) == (0,):
                return
            await asyncio.sleep(0.05)


async def _ledgers(play: _Play, url: str) -> Ledgers:
    async with await psycopg.AsyncConnection.connect(
        url, autocommit=True, row_factory=dict_row
    ) as conn:
        tasks = await (await conn.execute("select * from task")).fetchall()
        told = await (await conn.execute("select * from webhook_event")).fetchall()
        changes = await (
            await conn.execute(
                "select task, before, after, attempt, at from lab.change order by seq"
            )
        ).fetchall()
    return Ledgers(
        requests=tuple(play.requests),
        runs=tuple(play.runs),
        deliveries=tuple(
            Delivery(
                id=row["id"],
                task=row["resource_id"],
                type=f"task.{row['type'].rpartition('.')[2]}",
                at=row["occurred_at"].timestamp(),
            )
            for row in told
        ),
        endings=tuple(
            Ending(
                task=row["id"],
                key=row["params"]["negative_prompt"],
                status=row["status"],
                attempt=row["attempt"],
                outputs=_outputs(row),
            )
            for row in tasks
        ),
        # No bytes were stored: here what is named is there, and the judge looks at who named it.
        stored={named.key: named.told for row in tasks for named in _outputs(row)},
        changes=tuple(Change(**row) for row in changes),
        faults=tuple(play.faults),
    )


def _outputs(row: dict[str, Any]) -> tuple[Named, ...]:
    images = (row["output"] or {}).get("images", ())
    return tuple(
        Named(key=image["key"], told=image["sha256"], served=image["sha256"]) for image in images
    )


def _disagreements(play: _Play, ledgers: Ledgers) -> list[str]:
    """Return the tasks whose end is not what the answer to their cancel said."""
    ends = {each.task: each.status for each in ledgers.endings}
    return [task for task, said in play.cancels.items() if said != (ends[task] == "cancelled")]
