"""API keys: made once, shown once, stored as hashes."""

from __future__ import annotations

import hashlib
import re
import secrets
import time
from dataclasses import dataclass

from imageloom.domain.errors import InvalidParams, NotFound, Unauthorized
from imageloom.domain.ids import new_id
from imageloom.store import keys
from imageloom.store.keys import ApiKey
from imageloom.store.pool import Pool, transaction

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
    async with transaction(pool) as conn:
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


def hash_key(key: str) -> bytes:
    """Return what is stored of a key: 256 random bits need no slow hash to be safe."""
    return hashlib.sha256(key.encode()).digest()


def _key_id() -> str:
    return new_id("key", now_ms=time.time_ns() // 1_000_000)
