"""What goes out: addresses, headers and bodies, as pure functions.

A parameter that is None is left out, so that the server's own default holds.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx

from imageloom.client._types import JSON

BASE_PATH = "/api/v1"
Loras = Mapping[str, float] | Sequence[Mapping[str, Any]]


def normalized_base(base_url: str) -> str:
    """Return the base URL without a trailing slash and ending in `/api/v1`.

    Raises: ValueError when it is not an http or https URL.
    """
    base = base_url.strip().rstrip("/")
    if not base.startswith(("http://", "https://")):
        raise ValueError(f"base URL {base_url!r} must begin with http:// or https://")
    try:
        host = httpx.URL(base).host
    except httpx.InvalidURL as exc:
        raise ValueError(f"base URL {base_url!r} is not a URL: {exc}") from exc
    if not host:
        raise ValueError(f"base URL {base_url!r} names no host")
    return base if base.endswith(BASE_PATH) else base + BASE_PATH


def output_url(url: str, *, base_url: str) -> httpx.URL:
    """Return where an output is; a relative URL is the API server's own.

    Raises: ValueError when it is not an http or https URL.
    """
    try:
        absolute = httpx.URL(base_url).join(url)
    except httpx.InvalidURL as exc:
        raise ValueError(f"output URL {url!r} is not a URL: {exc}") from exc
    if absolute.scheme not in {"http", "https"}:
        raise ValueError(f"output URL {url!r} is neither http nor https")
    return absolute


def headers_for(api_key: str | None, *, agent: str) -> dict[str, str]:
    """Return the headers of every API request.

    Raises: ValueError, without the key in it, when the key cannot stand in a header.
    """
    headers = {"Accept": "application/json", "User-Agent": agent}
    if api_key is None:
        return headers
    if not (api_key.isascii() and api_key.isprintable() and api_key.strip() == api_key != ""):
        raise ValueError("the API key is empty or has characters that no key has")
    return headers | {"Authorization": f"Bearer {api_key}"}


def new_key() -> str:
    """Return an Idempotency-Key that nobody used before."""
    return f"client-{uuid.uuid4().hex}"


def upload_key(key: str) -> str:
    """Return the key of the upload that belongs to the creation under `key`.

    Derived, so that repeating a creation repeats its upload too: the image keeps its URL, and the
    second body equals the first.
    """
    return "upload-" + hashlib.sha256(key.encode()).hexdigest()


def task_path(task_id: str, verb: str = "") -> str:
    """Return the route of a task, or of a training job, which has its own.

    Raises: ValueError when the id would name another route.
    """
    if task_id.strip() in {"", ".", ".."}:
        raise ValueError(f"{task_id!r} is not a task id")
    kind = "training" if task_id.startswith("train_") else "tasks"
    return f"/{kind}/{quote(task_id, safe='')}{verb}"


def retry_path(task_id: str) -> str:
    """Return the route that does a task over; trainings have no other.

    Raises: ValueError when the id would name another route.
    """
    if task_id.strip() in {"", ".", ".."}:
        raise ValueError(f"{task_id!r} is not a task id")
    return f"/tasks/{quote(task_id, safe='')}/retry"


def model_path(name: str) -> str:
    """Return the route of a model or adapter.

    Raises: ValueError when the name would name another route.
    """
    if name.strip() in {"", ".", ".."}:
        raise ValueError(f"{name!r} is not the name of a model")
    return f"/models/{quote(name, safe='')}"


def delivery_path(delivery_id: str, verb: str = "") -> str:
    """Return the route of a webhook delivery.

    Raises: ValueError when the id would name another route.
    """
    if delivery_id.strip() in {"", ".", ".."}:
        raise ValueError(f"{delivery_id!r} is not the id of a delivery")
    return f"/webhooks/deliveries/{quote(delivery_id, safe='')}{verb}"


def workflow_path(workflow_id: str, run_id: str | None = None, verb: str = "") -> str:
    """Return the route of a workflow, or of one of its runs.

    Raises: ValueError when an id would name another route.
    """
    for id_ in (workflow_id,) if run_id is None else (workflow_id, run_id):
        if id_.strip() in {"", ".", ".."}:
            raise ValueError(f"{id_!r} is not the id of a workflow or run")
    run = "" if run_id is None else f"/runs/{quote(run_id, safe='')}"
    return f"/workflows/{quote(workflow_id, safe='')}{run}{verb}"


def workflow_body(
    *,
    name: str,
    steps: Sequence[Mapping[str, Any]],
    description: str | None,
    input: Mapping[str, Any] | None,  # noqa: A002 - the API's own word
    webhook_url: str | None,
    webhook_events: Sequence[str] | None,
) -> JSON:
    """Return the body of `POST /workflows`."""
    return given(
        {
            "name": name,
            "description": description,
            "steps": [dict(step) for step in steps],
            "input": None if input is None else dict(input),
            "webhook_url": webhook_url,
            "webhook_events": None if webhook_events is None else list(webhook_events),
        }
    )


def run_body(
    input: Mapping[str, Any] | None,  # noqa: A002 - the API's own word
    *,
    cache: bool | None,
    **pictures: object,
) -> JSON:
    """Return the body that starts a run; `pictures` join the input.

    Raises: ValueError when the input has one of them already.
    """
    joined = given(pictures)
    for name in joined.keys() & (input or {}).keys():
        raise ValueError(f"{name} is given twice: as an argument and in input")
    whole = None if input is None and not joined else {**(input or {}), **joined}
    return given({"input": whole, "cache": cache})


def resume_body(
    *,
    select: Sequence[int] | None,
    edits: Mapping[str, Mapping[str, Any]] | None,
    step: str | None,
) -> JSON:
    """Return the body that resumes a run."""
    changes = None if edits is None else {name: dict(edit) for name, edit in edits.items()}
    chosen = None if select is None else list(select)
    return given({"select": chosen, "edits": changes, "step": step})


def training_body(
    *,
    dataset_url: str,
    name: str | None,
    base_model: str | None,
    trigger_word: str | None,
    priority: int | None,
    config: Mapping[str, Any],
    webhook_url: str | None = None,
    webhook_events: Sequence[str] | None = None,
) -> JSON:
    """Return the body of `POST /training`, and without a name that of its preflight.

    A None inside `config` is sent, as it has a meaning there.
    """
    trigger = given({"trigger_word": trigger_word})
    body = {"dataset_url": dataset_url, "output_name": name, "base_model": base_model}
    told = {
        "webhook_url": webhook_url,
        "webhook_events": None if webhook_events is None else list(webhook_events),
    }
    return given({**body, "priority": priority, "config": {**config, **trigger} or None, **told})


def generation_body(*, prompt: str, loras: Loras | None, **rest: object) -> JSON:
    """Return the body of `POST /tasks/generation`."""
    adapters: list[Any] | None
    if isinstance(loras, Mapping):
        adapters = [{"name": name, "weight": weight} for name, weight in loras.items()]
    else:
        adapters = None if loras is None else [dict(each) for each in loras]
    return given({"prompt": prompt, **rest, "loras": adapters})


def query(**filters: object) -> dict[str, Any]:
    """Return query parameters; times become RFC 3339 in UTC. A time must be aware."""
    return {
        name: _timestamp(name, value) if isinstance(value, datetime) else value
        for name, value in given(filters).items()
    }


def given(values: Mapping[str, object]) -> JSON:
    """Return the values that are not None."""
    return {name: value for name, value in values.items() if value is not None}


def _timestamp(name: str, value: datetime) -> str:
    if value.tzinfo is None:
        raise ValueError(f"{name} has no time zone; use datetime.now(UTC), for example")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
