"""C5 (F8, F9): workers that hang or are cut off, and come back when others have their tasks."""

from __future__ import annotations

import time

from faults.checker import judge
from faults.client import Client, wanted
from faults.figures import Figure, Table
from faults.laboratory import Laboratory, Process
from faults.ledgers import Fault
from faults.nemesis import stopped
from faults.proxy import Proxy
from faults.reading import read_ledgers, settled
from faults.waiting import wait_for

PATIENCE = 600.0  # seconds for everything to end


def zombies(lab: Laboratory, *, rounds: int) -> list[Figure]:
    """Stop one worker, and cut another off, each for longer than a lease, in turn."""
    for number in range(rounds):
        _round(lab, f"z{number}", cut=number % 2 == 1)
    settled(lab, timeout=PATIENCE)
    verdict = judge(read_ledgers(lab))
    table = Table.of(lab, "C5")
    return [
        *table.never(verdict),
        table.line("attempts that zombies had in hand", refused(lab), None),
    ]


def refused(lab: Laboratory) -> int:
    """Return how many attempts were taken from a worker: each came back with something to write."""
    query = "select count(*) as n from attempt where outcome = 'lost'"
    return int(lab.ask(query)[0]["n"])


def _round(lab: Laboratory, name: str, *, cut: bool) -> None:
    with Proxy.before(lab.database.port) as proxy:
        # One more, which only this round breaks. It is slow: whatever happens, it is in the middle.
        victim = lab.start_worker(
            database_url=proxy.url(lab.database.tcp_url), IMAGELOOM_DRILL_STEP="0.2"
        )
        others = [worker for worker in lab.workers if worker is not victim]
        try:
            lab.wait_workers(len(lab.workers))
            taken = _work_for(lab, victim, name)
            if cut:
                _cut_off(lab, victim, proxy, taken)
            else:
                with stopped(lab, victim):
                    wait_for(lambda: _taken_back(lab, taken), what="others to take over")
            # It is back, and has had its chance to write what it must not.
            wait_for(lambda: _has_nothing(lab, victim), what="a zombie that has given up")
            wait_for(lambda: lab.unfinished() == 0, what="all ends", timeout=PATIENCE)
        finally:
            proxy.heal()
            lab.workers.remove(victim)
            victim.end()
            assert others == lab.workers


def _work_for(lab: Laboratory, victim: Process, name: str) -> list[str]:
    """Submit tasks until that worker has some, and return those."""
    for batch in range(100):
        # Long enough that another is still at one of them when the first comes back.
        keys = [f"{name}-{batch}-{number}" for number in range(2 * len(lab.workers))]
        bodies = [(key, wanted(key, steps=100, seed=index)) for index, key in enumerate(keys)]
        tasks = list(Client(lab=lab).submit(bodies).values())
        wait_for(lambda: _begun(lab, tasks), what="work that is begun")  # noqa: B023
        if taken := _running_on(lab, victim):
            return taken
    raise AssertionError("the others are always faster")


def _begun(lab: Laboratory, tasks: list[str]) -> bool:
    query = "select count(*) as n from task where id = any(%s) and status = 'pending'"
    return bool(lab.ask(query, tasks)[0]["n"] == 0)


def _cut_off(lab: Laboratory, victim: Process, proxy: Proxy, taken: list[str]) -> None:
    began = time.time()
    devices = victim.devices
    proxy.cut()
    wait_for(lambda: _taken_back(lab, taken), what="others to take over")
    # Before it can hear that it lost them: what it does is for nothing, and it knows.
    wait_for(lambda: '"event": "cut_off"' in victim.log.read_text(), what="a worker that stops")
    lab.faults.append(Fault(kind="cut off", at=began, pids=devices, until=time.time()))
    proxy.heal()


def _running_on(lab: Laboratory, worker: Process) -> list[str]:
    rows = lab.ask(
        "select id from task where status = 'running' and worker like %s",
        f"%-{worker.process.pid}-%",
    )
    return [row["id"] for row in rows]


def _has_nothing(lab: Laboratory, worker: Process) -> bool:
    """Whether the worker says, since it is back, that it is at nothing."""
    rows = lab.ask(
        "select 1 from worker where pid = %s and tasks = '{}'"
        " and last_heartbeat > now() - interval '1 s'",
        worker.process.pid,
    )
    return bool(rows)


def _taken_back(lab: Laboratory, tasks: list[str]) -> bool:
    """Whether each of these has ended or is another's by now."""
    rows = lab.ask(
        "select count(*) as n from task where id = any(%s) and status in ('pending', 'running')"
        " and attempt = 1",
        tasks,
    )
    return bool(rows[0]["n"] == 0)
