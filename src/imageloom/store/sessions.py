"""Every query about sessions of browsers. The store sees hashes only."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from imageloom.store.keys import ApiKey
from imageloom.store.pool import Connection, one


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """The key that somebody is signed in with, and until when."""

    key: ApiKey
    expires_at: datetime


async def insert(
    conn: Connection, *, session_hash: bytes, key_id: str, life: timedelta
) -> datetime:
    """Add a session and return when it ends."""
    row = await conn.execute(
        "insert into session (hash, key_id, expires_at) values (%s, %s, now() + %s)"
        " returning expires_at",
        (session_hash, key_id, life),
    )
    ends: datetime = one(await row.fetchone())["expires_at"]
    return ends


async def find_live(conn: Connection, session_hash: bytes) -> Session | None:
    """Return the session unless it is over or its key revoked. Uses the primary keys."""
    row = await conn.execute(
        "select k.id, k.tenant, k.scopes, k.created_at, k.revoked_at, s.expires_at"
        " from session s join api_key k on k.id = s.key_id"
        " where s.hash = %s and s.expires_at > now() and k.revoked_at is null",
        (session_hash,),
    )
    found = await row.fetchone()
    if found is None:
        return None
    expires_at = found.pop("expires_at")
    key = ApiKey(**{**found, "scopes": tuple(found["scopes"])})
    return Session(key=key, expires_at=expires_at)


async def delete(conn: Connection, session_hash: bytes) -> None:
    """End a session; one that is not there is no fault."""
    await conn.execute("delete from session where hash = %s", (session_hash,))


async def delete_old(conn: Connection) -> None:
    """Forget sessions that are over. Uses session_age."""
    await conn.execute("delete from session where expires_at < now()")
