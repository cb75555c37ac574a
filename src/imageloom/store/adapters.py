"""Every query about adapters."""

from __future__ import annotations

from typing import Any

from psycopg import sql
from psycopg.types.json import Jsonb

from imageloom.domain.adapters import Adapter
from imageloom.domain.tasks import AdapterFile
from imageloom.store.pool import Connection, one

_COLUMNS = sql.SQL(
    "tenant, name, version, base_model, key, sha256, size, rank, trigger_word, task_id, lineage,"
    " created_at, retired_at"
)


async def lock_names(conn: Connection, tenant: str) -> None:
    """Make other transactions that name adapters of the tenant wait for this one."""
    await conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 1))", (tenant,))


async def is_taken(conn: Connection, *, tenant: str, name: str) -> bool:
    """Whether the tenant has an adapter of that name, or a training that will make one."""
    row = await conn.execute(
        "select 1 from adapter where tenant = %(tenant)s and name = %(name)s"
        " and retired_at is null union all select 1 from task where tenant = %(tenant)s"
        " and type = 'training' and status in ('pending', 'running')"
        " and params ->> 'output_name' = %(name)s limit 1",
        {"tenant": tenant, "name": name},
    )
    return await row.fetchone() is not None


async def insert(
    conn: Connection,
    *,
    tenant: str,
    name: str,
    base_model: str,
    file: AdapterFile,
    rank: int,
    trigger_word: str | None,
    task_id: str,
    lineage: dict[str, Any],
) -> Adapter:
    """Add the next version of an adapter and return it."""
    query = sql.SQL(
        "insert into adapter (tenant, name, version, base_model, key, sha256, size, rank,"
        " trigger_word, task_id, lineage) select %(tenant)s, %(name)s,"
        " coalesce(max(version), 0) + 1, %(base_model)s, %(key)s, %(sha256)s, %(size)s, %(rank)s,"
        " %(trigger_word)s, %(task_id)s, %(lineage)s from adapter"
        " where tenant = %(tenant)s and name = %(name)s returning {columns}"
    )
    row = await conn.execute(
        query.format(columns=_COLUMNS),
        {
            "tenant": tenant,
            "name": name,
            "base_model": base_model,
            "key": file.key,
            "sha256": file.sha256,
            "size": file.size,
            "rank": rank,
            "trigger_word": trigger_word,
            "task_id": task_id,
            "lineage": Jsonb(lineage),
        },
    )
    return Adapter(**one(await row.fetchone()))


async def list_newest(conn: Connection, *, tenant: str) -> list[Adapter]:
    """Return the newest version of each of the tenant's adapters, by name."""
    query = sql.SQL(
        "select distinct on (name) {columns} from adapter"
        " where tenant = %s and retired_at is null order by name, version desc"
    )
    rows = await conn.execute(query.format(columns=_COLUMNS), (tenant,))
    return [Adapter(**row) for row in await rows.fetchall()]


async def get(conn: Connection, *, tenant: str, name: str, version: int) -> Adapter | None:
    """Return that version, retired or not. Uses the primary key."""
    query = sql.SQL(
        "select {columns} from adapter where tenant = %s and name = %s and version = %s"
    )
    row = await conn.execute(query.format(columns=_COLUMNS), (tenant, name, version))
    found = await row.fetchone()
    return Adapter(**found) if found else None


async def of_task(conn: Connection, task_id: str) -> Adapter | None:
    """Return what a training published."""
    query = sql.SQL("select {columns} from adapter where task_id = %s")
    row = await conn.execute(query.format(columns=_COLUMNS), (task_id,))
    found = await row.fetchone()
    return Adapter(**found) if found else None


async def retire(conn: Connection, *, tenant: str, name: str) -> int:
    """Take every version of an adapter out of use and return how many there were."""
    cursor = await conn.execute(
        "update adapter set retired_at = now()"
        " where tenant = %s and name = %s and retired_at is null",
        (tenant, name),
    )
    return cursor.rowcount
