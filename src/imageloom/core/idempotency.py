"""Idempotency keys: requests with the same key and body are one request, for 24 hours."""

from __future__ import annotations

import hashlib
from typing import Any

import msgspec

from imageloom.domain.errors import IdempotencyMismatch
from imageloom.store import idempotency
from imageloom.store.idempotency import Earlier, Idempotency
from imageloom.store.pool import Connection

__all__ = ["Idempotency", "check_use", "earlier_use", "hash_body", "remember_use"]


def hash_body(body: Any) -> bytes:
    """Return what a JSON body comes down to, in whatever order its keys came."""
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).digest()


async def earlier_use(conn: Connection, tenant: str, use: Idempotency) -> str | None:
    """Return the id of what the key made before; others with the key wait until `conn` commits.

    Raises: IdempotencyMismatch where the key came with another body.
    """
    found = await idempotency.find(conn, tenant=tenant, uses=[use])
    earlier = found.get((use.route, use.key))
    if earlier is None:
        return None
    check_use(use, earlier)
    return earlier.resource_id


def check_use(use: Idempotency, earlier: Earlier) -> None:
    """Make sure that a key came with the same body as before. Raises: IdempotencyMismatch."""
    if earlier.body_hash != use.body_hash:
        raise IdempotencyMismatch(
            "this Idempotency-Key was used with another body; send a new key for a new request",
            param="Idempotency-Key",
        )


async def remember_use(conn: Connection, tenant: str, use: Idempotency, resource_id: str) -> None:
    """Note what the key made, in the transaction that makes it."""
    await idempotency.remember(conn, tenant=tenant, made=[(use, resource_id)])
