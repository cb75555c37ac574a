"""What breaks things: each act does one kind of harm, and writes it into the book of faults."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg

from faults.laboratory import Laboratory, Mode, Process
from faults.ledgers import Fault

Act = Callable[[Laboratory], None]


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


@contextmanager
def under_fire(
    lab: Laboratory, acts: Sequence[Act], *, count: int, pause: tuple[float, float]
) -> Iterator[threading.Thread]:
    """Do `count` acts, in the order of the dice and with pauses between them, beside the block.

    The block goes on while it does; what it raised is raised at the end.
    """
    failures: list[BaseException] = []
    quit_early = threading.Event()

    def fire() -> None:
        try:
            for _ in range(count):
                if quit_early.wait(lab.dice.uniform(*pause)):
                    return
                lab.dice.choice(acts)(lab)
        except BaseException as exc:  # noqa: BLE001  # raised where the block ends
            failures.append(exc)

    thread = threading.Thread(target=fire, name="nemesis", daemon=True)
    thread.start()
    try:
        yield thread
        thread.join()
    finally:
        quit_early.set()
        thread.join()
    if failures:
        raise failures[0]


def _any_worker(lab: Laboratory) -> Process:
    return lab.dice.choice(lab.workers)
