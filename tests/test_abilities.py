"""Which worker gets which task: one that can do it, in the order of the queue, and no other."""

from __future__ import annotations

import random

import pytest

from imageloom.core.services import Services
from imageloom.core.submit import create_tasks, new_task_id
from imageloom.domain.catalog import BUILTIN
from imageloom.domain.fit import Abilities, abilities
from imageloom.domain.tasks import NewTask
from imageloom.settings import Settings
from imageloom.store import workers
from imageloom.store.pool import transaction
from imageloom.store.workers import WorkerReport
from imageloom.worker.abilities import Sight

QUEUE = "generation"
METHODS = ("lanczos", "grabcut")


async def queued(services: Services, tenant: str, *models: str | None) -> list[str]:
    """Add a task for each of the models and return their ids."""
    new = [
        NewTask(
            id=new_task_id(),
            tenant=tenant,
            type=QUEUE,
            params={} if model is None else {"model": model},
            inputs={},
            max_attempts=3,
        )
        for model in models
    ]
    async with transaction(services.pool) as conn:
        return [task.id for task in await create_tasks(conn, new)]


async def taken(services: Services, *able: str, count: int = 1000) -> list[str]:
    """Take up to that many jobs as a worker that is able does, and return their tasks' ids."""
    found: list[str] = []
    async with transaction(services.pool) as conn:
        while len(found) < count:
            rows = await conn.execute(
                "select args ->> 'task_id' as id from take_job(%s, null, %s)", (QUEUE, list(able))
            )
            (job,) = await rows.fetchall()
            if job["id"] is None:
                break
            found.append(job["id"])
    return found


async def test_a_worker_takes_what_it_can_do_and_passes_over_the_rest(services: Services) -> None:
    large, small, none = await queued(services, "a", "large", "small", None)
    async with transaction(services.pool) as conn:
        before = await (await conn.execute("select * from procrastinate_jobs")).fetchall()
    assert await taken(services, "small") == [small, none]
    async with transaction(services.pool) as conn:
        rows = await conn.execute("select * from procrastinate_jobs where status = 'todo'")
        assert await rows.fetchall() == before[:1]
    assert await taken(services, "small", "large") == [large]


async def test_tenants_take_turns_in_what_a_worker_can_do(services: Services) -> None:
    first = await queued(services, "a", *["large"] * 3, *["small"] * 3)
    second = await queued(services, "b", *["small"] * 3)
    mine = [*first[3:], *second]
    got = await taken(services, "small")
    assert sorted(got) == sorted(mine)
    # Each has the rounds that it had: those of `a` come after its own large ones.
    assert got == [*second, *first[3:]]


async def test_a_worker_that_can_do_everything_keeps_the_order_of_the_queue(
    services: Services,
) -> None:
    models = [None, "one", "two", "three"]
    for _ in range(20):
        await queued(services, random.choice("abc"), *random.choices(models, k=3))
    async with transaction(services.pool) as conn:
        rows = await conn.execute(
            "select args ->> 'task_id' as id from procrastinate_jobs order by priority desc, id"
        )
        in_line = [row["id"] for row in await rows.fetchall()]
    assert await taken(services, "one", "two", "three") == in_line


async def test_two_workers_that_look_at_once_take_two_jobs(services: Services) -> None:
    first, second = await queued(services, "a", "small", "small")
    async with transaction(services.pool) as one, transaction(services.pool) as other:
        query = "select args ->> 'task_id' as id from take_job(%s, null, %s)"
        rows = [await conn.execute(query, (QUEUE, ["small"])) for conn in (one, other)]
        assert [(await each.fetchall())[0]["id"] for each in rows] == [first, second]


def test_a_worker_serves_what_it_is_told_to_and_every_method() -> None:
    found = abilities(BUILTIN, serves=("sd-1.5",), lacking=(), elsewhere=(), memory_bytes=None)
    assert found == Abilities(able=("sd-1.5", *METHODS), serves=("sd-1.5",))


def test_what_a_device_cannot_hold_is_too_large_for_it() -> None:
    found = abilities(
        BUILTIN,
        serves=None,
        lacking={"sd-1.5"},
        elsewhere={"sd-1.5"},
        memory_bytes=8_000_000_000,
    )
    assert found.too_large == ("flux-schnell", "z-image-turbo")
    assert found.lacking == ("sd-1.5",)
    assert found.able == ("imageloom-tiny", "sd-xl-base", "sd-xl-turbo", *METHODS)


async def test_what_a_worker_lacks_is_for_who_has_it_and_fails_where_nobody_does(
    services: Services, settings: Settings
) -> None:
    sight = Sight(services.pool, settings)
    await sight.look(memory_bytes=None)
    assert "sd-1.5" in sight.abilities.lacking
    assert "sd-1.5" in sight.abilities.able  # the attempt says which command gets it
    other = WorkerReport(
        id="other",
        host="gpu-1",
        pid=7,
        version="0.1.0",
        status="idle",
        queues=(QUEUE,),
        device="GPU",
        memory_bytes=None,
        gpu_utilization=None,
        models=(),
        tasks=(),
        lacking=tuple({model.name for model in BUILTIN} - {"sd-1.5"}),
    )
    async with transaction(services.pool) as conn:
        await workers.heartbeat(conn, other)
    await sight.look(memory_bytes=None)
    assert "sd-1.5" not in sight.abilities.able
    assert "sd-xl-base" in sight.abilities.able
    async with transaction(services.pool) as conn:
        await workers.remove(conn, other.id)
    await sight.look(memory_bytes=None)
    assert "sd-1.5" not in sight.abilities.able  # it may be back in a moment


@pytest.mark.parametrize("given", ["imageloom-tiny, other", "imageloom-tiny,other,"])
def test_models_are_listed_with_commas(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IMAGELOOM_WORKER_MODELS", given)
    assert Settings().worker_models == ("imageloom-tiny", "other")
