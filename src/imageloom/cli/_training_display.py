"""How a training is shown: a curve of its losses that lives, plain lines, or nothing, on stderr."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from imageloom.cli._client import note, one_line
from imageloom.cli._rows import shown_bytes, shown_duration
from imageloom.cli._thumbnail import fetch, rows_for, thumbnail
from imageloom.cli._workflow_display import SIGNS, STYLES
from imageloom.client import ImageloomError, Metrics, Sample, Training

LEVELS = "▁▂▃▄▅▆▇█"
COLUMNS = 40  # of the curve; fewer where the terminal is narrow
SIGN = 2  # columns of the sign and the gap after it
BESIDE = 34  # columns that the sign and both losses take
BEFORE_STEPS = "reading the pictures, and what the base model makes of them"
PARTS = 20  # plain lines are told at each of these parts of the progress

Told = Callable[[int, int], None]


class Display(Protocol):
    """What a command tells while a training goes on."""

    def changed(self, training: Training) -> None:
        """Show how the training stands now."""


class Silence:
    """Shows nothing, for `--json`."""

    def changed(self, training: Training) -> None:
        """Show nothing."""


class Lines:
    """A line for each status, each twentieth of the way and each new sample, for logs and pipes."""

    def __init__(self) -> None:
        self._status = ""
        self._part = 0
        self._sampled = 0

    def changed(self, training: Training) -> None:
        """Tell what is new."""
        if training.status != self._status and not training.done:
            _note_status(training)
        part = int(training.progress * PARTS)
        if training.metrics.step > 0 and part > self._part:
            note(", ".join(metrics_in_words(training.metrics)))
        sample = newest_sample(training)
        if sample is not None and sample.step > self._sampled:
            self._sampled = sample.step
            note(sample_in_words(sample))
        if training.status != self._status and training.done:
            _note_status(training)
        self._status, self._part = training.status, part


class LossCurve:
    """The losses of a training, asked for again when there is a new column of it to draw."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self._step = 0

    def take(self, training: Training) -> None:
        """Ask for the losses where there are enough new ones, or the training is over."""
        metrics = training.metrics
        new = metrics.step - self._step
        if new <= 0 or (new < (metrics.steps or 0) / COLUMNS and not training.done):
            return
        try:
            losses = training.losses()
        except ImageloomError:
            return  # who waits for the training is told when the server stays away
        self.losses = [each.loss for each in losses]
        self._step = metrics.step


class TrainingView:
    """Head, curve and numbers, drawn anew several times a second; samples stay above them.

    `fetch` returns the bytes behind the URL of a sample.
    """

    def __init__(
        self,
        console: Console,
        *,
        clock: Callable[[], float] = time.monotonic,
        fetch: Callable[[str], bytes | None] = fetch,
    ) -> None:
        self._console = console
        self._fetch = fetch
        self._clock = clock
        self._began = clock()
        self._spinner = Spinner("dots", style="cyan")
        self._curve = LossCurve()
        self._training: Training | None = None
        self._sampled = 0

    def changed(self, training: Training) -> None:
        """Show how the training stands from the next drawing on; print a new sample."""
        self._curve.take(training)
        if self._training is None:
            self._console.print(Text(one_line(training.id), style="dim"), soft_wrap=True)
        self._training = training
        sample = newest_sample(training)
        if sample is not None and sample.step > self._sampled:
            self._sampled = sample.step
            # Not folded into lines: a terminal makes one long line a link, not several.
            self._console.print(Text(sample_in_words(sample), style="dim"), soft_wrap=True)
            self._print_small(sample)

    def drawn(self) -> RenderableType:
        """Return what to draw now."""
        training = self._training
        if training is None:
            return Text("")
        sign: RenderableType = self._spinner
        if training.done:
            sign = Text(*SIGNS.get(training.status, (" ", "")))
        room = self._console.width - SIGN
        head = _head(training, seconds=self._clock() - self._began)
        lines: list[RenderableType] = [_beside(sign, head, room=room)]
        if training.metrics.step > 0:
            width = max(1, min(COLUMNS, self._console.width - BESIDE))
            drawn = curve(self._curve.losses, width=width)
            losses = ("  ".join(["", *_losses(training.metrics)]), "bold")
            numbers = [*_place(training.metrics), *_pace(training.metrics)]
            lines += [
                _beside(Text(" "), Text.assemble((drawn, "cyan"), losses), room=room),
                _beside(Text(" "), Text("  ".join(numbers)), room=room),
            ]
        elif training.status == "running":
            lines.append(_beside(Text(" "), Text(BEFORE_STEPS, style="dim"), room=room))
        return Group(*lines)

    def _print_small(self, sample: Sample) -> None:
        """Print a sample itself where that can be done; once, for it is sixteen kilobytes."""
        rows = rows_for(self._console)
        data = self._fetch(sample.url) if rows else None
        if data is not None:
            drawn = thumbnail(data, rows=rows, columns=self._console.width - SIGN)
            if drawn is not None:
                self._console.print(Padding(drawn, (0, 0, 1, SIGN)))


