"""C7 (F19): a cancel that comes in the instant in which the task completes."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx

from faults.checker import judge
from faults.client import wanted
from faults.figures import Figure, Table
from faults.laboratory import Laboratory
from faults.reading import read_ledgers, settled

PATIENCE = 600.0  # seconds for everything to end
THREADS = 8


def cancels(lab: Laboratory, *, races: int) -> list[Figure]:
    """Submit `races` tasks, and cancel each about when it ends."""
    aim = _Aim()
    with ThreadPoolExecutor(THREADS) as pool, _session(lab) as session:
        said = dict(pool.map(lambda number: _race(lab, session, aim, number), range(races)))
    settled(lab, timeout=PATIENCE)
    ledgers = read_ledgers(lab)
    ends = {each.task: each.status for each in ledgers.endings}
    wrong = [task for task, word in said.items() if ends[task] != word]
    table = Table.of(lab, "C7")
    return [
        *table.never(judge(ledgers)),
        table.line("answers that are not how the task ended", len(wrong), 0, said=wrong),
        table.line("races that the cancel won", _count(said, "cancelled"), None),
        table.line("races that the task won", _count(said, "completed"), None),
    ]


class _Aim:
    """How long to wait with a cancel: a little less after each that was late, and more else."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds = 0.1

    @property
    def seconds(self) -> float:
        return self._seconds

    def learn(self, *, late: bool) -> None:
        with self._lock:
            self._seconds = max(0.0, self._seconds * (0.97 if late else 1.03) + 0.00001)


def _race(lab: Laboratory, session: httpx.Client, aim: _Aim, number: int) -> tuple[str, str]:
    """Return a task, and how the answer to its cancel says that it ended."""
    dice = random.Random(lab.seed * 1_000_003 + number)
    key = f"c{number}"
    api = lab.apis[number % len(lab.apis)]
    body = {**wanted(key, steps=1, seed=number), "webhook_url": lab.receiver.url}
    made = session.post(f"{api.url}/tasks/generation", json=body).raise_for_status().json()
    task = str(made["id"])
    lab.requests.note(key=key, task=task, status=201)
    threading.Event().wait(max(0.0, aim.seconds + dice.uniform(-0.02, 0.02)))
    answer = session.post(f"{api.url}/tasks/{task}/cancel")
    if answer.status_code == 200:
        # Asked again, it says the same.
        assert session.post(f"{api.url}/tasks/{task}/cancel").json()["status"] == "cancelled"
        aim.learn(late=False)
        return task, str(answer.json()["status"])
    assert answer.status_code == 409, answer.text
    aim.learn(late=True)
    return task, "completed"


def _session(lab: Laboratory) -> httpx.Client:
    return httpx.Client(headers={"Authorization": f"Bearer {lab.key}"}, timeout=30)


def _count(said: dict[str, str], word: str) -> int:
    return sum(each == word for each in said.values())
