"""Migrations: applied once, whoever comes first, and never over a newer version's."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from conftest import with_database
from imageloom.domain.errors import StoreUnavailable
from imageloom.store.migrate import BREAKING, _migrations, is_compatible, migrate
from imageloom.store.roles import API


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


async def test_a_database_of_a_newer_version_serves_where_that_said_so(empty_url: str) -> None:
    await migrate(empty_url)
    async with await psycopg.AsyncConnection.connect(empty_url) as conn:
        await conn.execute(
            "insert into migration (name, compatible) values ('9999_future.sql', true)"
        )
    assert await migrate(empty_url) == []


async def test_a_role_that_may_not_migrate_is_told_who_may(empty_url: str) -> None:
    await migrate(empty_url, roles={API: "secret"})
    before, _, after = empty_url.rpartition("@")
    as_api = f"{before.partition('://')[0]}://imageloom_api:secret@{after}"
    assert await migrate(as_api) == []
    async with await psycopg.AsyncConnection.connect(empty_url) as conn:
        await conn.execute("delete from migration where name = '0016_able_workers.sql'")
    with pytest.raises(StoreUnavailable, match="run `imageloom migrate` as the owner"):
        await migrate(as_api)


# What a process of the version before would trip over.
BREAKS = re.compile(
    r"\b(drop (table|column|function|type)|rename|alter column \S+ (set data )?type|set not null"
    r"|add column (if not exists )?\w+ [^,;]*\bnot null(?![^,;]*\bdefault\b))",
    re.IGNORECASE,
)


def test_a_migration_leaves_the_version_before_able_to_work_or_says_that_it_does_not() -> None:
    for name, text in _migrations().items():
        statements = re.sub(r"--[^\n]*", "", text)
        found = BREAKS.search(statements)
        assert not (found and is_compatible(name, text)), (
            f"{name}: {found and found[0]!r} breaks processes of the version before; do it in a "
            f"later version, or begin the file with `{BREAKING} WHY`"
        )


@pytest.mark.parametrize(
    ("statement", "breaks"),
    [
        ("alter table task drop column error;", True),
        ("alter table task rename column error to fault;", True),
        ("alter table task alter column error type integer;", True),
        ("alter table task add column a text not null;", True),
        ("alter table task add column a text not null default '', add column b text;", False),
        ("alter table task add column a integer, add column b text not null;", True),
        ("create table fresh (id text not null);", False),
        ("drop index task_live;", False),
    ],
)
def test_what_breaks_the_version_before_is_seen(statement: str, breaks: bool) -> None:
    assert bool(BREAKS.search(statement)) is breaks


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


async def test_a_database_that_starts_is_waited_for() -> None:
    async with starting_server() as (url, asked):
        migrating = asyncio.create_task(migrate(url))
        await asked.wait()
        # It has been told twice that the server starts, and asks on.
        assert not migrating.done()
        migrating.cancel()
        await asyncio.gather(migrating, return_exceptions=True)


@asynccontextmanager
async def starting_server() -> AsyncIterator[tuple[str, asyncio.Event]]:
    """A server that answers as PostgreSQL does while it starts; set when it was asked twice."""
    asked = asyncio.Event()
    fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0"
    times = 0

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal times
        await reader.read(1024)
        writer.write(b"E" + (len(fields) + 4).to_bytes(4, "big") + fields)
        writer.close()
        times += 1
        if times == 2:
            asked.set()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    yield f"postgresql://u:p@127.0.0.1:{port}/d?sslmode=disable&gssencmode=disable", asked
    server.close()
