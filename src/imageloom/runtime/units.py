"""The seam between the device loop and the work of a task type."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from imageloom.domain.messages import Setup
from imageloom.images import Picture

if TYPE_CHECKING:
    from imageloom.runtime.denoiser import Denoiser
    from imageloom.runtime.rows import Row


class Dropped(Exception):
    """The attempt was cancelled; raised through whatever library is in the middle of it."""


class Units(Protocol):
    """The work of one attempt, cut into units that the loop steps."""

    def step(self) -> bool:
        """Do one unit of work; True when it was the last. Raises: anything, `Dropped` on cancel."""
        ...


@runtime_checkable
class Savable(Protocol):
    """Units that another attempt can go on from."""

    def save(self) -> None:
        """Let the next unit report a checkpoint, whatever else was its turn; do no work here."""
        ...


@runtime_checkable
class Closable(Protocol):
    """Units that hold something beyond memory."""

    def close(self) -> None:
        """Let go of what is held; called once, however the attempt ended."""
        ...


class Drawing(ABC):
    """The work of a generation whose rows the loop steps together with those of others.

    Each `step` begins one row; once all have begun, the loop steps `rows`, and says of each that is
    done that it is to be finished. A base class and no protocol: the loop asks what is one all the
    time, and a protocol would be looked through member by member.
    """

    denoiser: Denoiser
    rows: list[Row]

    @property
    @abstractmethod
    def begun(self) -> bool:
        """Whether every row has begun."""

    @property
    @abstractmethod
    def remaining(self) -> int:
        """How many forward passes of a row are still to come."""

    @property
    @abstractmethod
    def progress(self) -> float:
        """How much of the attempt is done, 0 to 1."""

    @abstractmethod
    def step(self) -> bool:
        """Begin the next row; never the last unit."""

    @abstractmethod
    def preview(self, row: Row) -> None:
        """Show what a row may become, where its last step left an estimate."""

    @abstractmethod
    def finish(self, row: Row) -> bool:
        """Decode and deliver a row that is done; True when it was the last."""

    @abstractmethod
    def close(self) -> None:
        """Let go of what is held; called once, however it ended."""


class Loading(Exception):
    """What a unit needs is on its way: it has done nothing, and can be asked again afterwards."""

    def __init__(self, future: Future[Any]) -> None:
        super().__init__()
        self.future = future


class Memory(Protocol):
    """What the loop asks of what is in the device's memory."""

    def names(self) -> tuple[str, ...]:
        """Return the names of the resident models, least recently used first."""
        ...

    def release(self, key: str) -> None:
        """Give back what is kept for an attempt that is over."""
        ...

    def give_back(self) -> None:
        """Give cached blocks back to the device, as after an attempt that raised."""
        ...

    def take_peak(self) -> int | None:
        """Return the most bytes in use since it was asked last, None where nobody counts."""
        ...

    def take_relief(self) -> tuple[str, ...]:
        """Return what was done since it was asked last where memory did not suffice."""
        ...


class Attempt(Protocol):
    """What the work of one attempt may say to the loop while a unit runs."""

    @property
    def key(self) -> str:
        """What tells the attempt from others on this device."""
        ...

    def between_steps(self, progress: float) -> None:
        """Report progress, 0 to 1, and leave if the parent wants so. Raises: Dropped."""
        ...

    def preview(self, *, index: int, step: int, steps: int, picture: Picture) -> None:
        """Show the parent what a picture may become, after `step` of its `steps`."""
        ...

    def deliver(
        self,
        *,
        index: int,
        picture: Picture,
        seed: int | None = None,
        method: str | None = None,
        confidence: float | None = None,
        setup: Setup | None = None,
    ) -> None:
        """Hand a finished picture to the parent.

        `method` and `confidence` (0 to 1) say how a subject was told from its background, `setup`
        how a picture was drawn.
        """
        ...

    def report_step(
        self,
        *,
        step: int,
        steps: int,
        epoch: int,
        loss: float,
        learning_rate: float,
        images_per_second: float,
    ) -> None:
        """Tell how a training goes, after each of its optimiser steps, from 1 to `steps`."""
        ...

    def report_checkpoint(
        self,
        *,
        step: int,
        path: str,
        adapter_path: str,
        held_out_loss: float | None,
        last: bool,
        planned: bool,
    ) -> None:
        """Tell that a training can go on from the file at `path`; both files are complete.

        One that is not `planned` was asked for by `save`, and is not judged.
        """
        ...
