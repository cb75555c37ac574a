"""What the server's answers about webhooks become, as `_types` does it for tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from imageloom.client._types import JSON, integer, moment


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryAttempt:
    """One try: the `status` that the receiver answered, or what kind of `error` came instead."""

    at: datetime | None
    status: int | None = None
    error: str | None = None
    duration_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """An event and what became of it. `id` is the `webhook-id` of every try.

    `state` is pending, delivered or failed. `attempts` are told of one delivery, not in lists;
    `last_attempt` always.
    """

    id: str
    type: str
    state: str
    resource_id: str
    url: str
    attempt_count: int = 0
    last_attempt: DeliveryAttempt | None = None
    attempts: list[DeliveryAttempt] = field(default_factory=list)
    created_at: datetime | None = None
    next_attempt_at: datetime | None = None
    ended_at: datetime | None = None
    raw: JSON = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A URL that events go to. `disabled_at` says since when it is off, after it answered 410."""

    url: str
    pending: int = 0
    delivered: int = 0
    failed: int = 0
    last_event_at: datetime | None = None
    disabled_at: datetime | None = None
    raw: JSON = field(default_factory=dict, repr=False)


def secret_from(raw: JSON) -> str:
    """Return the secret of an answer."""
    return str(raw["secret"])


def delivery_from(raw: JSON) -> Delivery:
    """Return a delivery from its answer."""
    last = raw.get("last_attempt")
    return Delivery(
        id=str(raw["id"]),
        type=str(raw.get("type") or ""),
        state=str(raw.get("state") or ""),
        resource_id=str(raw.get("resource_id") or ""),
        url=str(raw.get("url") or ""),
        attempt_count=integer(raw.get("attempt_count")) or 0,
        last_attempt=None if last is None else _attempt(last),
        attempts=[_attempt(each) for each in raw.get("attempts") or ()],
        created_at=moment(raw.get("created_at")),
        next_attempt_at=moment(raw.get("next_attempt_at")),
        ended_at=moment(raw.get("ended_at")),
        raw=raw,
    )


def endpoint_from(raw: JSON) -> Endpoint:
    """Return an endpoint from its answer."""
    return Endpoint(
        url=str(raw["url"]),
        pending=integer(raw.get("pending")) or 0,
        delivered=integer(raw.get("delivered")) or 0,
        failed=integer(raw.get("failed")) or 0,
        last_event_at=moment(raw.get("last_event_at")),
        disabled_at=moment(raw.get("disabled_at")),
        raw=raw,
    )


def _attempt(raw: JSON) -> DeliveryAttempt:
    return DeliveryAttempt(
        at=moment(raw.get("at")),
        status=integer(raw.get("status")),
        error=raw.get("error"),
        duration_seconds=raw.get("duration_seconds"),
    )
