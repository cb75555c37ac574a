"""A worker whose device is gone takes no tasks, and those it had are done by others meanwhile."""

from __future__ import annotations

import os
import signal
from contextlib import suppress

from faults.client import Client, wanted
from faults.laboratory import Laboratory, Process
from faults.waiting import wait_for

TASKS = 6


def test_tasks_of_a_worker_whose_device_dies_again_and_again_go_elsewhere(lab: Laboratory) -> None:
    broken, *others = lab.workers
    for worker in others:
        worker.send(signal.SIGSTOP)
    try:
        bodies = [(f"e{number}", wanted(f"e{number}", steps=100)) for number in range(TASKS)]
        tasks = list(Client(lab=lab).submit(bodies).values())
        query = "select count(*) as n from attempt where task_id = any(%s)"
        wait_for(lambda: lab.ask(query, tasks)[0]["n"] == TASKS, what="six attempts")
    finally:
        for worker in others:
            worker.send(signal.SIGCONT)
    # A device that fails whenever it is started: it is killed as soon as it is there.
    wait_for(lambda: no_device(broken) and lab.unfinished() == 0, what="six ends")
    rows = lab.ask(
        "select worker, outcome, count(*) as n from attempt where task_id = any(%s)"
        " group by worker, outcome",
        tasks,
    )
    mine = {row["outcome"]: row["n"] for row in rows if f"-{broken.process.pid}-" in row["worker"]}
    assert mine == {"lost": TASKS}
    assert sum(row["n"] for row in rows if row["outcome"] == "completed") == TASKS


def no_device(worker: Process) -> bool:
    """Kill the device process where there is one; True, as there is none now."""
    for pid in worker.devices:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return True
