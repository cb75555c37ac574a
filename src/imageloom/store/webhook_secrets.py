"""Every query about the secrets that deliveries are signed with: a tenant's own, and its last ones.

A secret that was replaced stays in its row: which one the settings gave last is known by it.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import timedelta

from imageloom.store.pool import Connection

LENGTH = 32  # bytes of a made one
_MOST = 4  # that sign at once, however often a tenant rotates in a day


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """What signs now: the tenant's secret, and those that it replaced a short time ago."""

    current: bytes
    replaced: tuple[bytes, ...]


async def current(
    conn: Connection, tenant: str, *, given: bytes | None, overlap: timedelta
) -> Secrets:
    """Return the tenant's secrets, made on first use; a replaced one signs as long as `overlap`.

    `given` is the one from the settings. It is taken once: where it is not the one that was taken
    last, the tenant's is replaced by it. Safe to race.
    """
    digest = None if given is None else hashlib.sha256(given).hexdigest()
    found = await _find(conn, tenant, overlap=overlap)
    if found is None:
        # Not by `_replace`: of two first users the second must find what the first signed with.
        await _insert(conn, tenant, given or secrets.token_bytes(LENGTH), given=digest)
        found = await _find(conn, tenant, overlap=overlap)
    elif given is not None and await _last_given(conn, tenant) != digest:
        await _replace(conn, tenant, given, given=digest)
        found = await _find(conn, tenant, overlap=overlap)
    if found is None:
        raise RuntimeError(f"the tenant {tenant} has no secret although it was just made")
    return found


async def rotate(conn: Connection, tenant: str) -> None:
    """Replace the tenant's secret. Of two at the same time one is made, which both get."""
    await _replace(conn, tenant, secrets.token_bytes(LENGTH), given=None)


async def _replace(conn: Connection, tenant: str, secret: bytes, *, given: str | None) -> None:
    await conn.execute(
        "update webhook_secret set replaced_at = clock_timestamp()"
        " where tenant = %s and replaced_at is null",
        (tenant,),
    )
    await _insert(conn, tenant, secret, given=given)


async def _insert(conn: Connection, tenant: str, secret: bytes, *, given: str | None) -> None:
    """Add the tenant's secret, unless there is one that was not replaced."""
    await conn.execute(
        "insert into webhook_secret (tenant, secret, given) values (%s, %s, %s)"
        " on conflict (tenant) where replaced_at is null do nothing",
        (tenant, secret, given),
    )


async def _find(conn: Connection, tenant: str, *, overlap: timedelta) -> Secrets | None:
    rows = await conn.execute(
        "select secret from webhook_secret where tenant = %s"
        " and (replaced_at is null or replaced_at > clock_timestamp() - %s)"
        " order by replaced_at desc nulls first limit %s",
        (tenant, overlap, _MOST),
    )
    signing = [row["secret"] for row in await rows.fetchall()]
    return Secrets(current=signing[0], replaced=tuple(signing[1:])) if signing else None


async def _last_given(conn: Connection, tenant: str) -> str | None:
    row = await conn.execute(
        "select given from webhook_secret where tenant = %s and given is not null"
        " order by created_at desc limit 1",
        (tenant,),
    )
    found = await row.fetchone()
    return None if found is None else str(found["given"])
