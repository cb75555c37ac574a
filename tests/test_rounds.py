"""Who is next in a queue: tenants take turns, and a priority orders a tenant's own tasks alone.

Real PostgreSQL and real procrastinate; jobs are taken by the function that workers use.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from api_helpers import created
from conftest import Live, wait_for
from imageloom.core.cancel import cancel
from imageloom.core.claim import claim, hand_back
from imageloom.core.keys import create_key
from imageloom.core.services import Services, open_services
from imageloom.core.settle import settle
from imageloom.core.submit import create_tasks, new_task_id, submit
from imageloom.domain.tasks import Failed, Interrupted, Lost, NewTask, Outcome, Task
from imageloom.settings import Settings
from imageloom.store import tasks
from imageloom.store.pool import Connection, transaction
from imageloom.store.postgres import EmbeddedPostgres
from workflow_helpers import IMAGE_URL, said, started, step, tasks_of

QUEUE = "generation"
BROKEN = Failed(code="device_fault", message="the device failed", retryable=True)


def new(tenant: str, *, priority: int = 0, task_type: str = QUEUE) -> NewTask:
    return NewTask(
        id=new_task_id(),
        tenant=tenant,
        type=task_type,
        params={},
        inputs={},
        max_attempts=3,
        priority=priority,
    )


async def queued(
    services: Services, tenant: str, count: int = 1, *, priority: int = 0
) -> list[Task]:
    """Add that many tasks of a tenant, as one step of a workflow does."""
    async with transaction(services.pool) as conn:
        return await create_tasks(conn, [new(tenant, priority=priority) for _ in range(count)])


async def fetched(services: Services, count: int = 1000) -> list[str]:
    """Fetch up to that many jobs as a worker does, and return the ids of their tasks in order."""
    found: list[str] = []
    async with transaction(services.pool) as conn:
        while len(found) < count:
            rows = await conn.execute(
                "select args ->> 'task_id' as id from take_job(%s, null, %s)",
                (QUEUE, ["imageloom-tiny"]),
            )
            (job,) = await rows.fetchall()
            if job["id"] is None:
                break
            found.append(job["id"])
    return found


async def begun(services: Services, task_id: str) -> Task:
    """Claim a task whose job was fetched."""
    async with transaction(services.pool) as conn:
        found = await tasks.lock(conn, task_id)
    assert found is not None
    assert found.job_id is not None
    held = await claim(services, task_id, job_id=found.job_id, worker="worker-1")
    assert held is not None
    return held.task


async def rounds(services: Services, queue: str = QUEUE) -> dict[str, list[int]]:
    """Return the rounds of each tenant's waiting jobs, ascending."""
    async with transaction(services.pool) as conn:
        rows = await conn.execute(
            "select task.tenant, -job.priority as round from procrastinate_jobs job"
            " join task on task.job_id = job.id where job.status = 'todo' and job.queue_name = %s"
            " order by round",
            (queue,),
        )
        found: defaultdict[str, list[int]] = defaultdict(list)
        for row in await rows.fetchall():
            found[row["tenant"]].append(row["round"])
        return dict(found)


def owners(order: Sequence[str], *groups: Sequence[Task]) -> str:
    """Return the first letter of each task's tenant, in that order."""
    by_id = {task.id: task.tenant[0] for group in groups for task in group}
    return "".join(by_id[task_id] for task_id in order)


# Turns


async def test_one_task_does_not_wait_behind_two_hundred(services: Services) -> None:
    many = await queued(services, "many", 200)
    assert await fetched(services, 8) == [task.id for task in many[:8]]
    (single,) = await queued(services, "one")
    assert single.id in await fetched(services, 2)


async def test_three_tenants_take_turns(services: Services) -> None:
    a, b, c = [await queued(services, tenant, 3) for tenant in "abc"]
    order = await fetched(services)
    assert owners(order, a, b, c) == "abcabcabc"
    assert [task_id for task_id in order if task_id in {task.id for task in a}] == [
        task.id for task in a
    ]


async def test_who_comes_back_has_saved_nothing_up_and_owes_nothing(services: Services) -> None:
    a, b = await queued(services, "a", 20), await queued(services, "b", 20)
    for task in a:
        await cancel(services, task.id, tenant="a")
    await fetched(services, 10)
    later = await queued(services, "a", 4)
    assert owners(await fetched(services, 8), a, b, later) == "babababa"


