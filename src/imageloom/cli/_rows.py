"""Tables: aligned where a person looks on, tab-separated lines for programs."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import datetime

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from imageloom.cli._client import one_line


def print_rows(columns: Sequence[str], rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows on stdout, each cell as one line of text; the heads only for a person."""
    clean = [tuple(one_line(cell) for cell in row) for row in rows]
    if not sys.stdout.isatty():
        for row in clean:
            typer.echo("\t".join(row))
        return
    table = Table(*columns, box=None)
    for row in clean:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)


def shown_time(moment: datetime | None) -> str:
    """Return a time in UTC as a table shows it."""
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%SZ")


def shown_duration(seconds: float) -> str:
    """Return a duration as a person says it, such as `2 min 12 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


def shown_bytes(count: int) -> str:
    """Return a number of bytes as a person says it, such as `1.2 GB`."""
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1000:.1f} kB"
