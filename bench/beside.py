"""How much later a picture comes beside a training that runs on the same device.

    python bench/beside.py [--pairs 6] [--pictures 12]

Starts an `imageloom serve` of its own in a temporary folder, on the CPU, with the embedded model.
Turns with and without a training alternate; in each, pictures are asked for one after another. A
picture may wait for one step of the training, whose length the training itself reports. Nothing
here fails: a target that is missed is printed as FAIL. Takes two minutes, three at most.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import httpx

from serving import load, machine, server, upload_dataset, word

PICTURE = {"prompt": "a red dress on a white background", "num_outputs": 1, "steps": 20, "seed": 1}
BATCH, PICTURES, CAPTION = 4, 16, "a zwx dress on a white background"
# Longer than any turn; its checkpoints come often enough that each turn meets some of their units:
# the judgement, a sample and the writing.
TRAINING = {
    "epochs": 10_000,
    "batch_size": BATCH,
    "checkpoint_every": 15,
    "sample_prompts": [CAPTION],
    "seed": 1,
}
PAUSE = 0.3  # seconds at most between two pictures, so that they come at any point of a step
POLL = 0.02  # seconds between two looks; no part of any figure
TIME_LIMIT = 100.0  # seconds after which no further pair of turns begins


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Milliseconds of each picture without and beside a training, and of the training's steps."""

    alone: list[float]
    beside: list[float]
    steps: list[float]

    def line(self) -> str:
        """Return both sides in one line."""
        return (
            f"  {statistics.median(self.alone):10.0f} {_p95(self.alone):6.0f} "
            f"{statistics.median(self.beside):13.0f} {_p95(self.beside):5.0f} "
            f"{statistics.median(self.steps):8.0f}"
        )

    def rises(self) -> tuple[list[float], list[float]]:
        """Return both sides less what a picture takes alone, as a rule, in this pair."""
        usual = statistics.median(self.alone)
        return [each - usual for each in self.alone], [each - usual for each in self.beside]


def main() -> None:
    """Run both sides in turns and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=6, help="pairs of turns")
    parser.add_argument("--pictures", type=int, default=12, help="pictures of a turn")
    options = parser.parse_args()
    until = time.monotonic() + TIME_LIMIT
    busy = os.getloadavg()[0] > (os.cpu_count() or 1) / 2
    print(machine())
    dice = random.Random(1)
    pairs: list[Pair] = []
    print("\nmilliseconds a picture, turns ABAB")
    print("  alone: p50    p95   beside: p50   p95     step")
    with server() as client:
        dataset = upload_dataset(client, pictures=PICTURES, caption=CAPTION)
        _milliseconds(client)  # measured warm
        while len(pairs) < options.pairs and time.monotonic() < until:
            pairs.append(_pair(client, dataset, dice, pictures=options.pictures))
            print(pairs[-1].line())
    _report(pairs)
    print(f"\nload       {load()} at the end")
    if busy:
        print("           the machine had other work, which delays pictures and steps unevenly")


def _report(pairs: list[Pair]) -> None:
    alone = _joined(pair.alone for pair in pairs)
    beside = _joined(pair.beside for pair in pairs)
    step = statistics.median(_joined(pair.steps for pair in pairs))
    # By pair: what else the machine does changes from minute to minute, and hits both of a pair.
    rise = _p95(_joined(pair.rises()[1] for pair in pairs)) - _p95(
        _joined(pair.rises()[0] for pair in pairs)
    )
    print(f"\n{len(beside)} pictures of {PICTURE['steps']} steps a side, one after another")
    print(f"  alone    p50 {statistics.median(alone):6.0f} ms   p95 {_p95(alone):6.0f} ms")
    print(f"  beside   p50 {statistics.median(beside):6.0f} ms   p95 {_p95(beside):6.0f} ms")
    print(f"  a training step of {BATCH} pictures, as it reports: {step:.0f} ms, median")
    print(f"  rise of p95, by pair  {rise:+6.0f} ms   target one step   {word(rise <= step)}")


def _joined(sides: Iterable[list[float]]) -> list[float]:
    return [each for side in sides for each in side]


def _p95(milliseconds: list[float]) -> float:
    return statistics.quantiles(milliseconds, n=20, method="inclusive")[18]


def _pair(client: httpx.Client, dataset: str, dice: random.Random, *, pictures: int) -> Pair:
    alone = [_paused(client, dice) for _ in range(pictures)]
    beside, steps = [], []
    with _training(client, dataset) as training_id:
        for _ in range(pictures):
            beside.append(_paused(client, dice))
            steps.append(_step_milliseconds(client, training_id))
    return Pair(alone=alone, beside=beside, steps=steps)


def _paused(client: httpx.Client, dice: random.Random) -> float:
    time.sleep(dice.uniform(0, PAUSE))
    return _milliseconds(client)


def _milliseconds(client: httpx.Client) -> float:
    """Return how long a picture took from its creation to its completion, by the database."""
    created = client.post("/tasks/generation", json=PICTURE).raise_for_status().json()
    while True:
        task: dict[str, Any] = client.get(f"/tasks/{created['id']}").raise_for_status().json()
        if task["status"] == "completed":
            return (_time(task["completed_at"]) - _time(task["created_at"])) * 1000
        if task["status"] not in ("pending", "running"):
            raise RuntimeError(f"the task is {task['status']}: {task['error']}")
        time.sleep(POLL)


def _time(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


@contextmanager
def _training(client: httpx.Client, dataset: str) -> Iterator[str]:
    """Run a training, past its caching, while the block runs."""
    body = {"dataset_url": dataset, "output_name": "beside", "config": TRAINING}
    made = client.post("/training", json=body).raise_for_status().json()
    while (_metrics(client, made["id"])["step"] or 0) < 2:
        time.sleep(POLL)
    yield made["id"]
    client.post(f"/training/{made['id']}/cancel").raise_for_status()


def _step_milliseconds(client: httpx.Client, training_id: str) -> float:
    """Return how long the last step of the training took, as it reports."""
    return BATCH / float(_metrics(client, training_id)["images_per_second"]) * 1000


def _metrics(client: httpx.Client, training_id: str) -> dict[str, Any]:
    now = client.get(f"/training/{training_id}").raise_for_status().json()
    if now["status"] not in ("pending", "running"):
        raise RuntimeError(f"the training is {now['status']}: {now['error']}")
    found: dict[str, Any] = now["output"]["metrics"]
    return found


main()
