"""C8 (F12, F13): tasks that kill or exhaust the device that they run on, among good ones."""

from __future__ import annotations

import time
from collections.abc import Sequence

from faults.checker import judge
from faults.client import Client, wanted
from faults.figures import Figure, Table
from faults.laboratory import Laboratory
from faults.ledgers import Ending, Fault
from faults.reading import read_ledgers, settled
from imageloom.device.drill import HANG, KILL, OUT_OF_MEMORY

PATIENCE = 600.0  # seconds for everything to end
# A device that hangs is ended after 5 s in place of 5 min.
SETTINGS = {"DEVICE_SILENCE": "2", "DEVICE_PATIENCE": "3"}
MOST_ATTEMPTS = 3
OF_MEMORY = 2


def poison(
    lab: Laboratory,
    *,
    good: int,
    bad: int,
    kinds: Sequence[str] = (KILL, OUT_OF_MEMORY, HANG),
) -> list[Figure]:
    """Run `bad` tasks of each kind among `good` ones, which must not suffer for it."""
    prompts = [kind for kind in kinds for _ in range(bad)]
    bodies = [
        (f"p{number}", wanted(f"p{number}", prompt=kind, seed=number))
        for number, kind in enumerate(prompts)
    ] + [(f"g{number}", wanted(f"g{number}", seed=number)) for number in range(good)]
    lab.dice.shuffle(bodies)
    # Whose device goes down is decided by who rides with whom.
    began = time.time()
    # What an operator has: elsewhere in the laboratory tasks may be tried more often.
    strict = lab.start_api(IMAGELOOM_MAX_ATTEMPTS=str(MOST_ATTEMPTS))
    Client(lab=lab, apis=[strict]).submit(bodies)
    settled(lab, timeout=PATIENCE)
    lab.faults.append(Fault(kind="poison", at=began, everywhere=True, until=time.time()))
    ledgers = read_ledgers(lab)
    ends = {each.key: each for each in ledgers.endings}
    killed = [ends[f"p{number}"] for number, kind in enumerate(prompts) if kind != OUT_OF_MEMORY]
    starved = [ends[f"p{number}"] for number, kind in enumerate(prompts) if kind == OUT_OF_MEMORY]
    unwell = [f"g{number}" for number in range(good) if ends[f"g{number}"].status != "completed"]
    table = Table.of(lab, "C8")
    return [
        *table.never(judge(ledgers)),
        table.line("good tasks that did not complete", len(unwell), 0, said=unwell),
        _ended(table, "poison that did not fail as lost", killed, "The worker was lost"),
        _ended(table, "what does not fit that did not say so", starved, "CUDA out of memory"),
        table.line("most attempts that were lost", _most(lab, killed, "lost"), MOST_ATTEMPTS),
        table.line(
            "most attempts that ran out of memory", _most(lab, starved, "out_of_memory"), OF_MEMORY
        ),
    ]


def _ended(table: Table, what: str, ends: list[Ending], phrase: str) -> Figure:
    wrong = [
        each.task for each in ends if each.status != "failed" or phrase not in (each.error or "")
    ]
    return table.line(what, len(wrong), 0, said=wrong)


def _most(lab: Laboratory, ends: list[Ending], outcome: str) -> int:
    """Return how often one task was tried with that outcome; what was never begun is not tried."""
    rows = lab.ask(
        "select count(*) as n from attempt where task_id = any(%s)"
        " and coalesce(code, outcome) = %s group by task_id order by n desc limit 1",
        [each.task for each in ends],
        outcome,
    )
    return int(rows[0]["n"]) if rows else 0