async def test_an_empty_queue_begins_again_at_0(services: Services) -> None:
    await queued(services, "a", 5)
    await fetched(services)
    await queued(services, "a", 2)
    assert await rounds(services) == {"a": [0, 1]}


async def test_tasks_that_are_made_at_once_have_rounds_of_their_own(services: Services) -> None:
    await asyncio.gather(
        *(submit(services, tenant="a", task_type=QUEUE, params={}, inputs={}) for _ in range(30))
    )
    assert await rounds(services) == {"a": list(range(30))}


async def test_two_that_make_tasks_of_two_types_in_different_orders_both_end(
    services: Services,
) -> None:
    async def make(conn: Connection, task_type: str) -> None:
        await create_tasks(conn, [new("a", task_type=task_type)])

    async def other() -> None:
        async with transaction(services.pool) as conn:
            await make(conn, "processing")
            await make(conn, QUEUE)

    async with transaction(services.pool) as conn:
        await make(conn, QUEUE)
        second = asyncio.create_task(other())
        await someone_waits(conn)
        await make(conn, "processing")
    await second
    assert await rounds(services) == {"a": [0, 1]}


async def someone_waits(conn: Connection) -> None:
    """Return once a transaction waits for a lock."""
    while True:
        row = await conn.execute("select 1 from pg_locks where not granted limit 1")
        if await row.fetchone() is not None:
            return


# What comes back


@pytest.mark.parametrize(
    "outcome",
    [Interrupted(), Lost(reason="its worker went silent"), BROKEN],
    ids=lambda o: o.__class__.__name__,
)
async def test_what_comes_back_is_before_the_next_round(
    services: Services, outcome: Outcome
) -> None:
    a, b = await queued(services, "a", 20), await queued(services, "b", 20)
    assert owners(await fetched(services, 4), a, b) == "abab"
    task = await begun(services, a[0].id)
    assert await settle(services, task.id, attempt=1, outcome=outcome) is not None
    assert (await rounds(services))["a"][:3] == [2, 2, 3]


async def test_what_was_never_claimed_is_before_the_next_round(services: Services) -> None:
    many = await queued(services, "a", 20)
    await fetched(services, 1)
    assert many[0].job_id is not None
    await hand_back(services, many[0].id, job_id=many[0].job_id)
    assert await fetched(services, 2) == [many[1].id, many[0].id]


async def test_what_comes_back_again_and_again_lets_others_by(services: Services) -> None:
    (restless,) = await queued(services, "a")
    b = await queued(services, "b", 5)
    seen = []
    for _ in range(10):
        seen += await fetched(services, 1)
        if seen[-1] == restless.id:
            task = await begun(services, restless.id)
            await settle(services, task.id, attempt=task.attempt, outcome=Interrupted())
    assert owners(seen, [restless], b) == "ab" * 5


async def test_newcomers_do_not_pass_what_came_back_to_an_empty_queue(services: Services) -> None:
    a = await queued(services, "a", 3)
    await fetched(services, 2)
    task = await begun(services, a[0].id)
    await settle(services, task.id, attempt=1, outcome=Interrupted())
    await fetched(services, 1)
    b = await queued(services, "b", 2)
    assert await fetched(services) == [a[0].id, b[0].id, b[1].id]


# Priority


async def test_higher_priority_is_first_among_ones_own(services: Services) -> None:
    low = await queued(services, "a", 2, priority=-3)
    plain = await queued(services, "a", 2)
    high = await queued(services, "a", 2, priority=10)
    again = await queued(services, "a", 1)
    wanted = [*high, *plain, *again, *low]
    assert await fetched(services) == [task.id for task in wanted]


async def test_priority_takes_nothing_from_another_tenant(services: Services) -> None:
    draw = random.Random(7)  # chance that can be repeated
    made: defaultdict[str, list[Task]] = defaultdict(list)
    for _ in range(40):
        tenant, priority, count = draw.choice("abc"), draw.randint(-10, 10), draw.randint(1, 4)
        made[tenant] += await queued(services, tenant, count, priority=priority)
        async with transaction(services.pool) as conn:  # the same without a priority, elsewhere
            await create_tasks(conn, [new(tenant, task_type="processing") for _ in range(count)])
    assert await rounds(services) == await rounds(services, "processing")
    order = await fetched(services)
    for own in made.values():
        wanted = [task.id for task in sorted(own, key=lambda task: -task.priority)]
        assert [task_id for task_id in order if task_id in wanted] == wanted


