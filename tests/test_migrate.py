"""Migrations: applied once, whoever comes first, and never over a newer version's."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import psycopg
import pytest

from conftest import with_database
from imageloom.domain.errors import StoreUnavailable
from imageloom.store.migrate import migrate


@pytest.fixture
def empty_url(postgres: str) -> Iterator[str]:
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute("create database empty")
        yield with_database(postgres, "empty")
        conn.execute("drop database empty with (force)")


async def test_many_processes_at_once_apply_each_migration_once(empty_url: str) -> None:
    applied = await asyncio.gather(*(migrate(empty_url) for _ in range(8)))
    *others, first = sorted(applied, key=len)
    assert others == [[]] * 7
    assert first[:2] == ["0000_procrastinate_3.10", "0001_initial.sql"]
    assert await migrate(empty_url) == []


async def test_a_database_of_a_newer_version_is_refused(empty_url: str) -> None:
    await migrate(empty_url)
    async with await psycopg.AsyncConnection.connect(empty_url) as conn:
        await conn.execute("insert into migration (name) values ('9999_future.sql')")
    with pytest.raises(StoreUnavailable, match=r"9999_future\.sql"):
        await migrate(empty_url)


async def test_a_migration_that_fails_leaves_nothing(empty_url: str) -> None:
    async with await psycopg.AsyncConnection.connect(empty_url) as conn:
        await conn.execute("create table worker (of_somebody_else int)")
    with pytest.raises(StoreUnavailable, match=r"cannot migrate.*already exists"):
        await migrate(empty_url)
    async with await psycopg.AsyncConnection.connect(empty_url) as conn:
        found = await conn.execute("select to_regclass('task'), to_regclass('migration')")
        assert await found.fetchone() == (None, None)


async def test_no_database_is_named_clearly() -> None:
    with pytest.raises(StoreUnavailable, match="cannot migrate"):
        await migrate("postgresql://127.0.0.1:1/none")
