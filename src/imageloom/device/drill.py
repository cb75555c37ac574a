"""A device that only plays one: no model and no torch, pictures that follow from their seeds.

For drills of everything around a model: faults and load. It is ready at once, keeps the loop, the
messages and the turns of a real device, and does what a model does worst when a prompt says so. It
is chosen by name only (`IMAGELOOM_DEVICE=drill`), and every receipt names it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

import msgspec

from imageloom.domain.drill import NAME, Drill
from imageloom.domain.errors import InvalidParams
from imageloom.domain.messages import DeviceInfo, Ready, Setup
from imageloom.domain.work import GenerationWork, ProcessingWork
from imageloom.images import Picture
from imageloom.runtime.units import Attempt, Drawing, Units

READY: Final = Ready(device=DeviceInfo(kind=NAME, name=NAME))

# What a prompt may ask for. A task that has one of these takes its device down, each in its way.
KILL: Final = "__poison_kill__"
HANG: Final = "__poison_hang__"
OUT_OF_MEMORY: Final = "__poison_oom__"

_BLOCKS: Final = 8  # of a side of a picture, each of one colour


class DrillMemory:
    """A device's memory with nothing in it: `runtime.units.Memory`."""

    def names(self) -> tuple[str, ...]:
        """Return no names."""
        return ()

    def release(self, key: str) -> None:
        """Do nothing: nothing is kept."""

    def give_back(self) -> None:
        """Do nothing: nothing is cached."""

    def take_peak(self) -> None:
        """Return that nobody counts."""

    def take_relief(self) -> tuple[str, ...]:
        """Return that nothing had to be done."""
        return ()


class DrillOpener:
    """Begins attempts whose pictures no model draws."""

    def __init__(self, drill: Drill) -> None:
        self._player = _Player(drill.step_seconds)
        self._ledger = _Ledger(drill.ledger)

    def __call__(self, task_type: str, work: bytes, attempt: Attempt, _memory: Any) -> Units:
        """Return the units of an attempt. Raises: InvalidParams where the type is not played."""
        if task_type == "generation":
            drawn = msgspec.msgpack.decode(work, type=GenerationWork)
            return _DrillRows(drawn, attempt, self._player, self._ledger)
        if task_type == "processing":
            changed = msgspec.msgpack.decode(work, type=ProcessingWork)
            return _DrillChange(changed, attempt, self._player, self._ledger)
        raise InvalidParams(f"type: a drill plays no {task_type}", param="type")


class _Ledger:
    """Says in a file outside of the system what a device began and ended."""

    def __init__(self, path: str | None) -> None:
        self._file = None
        if path is not None:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)

    def note(self, what: str, key: str) -> None:
        """Add a line by one write, which no other process's can come into and no kill can halve."""
        if self._file is not None:
            task_id, _, attempt = key.partition("/")
            line = f"{what} {task_id} {attempt} {os.getpid()} {time.time():.6f}\n"
            os.write(self._file, line.encode())


@dataclass(slots=True, kw_only=True, eq=False)
class _DrillRow:
    """A picture in the making; what the loop asks of a `runtime.rows.Row`."""

    seed: int
    size: tuple[int, int]
    steps: int
    prompt: str
    position: int = 0
    lanes: tuple[None, ...] = (None,)
    fits: tuple[object, ...] = ()

    @property
    def done(self) -> bool:
        return self.position == self.steps

    @property
    def work(self) -> int:
        return self.size[0] * self.size[1]


