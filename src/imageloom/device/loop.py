"""The device loop: admits attempts and steps them, one unit of work at a time.

A unit of work is what a task type's `run.py` yields between two `step` calls. Between units the
loop admits new attempts and drops cancelled ones; within a unit that can be left early (a denoising
loop of the stock pipeline) the unit asks `Attempt.between_steps`, which does the same for its own
attempt.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

import structlog

from imageloom.device.failures import describe_failure
from imageloom.device.link import Link
from imageloom.device.openers import open_units
from imageloom.domain.messages import (
    Cancel,
    Checkpoint,
    Done,
    Errored,
    Progress,
    Residents,
    Run,
    Save,
    Stopped,
    TrainingStep,
)
from imageloom.domain.messages import Picture as PictureMessage
from imageloom.images import Picture
from imageloom.runtime.residency import Residency
from imageloom.runtime.units import Closable, Dropped, Savable, Units

_log = structlog.get_logger("imageloom.device")


class LinkedAttempt:
    """What a unit of work says, sent over the link: `runtime.units.Attempt`."""

    def __init__(self, link: Link, key: str) -> None:
        self.key = key
        self._link = link

    def between_steps(self, progress: float) -> None:
        """Report progress, 0 to 1, and leave if the parent wants so. Raises: Dropped."""
        if self._link.is_cancelled(self.key):
            raise Dropped(self.key)
        self._link.send(Progress(key=self.key, value=progress))

    def deliver(
        self,
        *,
        index: int,
        picture: Picture,
        seed: int | None = None,
        method: str | None = None,
        confidence: float | None = None,
    ) -> None:
        """Hand a finished picture to the parent."""
        self._link.send(
            PictureMessage(
                key=self.key,
                index=index,
                width=picture.width,
                height=picture.height,
                rgb=picture.rgb,
                alpha=picture.alpha,
                seed=seed,
                method=method,
                confidence=confidence,
            )
        )

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
        """Tell the parent how a training goes."""
        self._link.send(
            TrainingStep(
                key=self.key,
                step=step,
                steps=steps,
                epoch=epoch,
                loss=loss,
                learning_rate=learning_rate,
                images_per_second=images_per_second,
            )
        )

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
        """Tell the parent that a training can go on from here."""
        self._link.send(
            Checkpoint(
                key=self.key,
                step=step,
                path=path,
                adapter_path=adapter_path,
                held_out_loss=held_out_loss,
                last=last,
                planned=planned,
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Live:
    """An admitted attempt and its work."""

    attempt: LinkedAttempt
    units: _Opening
    background: bool


class DeviceLoop:
    """Steps what was admitted until the parent hangs up: first come first served.

    What runs in the background, a training, is stepped only where nothing else is there, so that
    it delays a picture by one of its steps at most.
    """

    def __init__(self, link: Link, residency: Residency) -> None:
        self._link = link
        self._residency = residency
        self._live: list[_Live] = []

    def run(self) -> None:
        """Work for ever."""
        while True:
            self._admit()
            if self._live:
                self._step(min(self._live, key=lambda live: live.background))

    def _admit(self) -> None:
        """Begin every attempt that has arrived; wait for one where there is nothing else to do."""
        while (message := self._link.next_message(block=not self._live)) is not None:
            match message:
                case Run(key=key, background=background):
                    attempt = LinkedAttempt(self._link, key)
                    opening = _Opening(message, attempt, self._residency)
                    self._live.append(_Live(attempt=attempt, units=opening, background=background))
                case Cancel(key=key):
                    # One that is over already still gets its answer: the parent waits for it.
                    if all(live.attempt.key != key for live in self._live):
                        self._link.forget(key)
                        self._link.send(Stopped(key=key))
                case Save(key=key):
                    for live in self._live:
                        if live.attempt.key == key and isinstance(live.units, Savable):
                            live.units.save()
                case _:
                    assert_never(message)

    def _step(self, live: _Live) -> None:
        ended = self._stepped(live)
        if ended is None:
            return
        self._link.send(ended)
        key = live.attempt.key
        self._live.remove(live)
        self._link.forget(key)
        live.units.close()
        self._residency.release(key)
        if isinstance(ended, Errored):
            self._residency.release_memory()
        self._link.send(Residents(models=self._residency.names()))

    def _stepped(self, live: _Live) -> Done | Stopped | Errored | None:
        """Do one unit and return how the attempt ended, None where it did not.

        What was raised holds the frames of the unit, and with them its memory, until this returns.
        """
        key = live.attempt.key
        try:
            if self._link.is_cancelled(key):
                return Stopped(key=key)
            return Done(key=key) if live.units.step() else None
        except Dropped:
            return Stopped(key=key)
        except Exception as exc:  # noqa: BLE001  # whatever a model raises, the loop serves the next
            _log.exception("attempt_raised", key=key)
            return describe_failure(key, exc)


class _Opening:
    """The first unit of every attempt: decode its work and load its model."""

    def __init__(self, run: Run, attempt: LinkedAttempt, residency: Residency) -> None:
        self._run = run
        self._attempt = attempt
        self._residency = residency
        self._units: Units | None = None

    def step(self) -> bool:
        if self._units is None:
            self._units = open_units(
                self._run.task_type, self._run.work, self._attempt, self._residency
            )
            return False
        return self._units.step()

    def save(self) -> None:
        if isinstance(self._units, Savable):
            self._units.save()

    def close(self) -> None:
        """Let go of the work, and of what it loaded for itself."""
        if isinstance(self._units, Closable):
            self._units.close()
        self._units = None
