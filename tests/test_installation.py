"""Many machines: processes started alone, one PostgreSQL under least rights, one S3 bucket.

One API process and two workers, of which each may serve one of two models.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from msgspec.structs import replace
from PIL import Image
from psycopg import sql

from conftest import S3Server, wait_for, with_database
from imageloom.core.models import add_model
from imageloom.domain.catalog import BUILTIN
from imageloom.store.pool import open_pool
from imageloom.store.roles import API, RIGHTS, WORKER
from installation import API_KEY, clean_environment, client_of, free_port, started

OTHER = "other-tiny"  # the embedded model under another name, on one machine only
TINY = "imageloom-tiny"


@dataclass(frozen=True)
class Installation:
    """How to reach it, and as whom."""

    client: httpx.Client
    owner_url: str
    role_urls: dict[str, str]
    workers: dict[str, str]  # the id of the worker that serves each model
    logs: list[Path]

    def done(self, task_id: str, *statuses: str) -> dict[str, Any]:
        """Return the task once it is over, or has one of the statuses."""
        ends = statuses or ("completed", "failed", "cancelled")

        def there() -> dict[str, Any] | None:
            task: dict[str, Any] = self.client.get(f"/tasks/{task_id}").json()
            return task if task["status"] in ends else None

        return wait_for(there, what=f"the end of {task_id}")

    def draw(self, **params: Any) -> str:
        """Ask for a small picture and return the id of the task."""
        body = {"prompt": "a red shirt", "num_outputs": 1, "steps": 2, "width": 64, "height": 64}
        answer = self.client.post("/tasks/generation", json={**body, **params})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


def as_role(url: str, role: str, password: str) -> str:
    """Return a URL of the same database for another role."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{role}:{password}@{rest.rpartition('@')[2]}"


async def prepared(owner_url: str) -> None:
    """Register a model whose weights are at hand."""
    tiny = next(model for model in BUILTIN if model.name == TINY)
    folder = resources.files("imageloom.runtime") / "embedded" / TINY
    async with open_pool(owner_url, max_size=2) as pool:
        await add_model(pool, replace(tiny, name=OTHER, source=f"folder:{folder}"))


