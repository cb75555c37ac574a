"""How a waiting command shows what goes on: a bar, plain lines, or nothing. All of it on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from imageloom.cli._client import note, one_line
from imageloom.cli._thumbnail import fetch, rows_for, thumbnail
from imageloom.client import Preview, Task


class Display(Protocol):
    """What a command tells while it waits."""

    def task(self, task: Task) -> None:
        """Show a task's state."""

    def downloaded(self, count: int, total: int) -> None:
        """Show how many files are written."""


class Silence:
    """Shows nothing, for `--json`."""

    def task(self, task: Task) -> None:
        """Show nothing."""

    def downloaded(self, count: int, total: int) -> None:
        """Show nothing."""


class Lines:
    """One line for each change of status, for logs and pipes."""

    def __init__(self) -> None:
        self._status = ""

    def task(self, task: Task) -> None:
        """Show the status when it is a new one."""
        if task.status != self._status:
            self._status = task.status
            note(f"{task.id} {task.status}")

    def downloaded(self, count: int, total: int) -> None:
        """Show nothing: the files themselves are printed."""


class Bar:
    """One bar: queued, then running with its percentage, then the downloads."""

    def __init__(
        self, progress: _Progress, *, fetch: Callable[[str], bytes | None] = fetch
    ) -> None:
        """`fetch` returns the bytes behind the URL of a preview."""
        self._progress = progress
        self._fetch = fetch
        self._previewed = ""
        self._bar = progress.add_task("submitting", total=None)

    def task(self, task: Task) -> None:
        """Show the task's state and progress."""
        match task.status:
            case "pending":
                ahead = task.queue_position
                text = "queued" if not ahead else f"queued, {ahead} ahead"
                self._progress.update(self._bar, description=text, total=None)
            case "running":
                text = f"running {task.progress:.0%}"
                self._progress.update(
                    self._bar, description=text, total=1.0, completed=task.progress
                )
                self._preview(task.previews)
            case status:
                text = escape(one_line(status))
                self._progress.update(
                    self._bar, description=text, total=1.0, completed=task.progress
                )

    def downloaded(self, count: int, total: int) -> None:
        """Show how many files are written."""
        text = f"downloaded {count} of {total}"
        self._progress.update(self._bar, description=text, total=total, completed=count)

    def _preview(self, previews: Sequence[Preview]) -> None:
        """Draw the newest preview above the bar, where the terminal can show it."""
        newest = max(previews, key=lambda preview: preview.step, default=None)
        rows = rows_for(self._progress.console)
        if newest is None or newest.url == self._previewed or not rows:
            return
        self._previewed = newest.url
        data = self._fetch(newest.url)
        if data is not None:
            self._progress.picture = thumbnail(
                data, rows=rows, columns=self._progress.console.width
            )


class _Progress(Progress):
    """Bars, and a picture above them."""

    picture: Text | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        """Return what is drawn, from the top down."""
        if self.picture is not None:
            yield self.picture
        yield from super().get_renderables()


@contextmanager
def shown(*, as_json: bool) -> Iterator[Display]:
    """Give the display that fits: a bar where a person looks on, lines in a pipe or a log."""
    if as_json:
        yield Silence()
    elif sys.stdout.isatty() and sys.stderr.isatty():
        with bar_on(Console(stderr=True)) as bar:
            yield bar
    else:
        yield Lines()


@contextmanager
def bar_on(console: Console) -> Iterator[Bar]:
    """Give a bar on a console; it is gone when the work is done."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
    )
    with _Progress(*columns, console=console, transient=True) as progress:
        yield Bar(progress)
