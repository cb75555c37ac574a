"""How long users wait when tasks come at random, beside the same engine that does one at a time.

    python bench/trace.py [--pairs 2] [--tasks 100]

A trace of tasks of 4 to 50 steps that come as a Poisson process is replayed, in alternating turns,
against two servers of our own: as it comes, where tasks share the device step by step, and with
IMAGELOOM_DEVICE_TASKS=1, where each runs to its completion. Before each pair of turns the second
one's capacity is measured, and the trace asks for 80 % of it; both sides of a pair see the same
arrivals. On the CPU, with the embedded model. Nothing here fails: a target that is missed is
printed as FAIL. Takes about four minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx

from serving import finish, load, machine, server, word

FEWEST, MOST = 4, 50  # steps
LOAD, TARGET = 0.8, 0.5
CALIBRATION = 20  # tasks by which the capacity is measured
TIME_LIMIT = 140.0  # seconds after which no further pair of turns begins
PROMPT = "a red dress on a white background"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A task that is asked for `after` seconds of the trace."""

    after: float
    body: dict[str, Any]


def main() -> None:
    """Replay traces on both sides and print what users waited."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=2, help="pairs of turns, each a trace")
    parser.add_argument("--tasks", type=int, default=100, help="tasks of a trace")
    options = parser.parse_args()
    until = time.monotonic() + TIME_LIMIT
    busy = os.getloadavg()[0] > (os.cpu_count() or 1) / 2
    print(machine())
    shared: list[float] = []
    alone: list[float] = []
    with server() as ours, server(DEVICE_TASKS="1") as theirs:
        bodies = _bodies(CALIBRATION, random.Random(0))
        for client in (ours, theirs):
            _closed(client, bodies)  # measured warm
        print(f"\nseconds from arrival to picture, {options.tasks} tasks a turn, ABAB")
        print("  shared: mean    p95   one at a time: mean    p95       ratio   tasks a second")
        for pair in range(options.pairs):
            if time.monotonic() > until:
                break
            # Now, as a machine with other work has another capacity every minute.
            rate = LOAD * CALIBRATION / _closed(theirs, bodies)
            trace = _trace(options.tasks, rate, random.Random(pair + 1))
            turns = [_replay(client, trace) for client in (ours, theirs)]
            print(f"{_line(*turns)} {rate:16.2f}", flush=True)
            shared += turns[0]
            alone += turns[1]
    ratio = statistics.mean(shared) / statistics.mean(alone)
    print(f"\nall together\n{_line(shared, alone)}   target {TARGET} x   {word(ratio <= TARGET)}")
    print(f"\nload       {load()} at the end")
    if busy:
        print("           the machine had other work, which delays both sides unevenly")


def _line(shared: Sequence[float], alone: Sequence[float]) -> str:
    means = statistics.mean(shared), statistics.mean(alone)
    return (
        f"  {means[0]:12.2f} {_p95(shared):6.2f} {means[1]:21.2f} {_p95(alone):6.2f}"
        f" {means[0] / means[1]:11.2f} x"
    )


def _p95(seconds: Iterable[float]) -> float:
    return statistics.quantiles(seconds, n=20, method="inclusive")[18]


def _bodies(number: int, dice: random.Random) -> list[dict[str, Any]]:
    """Return tasks whose steps are spread evenly, in any order: any number of them has one mean."""
    steps = [FEWEST + round(index * (MOST - FEWEST) / (number - 1)) for index in range(number)]
    dice.shuffle(steps)
    size = {"width": 64, "height": 64}
    return [
        {"prompt": PROMPT, "steps": each, "seed": index, **size} for index, each in enumerate(steps)
    ]


def _trace(number: int, rate: float, dice: random.Random) -> list[Arrival]:
    """Return a Poisson process of which it is known how many come: they come at any time.

    So the load is what it is meant to be, and not what the dice make of it.
    """
    times = sorted(dice.uniform(0, number / rate) for _ in range(number))
    bodies = _bodies(number, dice)
    return [Arrival(after=after, body=body) for after, body in zip(times, bodies, strict=True)]


def _closed(client: httpx.Client, bodies: Sequence[dict[str, Any]]) -> float:
    """Return the seconds that tasks take of which two are always asked for."""
    began = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(partial(finish, client), bodies))
    return time.perf_counter() - began


def _replay(client: httpx.Client, trace: Sequence[Arrival]) -> list[float]:
    """Return how many seconds each user waited, from when the trace says that it came."""
    began = time.perf_counter()

    def wait_for(arrival: Arrival) -> float:
        due = began + arrival.after
        time.sleep(max(0.0, due - time.perf_counter()))
        finish(client, arrival.body)
        return time.perf_counter() - due

    with ThreadPoolExecutor(len(trace)) as pool:
        return list(pool.map(wait_for, trace))


if __name__ == "__main__":  # the standard library has a `trace` too: an import of it may land here
    main()