def curve(losses: Sequence[float], *, width: int) -> str:
    """Return losses as one line of at most `width` blocks, each the mean of its share of them.

    The lowest mean is the lowest block; losses that are all the same are the lowest, too.
    """
    count = min(width, len(losses))
    bounds = [len(losses) * column // count for column in range(count + 1)] if count else []
    means = [sum(losses[begin:end]) / (end - begin) for begin, end in itertools.pairwise(bounds)]
    low, high = (min(means), max(means)) if means else (0.0, 0.0)
    scale = (len(LEVELS) - 1) / (high - low) if high > low else 0.0
    return "".join(LEVELS[round((mean - low) * scale)] for mean in means)


def metrics_in_words(metrics: Metrics) -> list[str]:
    """Return how a training goes, as far as it is known: where it is, its losses, its pace."""
    return [*_place(metrics), *_losses(metrics), *_pace(metrics)]


def newest_sample(training: Training) -> Sample | None:
    """Return the first of the samples that were drawn last."""
    samples = training.samples
    return next((each for each in samples if each.step == samples[-1].step), None)


def sample_in_words(sample: Sample) -> str:
    """Return after which step a sample was drawn, and its URL."""
    return one_line(f"sample after {sample.step} steps: {sample.url}")


@contextmanager
def upload_shown(*, as_json: bool) -> Iterator[Told]:
    """Give what to call with the bytes sent and those in all, while a data set goes up."""
    console = Console(stderr=True)
    if as_json:
        yield lambda _sent, _total: None
    elif _someone_looks_on(console):
        with _upload_bar(console) as told:
            yield told
    else:
        yield _tell_size


@contextmanager
def training_shown(*, as_json: bool) -> Iterator[Display]:
    """Give the display that fits: a view where a person looks on, lines in a pipe or a log."""
    console = Console(stderr=True)
    if as_json:
        yield Silence()
    elif _someone_looks_on(console):
        with view_on(console) as view:
            yield view
    else:
        yield Lines()


@contextmanager
def view_on(console: Console) -> Iterator[TrainingView]:
    """Give a living view on a console; how it stood last stays there."""
    view = TrainingView(console)
    with Live(console=console, get_renderable=view.drawn, refresh_per_second=8):
        yield view


@contextmanager
def _upload_bar(console: Console) -> Iterator[Told]:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("packing", total=None)

        def told(sent: int, total: int) -> None:
            text = "uploading" if sent < total else "checking"
            progress.update(bar, description=text, completed=sent, total=total)

        yield told


def _tell_size(sent: int, total: int) -> None:
    """Tell once, when the last of it goes up."""
    if sent == total:
        note(f"uploaded {shown_bytes(total)}")


def _note_status(training: Training) -> None:
    note(f"{training.id} {training.name or ''} {training.status}")


def _someone_looks_on(console: Console) -> bool:
    return sys.stdout.isatty() and sys.stderr.isatty() and not console.options.ascii_only


def _head(training: Training, *, seconds: float) -> Text:
    return Text.assemble(
        (one_line(training.name or ""), "bold"),
        "  ",
        (one_line(training.status), STYLES.get(training.status, "")),
        f" {training.progress:.0%}  {shown_duration(seconds)}",
    )


def _place(metrics: Metrics) -> list[str]:
    return [
        f"epoch {metrics.current_epoch}" + _of(metrics.epochs),
        f"step {metrics.step}" + _of(metrics.steps),
    ]


def _losses(metrics: Metrics) -> list[str]:
    named = (("loss", metrics.loss), ("held out", metrics.held_out_loss))
    return [f"{name} {value:.4f}" for name, value in named if value is not None]


def _pace(metrics: Metrics) -> list[str]:
    words = []
    if metrics.images_per_second is not None:
        words.append(f"{metrics.images_per_second:.1f} images/s")
    if metrics.eta_seconds:
        words.append(f"{shown_duration(metrics.eta_seconds)} left")
    return words


def _beside(sign: RenderableType, text: Text, *, room: int) -> Table:
    # Cut here: a table that is too wide takes the column of the sign away first.
    text.truncate(max(1, room), overflow="ellipsis")
    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_row(sign, text)
    return table


def _of(total: int | None) -> str:
    return "" if total is None else f"/{total}"
