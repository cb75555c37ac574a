"""The one judge: what the ledgers of an experiment say of it. A pure function, with its own tests.

The words are those of Jepsen's checkers: what was acknowledged and is not there is lost, what is
there and nobody asked for is unexpected, what the client was told had failed and is there anyhow is
recovered, which is no fault.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import zip_longest

from faults.ledgers import TERMINAL, Change, Ending, Fault, Ledgers, Run

ALLOWED = frozenset(
    {
        ("pending", "running"),
        ("pending", "cancelled"),
        ("running", "running"),
        ("running", "pending"),
        ("running", "completed"),
        ("running", "failed"),
        ("running", "cancelled"),
    }
)
_ENDS = frozenset(f"{kind}.{end}" for kind in ("task", "training") for end in TERMINAL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to be said. Tasks by id, requests by key.

    `lost`: acknowledged and without an end. `unexpected`: there, and nobody asked for it.
    `done_twice`: more than one end, in the row, by webhooks or in what is named. `illegal`: an end
    that changed, or a change that no state has. `unreadable`: named outputs that are not there or
    are other bytes. `redone` counts attempts beyond the first, `redone_without_fault` are tasks
    with more of them than faults that hit them. `recovered` are requests that were answered by
    errors only and whose task is there. `orphans` are stored outputs that no task names.
    For each task that a fault hit, by its kind: `recovery` are the seconds until a worker has made
    it its own again, `restart` until a device has begun it again.
    """

    lost: tuple[str, ...]
    unexpected: tuple[str, ...]
    done_twice: tuple[str, ...]
    illegal: tuple[str, ...]
    unreadable: tuple[str, ...]
    redone: int
    redone_without_fault: tuple[str, ...]
    recovered: tuple[str, ...]
    orphans: tuple[str, ...]
    recovery: dict[str, tuple[float, ...]]
    restart: dict[str, tuple[float, ...]]

    @property
    def faults(self) -> dict[str, tuple[str, ...]]:
        """What must never be, where there is any of it."""
        named = {
            "lost": self.lost,
            "unexpected": self.unexpected,
            "done twice": self.done_twice,
            "illegal": self.illegal,
            "unreadable": self.unreadable,
            "redone without a fault": self.redone_without_fault,
        }
        return {name: found for name, found in named.items() if found}


def judge(ledgers: Ledgers) -> Verdict:
    """Return what the ledgers say."""
    ended = {each.task: each for each in ledgers.endings if each.status in TERMINAL}
    hits, recovery, restart = _faults(ledgers)
    starts = Counter(run.task for run in ledgers.runs if run.what == "start")
    return Verdict(
        lost=_lost(ledgers, ended),
        unexpected=_unexpected(ledgers),
        done_twice=_done_twice(ledgers),
        illegal=_illegal(ledgers),
        unreadable=_unreadable(ledgers),
        redone=sum(count - 1 for count in starts.values()),
        redone_without_fault=tuple(
            sorted(task for task, count in starts.items() if count - 1 > hits[task])
        ),
        recovered=_recovered(ledgers, ended),
        orphans=_orphans(ledgers),
        recovery=recovery,
        restart=restart,
    )


def _lost(ledgers: Ledgers, ended: dict[str, Ending]) -> tuple[str, ...]:
    acknowledged = {each.task for each in ledgers.requests if each.task is not None}
    return tuple(sorted(acknowledged - ended.keys()))


def _unexpected(ledgers: Ledgers) -> tuple[str, ...]:
    """One task for each key that was asked under: the one that was told, where one was."""
    told = {each.task for each in ledgers.requests if each.task is not None}
    asked = {each.key for each in ledgers.requests}
    answered = {each.key for each in ledgers.requests if each.task is not None}
    one_each: set[str] = set()
    found = []
    alone = [each for each in ledgers.endings if not each.of_workflow]
    for ending in sorted(alone, key=lambda each: each.task):
        # Where a key was answered, its one task is what was told; else any one may be there.
        ours = ending.task in told or ending.key not in answered
        if ending.key in asked - one_each and ours:
            one_each.add(ending.key)
        else:
            found.append(ending.task)
    return tuple(found)


