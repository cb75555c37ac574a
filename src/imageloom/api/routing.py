"""Small helpers that routes are declared with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from imageloom.api.shapes import ErrorView

F = TypeVar("F", bound=Callable[..., Any])

_MEANING = {
    401: "No key, or one that is wrong or revoked",
    403: "The key's scopes do not allow this",
    404: "Not found, or another tenant's",
    409: "The task's state does not allow this",
    410: "Deleted or expired",
    413: "The body is too large",
    415: "The body has the wrong content type",
    422: "Invalid; `param` names the field",
    429: "Too many; see Retry-After",
    503: "The database or the storage is away; see Retry-After",
}
IDEMPOTENCY_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same key and body within 24 hours answer with what the first request made",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}


def both_slashes(
    method: Callable[..., Callable[[F], F]], path: str, **options: Any
) -> Callable[[F], F]:
    """Declare a route with and without its trailing slash; neither redirects to the other."""

    def declare(function: F) -> F:
        hidden = {**options, "include_in_schema": False}
        hidden.pop("operation_id", None)
        method(f"{path}/", **hidden)(function)
        return method(path, **options)(function)

    return declare


def errors_of(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI responses of those error statuses."""
    return {status: {"model": ErrorView, "description": _MEANING[status]} for status in statuses}


def json_body(
    schema: Mapping[str, Any],
    *,
    example: Mapping[str, Any],
    parameters: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Return what OpenAPI says of a route that reads its JSON itself and creates something.

    `parameters` are those that it takes beside the idempotency key.
    """
    content = {"application/json": {"schema": inline_refs(schema), "example": dict(example)}}
    return {
        "parameters": [IDEMPOTENCY_KEY, *parameters],
        "requestBody": {"required": True, "content": content},
    }


def inline_refs(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON schema with its local definitions in place: OpenAPI has no `$defs` there."""
    definitions = schema.get("$defs", {})

    def resolve(node: Any) -> Any:
        if isinstance(node, dict):
            if (ref := node.get("$ref")) is not None:
                return resolve(definitions[ref.rpartition("/")[2]])
            return {key: resolve(value) for key, value in node.items() if key != "$defs"}
        if isinstance(node, list):
            return [resolve(item) for item in node]
        return node

    resolved = resolve(dict(schema))
    if not isinstance(resolved, dict):
        raise TypeError("a schema resolves to an object")
    return resolved
