"""What breaks things: each act does one kind of harm, and writes it into the book of faults."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

import psycopg

from faults.laboratory import Laboratory, Mode, Process
from faults.ledgers import Fault

Act = Callable[[Laboratory], None]
T = TypeVar("T")


def kill_worker(lab: Laboratory) -> None:
    """kill -9 a worker with its device, any of them; another is started in its place."""
    victim = _any_worker(lab)
    devices = victim.devices
    victim.send(signal.SIGKILL)
    lab.faults.append(Fault(kind="worker", at=time.time(), pids=devices))
    lab.replace(victim)


def kill_device(lab: Laboratory) -> None:
    """kill -9 a device process, any of them; its worker starts another."""
    victims = [pid for worker in lab.workers for pid in worker.devices]
    if not victims:
        return
    pid = lab.dice.choice(sorted(victims))
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    lab.faults.append(Fault(kind="device", at=time.time(), pids=frozenset({pid})))


def restart_database(lab: Laboratory, mode: Mode) -> None:
    """Stop PostgreSQL in that way and start it again."""
    began = time.time()
    lab.database.restart(mode)
    lab.faults.append(Fault(kind=f"database {mode}", at=began, everywhere=True, until=time.time()))


def end_a_session(lab: Laboratory) -> None:
    """Have PostgreSQL end one of its sessions, any of them."""
    try:
        rows = lab.ask(
            "select pid from pg_stat_activity where datname = current_database()"
            " and backend_type = 'client backend' and pid <> pg_backend_pid()"
        )
        if rows:
            pid = lab.dice.choice(sorted(row["pid"] for row in rows))
            lab.ask("select pg_terminate_backend(%s)", pid)
    except psycopg.OperationalError:
        pass


@contextmanager
def stopped(lab: Laboratory, victim: Process) -> Iterator[None]:
    """Stop a worker with its device, as a machine does that hangs, until the block ends."""
    devices = victim.devices
    began = time.time()
    victim.send(signal.SIGSTOP)
    try:
        yield
    finally:
        lab.faults.append(Fault(kind="stopped", at=began, pids=devices, until=time.time()))
        victim.send(signal.SIGCONT)


class Firing:
    """Acts that are done beside a block, in the order of the dice and with pauses between them."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._done = 0
        self._moved = threading.Condition()
        self._quit = threading.Event()
        self._failures: list[BaseException] = []

    def spread(self, items: Sequence[T]) -> Iterator[Sequence[T]]:
        """Yield the items a tenth at a time, so that there is work all along."""
        tenth = max(1, math.ceil(len(items) / 10))
        for first in range(0, len(items), tenth):
            due = self._count * first / len(items)
            with self._moved:
                self._moved.wait_for(lambda: self._done >= due)  # noqa: B023  # called at once
            yield items[first : first + tenth]

    def run(self, lab: Laboratory, acts: Sequence[Act], pause: tuple[float, float]) -> None:
        """Do the acts."""
        try:
            for _ in range(self._count):
                if self._quit.wait(lab.dice.uniform(*pause)):
                    break
                lab.dice.choice(acts)(lab)
                with self._moved:
                    self._done += 1
                    self._moved.notify_all()
        except BaseException as exc:  # noqa: BLE001  # raised where the block ends
            self._failures.append(exc)
        finally:
            with self._moved:
                self._done = self._count
                self._moved.notify_all()

    def quit(self) -> None:
        """Do no more of them."""
        self._quit.set()

    def complain(self) -> None:
        """Raise what an act raised."""
        if self._failures:
            raise self._failures[0]


@contextmanager
def under_fire(
    lab: Laboratory, acts: Sequence[Act], *, count: int, pause: tuple[float, float]
) -> Iterator[Firing]:
    """Do `count` acts beside the block, and end when both have; what an act raised is raised."""
    firing = Firing(count)
    thread = threading.Thread(
        target=firing.run, args=(lab, acts, pause), name="nemesis", daemon=True
    )
    thread.start()
    try:
        yield firing
        thread.join()
    finally:
        firing.quit()
        thread.join()
    firing.complain()


def _any_worker(lab: Laboratory) -> Process:
    return lab.dice.choice(lab.workers)
