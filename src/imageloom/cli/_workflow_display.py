"""How a run is shown: a table of its steps that lives, plain lines, or nothing. All on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from imageloom.cli._client import note, one_line
from imageloom.cli._rows import shown_duration
from imageloom.client import Step, Workflow

SIGNS = {
    "pending": ("·", "dim"),
    "paused": ("?", "yellow"),
    "completed": ("✓", "green"),
    "failed": ("✗", "red"),
    "cancelled": ("–", "yellow"),
    "skipped": ("–", "dim"),
}
STYLES = {name: style for name, (_, style) in SIGNS.items()} | {"running": "cyan"}
GAP = 2  # columns of the terminal between those of the table


class Display(Protocol):
    """What a command tells while a run goes on."""

    def changed(self, workflow: Workflow) -> None:
        """Show how the run stands now."""


class Silence:
    """Shows nothing, for `--json`."""

    def changed(self, workflow: Workflow) -> None:
        """Show nothing."""


class Lines:
    """One line for each step whose status changed, for logs and pipes."""

    def __init__(self) -> None:
        self._status: dict[str, str] = {}

    def changed(self, workflow: Workflow) -> None:
        """Show the run when it begins, and the steps that stand differently from before."""
        if not self._status:
            note(f"{workflow.id} {workflow.name}")
        for step in workflow.steps:
            if step.status != self._status.get(step.name, "pending"):
                note(f"{step.name} {told(step)}")
            self._status[step.name] = step.status


class StepsTable:
    """A table of the steps, drawn anew several times a second so that it is seen to live."""

    def __init__(self, console: Console, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock
        self._began = clock()
        self._spinner = Spinner("dots", style="cyan")
        self._workflow: Workflow | None = None

    def changed(self, workflow: Workflow) -> None:
        """Show how the run stands from the next drawing on."""
        self._workflow = workflow

    def drawn(self) -> RenderableType:
        """Return what to draw now."""
        if self._workflow is None:
            return Text("")
        seconds = self._clock() - self._began
        return Group(
            _head(self._workflow, seconds=seconds),
            steps_table(self._workflow, width=self._console.width, spinner=self._spinner),
        )


def steps_table(workflow: Workflow, *, width: int, spinner: RenderableType) -> Table:
    """Return one row a step: sign, name, bar, pictures and how it stands, in `width` columns."""
    steps = workflow.steps
    counts = [_count(step) for step in steps]
    names = min(max((cell_len(step.name) for step in steps), default=0), max(12, width * 3 // 10))
    bars = max(8, min(30, width // 6))
    counted = max((len(count) for count in counts), default=0)
    rest = max(10, width - (1 + names + bars + counted + 4 * GAP))
    table = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
    for each in (1, names, bars):
        table.add_column(width=each, no_wrap=True, overflow="ellipsis")
    table.add_column(width=counted, no_wrap=True, justify="right")
    table.add_column(width=rest, no_wrap=True, overflow="ellipsis")
    for step, count in zip(steps, counts, strict=True):
        style = STYLES.get(step.status, "")
        table.add_row(
            spinner if step.status == "running" else _sign(step.status),
            Text(one_line(step.name), style="dim" if style == "dim" else ""),
            _bar(step, width=bars),
            count,
            Text(told(step), style=style),
        )
    return table


def told(step: Step) -> str:
    """Return how a step stands, in words on one line."""
    match step.status:
        case "running":
            return f"running {step.progress:.0%}"
        case "completed" if step.cache == "hit":
            saved = (
                ""
                if step.seconds_saved is None
                else f", {shown_duration(step.seconds_saved)} saved"
            )
            return f"cached{saved}"
        case "completed" if step.tasks and step.started_at and step.completed_at:
            seconds = (step.completed_at - step.started_at).total_seconds()
            return f"completed in {shown_duration(seconds)}"
        case "paused":
            return f"waits for a choice of {len(step.candidates)}"
        case "failed" if step.error:
            return f"failed: {one_line(step.error)}"
        case status:
            return one_line(status)


def pictures(step: Step) -> tuple[int, int] | None:
    """Return how many of how many pictures are done; None where that is not known yet."""
    if step.status == "completed":
        return len(step.images), len(step.images)
    if not step.tasks:
        return None
    asked = step.config.get("num_outputs", 1)
    each = asked if isinstance(asked, int) else 1
    # A task's pictures count together: those of one batch are all finished at its end only.
    done = sum(task.status == "completed" for task in step.tasks)
    return each * done, each * len(step.tasks)


@contextmanager
def workflow_shown(*, as_json: bool) -> Iterator[Display]:
    """Give the display that fits: a table where a person looks on, lines in a pipe or a log."""
    if as_json:
        yield Silence()
        return
    console = Console(stderr=True)
    if sys.stdout.isatty() and sys.stderr.isatty() and not console.options.ascii_only:
        with table_on(console) as table:
            yield table
    else:
        yield Lines()


@contextmanager
def table_on(console: Console) -> Iterator[StepsTable]:
    """Give a living table on a console; how it stood last stays there."""
    table = StepsTable(console)
    with Live(console=console, get_renderable=table.drawn, refresh_per_second=8):
        yield table


def _head(workflow: Workflow, *, seconds: float) -> Text:
    return Text.assemble(
        (one_line(workflow.name), "bold"),
        "  ",
        (one_line(workflow.status), STYLES.get(workflow.status, "")),
        f" {workflow.progress:.0%}  {shown_duration(seconds)}  ",
        (one_line(workflow.id), "dim"),
        no_wrap=True,
        overflow="ellipsis",
    )


def _sign(status: str) -> Text:
    sign, style = SIGNS.get(status, (" ", ""))
    return Text(sign, style=style)


def _bar(step: Step, *, width: int) -> RenderableType:
    if step.type == "approval" or step.status in {"skipped", "cancelled"}:
        return Text("")
    return ProgressBar(total=1.0, completed=step.progress, width=width)


def _count(step: Step) -> str:
    found = pictures(step)
    return "" if found is None else f"{found[0]}/{found[1]}"
