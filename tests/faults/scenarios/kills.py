"""C1 to C3 (F1, F2): workers and device processes die by kill -9, at random, under a load."""

from __future__ import annotations

from statistics import median

from faults.checker import judge
from faults.client import Client, wanted
from faults.figures import Figure, Table
from faults.laboratory import Laboratory
from faults.nemesis import kill_device, kill_worker, under_fire
from faults.reading import read_ledgers, settled

PATIENCE = 600.0  # seconds for everything to end
SHARING = 8  # attempts that share a device


# Each task may be hit by many kills, and is not poison for that.
SETTINGS = {"MAX_ATTEMPTS": "20"}


def kills(
    lab: Laboratory,
    *,
    tasks: int,
    kills: int,
    steps: tuple[int, int] = (10, 100),
    pause: tuple[float, float] = (0.2, 3.0),
) -> list[Figure]:
    """Run `tasks`, of 0.2 to 2 seconds, while workers and devices are killed so often."""
    bodies = [
        (f"k{number}", wanted(f"k{number}", steps=lab.dice.randint(*steps), seed=number))
        for number in range(tasks)
    ]
    with under_fire(lab, [kill_worker, kill_device], count=kills, pause=pause) as firing:
        Client(lab=lab).spread(bodies, firing)
    settled(lab, timeout=PATIENCE)
    verdict = judge(read_ledgers(lab))
    table = Table.of(lab, "C1")
    recovery = Table.of(lab, "C2")
    return [
        *table.never(verdict),
        table.line("attempts beyond the first", verdict.redone, kills * SHARING),
        *_seconds(recovery, "worker killed, to the next claim", verdict.recovery.get("worker"), 20),
        *_seconds(recovery, "device killed, to the next claim", verdict.recovery.get("device"), 2),
        # Who was tried before has its device alone, one after the other: reported, not judged.
        *_seconds(recovery, "worker killed, to the next start", verdict.restart.get("worker")),
        *_seconds(recovery, "device killed, to the next start", verdict.restart.get("device")),
    ]


def _seconds(
    table: Table, what: str, found: tuple[float, ...] | None, most: float | None = None
) -> list[Figure]:
    if not found:
        return []
    return [
        table.line(f"{what}: median s of {len(found)}", median(found), None),
        table.line(f"{what}: longest s", max(found), most, timed=True),
    ]
