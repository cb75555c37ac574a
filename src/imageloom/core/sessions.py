"""Sessions of browsers: a key is sent once, and what comes back works until the evening."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from imageloom.core.keys import authenticate, hash_key
from imageloom.domain.errors import Unauthorized
from imageloom.store import sessions
from imageloom.store.pool import Pool, transaction
from imageloom.store.sessions import Session

LIFE: Final = timedelta(hours=12)  # a working day: a browser left open is signed out by the next


@dataclass(frozen=True, slots=True, kw_only=True)
class NewSession:
    """A session just begun; the only time that the text of its cookie is seen."""

    token: str
    session: Session


async def sign_in(pool: Pool, key: str) -> NewSession:
    """Begin a session that may do what the key may. Raises: Unauthorized."""
    found = await authenticate(pool, key)
    token = secrets.token_urlsafe(32)
    async with transaction(pool) as conn:
        ends = await sessions.insert(conn, session_hash=hash_key(token), key_id=found.id, life=LIFE)
    return NewSession(token=token, session=Session(key=found, expires_at=ends))


async def find_session(pool: Pool, token: str) -> Session:
    """Return who is signed in. Raises: Unauthorized, the same whatever ended the session."""
    async with transaction(pool) as conn:
        found = await sessions.find_live(conn, hash_key(token))
    if found is None:
        raise Unauthorized("the session is over; sign in again")
    return found


async def sign_out(pool: Pool, token: str) -> None:
    """End a session from the next request on; one that is over already is no fault."""
    async with transaction(pool) as conn:
        await sessions.delete(conn, hash_key(token))
