"""Read request bodies: JSON that is really JSON, and parameters that are really parameters."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec
from fastapi import Request
from pydantic import BaseModel, ValidationError

from imageloom.domain.errors import InvalidParams, UnsupportedMediaType

M = TypeVar("M", bound=BaseModel)
_KEY_LIMIT = 255  # characters of an Idempotency-Key
_SHOWN = 60  # characters of a wrong value that an error repeats
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
    return body


def parse_params(model: type[M], body: dict[str, Any]) -> M:
    """Return the body as `model`. Raises: InvalidParams, naming the field and what was found."""
    try:
        return model.model_validate(body)
    except ValidationError as exc:
        raise _explain(exc, tuple(model.model_fields)) from exc


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key, None without one. Raises: InvalidParams."""
    key = request.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= _KEY_LIMIT:
        raise InvalidParams(
            f"Idempotency-Key: {len(key)} characters; use 1 to {_KEY_LIMIT}",
            param="Idempotency-Key",
        )
    return key


def _explain(exc: ValidationError, known: Sequence[str]) -> InvalidParams:
    """Turn pydantic's first complaint into one sentence, without echoing the input."""
    first = exc.errors(include_url=False)[0]
    param = ".".join(str(part) for part in first["loc"])[:_SHOWN] or "''"
    match first["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(first["loc"][-1]), known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            return InvalidParams(f"{param}: there is no such field{hint}", param=param)
        case "missing":
            return InvalidParams(f"{param}: is required", param=param)
        case _:
            found = repr(first["input"])
            shown = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}…"
            message = first["msg"][:1].lower() + first["msg"][1:]
            return InvalidParams(f"{param}: {message}; found {shown}", param=param)
