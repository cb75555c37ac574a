"""Read request bodies: JSON that is really JSON."""

from __future__ import annotations

import re
from typing import Any

import msgspec
from fastapi import Request

from imageloom.core.idempotency import Idempotency, hash_body
from imageloom.domain.errors import InvalidParams, UnsupportedMediaType

_KEY_LIMIT = 255  # characters of an Idempotency-Key
_SHOWN = 60  # characters of a wrong value that an error repeats
# What no body needs: whatever walks one afterwards, to hash or to show it, has room on the stack.
_DEEPEST = 64
_NUL = re.compile(rb"(?<!\\)(\\\\)*\\u0000")  # behind an even number of backslashes it is escaped


async def read_json_object(request: Request) -> dict[str, Any]:
    """Return the body as a JSON object.

    Raises: UnsupportedMediaType; InvalidParams where it is no JSON, no object or nests too deep.
    """
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise UnsupportedMediaType(
            f"send JSON with `Content-Type: application/json`, not {content_type[:_SHOWN]!r}"
        )
    raw = await request.body()
    try:
        # msgspec, because the standard library takes NaN and Infinity for JSON.
        body = msgspec.json.decode(raw)
    except RecursionError:
        raise InvalidParams("the body nests too deep") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise InvalidParams(f"the body is not JSON: {exc}") from exc
    if _NUL.search(raw):
        raise InvalidParams("the body contains the character U+0000, which text may not hold")
    if not isinstance(body, dict):
        raise InvalidParams("the body must be a JSON object")
    if _nests_deeper(body, _DEEPEST):
        raise InvalidParams(f"the body nests too deep; {_DEEPEST} levels are allowed")
    return body


def _nests_deeper(body: dict[str, Any], levels: int) -> bool:
    """Whether containers lie in one another more than so many levels deep; level by level."""
    level: list[Any] = [body]
    for _ in range(levels):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, dict | list)
        ]
        if not level:
            return False
    return True


async def read_optional_object(request: Request) -> dict[str, Any]:
    """Return the body as a JSON object, an empty one where there is no body. Raises: as above."""
    return await read_json_object(request) if await request.body() else {}


def refuse_query(request: Request, *known: str) -> None:
    """Make sure that the query has only `known` parameters. Raises: InvalidParams.

    One that is ignored may have been meant to keep something from being created.
    """
    for name in request.query_params:
        if name not in known:
            shown = name[:_SHOWN]
            raise InvalidParams(f"{shown}: there is no such query parameter", param=shown)


def idempotency_use(request: Request, *, route: str, body: dict[str, Any]) -> Idempotency | None:
    """Return the caller's promise about this request, None without one. Raises: InvalidParams."""
    key = idempotency_key(request)
    return None if key is None else Idempotency(route=route, key=key, body_hash=hash_body(body))


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key, None without one. Raises: InvalidParams."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= _KEY_LIMIT:
        raise InvalidParams(
            f"Idempotency-Key: {len(key)} characters; use 1 to {_KEY_LIMIT}",
            param="Idempotency-Key",
        )
    return key
