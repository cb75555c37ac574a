"""The life of a task in the database: submit, claim, settle, cancel and recover, all fenced.

Real PostgreSQL and real procrastinate; a worker here is its row, its heartbeat and its job.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

import psycopg
import pytest
from procrastinate import jobs

from imageloom.core.cancel import cancel
from imageloom.core.claim import claim, hand_back, note_progress
from imageloom.core.idempotency import Idempotency
from imageloom.core.read import list_attempts
from imageloom.core.recover import Recovery, recover_orphans, recover_silent
from imageloom.core.services import Services, open_services
from imageloom.core.settle import note_usage, settle
from imageloom.core.submit import submit
from imageloom.domain.errors import Conflict
from imageloom.domain.messages import Usage
from imageloom.domain.retry import backoff
from imageloom.domain.tasks import (
    Cancelled,
    Claim,
    Completed,
    Failed,
    Interrupted,
    Lost,
    Outcome,
    Output,
    OutputImage,
    Status,
    Task,
)
from imageloom.settings import Settings
from imageloom.storage.keys import output_key
from imageloom.store import tasks
from imageloom.store.pool import Connection, one, transaction

TENANT = "default"
DONE = Completed(output=Output())
LOST = Lost(reason="its worker went silent")
BROKEN = Failed(code="device_fault", message="the device failed", retryable=True)
REFUSED = Failed(code="invalid_input", message="Invalid input: no picture", retryable=False)
T = TypeVar("T")


@pytest.fixture
async def task(services: Services) -> Task:
    """A pending task with its job."""
    return await submitted(services)


@pytest.fixture
async def running(services: Services, task: Task) -> Task:
    """A task in its first attempt."""
    return (await claimed(services, task)).task


# Submit


async def test_rolled_back_submit_leaves_neither_task_nor_job(services: Services) -> None:
    # The last statement of the transaction fails: the column takes no null.
    unusable = Idempotency(route="generation", key="k", body_hash=None)  # type: ignore[arg-type]
    with pytest.raises(psycopg.errors.NotNullViolation):
        await submitted(services, use=unusable)
    assert await count(services, "task") == 0
    assert await count(services, "procrastinate_jobs") == 0


async def test_submitted_task_waits_through_its_job(services: Services, task: Task) -> None:
    assert (task.status, task.attempt, task.progress) == (Status.PENDING, 0, 0)
    job = await job_of(services, task)
    assert (job["queue_name"], job["status"]) == ("generation", "todo")
    assert job["args"] == {"task_id": task.id, "tenant": TENANT, "priority": 0}


async def test_same_idempotency_key_at_once_makes_one_task(services: Services) -> None:
    use = Idempotency(route="generation", key="k", body_hash=b"same body")
    made = await asyncio.gather(*(submitted(services, use=use) for _ in range(8)))
    assert len({task.id for task in made}) == 1
    assert await count(services, "procrastinate_jobs") == 1


# Claim and settle


async def test_claim_begins_the_first_attempt(services: Services, task: Task) -> None:
    begun = await claimed(services, task)
    assert begun.attempt == 1
    found = await read(services, task)
    assert (found.status, found.attempt, found.worker) == (Status.RUNNING, 1, "worker-1")
    assert found.started_at is not None


async def test_completed_attempt_settles_the_task(services: Services, running: Task) -> None:
    output = Output(images=(image(running, attempt=1),))
    settled = await settle(services, running.id, attempt=1, outcome=Completed(output=output))
    assert settled is not None
    assert (settled.status, settled.output, settled.progress) == (Status.COMPLETED, output, 1.0)
    assert (settled.error, settled.job_id, settled.worker) == (None, None, None)


async def test_settling_again_changes_nothing(services: Services, running: Task) -> None:
    first = await settle(services, running.id, attempt=1, outcome=DONE)
    assert await settle(services, running.id, attempt=1, outcome=REFUSED) is None
    assert await read(services, running) == first


async def test_two_settlements_at_once_are_one(services: Services) -> None:
    for _ in range(10):
        begun = (await claimed(services, await submitted(services))).task
        answers = await asyncio.gather(
            settle(services, begun.id, attempt=1, outcome=DONE),
            settle(services, begun.id, attempt=1, outcome=REFUSED),
        )
        (settled,) = [answer for answer in answers if answer is not None]
        assert settled == await read(services, begun)


async def test_stale_attempt_can_write_nothing(services: Services, running: Task) -> None:
    stale = Claim(task=running, attempt=1)
    await settle(services, running.id, attempt=1, outcome=LOST)
    second = await claimed(services, await read(services, running), worker="worker-2")
    before = await read(services, running)
    assert await settle(services, running.id, attempt=1, outcome=DONE) is None
    assert not await note_progress(services, stale, 0.9)
    assert await read(services, running) == before
    assert await note_progress(services, second, 0.4)


async def test_attempt_taken_back_cannot_end_before_the_next_begins(
    services: Services, running: Task
) -> None:
    waiting = await settle(services, running.id, attempt=1, outcome=LOST)
    for outcome in (DONE, LOST, Interrupted(), REFUSED):
        assert await settle(services, running.id, attempt=1, outcome=outcome) is None
    assert await read(services, running) == waiting
    assert await count(services, "procrastinate_jobs") == 2  # the old one is still its worker's


async def test_progress_never_falls_within_an_attempt(services: Services, running: Task) -> None:
    held = Claim(task=running, attempt=1)
    await note_progress(services, held, 0.5)
    await note_progress(services, held, 0.2)
    assert (await read(services, running)).progress == 0.5


async def test_claim_through_an_old_job_is_refused(services: Services, running: Task) -> None:
    old_job = job_id(running)
    await settle(services, running.id, attempt=1, outcome=LOST)
    assert await claim(services, running.id, job_id=old_job, worker="zombie") is None
    assert (await read(services, running)).status is Status.PENDING


async def test_claim_of_a_task_that_is_over_is_refused(services: Services, running: Task) -> None:
    await settle(services, running.id, attempt=1, outcome=DONE)
    assert await claim(services, running.id, job_id=job_id(running), worker="late") is None


async def test_job_that_returns_by_itself_ends_at_the_attempt_limit(
    services: Services, task: Task
) -> None:
    for number in (1, 2, 3):
        assert (await claimed(services, task)).attempt == number
    assert await claim(services, task.id, job_id=job_id(task), worker="worker-1") is None
    failed = await read(services, task)
    assert failed.status is Status.FAILED
    assert failed.error_detail is not None
    assert (failed.error_detail.code, failed.error_detail.attempt) == ("worker_lost", 3)


async def test_handed_back_task_waits_through_another_job(services: Services, task: Task) -> None:
    await hand_back(services, task.id, job_id=job_id(task))
    waiting = await read(services, task)
    assert waiting.job_id != task.job_id
    assert (waiting.status, waiting.attempt) == (Status.PENDING, 0)


# What each outcome means for a task in its first attempt


@pytest.mark.parametrize(
    ("outcome", "status", "code"),
    [
        (DONE, Status.COMPLETED, None),
        (Cancelled(), Status.CANCELLED, None),
        (Interrupted(), Status.PENDING, None),
        (LOST, Status.PENDING, None),
        (BROKEN, Status.PENDING, None),
        (REFUSED, Status.FAILED, "invalid_input"),
    ],
)
async def test_outcome_decides_what_becomes_of_the_task(
    services: Services, running: Task, outcome: Outcome, status: Status, code: str | None
) -> None:
    settled = await settle(services, running.id, attempt=1, outcome=outcome)
    assert settled is not None
    assert settled.status is status
    assert (settled.error_detail and settled.error_detail.code) == code
    # It waits through a job exactly where it is pending.
    assert (settled.job_id is not None) == (status is Status.PENDING)
    assert settled.job_id != running.job_id


async def test_retried_failure_waits_longer_each_time(services: Services, running: Task) -> None:
    await settle(services, running.id, attempt=1, outcome=BROKEN)
    job = await job_of(services, await read(services, running))
    assert 0 < job["wait"] <= backoff(1)


async def test_third_lost_attempt_fails_the_task(services: Services, task: Task) -> None:
    for number in (1, 2, 3):
        await claimed(services, await read(services, task))
        await settle(services, task.id, attempt=number, outcome=LOST)
    failed = await read(services, task)
    assert failed.status is Status.FAILED
    assert failed.error_detail is not None
    assert failed.error_detail.code == "worker_lost"


async def test_interruptions_spend_no_attempt(services: Services, task: Task) -> None:
    for number in range(1, 7):
        await claimed(services, await read(services, task))
        await settle(services, task.id, attempt=number, outcome=Interrupted())
    handed_back = await read(services, task)
    assert (handed_back.status, handed_back.interruptions) == (Status.PENDING, 6)
    for number in (7, 8):
        await claimed(services, await read(services, task))
        await settle(services, task.id, attempt=number, outcome=LOST)
    assert (await read(services, task)).status is Status.PENDING


async def test_every_attempt_is_on_record(services: Services, task: Task) -> None:
    for outcome in (BROKEN, Interrupted()):
        begun = await claimed(services, await read(services, task))
        assert await settle(services, task.id, attempt=begun.attempt, outcome=outcome)
    # The third is begun by a second worker, too: the first one's is lost.
    waiting = await read(services, task)
    await claimed(services, waiting)
    begun = await claimed(services, waiting)
    await settle(services, task.id, attempt=begun.attempt, outcome=DONE)
    found, total = await list_attempts(services, task.id, tenant=TENANT, page=1, page_size=3)
    assert total == 4
    told = [(each.number, each.outcome, each.code, each.next, each.tried_next) for each in found]
    alone = "alone on its device"
    assert told == [
        (1, "failed", "device_fault", "pending", f"again after 0.5 s, {alone}"),
        (2, "interrupted", None, "pending", f"again at once, {alone}"),
        (3, "lost", None, "running", "again at once"),
    ]
    assert found[0].message == "the device failed"
    assert found[0].next_at is not None
    assert found[0].ended_at is not None
    assert found[0].next_at > found[0].ended_at
    ((last,), _) = await list_attempts(services, task.id, tenant=TENANT, page=2, page_size=3)
    assert (last.number, last.outcome, last.next, last.next_at) == (
        4,
        "completed",
        "completed",
        None,
    )


async def test_what_an_attempt_had_of_its_device_is_on_record(
    services: Services, task: Task
) -> None:
    usage = Usage(seconds=1.5, memory_bytes=7_000, relief=("fewer_rows", "tiles"))
    begun = await claimed(services, task)
    await settle(services, task.id, attempt=begun.attempt, outcome=BROKEN, usage=usage)
    begun = await claimed(services, await read(services, task))
    # Another ended it, as the user's cancel does, and the device's answer comes after that.
    await settle(services, task.id, attempt=begun.attempt, outcome=LOST)
    await note_usage(services, task.id, begun.attempt, Usage(seconds=2.5))
    await note_usage(services, task.id, 1, Usage(seconds=9))  # was said before, and stays
    found, _ = await list_attempts(services, task.id, tenant=TENANT, page=1, page_size=3)
    assert [(each.device_seconds, each.device_memory_bytes) for each in found] == [
        (1.5, 7_000),
        (2.5, None),
    ]
    assert found[0].tried_next == (
        "half of the rows in a step, the picture in tiles; then again after 0.5 s, "
        "alone on its device"
    )


async def test_any_order_of_outcomes_ends_in_one_terminal_state(services: Services) -> None:
    choices: list[Outcome] = [DONE, Cancelled(), Interrupted(), LOST, BROKEN, REFUSED]
    draw = random.Random(20)  # chance that can be repeated
    for _ in range(25):
        task = await submitted(services)
        ends = 0
        for _ in range(30):
            task = await read(services, task)
            if task.status is Status.PENDING:
                await claimed(services, task)
            attempt = draw.choice([task.attempt, task.attempt + 1])
            settled = await settle(services, task.id, attempt=attempt, outcome=draw.choice(choices))
            ends += settled is not None and settled.status.terminal
        assert (await read(services, task)).status.terminal
        assert ends == 1


# Cancel


async def test_cancelled_pending_task_loses_its_job(services: Services, task: Task) -> None:
    assert (await cancel(services, task.id, tenant=TENANT)).status is Status.CANCELLED
    assert await count(services, "procrastinate_jobs") == 0
    assert await claim(services, task.id, job_id=job_id(task), worker="late") is None


async def test_cancelled_running_task_tells_its_worker(services: Services, task: Task) -> None:
    worker = await FakeWorker.begin(services)
    await worker.fetch()
    await claimed(services, task)
    assert (await cancel(services, task.id, tenant=TENANT)).status is Status.CANCELLED
    assert await services.queue.app.job_manager.list_jobs_to_abort_async() == [job_id(task)]
    assert not await note_progress(services, Claim(task=task, attempt=1), 0.5)


async def test_cancelling_again_is_harmless(services: Services, running: Task) -> None:
    first = await cancel(services, running.id, tenant=TENANT)
    assert await cancel(services, running.id, tenant=TENANT) == first


async def test_completed_task_cannot_be_cancelled(services: Services, running: Task) -> None:
    await settle(services, running.id, attempt=1, outcome=DONE)
    with pytest.raises(Conflict, match="completed"):
        await cancel(services, running.id, tenant=TENANT)


async def test_cancel_and_settle_at_once_agree_on_one_end(services: Services) -> None:
    ends = set()
    for number in range(60):
        task = (await claimed(services, await submitted(services))).task
        first: list[Awaitable[Any]] = [
            attempted(cancel(services, task.id, tenant=TENANT)),
            settle(services, task.id, attempt=1, outcome=DONE),
        ]
        if number % 2:
            settled, cancelled = await asyncio.gather(*reversed(first))
        else:
            cancelled, settled = await asyncio.gather(*first)
        final = await read(services, task)
        ends.add(final.status)
        if final.status is Status.CANCELLED:
            assert (cancelled, settled) == (final, None)
        else:
            assert final.status is Status.COMPLETED
            assert settled == final
            assert isinstance(cancelled, Conflict)
    assert ends == {Status.CANCELLED, Status.COMPLETED}  # the race was a race


# Recover


async def test_task_of_a_silent_worker_returns_to_the_queue(services: Services, task: Task) -> None:
    worker = await FakeWorker.begin(services)
    await worker.fetch()
    await claimed(services, task)
    assert await recover_silent(services) == 0
    await worker.fall_silent(seconds=services.settings.lease_seconds + 1)
    assert await recover_silent(services) == 1
    waiting = await read(services, task)
    assert (waiting.status, waiting.attempt, waiting.interruptions) == (Status.PENDING, 1, 0)
    assert waiting.job_id != task.job_id
    assert await count(services, "procrastinate_jobs") == 1
    assert (await claimed(services, waiting, worker="worker-2")).attempt == 2


async def test_silence_before_the_claim_spends_no_attempt(services: Services, task: Task) -> None:
    worker = await FakeWorker.begin(services)
    await worker.fetch()
    await worker.fall_silent(seconds=60)
    assert await recover_silent(services) == 1
    waiting = await read(services, task)
    assert (waiting.status, waiting.attempt) == (Status.PENDING, 0)


async def test_recovering_the_third_silence_fails_the_task(services: Services, task: Task) -> None:
    for _ in range(3):
        worker = await FakeWorker.begin(services)
        await worker.fetch()
        await claimed(services, await read(services, task))
        await worker.fall_silent(seconds=60)
        assert await recover_silent(services) == 1
    failed = await read(services, task)
    assert failed.status is Status.FAILED
    assert failed.error_detail is not None
    assert (failed.error_detail.code, failed.error_detail.attempt) == ("worker_lost", 3)
    assert await count(services, "procrastinate_jobs") == 0


async def test_settled_task_of_a_silent_worker_stays_settled(
    services: Services, task: Task
) -> None:
    """It died after its settlement and before the queue heard of it."""
    worker = await FakeWorker.begin(services)
    await worker.fetch()
    await claimed(services, task)
    key = await stored(services, task, attempt=1)
    settled = await settle(services, task.id, attempt=1, outcome=DONE)
    await worker.fall_silent(seconds=60)
    assert await recover_silent(services) == 0
    assert await read(services, task) == settled
    assert await services.storage.exists(key)
    assert await count(services, "procrastinate_jobs") == 0


@pytest.mark.parametrize("cancelled", [False, True], ids=["lost", "cancelled"])
async def test_recovery_deletes_what_the_lost_attempt_stored(
    services: Services, task: Task, cancelled: bool
) -> None:
    worker = await FakeWorker.begin(services)
    await worker.fetch()
    await claimed(services, task)
    await stored(services, task, attempt=1)
    if cancelled:
        await cancel(services, task.id, tenant=TENANT)
    await worker.fall_silent(seconds=60)
    await recover_silent(services)
    assert await services.storage.list() == []


async def test_running_task_without_a_job_is_recovered(services: Services, running: Task) -> None:
    await execute(services, "delete from procrastinate_jobs")
    assert await recover_orphans(services) == 1
    waiting = await read(services, running)
    assert (waiting.status, waiting.attempt) == (Status.PENDING, 1)
    assert (await job_of(services, waiting))["status"] == "todo"


async def test_pending_task_without_a_job_is_queued_again(services: Services, task: Task) -> None:
    await execute(services, "delete from procrastinate_jobs")
    assert await recover_orphans(services) == 1
    waiting = await read(services, task)
    assert (waiting.status, waiting.attempt, waiting.interruptions) == (Status.PENDING, 0, 0)
    assert (await job_of(services, waiting))["status"] == "todo"


async def test_recovery_by_several_processes_at_once_happens_once(
    services: Services, settings: Settings, database_url: str
) -> None:
    worker = await FakeWorker.begin(services)
    lost = [await submitted(services) for _ in range(6)]
    orphaned = [await submitted(services) for _ in range(6)]
    for task in lost:
        await worker.fetch()
        await claimed(services, task)
    await execute(
        services,
        "delete from procrastinate_jobs where id = any(%s)",
        [job_id(task) for task in orphaned],
    )
    await worker.fall_silent(seconds=60)
    async with (
        open_services(settings, database_url, pool_timeout=5) as second,
        open_services(settings, database_url, pool_timeout=5) as third,
    ):
        numbers = await asyncio.gather(
            *(recover_both(each) for each in (services, second, third) * 3)
        )
    assert sum(numbers) == 12
    for task, attempt in [*((task, 1) for task in lost), *((task, 0) for task in orphaned)]:
        waiting = await read(services, task)
        assert (waiting.status, waiting.attempt) == (Status.PENDING, attempt)
        assert (await job_of(services, waiting))["status"] == "todo"
    assert await count(services, "procrastinate_jobs") == 12


async def test_silence_counts_only_while_somebody_listens(
    services: Services, settings: Settings, task: Task
) -> None:
    worker = await FakeWorker.begin(services)
    await worker.fetch()
    await claimed(services, task)
    await worker.fall_silent(seconds=3600)
    now = 1000.0
    recovery = Recovery(services, clock=lambda: now)
    recovered = []
    # An hour in which nobody looked (the database was away, say) proves nothing against a worker.
    for pause in (0, 3600, *[1] * (round(settings.lease_seconds) - 1), 1):
        now += pause
        recovered.append(await recovery.run())
    assert recovered == [0] * (len(recovered) - 1) + [1]


async def test_heartbeat_outlives_its_connection(services: Services) -> None:
    worker = await FakeWorker.begin(services)
    async with transaction(services.pool) as conn:
        await conn.execute("lock table procrastinate_workers")
        beat = asyncio.create_task(services.queue.app.job_manager.update_heartbeat(worker.id))
        while not await break_waiting(services):  # noqa: ASYNC110  # PostgreSQL announces no wait
            await asyncio.sleep(0.01)
    await beat
    await services.queue.app.job_manager.update_heartbeat(worker.id)


# What the tests arrange with


@dataclass(frozen=True)
class FakeWorker:
    """A worker as the queue knows it: a row with a heartbeat, holding the jobs that it fetched."""

    services: Services
    id: int

    @classmethod
    async def begin(cls, services: Services) -> FakeWorker:
        return cls(services, await services.queue.app.job_manager.register_worker())

    async def fetch(self) -> jobs.Job:
        job = await self.services.queue.app.job_manager.fetch_job(None, worker_id=self.id)
        assert job is not None
        return job

    async def fall_silent(self, *, seconds: float) -> None:
        await execute(
            self.services,
            "update procrastinate_workers"
            " set last_heartbeat = now() - make_interval(secs => %s) where id = %s",
            seconds,
            self.id,
        )


async def submitted(services: Services, *, use: Idempotency | None = None) -> Task:
    return await submit(
        services,
        tenant=TENANT,
        task_type="generation",
        params={"prompt": "a red dress"},
        inputs={},
        idempotency_use=use,
    )


async def claimed(services: Services, task: Task, *, worker: str = "worker-1") -> Claim:
    begun = await claim(services, task.id, job_id=job_id(task), worker=worker)
    assert begun is not None
    return begun


async def stored(services: Services, task: Task, *, attempt: int) -> str:
    key = image(task, attempt=attempt).key
    await services.storage.put(key, b"bytes", media_type="image/jpeg")
    return key


def image(task: Task, *, attempt: int) -> OutputImage:
    return OutputImage(
        key=output_key(task.id, attempt, 0, "jpg"),
        seed=5,
        width=64,
        height=64,
        media_type="image/jpeg",
        size=5,
        sha256="00",
    )


async def recover_both(services: Services) -> int:
    return await recover_orphans(services) + await recover_silent(services)


async def attempted(verb: Awaitable[T]) -> T | Conflict:
    try:
        return await verb
    except Conflict as exc:
        return exc


def job_id(task: Task) -> int:
    assert task.job_id is not None
    return task.job_id


async def read(services: Services, task: Task) -> Task:
    async with transaction(services.pool) as conn:
        found = await tasks.get(conn, task.id, tenant=TENANT)
    assert found is not None
    return found


async def job_of(services: Services, task: Task) -> dict[str, Any]:
    async with transaction(services.pool) as conn:
        return await _only(
            conn,
            "select *, extract(epoch from scheduled_at - now())::float8 as wait"
            " from procrastinate_jobs where id = %s",
            job_id(task),
        )


async def count(services: Services, table: str) -> int:
    async with transaction(services.pool) as conn:
        return int((await _only(conn, f"select count(*) as n from {table}"))["n"])


async def execute(services: Services, query: str, *values: object) -> None:
    async with transaction(services.pool) as conn:
        await conn.execute(query, values)  # type: ignore[arg-type]


async def break_waiting(services: Services) -> bool:
    """End the connection that waits for a lock; whether there was one."""
    async with transaction(services.pool) as conn:
        rows = await conn.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and wait_event_type = 'Lock'"
        )
        return bool(await rows.fetchall())


async def _only(conn: Connection, query: str, *values: object) -> dict[str, Any]:
    return one(await (await conn.execute(query, values)).fetchone())  # type: ignore[arg-type]
