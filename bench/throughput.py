"""How many pictures a second tasks get that share the device, beside what others do.

    python bench/throughput.py [--pairs 3]

Ours goes through the whole system (`imageloom serve` of its own: HTTP, queue, worker, device,
storage), one POST a task. The peers are diffusers' stock pipeline in this process, one picture
after the other, without any of that; the same switching between adapters; and the same behind
LitServe with its batching. All draw and encode the same pictures with the embedded model, one
torch thread each, in alternating turns. Last the denoiser in this process with three adapters mixed
in one pass, and with one. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns of torchvision; nobody needs that

import httpx

from imageloom.domain.work import GenerationWork, LoraUse
from imageloom.runtime.denoiser import Denoiser, load_drawing
from imageloom.runtime.torch_device import choose_device
from peers import MODEL, Stock, litserve
from serving import finish, load, machine, server, upload_dataset, word

TASKS, STEPS, GUIDANCE = 8, 20, 3.0
PROMPT, CAPTION = "a red dress on a white background", "a zwx dress on a white background"
FEWEST, MOST, MIXED = 4, 50, 16  # steps, and the tasks of a turn with mixed steps
WARM = 4  # turns before ours is measured
RANKS = {"first": 4, "second": 8, "third": 16}
TARGET_STOCK, TARGET_LITSERVE, TARGET_SWITCHING, TARGET_MIXED = 2.0, 1.3, 2.0, 0.9
Side = Callable[[], float]


def main() -> None:
    """Run all sides in turns and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    print(machine())
    with server() as client, tempfile.TemporaryDirectory(prefix="il-") as folder:
        _beside_stock(client, options.pairs)
        _beside_litserve(client, options.pairs)
        files = _adapters(client, Path(folder))
        _beside_switching(client, files, options.pairs)
        _in_one_pass(files, options.pairs)
    print(f"\nload       {load()} at the end")


def _beside_stock(client: httpx.Client, pairs: int) -> None:
    bodies = [_body(seed=seed) for seed in range(TASKS)]
    print(f"\n{TASKS} tasks in flight, {STEPS} steps each")
    sides = (partial(_ours, client, bodies), partial(Stock().seconds, bodies))
    _report("stock, one at a time", _turns(*sides, pairs=pairs), TASKS, TARGET_STOCK)


def _beside_litserve(client: httpx.Client, pairs: int) -> None:
    dice = random.Random(1)
    bodies = [_body(seed=seed, steps=dice.randint(FEWEST, MOST)) for seed in range(MIXED)]
    print(f"\n{MIXED} tasks of {FEWEST} to {MOST} steps, {TASKS} in flight")
    if find_spec("litserve") is None:
        print("  LitServe is not installed (pip install -e '.[bench]'): not measured")
        return
    # Padded, it draws other pictures than those that were asked for: beside it there is no target.
    for way, name, target in (
        ("grouped", "LitServe, as asked", TARGET_LITSERVE),
        ("largest", "LitServe, padded", None),
    ):
        with litserve(way) as peer:
            theirs = partial(peer.seconds, bodies, callers=TASKS)
            turns = _turns(partial(_ours, client, bodies), theirs, pairs=pairs)
        _report(name, turns, MIXED, target)


def _beside_switching(client: httpx.Client, files: dict[str, Path], pairs: int) -> None:
    names = list(files)
    bodies = [
        _body(seed=seed, loras=[{"name": names[seed % len(names)], "weight": 1.0}])
        for seed in range(TASKS)
    ]
    stock = Stock()
    stock.keep(files)
    print(f"\n{TASKS} tasks in flight, {STEPS} steps each, each with one of three adapters")
    turns = _turns(partial(_ours, client, bodies), partial(stock.seconds, bodies), pairs=pairs)
    _report("stock, switching", turns, TASKS, TARGET_SWITCHING)


def _in_one_pass(files: dict[str, Path], pairs: int) -> None:
    denoiser = load_drawing(MODEL, choose_device("cpu", threads=1))
    assert isinstance(denoiser, Denoiser)
    uses = [
        LoraUse(name=name, path=str(path), sha256=name, weight=1.0) for name, path in files.items()
    ]
    three = partial(_passes, denoiser, [uses[row % len(uses)] for row in range(TASKS)])
    one = partial(_passes, denoiser, uses[:1] * TASKS)
    print(
        f"\n{TASKS} rows in the denoiser alone, {STEPS} passes: three adapters mixed, ours, beside"
    )
    _report("one adapter", _turns(three, one, pairs=pairs), TASKS, TARGET_MIXED)


def _turns(ours: Side, theirs: Side, *, pairs: int) -> list[tuple[float, float]]:
    """Return the seconds of both sides, in alternating turns; both are measured warm.

    Ours takes a few turns for that: the first pass of each number of rows is made twice.
    """
    for _ in range(WARM):
        ours()
    theirs()
    return [(ours(), theirs()) for _ in range(pairs)]


def _report(
    peer: str, turns: Sequence[tuple[float, float]], pictures: int, target: float | None
) -> None:
    print(f"  {'ours':>8}  {peer:>22}   pictures a second")
    for mine, theirs in turns:
        print(f"  {pictures / mine:8.2f}  {pictures / theirs:22.2f}   {theirs / mine:.2f} x")
    ratio = statistics.median(theirs / mine for mine, theirs in turns)
    judged = "" if target is None else f"   target {target} x   {word(ratio >= target)}"
    print(f"  median {ratio:.2f} x{judged}")


def _body(*, seed: int, steps: int = STEPS, **more: Any) -> dict[str, Any]:
    size = {"width": 64, "height": 64}
    return {
        "prompt": PROMPT,
        "steps": steps,
        "guidance_scale": GUIDANCE,
        "seed": seed,
        **size,
        **more,
    }


def _ours(client: httpx.Client, bodies: Sequence[dict[str, Any]]) -> float:
    """Return the seconds from the first POST until the last task is over, 8 callers at a time."""
    began = time.perf_counter()
    with ThreadPoolExecutor(TASKS) as pool:
        list(pool.map(partial(finish, client), bodies))
    return time.perf_counter() - began


def _passes(denoiser: Denoiser, uses: Sequence[LoraUse]) -> float:
    """Return the seconds in which rows with these adapters, one each, are denoised together."""
    rows = []
    for seed, use in enumerate(uses):
        work = GenerationWork(
            model=MODEL,
            prompt=PROMPT,
            negative_prompt=None,
            width=64,
            height=64,
            steps=STEPS,
            guidance_scale=GUIDANCE,
            strength=1.0,
            seeds=(seed,),
            image=None,
            loras=(use,),
        )
        rows += denoiser.begin(work, denoiser.read_adapters(work.loras))
    began = time.perf_counter()
    while not rows[0].done:
        denoiser.step(rows)
    return time.perf_counter() - began


def _adapters(client: httpx.Client, folder: Path) -> dict[str, Path]:
    """Train three adapters of different ranks, for a moment, and return their files by name."""
    dataset = upload_dataset(client, pictures=4, caption=CAPTION)
    files = {}
    for name, rank in RANKS.items():
        config = {"epochs": 1, "batch_size": 4, "rank": rank, "seed": 1}
        body = {"dataset_url": dataset, "output_name": name, "config": config}
        answer = client.post("/training", json=body, headers={"Prefer": "wait=30"})
        training = answer.raise_for_status().json()
        if training["status"] != "completed":
            raise RuntimeError(f"the training is {training['status']}: {training['error']}")
        files[name] = folder / f"{name}.safetensors"
        files[name].write_bytes(httpx.get(training["output"]["adapter"]["url"]).content)
    return files


main()
