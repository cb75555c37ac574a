"""C20 (F24): every process is replaced, one after another, while requests and tasks go on."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from typing import Self

import httpx

from faults.checker import judge
from faults.client import wanted
from faults.figures import Figure, Table
from faults.laboratory import Laboratory, Process
from faults.reading import read_ledgers, settled
from faults.waiting import wait_for

PATIENCE = 300.0  # seconds for everything to end
THREADS = 4


def rolling(lab: Laboratory, *, rounds: int, rate: float = 20.0) -> list[Figure]:
    """Replace each API process and each worker `rounds` times under `rate` POSTs a second.

    As a load balancer does, the client sends nothing new to a process that is about to be ended,
    and that is ended when what it had was answered.
    """
    balancer = _Balancer(lab)
    seconds: dict[str, list[float]] = {"api": [], "worker": []}
    with balancer:
        callers = [
            threading.Thread(target=balancer.call, args=(number, rate / THREADS))
            for number in range(THREADS)
        ]
        for caller in callers:
            caller.start()
        for _ in range(rounds):
            for api in list(lab.apis):
                seconds["api"].append(_replace_api(lab, balancer, api))
            for worker in list(lab.workers):
                seconds["worker"].append(_replace_worker(lab, worker))
    for caller in callers:
        caller.join()
    ended = settled(lab, timeout=PATIENCE)
    verdict = judge(read_ledgers(lab))
    table = Table.of(lab, "C20")
    return [
        *table.never(verdict),
        table.line("tasks without an end", 0 if ended else lab.unfinished(), 0),
        table.line("failed requests", len(balancer.failed), 0, said=balancer.failed),
        table.line("short tasks that were redone", verdict.redone, 0),
        table.line("requests", sum(balancer.answered.values()), None),
        table.line("API to its first answer, longest s", max(seconds["api"]), 3, timed=True),
        table.line("worker to its first word, longest s", max(seconds["worker"]), 3, timed=True),
    ]


class _Balancer:
    """Sends requests to the processes that are in service, each on a connection of its own."""

    def __init__(self, lab: Laboratory) -> None:
        self._lab = lab
        self._serving = list(lab.apis)
        self._over = threading.Event()
        self._changed = threading.Condition()
        self._under_way: Counter[str] = Counter()
        self.failed: list[str] = []
        self.answered: Counter[int] = Counter()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def withdraw(self, api: Process) -> None:
        """Send nothing more there; returns when everything that was sent is answered."""
        with self._changed:
            self._serving = [each for each in self._serving if each is not api]
            self._changed.wait_for(lambda: not self._under_way[api.name])

    def admit(self, api: Process) -> None:
        """Send requests there too."""
        with self._changed:
            self._serving = [*self._serving, api]

    def call(self, number: int, rate: float) -> None:
        """Make tasks of 0.5 s at that rate, and look at each, until it is over."""
        dice = random.Random(self._lab.seed + number)
        headers = {"Authorization": f"Bearer {self._lab.key}"}
        count = 0
        while not self._over.wait(dice.expovariate(rate)):
            count += 1
            key = f"u{number}-{count}"
            made = self._ask("POST", "/tasks/generation", headers, wanted(key, steps=25))
            if made is not None:
                task = str(made.json()["id"])
                self._lab.requests.note(key=key, task=task, status=made.status_code)
                self._ask("GET", f"/tasks/{task}", headers, None)

    def _ask(
        self, method: str, path: str, headers: dict[str, str], body: object
    ) -> httpx.Response | None:
        with self._changed:
            api = random.choice(self._serving)
            self._under_way[api.name] += 1
        try:
            answer = httpx.request(method, f"{api.url}{path}", headers=headers, json=body)
        except httpx.TransportError as exc:
            self.failed.append(f"{method} {type(exc).__name__}")
            return None
        finally:
            with self._changed:
                self._under_way[api.name] -= 1
                self._changed.notify_all()
        self.answered[answer.status_code] += 1
        if not answer.is_success:
            self.failed.append(f"{method} {answer.status_code}")
            return None
        return answer


def _replace_api(lab: Laboratory, balancer: _Balancer, api: Process) -> float:
    """Start another, then end this one in order; return how long the other took to answer."""
    began = time.monotonic()
    other = lab.start_api()
    took = time.monotonic() - began
    balancer.admit(other)
    balancer.withdraw(api)
    api.send(signal.SIGTERM)
    api.process.wait(timeout=60)
    lab.apis.remove(api)
    return took


def _replace_worker(lab: Laboratory, worker: Process) -> float:
    """End a worker in order and start another; return how long that took to be heard of."""
    known = {row["id"] for row in lab.ask("select id from worker")}
    # To the parent alone, as service managers do: it ends its device itself.
    worker.process.send_signal(signal.SIGTERM)
    worker.process.wait(timeout=60)
    lab.workers.remove(worker)
    began = time.monotonic()
    lab.start_worker()
    wait_for(
        lambda: {row["id"] for row in lab.ask("select id from worker")} - known, what="a worker"
    )
    return time.monotonic() - began
