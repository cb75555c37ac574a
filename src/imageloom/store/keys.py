"""Every query about API keys. The store sees hashes only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from imageloom.store.pool import Connection, one


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiKey:
    """A key as the store knows it: who it belongs to and what it may do, never the key."""

    id: str
    tenant: str
    scopes: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None


async def insert(
    conn: Connection, *, key_id: str, tenant: str, key_hash: bytes, scopes: tuple[str, ...]
) -> None:
    """Add a key; one whose hash is there already is left as it is."""
    await conn.execute(
        "insert into api_key (id, tenant, hash, scopes) values (%s, %s, %s, %s)"
        " on conflict (hash) do nothing",
        (key_id, tenant, key_hash, list(scopes)),
    )


async def find_live(conn: Connection, key_hash: bytes) -> ApiKey | None:
    """Return the key of that hash unless it is revoked. Uses the unique index on hash."""
    row = await conn.execute(
        "select id, tenant, scopes, created_at, revoked_at from api_key"
        " where hash = %s and revoked_at is null",
        (key_hash,),
    )
    found = await row.fetchone()
    return _key(found) if found else None


async def list_all(conn: Connection) -> list[ApiKey]:
    """Return every key, oldest first, revoked ones too."""
    rows = await conn.execute(
        "select id, tenant, scopes, created_at, revoked_at from api_key order by created_at, id"
    )
    return [_key(row) for row in await rows.fetchall()]


async def list_page(
    conn: Connection, tenant: str, *, limit: int, offset: int
) -> tuple[list[ApiKey], int]:
    """Return one page of a tenant's keys, newest first, and how many there are. Reads them all."""
    total = await conn.execute("select count(*) as n from api_key where tenant = %s", (tenant,))
    rows = await conn.execute(
        "select id, tenant, scopes, created_at, revoked_at from api_key where tenant = %s"
        " order by created_at desc, id desc limit %s offset %s",
        (tenant, limit, offset),
    )
    found = [_key(row) for row in await rows.fetchall()]
    return found, int(one(await total.fetchone())["n"])


async def get(conn: Connection, key_id: str, *, tenant: str) -> ApiKey | None:
    """Return the tenant's key, or None where it has none of that id."""
    row = await conn.execute(
        "select id, tenant, scopes, created_at, revoked_at from api_key"
        " where id = %s and tenant = %s",
        (key_id, tenant),
    )
    found = await row.fetchone()
    return _key(found) if found else None


async def lock_live(conn: Connection, tenant: str) -> list[ApiKey]:
    """Return a tenant's keys that work, and hold them: two cannot revoke one another's."""
    rows = await conn.execute(
        "select id, tenant, scopes, created_at, revoked_at from api_key"
        " where tenant = %s and revoked_at is null order by id for update",
        (tenant,),
    )
    return [_key(row) for row in await rows.fetchall()]


async def count(conn: Connection) -> int:
    """Return how many keys there are; holds off other processes that count until the commit."""
    await conn.execute("lock table api_key in share row exclusive mode")
    row = await conn.execute("select count(*) as n from api_key")
    return int(one(await row.fetchone())["n"])


async def revoke(conn: Connection, key_id: str) -> bool:
    """Revoke a key; False where there is none of that id. Revoking twice is harmless."""
    cursor = await conn.execute(
        "update api_key set revoked_at = coalesce(revoked_at, now()) where id = %s", (key_id,)
    )
    return cursor.rowcount == 1


def _key(row: dict[str, Any]) -> ApiKey:
    return ApiKey(**{**row, "scopes": tuple(row["scopes"])})
