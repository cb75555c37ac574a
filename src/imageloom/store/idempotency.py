"""Every query about idempotency keys: which request made what."""

from __future__ import annotations

from dataclasses import dataclass

from imageloom.store.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What an idempotency key was used for before."""

    resource_id: str
    body_hash: bytes


async def find(conn: Connection, *, tenant: str, route: str, key: str) -> Earlier | None:
    """Return the earlier use of the key; requests with one key wait for one another.

    The lock is the transaction's: a second request with the key goes on only after the first has
    committed or rolled back.
    """
    await conn.execute(
        "select pg_advisory_xact_lock(hashtextextended(%s, 0))", (f"{tenant}\n{route}\n{key}",)
    )
    row = await conn.execute(
        "select resource_id, body_hash from idempotency"
        " where tenant = %s and route = %s and key = %s"
        " and created_at > now() - interval '24 hours'",
        (tenant, route, key),
    )
    found = await row.fetchone()
    return Earlier(**found) if found else None


async def remember(
    conn: Connection, *, tenant: str, route: str, key: str, body_hash: bytes, resource_id: str
) -> None:
    """Note what the key made; replaces a use of more than a day ago."""
    await conn.execute(
        "insert into idempotency (tenant, route, key, body_hash, resource_id)"
        " values (%s, %s, %s, %s, %s)"
        " on conflict (tenant, route, key) do update set body_hash = excluded.body_hash,"
        " resource_id = excluded.resource_id, created_at = now()",
        (tenant, route, key, body_hash, resource_id),
    )


async def delete_old(conn: Connection) -> None:
    """Forget keys of more than a day ago. Uses idempotency_age."""
    await conn.execute("delete from idempotency where created_at < now() - interval '24 hours'")
