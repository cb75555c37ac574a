"""Monitoring of an installation with 10,000 tasks: its statements read indexes, never all tasks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any, Final

import httpx
import psycopg
import pytest
from psycopg import sql

from conftest import called_with, with_database
from imageloom.core.keys import create_key
from imageloom.core.services import Services, open_services
from imageloom.settings import Settings
from imageloom.store.migrate import migrate
from imageloom.store.pool import transaction

# Of ten tenants, over ten days: most are over, some wait and a few run.
_CROWD: Final = """
    insert into task (id, tenant, type, status, params, max_attempts, attempt, job_id, output,
            error, error_detail, created_at, started_at, completed_at)
        select 'task_' || n, 'tenant-' || n % 10, type, status, params, 3, 1, n,
            case status when 'completed' then '{"images": []}'::jsonb end,
            case status when 'failed' then 'no room' end,
            case status when 'failed'
                then '{"code": "out_of_memory", "retryable": true, "attempt": 1}'::jsonb end,
            created, case when status <> 'pending' then created + interval '2 seconds' end,
            case when status in ('completed', 'failed', 'cancelled')
                then created + interval '9 seconds' end
        from (select n, now() - n * interval '86 seconds' as created,
            jsonb_build_object('prompt', repeat('a red dress ', 20)) as params,
            case when n % 7 = 0 then 'processing' else 'generation' end as type,
            case when n <= 40 then 'running' when n <= 400 then 'pending'
                when n % 33 = 0 then 'failed' when n % 50 = 0 then 'cancelled'
                else 'completed' end as status
            from generate_series(1, 10000) as n) as made;
    insert into attempt (task_id, number, worker) select id, 1, 'worker-1' from task;
"""
_ROUTES: Final = [
    "/monitoring/queues",
    "/monitoring/workers",
    "/monitoring/tasks?all_tenants=true",
    "/monitoring/tasks",
    "/monitoring/tasks?status=failed",
    "/monitoring/tasks?status=failed&all_tenants=true",
    "/monitoring/tasks?status=running&status=pending&all_tenants=true",
    "/monitoring/tasks?task_type=processing",
    "/monitoring/tasks?task_type=processing&all_tenants=true",
    "/monitoring/tasks?search=task_99",
    "/monitoring/tasks/task_990",
    "/monitoring/tasks/task_990/media",
    "/monitoring/stats",
    "/monitoring/stats?all_tenants=true",
    "/monitoring/stats?hours=168&all_tenants=true",
    "/tasks",
]


@pytest.fixture(scope="module")
async def crowded(
    postgres: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Services]:
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute("create database crowded")
    url = with_database(postgres, "crowded")
    await migrate(url)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(_CROWD)
        # As autovacuum does once a fifth of a table is new.
        for table in ("task", "event", "attempt"):
            conn.execute(f"vacuum analyze {table}")
    settings = Settings(data_dir=tmp_path_factory.mktemp("crowded"), device="cpu")
    async with open_services(settings, url, pool_timeout=5) as opened:
        yield opened


@pytest.fixture(scope="module")
async def operator(crowded: Services) -> AsyncIterator[httpx.AsyncClient]:
    scopes = ("read", "monitor")
    made = await create_key(crowded.pool, tenant="tenant-0", scopes=scopes)
    async with called_with(crowded, made.key) as client:
        yield client


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[Any, Any]]]:
    """What is executed while a test runs: statements and their values."""
    found: list[tuple[Any, Any]] = []
    execute = psycopg.AsyncConnection.execute

    async def noted(conn: Any, query: Any, params: Any = None, **options: Any) -> Any:
        found.append((query, params))
        return await execute(conn, query, params, **options)

    with monkeypatch.context() as patched:
        patched.setattr(psycopg.AsyncConnection, "execute", noted)
        yield found


@pytest.mark.parametrize("route", _ROUTES)
async def test_ten_thousand_tasks_are_not_read(
    crowded: Services,
    operator: httpx.AsyncClient,
    asked: list[tuple[Any, Any]],
    route: str,
) -> None:
    answer = await operator.get(route)
    assert answer.status_code == 200, answer.text
    statements = [(query, params) for query, params in asked if _text(query).startswith("select ")]
    assert any(" from task" in _text(query) or "worker" in route for query, _ in statements)
    async with transaction(crowded.pool) as conn:
        for query, params in statements:
            explain = sql.SQL("explain (format json) ") + sql.SQL(_text(query))
            row = await (await conn.execute(explain, params)).fetchone()
            assert row is not None
            read_whole = set(_scanned(row["QUERY PLAN"][0]["Plan"])) & {"task", "event", "attempt"}
            assert not read_whole, (_text(query), row)


def _text(query: Any) -> str:
    return query.as_string(None) if isinstance(query, sql.Composable) else query


def _scanned(plan: dict[str, Any]) -> Iterator[str]:
    """Yield the tables that a plan reads from end to end."""
    if plan["Node Type"] == "Seq Scan":
        yield plan["Relation Name"]
    for inner in plan.get("Plans", ()):
        yield from _scanned(inner)
