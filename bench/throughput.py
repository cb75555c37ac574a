"""How many pictures a second 8 tasks get that share the device, beside the stock pipeline.

    python bench/throughput.py [--pairs 4]

Ours goes through the whole system (`imageloom serve` of its own: HTTP, queue, worker, device,
storage), 8 tasks in flight, each of one picture. The peer is diffusers' stock pipeline in this
process, one picture after the other, without any of that. Both draw and encode the same pictures
with the embedded model, one torch thread each, in alternating turns. Then the denoiser in this
process with three adapters mixed in one pass, and with one. Takes about a minute.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns of torchvision; nobody needs that

import httpx
import msgspec

from imageloom.domain.catalog import BUILTIN
from imageloom.domain.work import GenerationWork, LoraUse
from imageloom.images import encode_picture, resize_picture
from imageloom.runtime.denoiser import Denoiser, load_drawing
from imageloom.runtime.stock import StockPipeline
from imageloom.runtime.torch_device import choose_device
from random_adapters import write_adapters
from serving import load, machine, server, word

MODEL = next(model for model in BUILTIN if model.name == "imageloom-tiny")
TASKS, STEPS = 8, 20
TARGET_STOCK, TARGET_MIXED = 2.0, 0.9
WORK = GenerationWork(
    model=MODEL,
    prompt="a red dress on a white background",
    negative_prompt=None,
    width=64,
    height=64,
    steps=STEPS,
    guidance_scale=3.0,
    strength=1.0,
    seeds=tuple(range(TASKS)),
    image=None,
)


def main() -> None:
    """Run all sides in turns and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=4)
    options = parser.parse_args()
    print(machine())
    device = choose_device("cpu", threads=1)
    stock, denoiser = StockPipeline.load(MODEL, device), load_drawing(MODEL, device)
    assert isinstance(denoiser, Denoiser)
    with server() as client:
        sides = [lambda: _through_the_system(client), lambda: _by_stock(stock)]
        for side in sides:
            side()  # measured warm
        pairs = [[side() for side in sides] for _ in range(options.pairs)]
    _report("8 tasks in flight", "stock, one at a time", pairs, TARGET_STOCK)
    with tempfile.TemporaryDirectory(prefix="il-") as folder:
        unet = stock._text_to_image.unet  # noqa: SLF001  # a bench looks inside
        uses = write_adapters(unet, Path(folder), ranks=(4, 8, 16))
        one = _passes(denoiser, [uses[:1]] * TASKS)
        three = _passes(denoiser, [[uses[row % 3]] for row in range(TASKS)])
        turns = [[three(), one()] for _ in range(options.pairs + 1)][1:]
    _report("three adapters mixed", "one adapter", turns, TARGET_MIXED)
    print(f"\nload       {load()} at the end")


def _report(ours: str, peer: str, pairs: list[list[float]], target: float) -> None:
    print(f"\npictures a second, turns of {TASKS} pictures of {STEPS} steps, ABAB")
    print(f"  {ours:>22}  {peer:>22}    ratio")
    for mine, theirs in pairs:
        print(f"  {TASKS / mine:22.2f}  {TASKS / theirs:22.2f} {theirs / mine:8.2f}")
    ratio = statistics.median(theirs / mine for mine, theirs in pairs)
    print(f"  median {ratio:.2f} x   target {target} x   {word(ratio >= target)}")


def _through_the_system(client: httpx.Client) -> float:
    """Return the seconds from the first POST until the last of 8 tasks is completed."""
    began = time.perf_counter()
    with ThreadPoolExecutor(TASKS) as pool:
        list(pool.map(lambda seed: _one_task(client, seed), range(TASKS)))
    return time.perf_counter() - began


def _one_task(client: httpx.Client, seed: int) -> None:
    body = {"prompt": WORK.prompt, "steps": STEPS, "seed": seed, "width": 64, "height": 64}
    task = client.post("/tasks/generation", json=body).raise_for_status().json()
    while task["status"] != "completed":
        if task["status"] not in ("pending", "running"):
            raise RuntimeError(f"the task is {task['status']}: {task['error']}")
        time.sleep(0.05)  # each look is work for the machine
        task = client.get(f"/tasks/{task['id']}").raise_for_status().json()


def _by_stock(stock: StockPipeline) -> float:
    began = time.perf_counter()
    for seed in WORK.seeds:
        picture = stock.draw(WORK, seed=seed, between_steps=lambda _: None)
        encode_picture(resize_picture(picture, 64, 64), "jpeg")
    return time.perf_counter() - began


def _passes(denoiser: Denoiser, uses: list[list[LoraUse]]) -> Callable[[], float]:
    """Return what draws 8 rows with these adapters, in one pass a step, and says how long."""
    works = [
        msgspec.structs.replace(WORK, seeds=(row,), loras=tuple(of_row))
        for row, of_row in enumerate(uses)
    ]

    def draw() -> float:
        rows = [
            row
            for work in works
            for row in denoiser.begin(work, denoiser.read_adapters(work.loras))
        ]
        began = time.perf_counter()
        while not rows[0].done:
            denoiser.step(rows)
        return time.perf_counter() - began

    return draw


main()
