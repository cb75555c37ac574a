"""Submissions that come together: one transaction for many, and each its own answer."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Sequence

import httpx
from procrastinate.jobs import Status as JobStatus

from api_helpers import GENERATION, PROMPT, begun, created
from imageloom.core.services import Services
from imageloom.core.settle import settle
from imageloom.core.together import Not, Together
from imageloom.domain.errors import StoreUnavailable
from imageloom.domain.tasks import Failed
from imageloom.store.pool import statements, transaction


class Work:
    """Notes what it is given; the first piece of it takes until `gate` opens."""

    def __init__(self) -> None:
        self.pieces: list[list[int]] = []
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()

    async def __call__(self, items: Sequence[int]) -> list[int | Exception | Not]:
        self.pieces.append(list(items))
        self.begun.set()
        if len(self.pieces) == 1:
            await self.gate.wait()
        return [item * 10 for item in items]


async def asked(work: Work, *items: int) -> list[asyncio.Task[int]]:
    """Ask for the first item, and for the others while it is worked on."""
    together = Together[int, int]()
    first = asyncio.create_task(together.do("line", items[0], work))
    await work.begun.wait()
    others = [asyncio.create_task(together.do("line", item, work)) for item in items[1:]]
    await asyncio.sleep(0)  # they ask now, and have nothing to wait for before
    return [first, *others]


async def test_what_comes_meanwhile_goes_together_next() -> None:
    work = Work()
    tasks = await asked(work, 1, 2, 3, 4)
    work.gate.set()
    assert await asyncio.gather(*tasks) == [10, 20, 30, 40]
    assert work.pieces == [[1], [2, 3, 4]]


async def test_who_leaves_takes_nothing_from_the_others() -> None:
    work = Work()
    first, second, third = await asked(work, 1, 2, 3)
    second.cancel()
    first.cancel()
    work.gate.set()
    assert await third == 30


async def test_a_fault_costs_only_whose_it_is() -> None:
    class Faulty(Work):
        async def __call__(self, items: Sequence[int]) -> list[int | Exception | Not]:
            await super().__call__(items)
            if 3 in items:
                raise ValueError("three")
            return [item * 10 for item in items]

    work = Faulty()
    tasks = await asked(work, 1, 2, 3, 4)
    work.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [str(answer) for answer in answers] == ["10", "20", "three", "40"]


async def test_all_who_wait_hear_that_the_database_is_away() -> None:
    class Away(Work):
        async def __call__(self, items: Sequence[int]) -> list[int | Exception | Not]:
            await super().__call__(items)
            raise StoreUnavailable("away")

    work = Away()
    tasks = await asked(work, 1, 2, 3)
    work.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [StoreUnavailable] * 3
    assert work.pieces == [[1]], "who waited would wait as long again"


async def test_submissions_of_a_moment_share_transactions(
    services: Services, api: httpx.AsyncClient
) -> None:
    made = await asyncio.gather(*(created(api, seed=seed) for seed in range(30)))
    async with statements(services.pool) as conn:
        rows = await conn.execute("select id, params ->> 'seed' as seed, xmin::text from task")
        stored = {row["id"]: row for row in await rows.fetchall()}
    # Each its own: the answer to a request is the task that it asked for.
    assert [int(stored[task["id"]]["seed"]) for task in made] == list(range(30))
    assert [task["params"]["seed"] for task in made] == list(range(30))
    assert len({row["xmin"] for row in stored.values()}) < 30


async def test_keys_among_submissions_of_a_moment(
    services: Services, api: httpx.AsyncClient
) -> None:
    """Twice the same, twice with another body, and strangers, all in one moment."""

    async def posted(key: str | None, seed: int) -> httpx.Response:
        headers = {} if key is None else {"Idempotency-Key": key}
        return await api.post(GENERATION, json={**PROMPT, "seed": seed}, headers=headers)

    one, other = uuid.uuid4().hex, uuid.uuid4().hex
    wanted = [(None, 0), (one, 1), (one, 1), (other, 2), (other, 3), (None, 4), (one, 1)]
    answers = await asyncio.gather(*(posted(*each) for each in wanted))
    statuses = [answer.status_code for answer in answers]
    assert sorted(statuses) == [201] * 6 + [422]
    assert {statuses[3], statuses[4]} == {201, 422}
    refused = next(answer for answer in answers if answer.status_code == 422)
    assert refused.json()["error"]["type"] == "idempotency_key_reused"
    assert len({answers[at].json()["id"] for at in (1, 2, 6)}) == 1
    async with statements(services.pool) as conn:
        rows = await conn.execute("select count(*) as n from task")
        found = await rows.fetchone()
    assert found == {"n": 4}


async def test_a_job_goes_with_the_attempt_that_it_was_for(
    services: Services, api: httpx.AsyncClient
) -> None:
    """In the same transaction: the queue then has nothing to write, and nothing to lose."""
    claimed = await begun(services, await created(api))
    job_id = claimed.task.job_id
    async with transaction(services.pool) as conn:
        # As the queue's fetch does.
        await conn.execute(
            "update procrastinate_jobs set status = 'doing' where id = %s", (job_id,)
        )
    outcome = Failed(code="invalid_input", message="no", retryable=False)
    await settle(services, claimed.task.id, attempt=1, outcome=outcome, job_id=job_id)
    async with statements(services.pool) as conn:
        rows = await conn.execute("select id from procrastinate_jobs")
        assert await rows.fetchall() == []
    # What the queue does then is nothing: it would raise over a job that is not there.
    assert job_id is not None
    await services.queue.app.job_manager.finish_job_by_id_async(
        job_id=job_id, status=JobStatus.SUCCEEDED, delete_job=True
    )


async def test_a_connection_that_ended_is_never_handed_out(services: Services) -> None:
    """Also where it was asked a moment ago, and so is not asked again."""
    async with statements(services.pool) as first, statements(services.pool) as second:
        query = "select pg_terminate_backend(%s, 5000)"  # and waits until it has gone
        await first.execute(query, (second.info.backend_pid,))
    for _ in range(20):
        async with statements(services.pool) as first, statements(services.pool) as second:
            await first.execute("select 1")
            await second.execute("select 1")


async def test_a_connection_is_not_asked_before_every_use(services: Services) -> None:
    async with statements(services.pool) as conn:
        pid = conn.info.backend_pid
    asked = set()
    for _ in range(50):
        async with statements(services.pool) as conn:
            if conn.info.backend_pid == pid:
                asked.add(conn.asked_at)  # type: ignore[attr-defined]
    assert len(asked) < 25