@pytest.fixture(scope="module")
def there(
    postgres: str, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute("create database installation")
    owner_url = with_database(postgres, "installation")
    passwords = {role: secrets.token_hex(8) for role in (API, WORKER)}
    migrated = subprocess.run(
        [sys.executable, "-m", "imageloom.cli.main", "migrate", "--roles"],
        env={
            **clean_environment(),
            "DATABASE_URL": owner_url,
            "IMAGELOOM_API_DB_PASSWORD": passwords[API],
            "IMAGELOOM_WORKER_DB_PASSWORD": passwords[WORKER],
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert migrated.returncode == 0, migrated.stderr
    asyncio.run(prepared(owner_url))
    role_urls = {role: as_role(owner_url, role, text) for role, text in passwords.items()}
    assert httpx.put(f"{s3_server.url}/installation", timeout=30).status_code == 200
    shared = {
        **s3_server.environment,
        "IMAGELOOM_STORAGE_URL": "s3://installation/data",
        "IMAGELOOM_DEVICE": "cpu",
        "IMAGELOOM_FETCH_ALLOW": "127.0.0.1:9",
    }
    port = free_port()
    with (
        tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True) as folder,
        ExitStack() as stack,
    ):
        api = {**shared, "DATABASE_URL": role_urls[API], "IMAGELOOM_API_KEY": API_KEY}
        command = ["api", "--port", str(port)]
        logs = [stack.enter_context(started(Path(folder), "api", command, api)).log]
        for model in (TINY, OTHER):
            worker = {
                **shared,
                "DATABASE_URL": role_urls[WORKER],
                "IMAGELOOM_WORKER_MODELS": model,
            }
            logs.append(stack.enter_context(started(Path(folder), model, ["worker"], worker)).log)
        client = client_of(port)
        stack.callback(client.close)

        def workers() -> dict[str, str] | None:
            with psycopg.connect(owner_url) as conn:
                rows = conn.execute("select serves[1], id from worker").fetchall()
            return dict(rows) if len(rows) == 2 else None

        yield Installation(
            client=client,
            owner_url=owner_url,
            role_urls=role_urls,
            workers=wait_for(workers, what="two workers"),
            logs=logs,
        )


def test_a_picture_is_drawn_into_the_bucket_and_fetched_by_its_url(there: Installation) -> None:
    task = there.done(there.draw(num_outputs=2))
    assert task["status"] == "completed", task
    with psycopg.connect(there.owner_url) as conn:
        row = conn.execute("select output from task where id = %s", (task["id"],)).fetchone()
    assert row is not None
    told = [image["sha256"] for image in row[0]["images"]]
    got = [httpx.get(image["url"], timeout=30) for image in task["output"]["images"]]
    assert [hashlib.sha256(answer.content).hexdigest() for answer in got] == told
    assert {answer.headers["content-type"] for answer in got} == {"image/jpeg"}


def test_an_upload_is_processed_out_of_the_bucket_into_it(there: Installation) -> None:
    data = (resources.files("imageloom.runtime") / "embedded" / "dress.jpg").read_bytes()
    upload = there.client.post("/files", files={"file": ("dress.jpg", data)})
    assert upload.status_code == 201, upload.text
    assert httpx.get(upload.json()["url"], timeout=30).content == data
    created = there.client.post(
        "/tasks/processing",
        json={"operation": "resize", "width": 32, "input_image_url": upload.json()["url"]},
    )
    task = there.done(created.json()["id"])
    assert task["status"] == "completed", task
    picture = httpx.get(task["output"]["images"][0]["url"], timeout=30).content
    assert Image.open(io.BytesIO(picture)).width == 32


def test_a_workflow_runs_under_the_roles(there: Installation) -> None:
    made = there.client.post(
        "/workflows",
        json={
            "name": "two",
            "webhook_url": "http://127.0.0.1:9/nobody",
            "steps": [
                {
                    "name": "draw",
                    "type": "generation",
                    "config": {"prompt": "a red shirt", "steps": 2, "num_outputs": 2},
                },
                {
                    "name": "shrink",
                    "type": "processing",
                    "config": {"operation": "resize", "width": 32},
                    "depends_on": ["draw"],
                },
            ],
        },
    )
    assert made.status_code == 201, made.text
    workflow = made.json()["id"]
    assert there.client.post(f"/workflows/{workflow}/start", json={}).status_code < 300

    def over() -> dict[str, Any] | None:
        found: dict[str, Any] = there.client.get(f"/workflows/{workflow}").json()
        return found if found["status"] in ("completed", "failed") else None

    ended = wait_for(over, what="the end of the workflow")
    assert ended["status"] == "completed", ended


def test_each_task_is_done_by_the_worker_that_can_in_one_attempt(there: Installation) -> None:
    wanted = {there.draw(model=model): model for model in [TINY, OTHER] * 4}
    for task_id, model in wanted.items():
        assert there.done(task_id)["status"] == "completed"
        attempts = there.client.get(f"/tasks/{task_id}/attempts").json()["items"]
        assert [each["worker"] for each in attempts] == [there.workers[model]]


def test_a_task_that_fits_no_worker_waits_untouched_and_says_so(there: Installation) -> None:
    waiting = there.draw(model="sd-1.5")
    query = "select job.* from procrastinate_jobs job join task on task.job_id = job.id"
    with psycopg.connect(there.owner_url, autocommit=True) as conn:
        before = conn.execute(f"{query} where task.id = %s", (waiting,)).fetchall()
        # Both workers look for work after it, and find what came later.
        for model in (TINY, OTHER):
            assert there.done(there.draw(model=model))["status"] == "completed"
        assert conn.execute(f"{query} where task.id = %s", (waiting,)).fetchall() == before
    task = there.client.get(f"/tasks/{waiting}").json()
    assert (task["status"], task["runnable"]) == ("pending", False)
    assert task["runnable_change"] == "name sd-1.5 in IMAGELOOM_WORKER_MODELS of a worker"
    assert there.client.get(f"/tasks/{waiting}/attempts").json()["items"] == []
    assert there.client.post(f"/tasks/{waiting}/cancel").status_code == 200


def test_the_roles_have_all_the_rights_that_processes_need(there: Installation) -> None:
    with psycopg.connect(there.owner_url, autocommit=True) as conn:

        def count(table: str) -> int:
            query = sql.SQL("select count(*) from {}").format(sql.Identifier(table))
            row = conn.execute(query).fetchone()
            return 0 if row is None else int(row[0])

        # A job that is done is deleted, which triggers have a say in.
        wait_for(lambda: count("procrastinate_jobs") == 0, what="the end of every job")
        assert count("webhook_event") > 0
    for log in there.logs:
        assert "permission denied" not in log.read_text()


@pytest.mark.parametrize("table", ["api_key", "secret", "webhook_secret", "session", "idempotency"])
def test_a_worker_may_not_read_what_opens_doors(there: Installation, table: str) -> None:
    with (
        psycopg.connect(there.role_urls[WORKER]) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute(sql.SQL("select * from {}").format(sql.Identifier(table)))


@pytest.mark.parametrize("role", [API, WORKER])
def test_only_the_owner_migrates(there: Installation, role: str) -> None:
    for statement in ("create table mine (id int)", "drop table task", "delete from migration"):
        with (
            psycopg.connect(there.role_urls[role]) as conn,
            pytest.raises(psycopg.errors.InsufficientPrivilege),
        ):
            conn.execute(statement)


def test_every_table_has_its_rights(there: Installation) -> None:
    with psycopg.connect(there.owner_url) as conn:
        rows = conn.execute("select tablename from pg_tables where schemaname = 'public'")
        assert {name for (name,) in rows.fetchall()} == RIGHTS.keys()
