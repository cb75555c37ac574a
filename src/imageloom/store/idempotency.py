"""Every query about idempotency keys: which request made what."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from imageloom.store.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """What an idempotency key was used for before."""

    resource_id: str
    body_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Idempotency:
    """A caller's promise about a request; `body_hash` is what its body comes down to."""

    route: str
    key: str
    body_hash: bytes


async def find(
    conn: Connection, *, tenant: str, uses: Sequence[Idempotency]
) -> dict[tuple[str, str], Earlier]:
    """Return the earlier uses of keys of a tenant, by route and key; who has one waits for others.

    The locks are the transaction's: a second request with a key goes on only after the first has
    committed or rolled back. Two who ask for some of the same keys lock them in the same order.
    """
    names = sorted({(use.route, use.key) for use in uses})
    await conn.execute(
        "select pg_advisory_xact_lock(hashtextextended(name, 0)) from unnest(%s::text[]) as name",
        ([f"{tenant}\n{route}\n{key}" for route, key in names],),
    )
    rows = await conn.execute(
        "select idempotency.route, idempotency.key, resource_id, body_hash"
        " from unnest(%s::text[], %s::text[]) as wanted (route, key) join idempotency"
        " on tenant = %s and idempotency.route = wanted.route and idempotency.key = wanted.key"
        " where created_at > now() - interval '24 hours'",
        ([route for route, _ in names], [key for _, key in names], tenant),
    )
    return {
        (row["route"], row["key"]): Earlier(
            resource_id=row["resource_id"], body_hash=row["body_hash"]
        )
        for row in await rows.fetchall()
    }


async def remember(
    conn: Connection, *, tenant: str, made: Sequence[tuple[Idempotency, str]]
) -> None:
    """Note what keys made; replaces uses of more than a day ago. One statement."""
    await conn.execute(
        "insert into idempotency (tenant, route, key, body_hash, resource_id)"
        " select %s, * from unnest(%s::text[], %s::text[], %s::bytea[], %s::text[])"
        " on conflict (tenant, route, key) do update set body_hash = excluded.body_hash,"
        " resource_id = excluded.resource_id, created_at = now()",
        (
            tenant,
            [use.route for use, _ in made],
            [use.key for use, _ in made],
            [use.body_hash for use, _ in made],
            [resource_id for _, resource_id in made],
        ),
    )


async def delete_old(conn: Connection) -> None:
    """Forget keys of more than a day ago. Uses idempotency_age."""
    await conn.execute("delete from idempotency where created_at < now() - interval '24 hours'")
