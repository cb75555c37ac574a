"""What is written down outside of the system while it is broken, and read back afterwards.

Each line is one `O_APPEND` write, so that no kill halves it and no other process comes into it.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

TERMINAL = frozenset({"completed", "failed", "cancelled"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """L1: what a client asked for under one key, and the task that it was told, if it was told one.

    `seen` counts the answers, `errors` the tries that ended without one that names a task.
    """

    key: str
    task: str | None
    seen: int = 1
    errors: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """L2: what a device process began or ended. Seconds of the wall clock."""

    what: Literal["start", "finish"]
    task: str
    attempt: int
    pid: int
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """L3: what a webhook receiver answered with a 2xx."""

    id: str
    task: str
    type: str
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Named:
    """One output that a task names: `told` is its digest by the API, `served` that of its URL.

    `served` is None where nothing could be read.
    """

    key: str
    told: str
    served: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """L5: how a task stands in the end. `key` is what the client asked for it under.

    One `of_workflow` was asked for by none: a scenario of workflows knows which there must be.
    """

    task: str
    key: str
    status: str
    attempt: int
    error: str | None = None
    of_workflow: bool = False
    outputs: tuple[Named, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """L6: a change of a task's row, written down by a trigger of the laboratory's."""

    task: str
    before: str
    after: str
    attempt: int
    at: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What was done to the system, when, and to which device processes.

    One that hit `everywhere` may have cost any attempt that ran between `at` and `until`.
    """

    kind: str
    at: float
    pids: frozenset[int] = frozenset()
    everywhere: bool = False
    until: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledgers:
    """Everything that was written down of one experiment. `stored` are digests by key (L4)."""

    requests: tuple[Request, ...] = ()
    runs: tuple[Run, ...] = ()
    deliveries: tuple[Delivery, ...] = ()
    stored: Mapping[str, str] = field(default_factory=dict)
    endings: tuple[Ending, ...] = ()
    changes: tuple[Change, ...] = ()
    faults: tuple[Fault, ...] = ()


class Book:
    """A file of JSON lines that threads and processes add to."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._lock = threading.Lock()

    def note(self, **fields: Any) -> None:
        """Add a line."""
        os.write(self._file, (json.dumps(fields) + "\n").encode())

    def lines(self) -> list[dict[str, Any]]:
        """Return what was written."""
        return [json.loads(line) for line in self.path.read_text().splitlines()]

    def close(self) -> None:
        """Write nothing more."""
        os.close(self._file)


def read_runs(path: Path) -> tuple[Run, ...]:
    """Return what the drills of an installation wrote, in order."""
    if not path.exists():
        return ()
    runs = []
    for line in path.read_text().splitlines():
        what, task, attempt, pid, at = line.split()
        assert what in ("start", "finish"), line
        runs.append(
            Run(
                what=what,  # type: ignore[arg-type]  # looked at above
                task=task,
                attempt=int(attempt),
                pid=int(pid),
                at=float(at),
            )
        )
    return tuple(runs)


def read_requests(book: Book) -> tuple[Request, ...]:
    """Return what a client wrote, one request for each key."""
    found: dict[str, tuple[set[str], int, int]] = {}
    for line in book.lines():
        tasks, seen, errors = found.get(line["key"], (set(), 0, 0))
        if line["task"] is None:
            errors += 1
        else:
            tasks, seen = tasks | {line["task"]}, seen + 1
        found[line["key"]] = (tasks, seen, errors)
    # Two ids under one key are two requests here: the checker then finds what nobody asked for.
    return tuple(
        Request(key=key, task=task, seen=seen, errors=errors)
        for key, (tasks, seen, errors) in found.items()
        for task in (sorted(tasks) or [None])
    )