def _done_twice(ledgers: Ledgers) -> tuple[str, ...]:
    ends = Counter(each.task for each in ledgers.changes if each.after in TERMINAL)
    twice = {task for task, count in ends.items() if count > 1}
    told: defaultdict[str, set[str]] = defaultdict(set)
    for delivery in ledgers.deliveries:
        if delivery.type in _ENDS:
            told[delivery.task].add(delivery.id)
    twice |= {task for task, ids in told.items() if len(ids) > 1}
    for ending in ledgers.endings:
        attempts = {named.key.split("/")[2] for named in ending.outputs}
        if len(attempts) > 1 or len({named.key for named in ending.outputs}) < len(ending.outputs):
            twice.add(ending.task)
    return tuple(sorted(twice))


def _illegal(ledgers: Ledgers) -> tuple[str, ...]:
    bad = {each.task for each in ledgers.changes if not _may_be(each)}
    bad |= {each.task for each in ledgers.endings if each.outputs and each.status != "completed"}
    ends = {each.task: each.status for each in ledgers.endings if each.status in TERMINAL}
    bad |= {
        each.task
        for each in ledgers.deliveries
        if each.type in _ENDS
        and each.task in ends
        and not each.type.endswith(f".{ends[each.task]}")
    }
    return tuple(sorted(bad))


def _may_be(change: Change) -> bool:
    # A change that is none is one of what an end says, such as its output.
    if change.before == change.after and change.before in TERMINAL:
        return False
    return change.before == change.after or (change.before, change.after) in ALLOWED


def _unreadable(ledgers: Ledgers) -> tuple[str, ...]:
    return tuple(
        sorted(
            {
                ending.task
                for ending in ledgers.endings
                for named in ending.outputs
                if not (named.told == named.served == ledgers.stored.get(named.key))
            }
            | {
                ending.task
                for ending in ledgers.endings
                if ending.status == "completed" and not ending.outputs
            }
        )
    )


def _recovered(ledgers: Ledgers, ended: dict[str, Ending]) -> tuple[str, ...]:
    there = {each.key for each in ended.values()}
    return tuple(
        sorted(each.key for each in ledgers.requests if each.task is None and each.key in there)
    )


def _orphans(ledgers: Ledgers) -> tuple[str, ...]:
    named = {each.key for ending in ledgers.endings for each in ending.outputs}
    return tuple(sorted(key for key in ledgers.stored if key not in named))


def _faults(
    ledgers: Ledgers,
) -> tuple[Counter[str], dict[str, tuple[float, ...]], dict[str, tuple[float, ...]]]:
    """Return how many faults hit each task, and the seconds to its next claim and beginning."""
    starts: defaultdict[str, list[Run]] = defaultdict(list)
    for run in sorted(ledgers.runs, key=lambda each: each.at):
        if run.what == "start":
            starts[run.task].append(run)
    claims = {
        (each.task, each.attempt): each.at for each in ledgers.changes if each.after == "running"
    }
    hits: Counter[str] = Counter()
    recovery: defaultdict[str, list[float]] = defaultdict(list)
    restart: defaultdict[str, list[float]] = defaultdict(list)
    for task, began in starts.items():
        for run, following in zip_longest(began, began[1:]):
            fault = next((each for each in ledgers.faults if _hit(run, each, following)), None)
            if fault is None:
                continue
            hits[task] += 1
            if following is not None and not fault.everywhere:
                restart[fault.kind].append(following.at - fault.at)
            claimed = claims.get((task, run.attempt + 1))
            if claimed is not None and not fault.everywhere:
                recovery[fault.kind].append(claimed - fault.at)
    return hits, _sorted(recovery), _sorted(restart)


def _sorted(found: dict[str, list[float]]) -> dict[str, tuple[float, ...]]:
    return {kind: tuple(sorted(seconds)) for kind, seconds in found.items()}


def _hit(run: Run, fault: Fault, following: Run | None) -> bool:
    """Whether a fault may be why an attempt was not the last: it was then in what was hit.

    Also where the device had finished: what it made may not have been stored or settled.
    """
    until = fault.at if fault.until is None else fault.until
    if until < run.at or (following is not None and fault.at > following.at):
        return False
    return fault.everywhere or run.pid in fault.pids