class _Player:
    """Stands where a `runtime.denoiser.Denoiser` does."""

    def __init__(self, step_seconds: float) -> None:
        self._step_seconds = step_seconds

    def most_rows(self, _row: _DrillRow) -> None:
        """Return that no number of rows is too many."""

    def remember_too_many(self, rows: Sequence[_DrillRow]) -> None:
        """Do nothing: only a prompt is ever too much."""

    def step(self, rows: Sequence[_DrillRow]) -> None:
        """Take the time of one step, and do to the device what a prompt says."""
        prompts = " ".join({row.prompt for row in rows})
        if OUT_OF_MEMORY in prompts:
            raise RuntimeError("CUDA out of memory. Tried to allocate more than there is.")
        self.pause()
        if KILL in prompts:
            os.kill(os.getpid(), signal.SIGKILL)
        while HANG in prompts:
            time.sleep(60)
        for row in rows:
            row.position += 1

    def pause(self) -> None:
        """Take the time of one step."""
        if self._step_seconds:
            time.sleep(self._step_seconds)


class _DrillRows(Drawing):
    """The pictures of a generation."""

    def __init__(
        self, work: GenerationWork, attempt: Attempt, player: _Player, ledger: _Ledger
    ) -> None:
        # What the loop asks of its rows and of who steps them is what these two have.
        self.denoiser = cast("Any", player)
        self.rows = []
        self._work = work
        self._attempt = attempt
        self._ledger = ledger
        self._to_begin: Iterator[_DrillRow] = (
            _DrillRow(
                seed=seed, size=(work.width, work.height), steps=work.steps, prompt=work.prompt
            )
            for seed in work.seeds
        )
        self._begun = 0
        self._finished = 0
        ledger.note("start", attempt.key)

    @property
    def begun(self) -> bool:
        return self._begun == len(self._work.seeds)

    @property
    def remaining(self) -> int:
        return sum(self._work.steps - row.position for row in self._rows) + self._work.steps * (
            len(self._work.seeds) - self._begun
        )

    @property
    def progress(self) -> float:
        steps = self._finished * self._work.steps + sum(row.position for row in self._rows)
        return steps / (self._work.steps * len(self._work.seeds))

    @property
    def _rows(self) -> list[_DrillRow]:
        return cast("list[_DrillRow]", self.rows)

    def step(self) -> bool:
        """Begin the next row."""
        self._rows.append(next(self._to_begin))
        self._begun += 1
        return False

    def preview(self, row: Any) -> None:
        """Show nothing: there is no news before a picture is done."""

    def finish(self, row: Any) -> bool:
        """Deliver a row that is done; True when it was the last."""
        self._rows.remove(row)
        self._finished += 1
        self._attempt.deliver(
            index=self._work.seeds.index(row.seed),
            picture=drill_picture(row.seed, *row.size),
            seed=row.seed,
            setup=Setup(scheduler={"class": NAME}, device={"kind": NAME, "name": NAME}),
        )
        last = self._finished == len(self._work.seeds)
        if last:
            self._ledger.note("finish", self._attempt.key)
        return last

    def close(self) -> None:
        """Let go of nothing."""


class _DrillChange:
    """The work on one picture, which stays as it is."""

    def __init__(
        self, work: ProcessingWork, attempt: Attempt, player: _Player, ledger: _Ledger
    ) -> None:
        self._work = work
        self._attempt = attempt
        self._player = player
        self._ledger = ledger
        ledger.note("start", attempt.key)

    def step(self) -> bool:
        """Deliver the picture. Raises: Dropped."""
        self._attempt.between_steps(0.0)
        self._player.pause()
        image = self._work.image
        picture = Picture(width=image.width, height=image.height, rgb=image.rgb, alpha=image.alpha)
        self._attempt.deliver(index=0, picture=picture, method=NAME)
        self._ledger.note("finish", self._attempt.key)
        return True


def drill_picture(seed: int, width: int, height: int) -> Picture:
    """Return the picture of a seed: blocks of colours, the same on every machine."""
    colours = hashlib.shake_256(str(seed).encode()).digest(_BLOCKS * _BLOCKS * 3)
    across = [column * _BLOCKS // width for column in range(width)]
    bands = [
        b"".join(colours[3 * (8 * band + block) :][:3] for block in across)
        for band in range(_BLOCKS)
    ]
    rgb = b"".join(bands[line * _BLOCKS // height] for line in range(height))
    return Picture(width=width, height=height, rgb=rgb)
