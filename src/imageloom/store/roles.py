"""What the roles of an API process and of a worker may do with the database, and nothing else.

The owner of the tables migrates. `imageloom_api` serves requests and sends webhooks;
`imageloom_worker` runs tasks, and where one is taken over it has no key, no session and no secret
to give away. A table that is not named here may be touched by neither: a test asks for the name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, LiteralString

import psycopg
from psycopg import sql

API: Final = "imageloom_api"
WORKER: Final = "imageloom_worker"

_READ: Final = "select"
_ALL: Final = "select, insert, update, delete"
_NONE: Final = ""

# Of each table: what an API process may, what a worker may.
RIGHTS: Final[dict[str, tuple[LiteralString, LiteralString]]] = {
    "migration": (_READ, _READ),
    # What opens doors. Workers sweep sessions that are over, and see no more of them than when.
    "api_key": (_ALL, _NONE),
    "session": (_ALL, "delete, select (expires_at)"),
    "secret": ("select, insert", _NONE),
    "webhook_secret": (_ALL, _NONE),
    # What users asked for, and what became of it. Workers do not accept requests, but a step of a
    # workflow that ends makes the tasks of the next.
    "task": (_ALL, _ALL),
    "attempt": (_ALL, _ALL),
    "event": (_ALL, _ALL),
    "forecast": (_ALL, _ALL),
    "loss": (_ALL, _ALL),
    "run": (_ALL, "select, update, delete"),
    "step": (_ALL, "select, update, delete"),
    "workflow": (_ALL, "select, update, delete"),
    "adapter": (_ALL, "select, insert, update"),
    "model": (_ALL, _READ),
    "file": (_ALL, "select, update, delete"),
    "idempotency": (_ALL, "delete, select (created_at)"),
    "webhook_event": (_ALL, _ALL),
    "webhook_endpoint": (_ALL, _READ),
    # Who works, and the queue.
    "worker": ("select, delete", _ALL),
    "worker_metrics": ("select, delete", _ALL),
    "procrastinate_jobs": (_ALL, _ALL),
    "procrastinate_events": ("select, insert", "select, insert"),
    "procrastinate_workers": (_ALL, _ALL),
    # Never used, and looked into by a trigger whenever a job is deleted.
    "procrastinate_periodic_defers": ("select, update", "select, update"),
}


async def make_roles(
    conn: psycopg.AsyncConnection[tuple[object, ...]], passwords: Mapping[str, str]
) -> None:
    """Make the two roles where they are not there, and set the passwords that are given.

    Without one a role cannot log in by password. Roles belong to the whole server, and whoever
    makes them needs the right to. The server gets digests: a log of statements has no password.
    """
    for role in (API, WORKER):
        who = sql.Identifier(role)
        found = await conn.execute("select from pg_roles where rolname = %s", (role,))
        if await found.fetchone() is None:
            await conn.execute(sql.SQL("create role {} login").format(who))
        if role in passwords:
            digest = conn.pgconn.encrypt_password(
                passwords[role].encode(), role.encode(), b"scram-sha-256"
            )
            await conn.execute(
                sql.SQL("alter role {} password {}").format(who, sql.Literal(digest.decode()))
            )


async def renew_rights(conn: psycopg.AsyncConnection[tuple[object, ...]]) -> None:
    """Give those of the roles that are there what is named here, in place of what they had."""
    rows = await conn.execute("select tablename from pg_tables where schemaname = current_schema()")
    tables = {str(row[0]) for row in await rows.fetchall()}
    for index, role in enumerate((API, WORKER)):
        found = await conn.execute("select from pg_roles where rolname = %s", (role,))
        if await found.fetchone() is None:
            continue
        who = sql.Identifier(role)
        schema = await _schema(conn)
        for statement in (
            "revoke all on all tables in schema {schema} from {role}",
            "grant usage on schema {schema} to {role}",
            "grant usage on all sequences in schema {schema} to {role}",
        ):
            await conn.execute(sql.SQL(statement).format(schema=schema, role=who))
        for table, rights in RIGHTS.items():
            if rights[index] and table in tables:
                await conn.execute(
                    sql.SQL("grant {rights} on {table} to {role}").format(
                        rights=sql.SQL(rights[index]), table=sql.Identifier(table), role=who
                    )
                )


async def _schema(conn: psycopg.AsyncConnection[tuple[object, ...]]) -> sql.Identifier:
    row = await (await conn.execute("select current_schema()")).fetchone()
    return sql.Identifier(str(row[0] if row else "public"))
