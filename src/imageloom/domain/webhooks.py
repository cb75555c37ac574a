"""Webhooks: what a resource tells of itself, and when a delivery is tried again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

Resource = Literal["task", "training", "workflow"]
LONGEST_URL = 2048  # characters


class Happening(StrEnum):
    """What can be told of a resource; with the resource it is the type of an event."""

    STARTED = "started"
    PROGRESS = "progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    PAUSED = "paused"

    @property
    def final(self) -> bool:
        """Whether the resource, or this run of it, has ended with it."""
        return self in (Happening.COMPLETED, Happening.FAILED, Happening.CANCELLED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """Where a resource tells of itself, and what."""

    url: str
    events: tuple[Happening, ...]


def happenings_of(resource: Resource) -> tuple[Happening, ...]:
    """Return what can be told of a resource of that kind; only a workflow is paused."""
    return tuple(
        each for each in Happening if resource == "workflow" or each is not Happening.PAUSED
    )


def parse_events(names: Sequence[str] | None, *, resource: Resource) -> tuple[Happening, ...]:
    """Return the happenings of names such as `task.completed` or `completed`.

    Without names: how it ended, and of a workflow that it waits.
    Raises: ValueError for a name that is unknown, or given twice in either form.
    """
    known = happenings_of(resource)
    if names is None:
        return tuple(each for each in known if each.final or each is Happening.PAUSED)
    found: list[Happening] = []
    for name in names:
        short = name.removeprefix(f"{resource}.")
        if short not in known:
            types = ", ".join(f"{resource}.{each}" for each in known)
            raise ValueError(f"there is no event {name[:60]!r}; use {types}")
        if short in found:
            raise ValueError(f"names {resource}.{short} twice")
        found.append(Happening(short))
    if not found:
        raise ValueError("is empty; leave it out for the usual ones")
    return tuple(found)


def resource_of(task_type: str) -> Resource:
    """Return the word by which events speak of a task of that type."""
    return "training" if task_type == "training" else "task"


def endpoint_of(tenant: str, url: str) -> str:
    """Return the key of an endpoint, which is a URL of one tenant: short, whatever the URL."""
    return hashlib.sha256(f"{tenant}\n{url}".encode()).hexdigest()[:32]


# Seconds between a try and the next. Ten minutes apart in the first hour and a quarter, because a
# receiver that was down for an hour should have everything soon after; then a day and more.
_DELAYS = (5, 30, 120, 300, *6 * (600,), *8 * (900,), *23 * (3600,))
LONGEST_WAIT = 3600.0  # seconds that a receiver may ask for in Retry-After
JITTER = 0.2  # of a delay, added at most: never less, so that the sum is what it is


def delay_after(
    tries: int, *, factor: float, jitter: float, retry_after: float | None
) -> float | None:
    """Return how many seconds after the failure of that try the next one is; None: give up.

    `tries` is how often it was tried. `factor` multiplies delays, `jitter` is 0 to 1.
    `retry_after` is what the receiver asked for.
    """
    if tries > len(_DELAYS):
        return None
    delay = _DELAYS[tries - 1] * factor * (1 + JITTER * jitter)
    return max(delay, min(retry_after or 0.0, LONGEST_WAIT))
