"""What the server says of a task that was not made."""

from __future__ import annotations

from dataclasses import dataclass, field

from imageloom.client._types import JSON, Eta, eta_from, integer


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What would become of a task that was not made.

    Where no live worker could ever run it, `runnable` is false, `runnable_reason` says why and
    `runnable_change` the nearest change with which one could.
    """

    type: str
    runnable: bool
    runnable_reason: str | None = None
    runnable_change: str | None = None
    queue_position: int | None = None
    eta: Eta | None = None
    units: float | None = None
    params: JSON = field(default_factory=dict)
    raw: JSON = field(default_factory=dict, repr=False)


def dry_run_from(raw: JSON) -> DryRun:
    """Return the answer to a dry run."""
    return DryRun(
        type=str(raw.get("type") or ""),
        runnable=raw.get("runnable") is not False,
        runnable_reason=raw.get("runnable_reason"),
        runnable_change=raw.get("runnable_change"),
        queue_position=integer(raw.get("queue_position")),
        eta=eta_from(raw.get("eta")),
        units=raw.get("units"),
        params=raw.get("params") or {},
        raw=raw,
    )
