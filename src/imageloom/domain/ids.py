"""Identifiers: opaque, unguessable, URL-safe and sortable by the time they were made."""

from __future__ import annotations

import secrets

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i, l, o, u to misread
_TIME_CHARS = 10  # 50 bits of milliseconds: good until the year 37,000
_RANDOM_BITS = 130  # 26 characters; guessing one of a billion live ids takes over 2^99 tries


def new_id(prefix: str, *, now_ms: int) -> str:
    """Return `prefix_` and 36 characters: ten of time, then 26 of randomness.

    Ids made in different milliseconds sort by time; `now_ms` is milliseconds since 1970.
    """
    return f"{prefix}_{_encode(now_ms, _TIME_CHARS)}{_encode(secrets.randbits(_RANDOM_BITS), 26)}"


def _encode(number: int, length: int) -> str:
    chars = []
    for _ in range(length):
        number, digit = divmod(number, 32)
        chars.append(_ALPHABET[digit])
    return "".join(reversed(chars))
