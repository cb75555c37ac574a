"""What lies before a task, on a terminal."""

from __future__ import annotations

from datetime import UTC, datetime

import typer

from imageloom.cli._client import one_line, print_json
from imageloom.cli._rows import shown_duration
from imageloom.client import DryRun, Eta, Moments, Task, Training


def tell_dry_run(found: DryRun, *, as_json: bool) -> None:
    """Print what would become of a task."""
    if as_json:
        print_json(found.raw)
        return
    facts = {"runnable": "yes" if found.runnable else "no"}
    facts |= _verdict(found.runnable_reason, found.runnable_change)
    if found.queue_position is not None:
        facts["ahead"] = str(found.queue_position)
    for name, value in (facts | _expected(found.eta)).items():
        typer.echo(f"{name:9} {value}")


def outlook_told(task: Task | Training) -> dict[str, str]:
    """Return what is expected of a task, by name."""
    return _verdict(task.runnable_reason, task.runnable_change) | _expected(task.eta)


def _verdict(reason: str | None, change: str | None) -> dict[str, str]:
    told = {"because": reason, "change": change}
    return {name: one_line(value) for name, value in told.items() if value is not None}


def _expected(eta: Eta | None) -> dict[str, str]:
    if eta is None:
        return {}
    moments = {"starts": eta.start, "finishes": eta.finish}
    return {name: _span(value) for name, value in moments.items() if value is not None}


def _span(moments: Moments) -> str:
    """Return when something will have happened, such as `in 12 s, by 30 s in 9 of 10`."""
    now = datetime.now(UTC)
    p50, p90 = (max(0.0, (each - now).total_seconds()) for each in (moments.p50, moments.p90))
    return f"in about {shown_duration(p50)}, 9 of 10 within {shown_duration(p90)}"
