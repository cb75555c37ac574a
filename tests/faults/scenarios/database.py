"""C4 (F5, F6): PostgreSQL is restarted again and again, and its sessions are ended at random."""

from __future__ import annotations

import random
import threading
import time
from functools import partial

import httpx

from faults.checker import judge
from faults.client import Client, wanted
from faults.figures import Figure, Table
from faults.laboratory import Laboratory
from faults.nemesis import end_a_session, restart_database, under_fire
from faults.reading import read_ledgers, settled

PATIENCE = 600.0  # seconds for everything to end
SLOWEST = 10.0  # seconds within which a caller hears of it


def restarts(
    lab: Laboratory, *, tasks: int, restarts: int, pause: tuple[float, float] = (5.0, 25.0)
) -> list[Figure]:
    """Run `tasks` while PostgreSQL is restarted, fast and without asking in turn by the dice."""
    lab.wait_workers(len(lab.workers))
    alive = {process.process.pid for process in (*lab.workers, *lab.apis)}
    acts = [partial(restart_database, mode=mode) for mode in ("fast", "immediate")]
    watch = _Watch(lab)
    bodies = [
        (f"d{number}", wanted(f"d{number}", steps=lab.dice.randint(10, 100), seed=number))
        for number in range(tasks)
    ]
    with watch, under_fire(lab, acts, count=restarts, pause=pause) as firing:
        made = Client(lab=lab).spread(bodies, firing)
    settled(lab, timeout=PATIENCE)
    ledgers = read_ledgers(lab)
    verdict = judge(ledgers)
    begun = [run for run in ledgers.runs if run.what == "start" and run.task in made]
    table = Table.of(lab, "C4")
    gone = [
        process.name
        for process in (*lab.workers, *lab.apis)
        if process.process.pid in alive and not process.alive
    ]
    return [
        *table.never(verdict),
        table.line("attempts beyond the first", len(begun) - len(made), 0, timed=True),
        table.line("processes that ended", len(gone), 0, said=gone),
        table.line("answers that were neither 200 nor 503", len(watch.wrong), 0, said=watch.wrong),
        table.line("503 without Retry-After", watch.mute, 0),
        table.line("slowest answer meanwhile, s", watch.slowest, SLOWEST, timed=True),
    ]


def sessions(
    lab: Laboratory, *, tasks: int, ended: int, pause: tuple[float, float] = (0.15, 0.25)
) -> list[Figure]:
    """Run `tasks` while one session of PostgreSQL after another is ended, whoever has it."""
    watch = _Watch(lab)
    bodies = [
        (f"s{number}", wanted(f"s{number}", steps=lab.dice.randint(10, 50), seed=number))
        for number in range(tasks)
    ]
    with watch, under_fire(lab, [end_a_session], count=ended, pause=pause) as firing:
        Client(lab=lab).spread(bodies, firing)
    settled(lab, timeout=PATIENCE)
    verdict = judge(read_ledgers(lab))
    table = Table.of(lab, "F6")
    return [
        *table.never(verdict),
        table.line("answers that were neither 200 nor 503", len(watch.wrong), 0, said=watch.wrong),
    ]


class _Watch:
    """A caller who asks all the time, and notes how long each answer takes."""

    def __init__(self, lab: Laboratory) -> None:
        self._lab = lab
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, name="watch", daemon=True)
        self.slowest = 0.0
        self.mute = 0
        self.wrong: list[str] = []

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _ask(self) -> None:
        headers = {"Authorization": f"Bearer {self._lab.key}"}
        dice = random.Random(self._lab.seed)
        with httpx.Client(headers=headers, timeout=60) as client:
            while not self._over.wait(0.05):
                began = time.monotonic()
                try:
                    answer = client.get(f"{dice.choice(self._lab.apis).url}/tasks?page_size=1")
                except httpx.TransportError as exc:
                    self.wrong.append(type(exc).__name__)
                    continue
                self.slowest = max(self.slowest, time.monotonic() - began)
                if answer.status_code == 503:
                    self.mute += "retry-after" not in answer.headers
                elif answer.status_code != 200:
                    self.wrong.append(f"{answer.status_code} {answer.text[:100]}")
