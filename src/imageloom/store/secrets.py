"""Secrets that every process of one installation shares."""

from __future__ import annotations

import secrets

from imageloom.store.pool import Connection, one


async def get_or_create(conn: Connection, name: str) -> bytes:
    """Return the named secret, 32 random bytes made on first use. Safe to race."""
    await conn.execute(
        "insert into secret (name, value) values (%s, %s) on conflict (name) do nothing",
        (name, secrets.token_bytes(32)),
    )
    row = await conn.execute("select value from secret where name = %s", (name,))
    return bytes(one(await row.fetchone())["value"])
