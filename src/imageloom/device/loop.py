"""The device loop: admits attempts and steps them, one unit of work at a time.

A unit of work is a denoising step of all rows that fit together, whoever asked for them, or what a
task type's `run.py` does in one `step`. Between two units the loop admits new attempts and drops
cancelled ones; within a long unit (a picture of the stock pipeline, the tiles of an upscale) rows
have their turns too, between its steps.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, assert_never

import structlog
from msgspec.structs import replace

from imageloom.device.attempt import LinkedAttempt
from imageloom.device.failures import describe_failure
from imageloom.device.link import Link
from imageloom.device.metering import Bill, Meter
from imageloom.device.openers import open_units
from imageloom.device.ticks import choose_rows, step_rows
from imageloom.domain.messages import Cancel, Done, Errored, Residents, Run, Save, Spent, Stopped
from imageloom.domain.shares import Claimant, Ration, Shares
from imageloom.runtime.units import (
    Attempt,
    Closable,
    Drawing,
    Dropped,
    Loading,
    Memory,
    Savable,
    Units,
)
from imageloom.task_types.registry import ROW_QUEUES

if TYPE_CHECKING:  # it imports torch, and the loop runs without
    from imageloom.runtime.rows import Row

Opener = Callable[[str, bytes, Attempt, Any], Units]

_log = structlog.get_logger("imageloom.device")

# What an attempt without a row is taken to need, so that it has one soon: a few units. A row that
# rides along costs the others little; one that waits for its turn to begin leaves a place empty.
_UNOPENED: Final = 2


@dataclass(slots=True, kw_only=True, eq=False)
class _Live:
    """An admitted attempt and its work; `waiting` for what it needs from the loader, since then."""

    run: Run
    attempt: LinkedAttempt
    units: Units | None = None
    bill: Bill = field(default_factory=Bill)
    waiting: Future[Any] | None = None
    waiting_since: float = 0.0
    waited: int = 0

    @property
    def ready(self) -> bool:
        return self.waiting is None or self.waiting.done()

    @property
    def remaining(self) -> int:
        if isinstance(self.units, Drawing) and self.units.rows:
            return self.units.remaining
        return _UNOPENED


class DeviceLoop:
    """Steps what was admitted until the parent hangs up, in the order of `domain.shares`.

    What runs in the background, a training, is stepped where nothing else is there, so that it
    delays a picture by one of its steps at most; on a device that is never idle it gets its share.
    """

    def __init__(
        self,
        link: Link,
        residency: Memory,
        *,
        clock: Callable[[], float] = time.perf_counter,
        opener: Opener | None = None,
    ) -> None:
        """`opener` begins attempts in place of the task types' own `run.py`."""
        self._link = link
        self._residency = residency
        self._clock = clock
        self._meter = Meter(residency)
        self._opener = opener
        self._live: list[_Live] = []
        self._shares = Shares()
        self._ration = Ration()
        # The long unit that is going on, and since when its tenant has not been charged for it.
        self._in_unit: _Live | None = None
        self._uncharged_since = 0.0
        self._of_others = 0.0  # seconds of the unit that is going on

    def run(self) -> None:
        """Work for ever."""
        while True:
            self._admit(block=not any(live.ready for live in self._live))
            self._turn()

    def _admit(self, *, block: bool) -> None:
        """Take in what has arrived; with `block`, wait for it, or for something to be loaded."""
        while (message := self._link.next_message(block=block)) is not None:
            block = False
            match message:
                case Run():
                    attempt = LinkedAttempt(self._link, message.key, share=self._share)
                    self._live.append(_Live(run=message, attempt=attempt))
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

    def _turn(self) -> None:
        """Drop what was cancelled, and do one unit of whatever is first."""
        self._drop_cancelled()
        order = self._order()
        if order:
            self._serve(order[0], order)

    def _share(self) -> None:
        """Between two steps of a long unit: let rows that are due have a turn."""
        outer = self._in_unit
        # The units of a training are short.
        if outer is None or outer.run.alone or outer.run.background:
            return
        self._charge([outer], since=self._uncharged_since)
        self._admit(block=False)
        self._drop_cancelled(but=outer)
        order = [live for live in self._order() if live is outer or _draws(live)]
        if order and order[0] is not outer:
            self._in_unit = None
            began = time.perf_counter()
            try:
                self._serve(order[0], [live for live in order if live is not outer])
            finally:
                self._in_unit = outer
                self._of_others += time.perf_counter() - began
        else:
            _note_turn(order, served=[outer])
        self._uncharged_since = self._clock()

    def _order(self) -> list[_Live]:
        """Return what could be served now, the first first.

        The background comes where nothing else does, or where its share is due.
        """
        foreground = [live for live in self._live if live.ready and not live.run.background]
        background = self._background()
        if not foreground:
            return background
        before = [live for live in background if live.run.share > 0 and self._ration.due]
        return before + self._shares.order(
            [
                Claimant(
                    key=live,
                    tenant=live.run.tenant,
                    priority=live.run.priority,
                    remaining=live.remaining,
                    waited=live.waited,
                )
                for live in foreground
            ]
        )

    def _background(self) -> list[_Live]:
        """Return the background attempt that is next, none while somebody wants to be alone."""
        if any(live.run.alone for live in self._live):
            return []
        return [live for live in self._live if live.ready and live.run.background][:1]

    def _serve(self, first: _Live, order: Sequence[_Live]) -> None:
        if isinstance(first.units, Drawing) and first.units.begun:
            began = self._clock()
            served = self._tick(first.units, order)
            self._charge(served, since=began)
        else:
            served = [first]
            # To begin a row is short, and its report of progress is no place to share.
            self._in_unit = None if _draws(first) else first
            self._uncharged_since = self._clock()
            try:
                self._unit(first)
            finally:
                self._in_unit = None
            self._charge(served, since=self._uncharged_since)
        _note_turn(order, served=served)

    def _charge(self, served: Sequence[_Live], *, since: float) -> None:
        """Note who had the device. The background costs its tenant nothing: it waits for others."""
        seconds = self._clock() - since
        for live in served:
            if live.run.background:
                if any(other.ready and not other.run.background for other in self._live):
                    self._ration.spend(seconds, share=live.run.share)
                return
            self._shares.charge(live.run.tenant, seconds=seconds / len(served))
        for live in self._background():
            self._ration.earn(seconds, share=live.run.share)

    def _tick(self, lead: Drawing, order: Sequence[_Live]) -> list[_Live]:
        """Do a denoising step of the rows that are due and fit together; return whose they are."""
        drawing = [(live, live.units) for live in order if isinstance(live.units, Drawing)]
        began = time.perf_counter()
        with self._meter.running() as shares:
            stepped = step_rows(lead.denoiser, choose_rows(lead, [units for _, units in drawing]))
            riding = [
                (live, units, rows)
                for live, units in drawing
                if (rows := [row for row in units.rows if row in stepped])
            ]
            shares |= {live.bill: len(rows) for live, _, rows in riding}
        served = [live for live, _, _ in riding]
        self._tell("denoise", served, since=began, rows=len(stepped))
        for live, units, rows in riding:
            errors = [error for row in rows if (error := stepped[row]) is not None]
            if errors:
                self._end(live, _described(live.attempt.key, errors[0]))
            else:
                self._attend(live, partial(self._attend_rows, live, units, rows))
        return served

    def _attend_rows(self, live: _Live, units: Drawing, rows: Sequence[Row]) -> bool:
        """Show the rows of which there is news, finish those that are done; True at the last."""
        for row in rows:
            units.preview(row)
        done = [row for row in rows if row.done]
        if not done:
            return False
        began = time.perf_counter()
        last = any(units.finish(row) for row in done)
        self._tell("decode", [live], since=began, rows=len(done))
        return last

    def _unit(self, live: _Live) -> None:
        """Do one unit of an attempt's own; the first is to open it."""
        self._attend(live, lambda: self._step(live))

    def _step(self, live: _Live) -> bool:
        if live.units is None:
            opener: Opener = self._opener or open_units
            with self._told("open", live):
                live.units = opener(
                    live.run.task_type, live.run.work, live.attempt, self._residency
                )
            return False
        with self._told("begin" if isinstance(live.units, Drawing) else "work", live):
            return live.units.step()

    @contextmanager
    def _told(self, phase: str, live: _Live) -> Iterator[None]:
        """Tell the parent how long the unit inside took, and what it had to wait for before."""
        before, self._of_others = self._of_others, 0.0
        began = time.perf_counter()
        if live.waiting is not None:
            self._tell("load", [live], since=live.waiting_since, device_seconds=0.0)
        try:
            yield
        except Loading:
            live.waiting_since = began
            raise
        else:
            own = time.perf_counter() - began - self._of_others
            self._tell(phase, [live], since=began, device_seconds=own)
        finally:
            self._of_others = before

    def _tell(
        self,
        phase: str,
        served: Sequence[_Live],
        *,
        since: float,
        device_seconds: float | None = None,
        rows: int = 0,
    ) -> None:
        seconds = time.perf_counter() - since
        self._link.send(
            Spent(
                phase=phase,
                task_type=served[0].run.task_type,
                keys=tuple(live.attempt.key for live in served),
                began=time.time() - seconds,
                seconds=seconds,
                device_seconds=seconds if device_seconds is None else device_seconds,
                rows=rows,
            )
        )

    def _attend(self, live: _Live, work: Callable[[], bool]) -> None:
        """Do some work of an attempt, True where it was the last, and tell how it ended."""
        with self._meter.running() as shares:
            shares[live.bill] = 1
            ended = self._attended(live, work)
        if ended is not None:
            self._end(live, ended)

    def _attended(self, live: _Live, work: Callable[[], bool]) -> Done | Stopped | Errored | None:
        """Do some work of an attempt and return how it ended, None where it did not.

        What was raised holds the frames of the work, and with them its memory, until this returns.
        """
        key = live.attempt.key
        try:
            last = work()
            if isinstance(live.units, Drawing) and not last:
                live.attempt.between_steps(live.units.progress)
        except Loading as exc:
            live.waiting = exc.future
            exc.future.add_done_callback(lambda _: self._link.wake())
            return None
        except Dropped:
            return Stopped(key=key)
        except Exception as exc:  # noqa: BLE001  # whatever a model raises, the loop serves the next
            return _described(key, exc)
        live.waiting = None
        return Done(key=key) if last else None

    def _drop_cancelled(self, *, but: _Live | None = None) -> None:
        for live in list(self._live):
            if live is not but and self._link.is_cancelled(live.attempt.key):
                self._end(live, Stopped(key=live.attempt.key))

    def _end(self, live: _Live, message: Done | Stopped | Errored) -> None:
        key = live.attempt.key
        self._live.remove(live)
        if isinstance(live.units, Closable):
            live.units.close()
        live.units = None
        self._link.forget(key)
        self._link.send(replace(message, usage=live.bill.usage))
        self._residency.release(key)
        if isinstance(message, Errored):
            self._residency.give_back()
        self._link.send(Residents(models=self._residency.names()))


def _described(key: str, exc: Exception) -> Errored:
    _log.error("attempt_raised", key=key, exc_info=exc)
    return describe_failure(key, exc)


def _draws(live: _Live) -> bool:
    """Whether it draws rows, or may once it is opened."""
    return isinstance(live.units, Drawing) or (
        live.units is None and live.run.task_type in ROW_QUEUES
    )


def _note_turn(order: Sequence[_Live], *, served: Sequence[_Live]) -> None:
    for live in order:
        live.waited = 0 if live in served else live.waited + 1