async def test_what_a_worker_fetches_keeps_its_round(services: Services) -> None:
    a = await queued(services, "a", 3)
    async with transaction(services.pool) as conn:
        await conn.execute("select 1 from procrastinate_fetch_job_v2(%s, null)", ([QUEUE],))
        await asyncio.wait_for(queued(services, "a", priority=1), timeout=5)
    order = await fetched(services)
    assert [task.id for task in a[1:]] == order[1:]
    assert await rounds(services) == {}


async def test_priority_of_a_request_is_the_tasks_and_no_parameter(
    api: httpx.AsyncClient, services: Services
) -> None:
    plain, urgent = await created(api, steps=4, seed=1), await created(api, priority=10)
    assert (plain["priority"], urgent["priority"]) == (0, 10)
    assert "priority" not in urgent["params"]
    assert await fetched(services) == [urgent["id"], plain["id"]]
    body = {"operation": "convert", "output_format": "png", "priority": -10}
    answer = await api.post("/tasks/processing", json={**body, "input_image_url": IMAGE_URL})
    assert answer.json()["priority"] == -10


async def test_priority_of_a_step_is_that_of_its_tasks_and_changes_no_cache_key(
    api: httpx.AsyncClient, services: Services
) -> None:
    plain = step("plain")
    urgent = {**plain, "name": "urgent", "config": {**plain["config"], "priority": 3}}
    workflow = await started(api, plain, urgent)
    second, first = await tasks_of(services, workflow)
    assert (second.priority, first.priority) == (0, 3)
    assert first.cache_base == second.cache_base is not None
    # Out of the queue and in again: in their order, and before nobody who came meanwhile.
    await said(api, workflow, "pause")
    one, two = await queued(services, "other", 2)
    await said(api, workflow, "resume")
    assert await fetched(services) == [one.id, first.id, two.id, second.id]


# Where a task stands


async def test_a_pending_task_says_how_many_come_before_it(
    api: httpx.AsyncClient, services: Services
) -> None:
    async def told(task: dict[str, Any]) -> int | None:
        answer = (await api.get(f"/tasks/{task['id']}")).json()
        position: int | None = answer["queue_position"]
        return position

    first, second, third = [await created(api) for _ in range(3)]
    assert [task["queue_position"] for task in (first, second, third)] == [0, 1, 2]
    (other,) = await queued(services, "other")
    assert [await told(task) for task in (first, second, third)] == [0, 2, 3]
    # What is not due yet comes before nobody.
    (failed,) = await fetched(services, 1)
    await settle(services, (await begun(services, failed)).id, attempt=1, outcome=BROKEN)
    assert [await told(task) for task in (second, third)] == [1, 2]
    # Fetched and not yet claimed, it is next; then it does not wait any more.
    assert await fetched(services, 2) == [other.id, second["id"]]
    assert await told(second) == 0
    await begun(services, second["id"])
    listed = (await api.get("/tasks?sort_order=asc&status=pending&status=running")).json()["items"]
    assert [task["id"] for task in listed] == [first["id"], second["id"], third["id"]]
    assert [task["queue_position"] for task in listed][1:] == [None, 0]


# All of it


async def test_one_picture_does_not_wait_behind_the_many_of_another(live: Live) -> None:
    body = {"prompt": "a red dress", "steps": 10, "width": 64, "height": 64}
    with EmbeddedPostgres(live.data_dir / "postgres") as server:
        settings = Settings(data_dir=live.data_dir)
        async with open_services(settings, server.start(), pool_timeout=5) as services:
            other = await create_key(services.pool, tenant="with-one-picture")
    with live.client() as many:
        waiting = [many.post("/tasks/generation", json=body).json()["id"] for _ in range(60)]
        with live.client() as one:
            one.headers["Authorization"] = f"Bearer {other.key}"
            single = one.post("/tasks/generation", json=body).json()
            assert single["queue_position"] <= 1

            def done() -> bool:
                return one.get(f"/tasks/{single['id']}").json()["status"] == "completed"

            wait_for(done, what="the one picture")
        statuses = [many.get(f"/tasks/{task_id}").json()["status"] for task_id in waiting]
        for task_id in waiting:
            many.post(f"/tasks/{task_id}/cancel")
    assert statuses.count("pending") > 30
