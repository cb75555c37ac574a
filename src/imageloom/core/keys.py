"""API keys: made once, shown once, stored as hashes."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from dataclasses import dataclass

from imageloom.core.idempotency import Idempotency, earlier_use, remember_use
from imageloom.domain.errors import Conflict, InvalidParams, NotFound, NotPermitted, Unauthorized
from imageloom.domain.ids import new_id
from imageloom.store import keys
from imageloom.store.keys import ApiKey
from imageloom.store.pool import Connection, Pool, statements, transaction

# What a tenant needs for its own, and `monitor`, which sees the whole installation.
TENANT_SCOPES = ("read", "write", "admin")
SCOPES = (*TENANT_SCOPES, "monitor")
DEFAULT_TENANT = "default"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewKey:
    """A key just made; the only time that its text is seen."""

    id: str
    tenant: str
    scopes: tuple[str, ...]
    key: str


async def create_key(pool: Pool, *, tenant: str, scopes: tuple[str, ...] = TENANT_SCOPES) -> NewKey:
    """Make a key for a tenant, who exists from then on.

    Raises: InvalidParams where the tenant's name or a scope is not allowed.
    """
    if not _TENANT.fullmatch(tenant):
        raise InvalidParams(
            "tenant: 1 to 64 letters, digits, dots, dashes and underscores, the first a letter or "
            f"digit; found {tenant[:80]!r}",
            param="tenant",
        )
    if unknown := set(scopes) - set(SCOPES):
        raise InvalidParams(
            f"scopes: {', '.join(sorted(unknown))} is not one of {', '.join(SCOPES)}",
            param="scopes",
        )
    made = NewKey(id=_key_id(), tenant=tenant, scopes=scopes, key=f"il_{secrets.token_urlsafe(32)}")
    async with transaction(pool) as conn:
        await keys.insert(
            conn, key_id=made.id, tenant=tenant, key_hash=hash_key(made.key), scopes=scopes
        )
    return made


async def ensure_first_key(pool: Pool, *, given: str | None) -> NewKey | None:
    """Make sure that the default tenant can get in; return the key only where one was made up.

    A `given` key (IMAGELOOM_API_KEY) is added where it is not known yet; without one, a database
    without any key gets its first. Several processes may do this at once.
    """
    async with transaction(pool) as conn:
        number = await keys.count(conn)
        if given is None and number > 0:
            return None
        text = given or f"il_{secrets.token_urlsafe(32)}"
        made = NewKey(id=_key_id(), tenant=DEFAULT_TENANT, scopes=SCOPES, key=text)
        await keys.insert(
            conn, key_id=made.id, tenant=made.tenant, key_hash=hash_key(text), scopes=made.scopes
        )
        return None if given else made


async def authenticate(pool: Pool, key: str) -> ApiKey:
    """Return whose key it is. Raises: Unauthorized, the same for an unknown and a revoked one."""
    async with statements(pool) as conn:
        found = await keys.find_live(conn, hash_key(key))
    if found is None:
        raise Unauthorized("the API key is not valid; send `Authorization: Bearer KEY`")
    return found


async def list_keys(pool: Pool) -> list[ApiKey]:
    """Return all keys, revoked ones too, oldest first."""
    async with transaction(pool) as conn:
        return await keys.list_all(conn)


async def revoke_key(pool: Pool, key_id: str) -> None:
    """Revoke a key from the next request on. Raises: NotFound."""
    async with transaction(pool) as conn:
        if not await keys.revoke(conn, key_id):
            raise NotFound(f"there is no key {key_id}; `imageloom keys list` shows them")


async def list_keys_of(
    pool: Pool, tenant: str, *, page: int, page_size: int
) -> tuple[list[ApiKey], int]:
    """Return one page of a tenant's keys, the newest first, and how many there are."""
    async with transaction(pool) as conn:
        return await keys.list_page(conn, tenant, limit=page_size, offset=(page - 1) * page_size)


async def grant_key(
    pool: Pool,
    *,
    by: ApiKey,
    scopes: tuple[str, ...],
    idempotency_use: Idempotency | None = None,
) -> tuple[ApiKey, str | None]:
    """Make a key for the tenant of another, and return it with its text.

    The text is not stored, so what the idempotency key made before comes back without it: whoever
    lost the first answer revokes that key and makes one more.
    Raises: NotPermitted where it would have a scope that `by` lacks; IdempotencyMismatch.
    """
    if missing := [scope for scope in scopes if scope not in by.scopes]:
        raise NotPermitted(
            f"scopes: your key has {', '.join(by.scopes)} and cannot give {', '.join(missing)}",
            param="scopes",
        )
    key_id, text = _key_id(), f"il_{secrets.token_urlsafe(32)}"
    async with transaction(pool) as conn:
        if idempotency_use is not None:
            earlier = await earlier_use(conn, by.tenant, idempotency_use)
            if earlier is not None:
                return await _of_tenant(conn, by.tenant, earlier), None
        await keys.insert(
            conn,
            key_id=key_id,
            tenant=by.tenant,
            key_hash=hash_key(text),
            scopes=tuple(scope for scope in SCOPES if scope in scopes),
        )
        if idempotency_use is not None:
            await remember_use(conn, by.tenant, idempotency_use, key_id)
        return await _of_tenant(conn, by.tenant, key_id), text


async def revoke_key_of(pool: Pool, tenant: str, key_id: str) -> ApiKey:
    """Revoke a key of a tenant, and with it its sessions, and return it.

    Raises: NotFound, also for another tenant's; Conflict where it is the last that may make another
    one: only the machine's own command line could then let the tenant's administrator in.
    """
    async with transaction(pool) as conn:
        live = await keys.lock_live(conn, tenant)
        admins = [key.id for key in live if "admin" in key.scopes]
        if admins == [key_id]:
            raise Conflict(
                "this is the last key with the scope admin; make another one first, or use "
                "`imageloom keys revoke` on the server"
            )
        found = await _of_tenant(conn, tenant, key_id)
        await keys.revoke(conn, found.id)
        return await _of_tenant(conn, tenant, key_id)


async def _of_tenant(conn: Connection, tenant: str, key_id: str) -> ApiKey:
    found = await keys.get(conn, key_id, tenant=tenant)
    if found is None:
        raise NotFound(f"there is no key {key_id}")
    return found


def hash_key(key: str) -> bytes:
    """Return what is stored of a key: 256 random bits need no slow hash to be safe."""
    return hashlib.sha256(key.encode()).digest()


def _key_id() -> str:
    return new_id("key", now_ms=time.time_ns() // 1_000_000)
