"""Measure what the API and the queue cost: submit to start when idle, and beside bare diffusers.

Starts an `imageloom serve` of its own in a temporary folder. Prints one screen; `README.md` beside
this file says what each line means. Nothing here fails: a target that is missed is printed as FAIL.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from datetime import datetime
from typing import Any

import httpx
import msgspec

from imageloom.domain.catalog import BUILTIN
from imageloom.domain.work import GenerationWork
from imageloom.images import encode_picture, resize_picture
from imageloom.settings import Limits
from imageloom.task_types.generation.spec import Generation, GenerationParams
from serving import load, machine, server, word

MODEL = next(model for model in BUILTIN if model.name == "imageloom-tiny")
TASK = {"prompt": "a red dress on a white background", "num_outputs": 4, "steps": 20, "seed": 1}
TINY = {"prompt": "a red dress", "num_outputs": 1, "steps": 1, "width": 64, "height": 64}
TARGET_START = 15.0  # ms, p50
TARGET_OVERHEAD = 5.0  # percent, median
# Seconds between two looks at a task. No part of any figure, but each look is work for the machine.
POLL_TINY, POLL = 0.02, 0.5


def main() -> None:
    """Run both measurements and print them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=60, help="tasks of the latency measurement")
    parser.add_argument("--pairs", type=int, default=6, help="pairs of the overhead measurement")
    options = parser.parse_args()
    busy = os.getloadavg()[0] > (os.cpu_count() or 1) / 2
    print(machine())
    with server() as client:
        _finish(client, TASK, poll=POLL)  # both sides are measured warm
        _report_start([_start_latency(client) for _ in range(options.tasks)])
        bare = Bare()
        bare.seconds()
        _report_overhead([(_api_seconds(client), bare.seconds()) for _ in range(options.pairs)])
    print(f"\nload       {load()} at the end")
    if busy:
        print("           the machine had other work: the overhead above is rather too high")


def _report_start(milliseconds: list[float]) -> None:
    milliseconds.sort()
    p50 = statistics.median(milliseconds)
    p99 = statistics.quantiles(milliseconds, n=100, method="inclusive")[98]
    print(f"\nsubmit to start, idle, {len(milliseconds)} tasks one after another")
    print(f"  p50      {p50:7.1f} ms   target {TARGET_START:.0f} ms   {word(p50 <= TARGET_START)}")
    print(f"  p99      {p99:7.1f} ms   range {milliseconds[0]:.1f} to {milliseconds[-1]:.1f} ms")


def _report_overhead(pairs: list[tuple[float, float]]) -> None:
    print(f"\noverhead, {TASK['num_outputs']} pictures of {TASK['steps']} steps, ABAB")
    print("  through the API     in-process     overhead")
    for through, inside in pairs:
        print(f"  {through:10.3f} s {inside:14.3f} s {_percent(through, inside):+10.1f} %")
    ratios = [_percent(*pair) for pair in pairs]
    median = statistics.median(ratios)
    print(
        f"  median   {median:+7.1f} %    target {TARGET_OVERHEAD:.0f} %    "
        f"{word(median <= TARGET_OVERHEAD)}    range {min(ratios):+.1f} to {max(ratios):+.1f} %"
    )


def _percent(through: float, inside: float) -> float:
    return (through / inside - 1) * 100


class Bare:
    """The same pictures from the same pipeline in this process: no API, queue, pipe or storage."""

    def __init__(self) -> None:
        os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns of torchvision; nobody needs that
        from imageloom.runtime.stock import StockPipeline
        from imageloom.runtime.torch_device import choose_device

        task_type = Generation()
        params = task_type.prepare(
            GenerationParams.model_validate(TASK), model=MODEL, limits=Limits()
        )
        self._asked = task_type.build_work(params, model=MODEL, inputs={}, limits=Limits())
        self._work = msgspec.msgpack.decode(self._asked.message, type=GenerationWork)
        self._pipeline = StockPipeline.load(MODEL, choose_device("cpu", threads=1))

    def seconds(self) -> float:
        """Draw and encode the pictures, one at a time as the device does, and return how long."""
        began = time.perf_counter()
        for seed in self._work.seeds:
            picture = self._pipeline.draw(self._work, seed=seed, between_steps=_nothing)
            sized = resize_picture(picture, self._asked.width, self._asked.height)
            encode_picture(sized, self._asked.output_format)
        return time.perf_counter() - began


def _nothing(progress: float) -> None:
    pass


def _start_latency(client: httpx.Client) -> float:
    """Return the milliseconds from a task's creation to its start, by the database's clock."""
    task = _finish(client, TINY, poll=POLL_TINY)
    return (_time(task["started_at"]) - _time(task["created_at"])) * 1000


def _api_seconds(client: httpx.Client) -> float:
    """Return how long a client waits that asks at the right moment: up to completion, and a GET."""
    began = time.time()
    task = _finish(client, TASK, poll=POLL)
    done = _time(task["completed_at"]) - began  # the same machine, so the same clock
    asked = time.perf_counter()
    client.get(f"/tasks/{task['id']}").raise_for_status()
    return done + time.perf_counter() - asked


def _finish(client: httpx.Client, body: dict[str, Any], *, poll: float) -> dict[str, Any]:
    created = client.post("/tasks/generation", json=body).raise_for_status().json()
    while True:
        task: dict[str, Any] = client.get(f"/tasks/{created['id']}").raise_for_status().json()
        if task["status"] == "completed":
            return task
        if task["status"] != "pending" and task["status"] != "running":
            raise RuntimeError(f"the task is {task['status']}: {task['error']}")
        time.sleep(poll)


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


main()
