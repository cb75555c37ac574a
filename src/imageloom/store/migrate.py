"""Bring a database to the schema that this version needs.

Migrations are the files of `migrations/`, forward only, applied in the order of their names, each
once, all under one advisory lock: any number of processes may start at the same moment.
"""

from __future__ import annotations

from importlib import resources
from typing import LiteralString, cast

import psycopg
from procrastinate.schema import SchemaManager

from imageloom.domain.errors import StoreUnavailable

_LOCK = 0x696D_6C6D  # "imlm": any number does, as long as nothing else in the database uses it


async def migrate(conninfo: str) -> list[str]:
    """Apply what is missing, in one transaction, and return the names of what was applied.

    Raises: StoreUnavailable where the database does not answer, holds tables of somebody else's,
    or was migrated by a newer version.
    """
    try:
        async with await psycopg.AsyncConnection.connect(conninfo, connect_timeout=10) as conn:
            await conn.execute("select pg_advisory_xact_lock(%s)", (_LOCK,))
            await conn.execute(
                "create table if not exists migration ("
                " name text primary key, applied_at timestamptz not null default now())"
            )
            rows = await (await conn.execute("select name from migration")).fetchall()
            done = {str(row[0]) for row in rows}
            known = _migrations()
            if unknown := done - known.keys():
                raise StoreUnavailable(
                    f"the database has migrations that this version does not know "
                    f"({', '.join(sorted(unknown))}); install the version that applied them"
                )
            applied = [name for name in known if name not in done]
            for name in applied:
                await conn.execute(known[name])
                await conn.execute("insert into migration (name) values (%s)", (name,))
            return applied
    except psycopg.Error as exc:
        raise StoreUnavailable(f"cannot migrate the database: {exc}") from exc


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
