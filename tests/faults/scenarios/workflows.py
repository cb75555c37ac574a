"""C10 (F22): graphs of tasks while workers, devices and PostgreSQL die: no step twice or stuck."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx

from faults.checker import judge
from faults.client import insist
from faults.figures import Figure, Table
from faults.laboratory import Laboratory
from faults.nemesis import kill_device, kill_worker, restart_database, under_fire
from faults.reading import read_ledgers, settled
from faults.waiting import wait_for

PATIENCE = 900.0  # seconds for everything to end
_CONVERT = {"type": "processing", "config": {"operation": "convert", "output_format": "png"}}
# A diamond with a tail; each step one task.
STEPS: list[dict[str, Any]] = [
    {"name": "a", "type": "generation", "config": {"prompt": "a dress", "steps": 10, "seed": 1}},
    {"name": "b", **_CONVERT, "depends_on": ["a"]},
    {"name": "c", **_CONVERT, "depends_on": ["a"]},
    {"name": "d", **_CONVERT, "depends_on": ["b"]},
    {
        "name": "e",
        "type": "processing",
        "config": {"operation": "adjust", "brightness": 1.1},
        "depends_on": ["d"],
    },
]


def workflows(
    lab: Laboratory,
    *,
    count: int,
    faults: int,
    struck: int = 0,
    pause: tuple[float, float] = (1.0, 5.0),
) -> list[Figure]:
    """Run `count` workflows under fire; of a hundred commits that touch a task, `struck` fail."""
    acts = [kill_worker, kill_device, partial(restart_database, mode="immediate")]
    lab.strike(struck)
    made: list[str] = []
    with (
        under_fire(lab, acts, count=faults, pause=pause) as firing,
        ThreadPoolExecutor(4) as pool,
    ):
        for numbers in firing.spread(range(count)):
            made += pool.map(lambda number: _start(lab, number), numbers)
    wait_for(lambda: _over(lab) or None, what="all runs", timeout=PATIENCE, every=0.5)
    lab.strike(0)
    settled(lab, timeout=PATIENCE)
    ledgers = read_ledgers(lab)
    verdict = judge(ledgers)
    # Each step of each run must have one task, and that is all.
    wanted = Counter((workflow, step["name"]) for workflow in made for step in STEPS)
    rows = lab.ask("select workflow_id, step_name, status from task where workflow_id is not null")
    found = Counter((row["workflow_id"], row["step_name"]) for row in rows)
    unfinished = [row["step_name"] for row in rows if row["status"] != "completed"]
    stuck = lab.ask("select id from run where status <> 'completed'")
    table = Table.of(lab, "C10")
    return [
        *table.never(verdict),
        table.line("steps without a task", (wanted - found).total(), 0),
        table.line("steps with another task", (found - wanted).total(), 0),
        table.line("tasks of steps that did not complete", len(unfinished), 0, said=unfinished),
        table.line("runs that did not complete", len(stuck), 0, said=[row["id"] for row in stuck]),
    ]


def _start(lab: Laboratory, number: int) -> str:
    body = {"name": f"w{number}", "steps": STEPS, "webhook_url": lab.receiver.url}

    def create(client: httpx.Client) -> httpx.Response:
        return client.post("/workflows", json=body, headers={"Idempotency-Key": f"w{number}"})

    made = insist(lab, create).raise_for_status().json()

    def start(client: httpx.Client) -> httpx.Response:
        return client.post(
            f"/workflows/{made['id']}/start",
            json={"cache": False},
            headers={"Idempotency-Key": f"start-{number}"},
        )

    # Started by a request whose answer did not come: the second is told so.
    answer = insist(lab, start)
    assert answer.status_code in (200, 201, 202, 409), answer.text
    return str(made["id"])


def _over(lab: Laboratory) -> bool:
    if lab.unfinished() != 0:
        return False
    return not lab.ask("select 1 from run where status in ('running', 'paused')")
