"""What the server's answers about monitoring become, as `_types` does it for tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from imageloom.client._types import JSON, integer, moment


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSummary:
    """A task in brief. `wait_seconds` is up to its latest attempt, `run_seconds` of that one."""

    id: str
    type: str
    status: str
    tenant: str = ""
    progress: float = 0.0
    attempt: int = 0
    worker: str | None = None
    model: str | None = None
    wait_seconds: float | None = None
    run_seconds: float | None = None
    error: str | None = None
    error_code: str | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    completed_at: datetime | None = None
    raw: JSON = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Seconds: half took at most `p50`, nine of ten at most `p90`; None where there were none."""

    p50: float | None = None
    p90: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """What became of tasks in the last hours. `raw` has it by type and hour too.

    `by_status` counts what waits and runs now and what ended since, `failures` by their code.
    """

    since: datetime | None
    until: datetime | None
    by_status: dict[str, int] = field(default_factory=dict)
    wait_seconds: Quantiles = field(default_factory=Quantiles)
    run_seconds: Quantiles = field(default_factory=Quantiles)
    failures: dict[str, int] = field(default_factory=dict)
    raw: JSON = field(default_factory=dict, repr=False)


def summary_from(raw: JSON) -> TaskSummary:
    """Return a task in brief from an item of the list."""
    return TaskSummary(
        id=str(raw["id"]),
        type=str(raw.get("type") or ""),
        status=str(raw.get("status") or ""),
        tenant=str(raw.get("tenant") or ""),
        progress=float(raw.get("progress") or 0),
        attempt=integer(raw.get("attempt")) or 0,
        worker=raw.get("worker"),
        model=raw.get("model"),
        wait_seconds=raw.get("wait_seconds"),
        run_seconds=raw.get("run_seconds"),
        error=raw.get("error"),
        error_code=raw.get("error_code"),
        created_at=moment(raw.get("created_at")),
        started_at=moment(raw.get("started_at")),
        completed_at=moment(raw.get("completed_at")),
        raw=raw,
    )


def stats_from(raw: JSON) -> Stats:
    """Return statistics from their answer."""
    return Stats(
        since=moment(raw.get("since")),
        until=moment(raw.get("until")),
        by_status={
            name: integer(count) or 0 for name, count in (raw.get("by_status") or {}).items()
        },
        wait_seconds=_quantiles(raw.get("wait_seconds")),
        run_seconds=_quantiles(raw.get("run_seconds")),
        failures={
            str(each["code"]): integer(each.get("count")) or 0 for each in raw.get("failures") or ()
        },
        raw=raw,
    )


def _quantiles(raw: JSON | None) -> Quantiles:
    found = raw or {}
    return Quantiles(p50=found.get("p50"), p90=found.get("p90"))
