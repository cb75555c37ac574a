"""Every query about uploaded files."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from imageloom.store.pool import Connection, one


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """An uploaded input; `key` names its bytes in storage."""

    id: str
    tenant: str
    key: str
    media_type: str
    size: int
    sha256: str
    created_at: datetime
    expires_at: datetime


async def insert(
    conn: Connection,
    *,
    file_id: str,
    tenant: str,
    key: str,
    media_type: str,
    size: int,
    sha256: str,
    life: timedelta,
) -> File:
    """Add a file whose bytes are in storage already."""
    row = await conn.execute(
        "insert into file (id, tenant, key, media_type, size, sha256, expires_at)"
        " values (%s, %s, %s, %s, %s, %s, now() + %s) returning *",
        (file_id, tenant, key, media_type, size, sha256, life),
    )
    return File(**one(await row.fetchone()))


async def get_live(conn: Connection, file_id: str) -> File | None:
    """Return the file unless it has expired; the caller checks whose it is."""
    row = await conn.execute("select * from file where id = %s and expires_at > now()", (file_id,))
    found = await row.fetchone()
    return File(**found) if found else None


async def delete_expired(conn: Connection) -> list[str]:
    """Forget up to 100 expired files and return their storage keys. Uses file_age."""
    rows = await conn.execute(
        "delete from file where id in (select id from file where expires_at <= now() limit 100"
        " for update skip locked) returning key"
    )
    return [row["key"] for row in await rows.fetchall()]
