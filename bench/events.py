"""What a thousand watchers cost, and how late they hear: by events, and by asking every second.

    python bench/events.py [--pairs 3] [--watchers 1000]

One `imageloom serve` on the CPU with the embedded model. A turn is eight tasks of sixteen pictures,
drawn together. Three kinds of turns, alternating: nobody looks; a thousand watchers follow these
tasks by `GET /tasks/{id}/events`, so that each event goes to 125 of them; a thousand clients ask
`GET /tasks/{id}` once a second, as they must where there are no events. Last, as many tasks wait as
there are watchers, each with its own, while others are drawn. The watchers are a process of their
own on the same machine: what they take themselves is part of the cost. Nothing here fails: a target
that is missed is printed as FAIL. Takes about five minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil

from serving import load, machine, server, word

TOGETHER = 8
SIZE = {"prompt": "a red dress on a white background", "width": 64, "height": 64}
TASK = {**SIZE, "num_outputs": 16, "steps": 30}
TARGET_COST, TARGET_DELAY = 0.10, 0.250  # of throughput; seconds at p95


@dataclass(kw_only=True, eq=False)
class Crowd:
    """Who looks on; `tell` them whom to watch. `seen` is what they say at the end."""

    process: subprocess.Popen[str] | None = None
    seen: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def tell(self, task: str, number: int) -> None:
        """Have so many watch a task."""
        if self.process is not None and self.process.stdin is not None:
            with self.lock:
                self.process.stdin.write(f"{task} {number}\n")
                self.process.stdin.flush()


def main() -> None:
    """Run the turns and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3, help="turns of each kind")
    parser.add_argument("--watchers", type=int, default=1000)
    options = parser.parse_args()
    # A stream is an open file, here and in the server's processes, which inherit this.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    print(machine())
    with server() as client:
        _turn(client, Crowd(), 0)
        print(f"\npictures a second, {TOGETHER} tasks of {TASK['num_outputs']}, ABCABC")
        print(f"  nobody looks   {options.watchers} by events          {options.watchers} asking")
        delays: list[float] = []
        rates: list[tuple[float, float, float]] = []
        for _ in range(options.pairs):
            alone, _ = _turn(client, Crowd(), 0)
            with _crowd(client, "events") as crowd:
                watched, busy = _turn(client, crowd, options.watchers // TOGETHER)
            delays += crowd.seen["delays"]
            with _crowd(client, "asking") as askers:
                asked, busy_asked = _turn(client, askers, options.watchers // TOGETHER)
            rates.append((alone, watched, asked))
            print(
                f"  {alone:12.2f} {watched:14.2f} {watched / alone:5.2f} x"
                f" {asked:13.2f} {asked / alone:5.2f} x   API {busy:.0%} and {busy_asked:.0%} of a"
                f" core, {len(crowd.seen['delays'])} events, {crowd.seen['failed']} failed",
                flush=True,
            )
        _report(rates, delays)
        _report_own(client, options.watchers, [alone for alone, _, _ in rates])
    print(f"\nload       {load()} at the end")


def _report(rates: Sequence[tuple[float, float, float]], delays: Sequence[float]) -> None:
    cost = 1 - statistics.median(watched / alone for alone, watched, _ in rates)
    asking = 1 - statistics.median(asked / alone for alone, _, asked in rates)
    p95 = _p95(delays)
    print(
        f"\ncost of watching   {cost:6.1%}   target {TARGET_COST:.0%}   {word(cost <= TARGET_COST)}"
        f"   (asking costs {asking:.1%})\n"
        f"delay of an event  p50 {statistics.median(delays) * 1000:.0f} ms, p95 {p95 * 1000:.0f} ms"
        f"   target {TARGET_DELAY * 1000:.0f} ms   {word(p95 <= TARGET_DELAY)}"
    )


def _report_own(client: httpx.Client, watchers: int, alone: Sequence[float]) -> None:
    """Let as many tasks wait as there are watchers, each with its own; draw others before them."""
    with _crowd(client, "events") as crowd:
        create = partial(_create, client, {**TASK, "priority": -10})
        with ThreadPoolExecutor(TOGETHER) as pool:
            first = [create() for _ in range(TOGETHER)]  # these run, and hold no one up for long
            waiting = list(pool.map(lambda _: create(), range(watchers)))
            for task in [*first, *waiting]:
                crowd.tell(task, 1)
            for task in first:
                client.post(f"/tasks/{task}/cancel")
            rate, _ = _turn(client, Crowd(), 0)
            list(pool.map(lambda task: client.post(f"/tasks/{task}/cancel"), waiting))
    cost = 1 - rate / statistics.median(alone)
    print(
        f"each its own task  {cost:6.1%} while {watchers} wait; they heard of their cancel: "
        f"delay p95 {_p95(crowd.seen['delays']) * 1000:.0f} ms"
    )


def _p95(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=20, method="inclusive")[18]


@contextmanager
def _crowd(client: httpx.Client, way: str) -> Iterator[Crowd]:
    url, key = str(client.base_url).rstrip("/"), client.headers["Authorization"].split()[1]
    command = [sys.executable, str(Path(__file__).with_name("audience.py")), url, key, way]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as own:
        crowd = Crowd(process=own)
        yield crowd
        said, _ = own.communicate()
        crowd.seen = json.loads(said)


def _turn(client: httpx.Client, crowd: Crowd, watchers: int) -> tuple[float, float]:
    """Draw a turn's tasks: pictures a second, and how much of a core the API process took."""
    api = _api_process()
    with ThreadPoolExecutor(TOGETHER) as pool:
        began, busy = time.perf_counter(), sum(api.cpu_times()[:2])
        list(pool.map(lambda _: _draw(client, crowd, watchers), range(TOGETHER)))
        seconds = time.perf_counter() - began
    return TOGETHER * 16 / seconds, (sum(api.cpu_times()[:2]) - busy) / seconds


def _draw(client: httpx.Client, crowd: Crowd, watchers: int) -> None:
    """Create a task, let the crowd know, and follow it to its end."""
    task = _create(client, TASK)
    crowd.tell(task, watchers)
    with client.stream("GET", f"/tasks/{task}/events") as answer:
        told = [json.loads(line[6:]) for line in answer.iter_lines() if line.startswith("data:")]
    if told[-1]["status"] != "completed":
        raise RuntimeError(f"{task} is {told[-1]['status']}")


def _create(client: httpx.Client, body: dict[str, Any]) -> str:
    return str(client.post("/tasks/generation", json=body).raise_for_status().json()["id"])


def _api_process() -> psutil.Process:
    for process in psutil.Process().children(recursive=True):
        if process.cmdline()[:1] and "imageloom api" in " ".join(process.cmdline()):
            return process
    raise RuntimeError("there is no API process")


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
