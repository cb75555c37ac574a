"""Every query about models that the user added to the catalog."""

from __future__ import annotations

import msgspec
from psycopg.types.json import Jsonb

from imageloom.domain.catalog import Model
from imageloom.store.pool import Connection


async def list_added(conn: Connection) -> tuple[Model, ...]:
    """Return the added entries by name."""
    rows = await conn.execute("select entry from model order by name")
    return tuple(msgspec.convert(row["entry"], Model) for row in await rows.fetchall())


async def put(conn: Connection, model: Model) -> None:
    """Add an entry or replace the one of its name."""
    await conn.execute(
        "insert into model (name, entry) values (%s, %s)"
        " on conflict (name) do update set entry = excluded.entry",
        (model.name, Jsonb(msgspec.to_builtins(model))),
    )
