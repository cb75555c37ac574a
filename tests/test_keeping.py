"""What is kept: a backup that is restored, and tasks only for as long as the operator said."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from api_helpers import begun, completed, created
from conftest import called_with, with_database
from imageloom.core.recover import recover_orphans, recover_silent
from imageloom.core.retention import forget_old
from imageloom.core.services import Services, open_services
from imageloom.settings import Settings
from imageloom.store.migrate import migrate
from imageloom.store.pool import transaction
from imageloom.store.postgres.binaries import find_binaries
from workflow_helpers import play, started, step

HOOK = "https://example.com/hook"


async def rows(services: Services, query: str) -> list[Any]:
    """Return the first column of a query."""
    async with transaction(services.pool) as conn:
        found = await (await conn.execute(query)).fetchall()  # type: ignore[arg-type]
    return [next(iter(row.values())) for row in found]


@pytest.fixture
def restored_url(postgres: str) -> Iterator[str]:
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute("create database restored")
        yield with_database(postgres, "restored")
        conn.execute("drop database restored with (force)")


def dumped_and_restored(source: str, target: str, folder: Path) -> None:
    """Do what docs/deploy.md says: pg_dump of one database, pg_restore into an empty one."""
    programs = find_binaries(None)
    file = folder / "imageloom.dump"
    for command in (
        [programs / "pg_dump", "--format=custom", f"--file={file}", source],
        [programs / "pg_restore", "--exit-on-error", f"--dbname={target}", file],
    ):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


async def test_a_restored_backup_has_every_task_and_tells_nothing_twice(
    services: Services,
    api: httpx.AsyncClient,
    key: str,
    settings: Settings,
    database_url: str,
    restored_url: str,
    tmp_path: Path,
) -> None:
    over = await created(api, webhook_url=HOOK)
    await completed(services, over)
    running = await created(api, webhook_url=HOOK)
    await begun(services, running)
    async with transaction(services.pool) as conn:  # its worker is at it, and not in the backup
        await conn.execute(
            "update procrastinate_jobs set status = 'doing'"
            " where id = (select job_id from task where id = %s)",
            (running["id"],),
        )
    waiting = await created(api)
    told = "select id from webhook_event order by id"
    before = await rows(services, told)
    assert len(before) == 1

    dumped_and_restored(database_url, restored_url, tmp_path)
    assert await migrate(restored_url) == []
    async with open_services(settings, restored_url, pool_timeout=5) as restored:
        assert await recover_silent(restored) + await recover_orphans(restored) == 1
        assert await rows(restored, told) == before
        async with called_with(restored, key) as client:
            states = {
                each["id"]: each["status"] for each in (await client.get("/tasks")).json()["items"]
            }
            assert states == {
                over["id"]: "completed",
                running["id"]: "pending",
                waiting["id"]: "pending",
            }
            new = await created(client)  # ids and the queue go on where they were
        for task in (waiting, running, new):
            await begun(restored, task)


@pytest.fixture
async def keeping(settings: Settings, database_url: str) -> AsyncIterator[Services]:
    """Services of an installation that keeps tasks for ten days."""
    chosen = settings.model_copy(update={"keep_tasks": 10.0})
    async with open_services(chosen, database_url, pool_timeout=5) as opened:
        yield opened


async def made_old(services: Services, table: str, ident: str) -> None:
    async with transaction(services.pool) as conn:
        await conn.execute(
            f"update {table} set completed_at = completed_at - interval '11 days' where id = %s",  # type: ignore[arg-type]
            (ident,),
        )


async def test_a_task_that_ended_long_ago_goes_with_its_outputs(
    keeping: Services, api: httpx.AsyncClient
) -> None:
    old, young, live = [await created(api) for _ in range(3)]
    old_key, young_key = [await completed(keeping, task) for task in (old, young)]
    await made_old(keeping, "task", old["id"])
    assert await forget_old(keeping) == 1
    assert [await keeping.storage.exists(key) for key in (old_key, young_key)] == [False, True]
    assert sorted(await rows(keeping, "select id from task")) == sorted([young["id"], live["id"]])
    assert set(await rows(keeping, "select subject from event")) == {young["id"], live["id"]}
    assert await rows(keeping, "select task_id from attempt") == [young["id"]]
    assert (await api.get(f"/tasks/{old['id']}")).status_code == 404


async def test_everything_is_kept_unless_a_time_is_set(
    services: Services, api: httpx.AsyncClient
) -> None:
    task = await created(api)
    await completed(services, task)
    await made_old(services, "task", task["id"])
    assert await forget_old(services) == 0
    assert await rows(services, "select id from task") == [task["id"]]


async def test_a_run_that_ended_long_ago_goes_with_its_tasks_and_workflow(
    keeping: Services, api: httpx.AsyncClient
) -> None:
    old, young = [await started(api, step("a"), step("b", "a")) for _ in range(2)]
    for workflow in (old, young):
        await play(keeping, workflow)
    await made_old(keeping, "run", old["run"]["id"])
    assert await forget_old(keeping) == 2
    assert await rows(keeping, "select id from workflow") == [young["id"]]
    assert await rows(keeping, "select count(*) from task") == [2]
    assert (await api.get(f"/workflows/{old['id']}")).status_code == 404
    assert (await api.get(f"/workflows/{young['id']}")).json()["status"] == "completed"


async def test_a_training_is_kept_as_long_as_its_adapter(
    keeping: Services, api: httpx.AsyncClient
) -> None:
    task = await created(api)
    await completed(keeping, task)
    await made_old(keeping, "task", task["id"])
    async with transaction(keeping.pool) as conn:
        await conn.execute(
            "insert into adapter (tenant, name, version, base_model, key, sha256, size, rank,"
            " task_id, lineage) values ('default', 'a', 1, 'm', 'k', 's', 1, 1, %s, '{}')",
            (task["id"],),
        )
    assert await forget_old(keeping) == 0
