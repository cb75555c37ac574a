"""Bring a database to the schema that this version needs.

Migrations are the files of `migrations/`, forward only, applied in the order of their names, each
once, all under one advisory lock: any number of processes may start at the same moment.

From 0016 on, the version before a migration goes on working after it, so that both can run side by
side while machines are upgraded one by one. One that cannot be made so begins with `-- breaking:`
and the reason; then every process of an older version must end before it is applied.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from importlib import resources
from typing import Final, LiteralString, cast

import psycopg
import structlog
from procrastinate.schema import SchemaManager
from psycopg.rows import TupleRow

from imageloom.domain.errors import StoreUnavailable
from imageloom.store.roles import make_roles, renew_rights

_log = structlog.get_logger("imageloom.migrate")

STARTING = 60.0  # seconds: a process that starts while its database does need not end
_LOCK = 0x696D_6C6D  # "imlm": any number does, as long as nothing else in the database uses it
BREAKING: Final = "-- breaking:"
FIRST_COMPATIBLE: Final = "0016"


async def migrate(conninfo: str, *, roles: Mapping[str, str] | None = None) -> list[str]:
    """Apply what is missing, in one transaction, and return the names of what was applied.

    Where nothing is missing, nothing is written: a process needs no right to. Where something was
    applied, the roles that are there get the rights of the new tables; with `roles` (passwords by
    role, of those that have a new one) they are made, and get theirs in any case.
    Raises: StoreUnavailable where the database does not answer, holds tables of somebody else's,
    lacks migrations that this role may not apply, or was migrated by a newer version in a way that
    this one does not know to be compatible.
    """
    try:
        async with await _connected(conninfo) as conn:
            if roles is None and await _missing(conn) == []:
                return []
            await conn.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            await conn.execute(
                "create table if not exists migration ("
                " name text primary key, applied_at timestamptz not null default now())"
            )
            await conn.execute(
                "alter table migration add column if not exists"
                " compatible boolean not null default false"  # with the version before
            )
            applied = await _missing(conn)
            for name in applied:
                text = _migrations()[name]
                await conn.execute(text)
                await conn.execute(
                    "insert into migration (name, compatible) values (%s, %s)",
                    (name, is_compatible(name, text)),
                )
            if roles is not None:
                await make_roles(conn, roles)
            if roles is not None or applied:
                await renew_rights(conn)
            return applied
    except psycopg.errors.InsufficientPrivilege as exc:
        raise StoreUnavailable(
            "the database is not at the schema of this version, and this role may not change that; "
            f"run `imageloom migrate` as the owner of the tables ({str(exc).strip()})"
        ) from exc
    except psycopg.Error as exc:
        raise StoreUnavailable(f"cannot migrate the database: {exc}") from exc


def is_compatible(name: str, text: str) -> bool:
    """Whether the version before a migration goes on working once it is applied."""
    return name >= FIRST_COMPATIBLE and not text.startswith(BREAKING)


async def _missing(conn: psycopg.AsyncConnection[tuple[object, ...]]) -> list[str]:
    """Return the names of what is not applied, in order. Raises: StoreUnavailable, as `migrate`."""
    known = _migrations()
    there = await (await conn.execute("select to_regclass('migration') is not null")).fetchone()
    if there == (False,):
        return list(known)
    # The column came with 0016.
    rows = await conn.execute(
        "select name, coalesce((to_jsonb(migration) ->> 'compatible')::boolean, false)"
        " from migration order by name"
    )
    done = {str(name): bool(compatible) for name, compatible in await rows.fetchall()}
    unknown = [name for name in done if name not in known]
    if breaking := [name for name in unknown if not done[name]]:
        raise StoreUnavailable(
            f"the database has migrations that this version does not know "
            f"({', '.join(breaking)}); install the version that applied them"
        )
    if unknown:
        _log.warning("database_is_newer", migrations=unknown)
    return [name for name in known if name not in done]


async def _connected(conninfo: str) -> psycopg.AsyncConnection[TupleRow]:
    """Return a connection; of a server that says that it starts or ends, once it has started."""
    until = time.monotonic() + STARTING
    while True:
        try:
            return await psycopg.AsyncConnection.connect(conninfo, connect_timeout=10)
        except psycopg.OperationalError as exc:
            if "the database system is" not in str(exc) or time.monotonic() > until:
                raise
        await asyncio.sleep(0.2)


def _migrations() -> dict[str, LiteralString]:
    """The text of each migration by name, in order; the queue's schema comes first."""
    folder = resources.files("imageloom.store") / "migrations"
    texts = {
        path.name: path.read_text("utf-8")
        for path in sorted(folder.iterdir(), key=lambda path: path.name)
        if path.name.endswith(".sql")
    }
    # The cast says what a type cannot: these texts ship with the package, no user wrote them.
    return cast(
        "dict[str, LiteralString]", {"0000_procrastinate_3.10": SchemaManager.get_schema(), **texts}
    )
