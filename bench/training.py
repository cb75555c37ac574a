"""How fast a training goes: beside a plain diffusers loop, and where its time is spent.

    python bench/training.py [--model auto|tiny|sdxl|sdxl-small] [--turns 4] [--steps N]

Both sides train one model at the same rank, batch, precision and size, on the same pictures, in
alternating turns in one process. The plain loop does what diffusers' example script for LoRA does
at each step: open and scale the pictures, encode them and their captions, add noise, predict, step
AdamW. `tiny` is the embedded model on one CPU thread, about a minute. `sdxl` has random weights in
the shape of SDXL and wants a large GPU and under nine minutes; `sdxl-small` is the same code on
narrow layers, which runs on any machine. `auto` runs `tiny`, and `sdxl` where there is a GPU.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns of torchvision; nobody needs that

import torch

from gauge import matmul_tflops, wait
from imageloom.domain.catalog import BUILTIN
from imageloom.runtime.torch_device import TorchDevice, choose_device
from sdxl import SIDE, Scale, build_sdxl
from training_sides import ORDINARY, OWN, Ours, Plain, Setup, Side, draw_pictures

TINY = next(model for model in BUILTIN if model.name == "imageloom-tiny")
TARGET_OVERHEAD = 5.0  # percent of a step that is not forward, backward or optimiser
TARGET_GAIN = 1.3  # plain loop's time by ours: what caching gives on a CPU
TARGET_GAIN_GPU = 2.5  # the same at full size on a GPU, at GPU_TARGET_BATCH
GPU_TARGET_BATCH = 4
# Of one picture, forward and backward, rank 16 on the layers that we train; a multiplication with
# its addition is 2. By torch's FlopCounterMode on the meta device, at 1024 and 64 px; with rank 16
# on the attention alone, full scale takes 14.19.
TFLOP_OF_PICTURE: dict[Scale, float] = {"full": 14.35, "small": 0.00104}


def main() -> None:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models = ("auto", "tiny", "sdxl", "sdxl-small")
    parser.add_argument("--model", choices=models, default="auto")
    parser.add_argument("--turns", type=int, default=4, help="pairs of turns")
    parser.add_argument("--steps", type=int, help="optimiser steps of a turn: 25, of sdxl 8")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    if options.model == "sdxl" and not gpu:
        parser.error("--model sdxl needs a CUDA device; sdxl-small tries the same code without")
    print(_machine())
    with tempfile.TemporaryDirectory(prefix="il-") as folder:
        if options.model in ("auto", "tiny"):
            _run_tiny(Path(folder), turns=options.turns, steps=options.steps or 25)
        if options.model in ("sdxl", "sdxl-small") or (options.model == "auto" and gpu):
            scale: Scale = "small" if options.model == "sdxl-small" else "full"
            _run_sdxl(Path(folder), scale, turns=options.turns, steps=options.steps or 8)
    if not gpu:
        print("\nGPU: not yet measured (no CUDA device here)")
    print(f"\nload           {_load()} at the end")


def _run_tiny(folder: Path, *, turns: int, steps: int) -> None:
    setup = Setup(
        model=TINY,
        device=choose_device("cpu", threads=1),
        paths=draw_pictures(folder, side=256),
        folder=folder,
        batch=4,
        rank=8,
        side=64,
    )
    print(f"\nmodel          {TINY.name}, rank 8, batch 4, 64 px, float32, one CPU thread")
    ours, keeping, plain = Ours(setup, ORDINARY), Ours(setup, OWN), Plain(setup)
    measured = _measure(setup.device, [ours, plain, keeping], turns=turns, steps=steps)
    print(f"\nmilliseconds a step of 4 pictures, turns of {steps} steps, ABAB")
    print("  imageloom    plain loop    gain    imageloom, keeping")
    for one, other, third in measured.seconds:
        print(
            f"  {one / steps * 1000:9.1f} {other / steps * 1000:13.1f} {other / one:7.2f} "
            f"{third / steps * 1000:13.1f}"
        )
    print(f"  gain, median   {measured.gain:5.2f} x   {_against(measured.gain, TARGET_GAIN)}")
    overhead = measured.overhead
    print(
        f"\nloop overhead  {overhead:5.1f} %   target {TARGET_OVERHEAD:.0f} %   "
        f"{_word(overhead <= TARGET_OVERHEAD)}   all but forward, backward and optimiser"
    )


def _run_sdxl(folder: Path, scale: Scale, *, turns: int, steps: int) -> None:
    device = choose_device("auto", threads=1)
    if scale == "small":
        device = replace(device, dtype=torch.bfloat16)  # what is tried out is what a GPU runs
    began = time.perf_counter()
    model = build_sdxl(folder / "sdxl", scale=scale, device=device.device, dtype=device.dtype)
    side = SIDE[scale]
    paths = draw_pictures(folder, side=side)
    peak = matmul_tflops(device, size=8192 if device.device.type == "cuda" else 512)
    dtype = str(device.dtype).removeprefix("torch.")
    print(
        f"\nmodel          {model.name}, random weights, rank 16, {side} px, {dtype}, "
        f"{device.info.name}; built in {time.perf_counter() - began:.0f} s"
        f"\nmatmul         {peak:.4g} TFLOP/s here, {dtype}, square"
        f"\nTFLOP          {TFLOP_OF_PICTURE[scale]:.4g} of a picture, forward and backward"
    )
    for batch in (1, 4):
        setup = Setup(
            model=model, device=device, paths=paths, folder=folder, batch=batch, rank=16, side=side
        )
        try:
            _report_sdxl(setup, scale, peak=peak, turns=turns, steps=steps)
        except torch.OutOfMemoryError:
            print(f"\nbatch {batch}: not measured, {device.info.name} has too little memory")
        _give_back(device)


def _report_sdxl(setup: Setup, scale: Scale, *, peak: float, turns: int, steps: int) -> None:
    sides = [Ours(setup, ORDINARY), Plain(setup)]
    measured = _measure(setup.device, sides, turns=turns, steps=steps)
    on_gpu = setup.device.device.type == "cuda"
    print(f"\nbatch {setup.batch}, turns of {steps} steps, ABAB; medians")
    print("               steps/s   images/s    TFLOP/s   of matmul        memory")
    for place, name in enumerate(("imageloom", "plain loop")):
        rate = steps / statistics.median(turn[place] for turn in measured.seconds)
        achieved = rate * setup.batch * TFLOP_OF_PICTURE[scale]
        memory = f"{measured.memory[place] / 2**30:.1f} GiB" if on_gpu else "not counted"
        print(
            f"  {name:12} {rate:7.2f} {rate * setup.batch:10.2f} {achieved:10.4g} "
            f"{achieved / peak:10.1%}   {memory:>11}"
        )
    ratios = [other / one for one, other in measured.seconds]
    judged = ""
    if scale == "full" and setup.batch == GPU_TARGET_BATCH:
        judged = _against(measured.gain, TARGET_GAIN_GPU)
    print(f"  gain {measured.gain:.2f} x ({min(ratios):.2f} to {max(ratios):.2f})   {judged}")
    print(f"  loop overhead of imageloom {measured.overhead:.1f} %")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Seconds of each turn by side, ours first and the plain loop second.

    `overhead` is the percentage of our time that is not forward, backward or optimiser. `memory`
    is the most bytes that a side's steps held on top of all weights; 0 on a CPU.
    """

    seconds: list[list[float]]
    overhead: float
    memory: list[int]

    @property
    def gain(self) -> float:
        """The plain loop's time by ours, the median of the pairs of turns."""
        return statistics.median(turn[1] / turn[0] for turn in self.seconds)


def _measure(device: TorchDevice, sides: Sequence[Side], *, turns: int, steps: int) -> Measured:
    for side in sides:
        _turn(device, side, 3)  # measured warm
    ours = sides[0]
    assert isinstance(ours, Ours)  # for mypy
    ours.inside()
    seconds: list[list[float]] = []
    memory = [0] * len(sides)
    for _ in range(turns):
        found = []
        for place, side in enumerate(sides):
            taken = _Memory(device)
            found.append(_turn(device, side, steps))
            memory[place] = max(memory[place], taken.most())
        seconds.append(found)
    overhead = (1 - ours.inside() / sum(turn[0] for turn in seconds)) * 100
    return Measured(seconds=seconds, overhead=overhead, memory=memory)


def _turn(device: TorchDevice, side: Side, steps: int) -> float:
    wait(device)
    began = time.perf_counter()
    for _ in range(steps):
        side.step()
    wait(device)
    return time.perf_counter() - began


def _give_back(device: TorchDevice) -> None:
    gc.collect()  # a side and what it watches hold each other
    if device.device.type == "cuda":
        torch.cuda.empty_cache()


class _Memory:
    """What is allocated on a GPU beyond what was when this was made."""

    def __init__(self, device: TorchDevice) -> None:
        self._on_gpu = device.device.type == "cuda"
        self._before = torch.cuda.memory_allocated() if self._on_gpu else 0
        if self._on_gpu:
            torch.cuda.reset_peak_memory_stats()

    def most(self) -> int:
        """Return the most bytes so far; 0 on a CPU."""
        return torch.cuda.max_memory_allocated() - self._before if self._on_gpu else 0


def _against(gain: float, target: float) -> str:
    return f"target {target} x   {_word(gain >= target)}"


def _word(good: bool) -> str:
    return "PASS" if good else "FAIL"


def _machine() -> str:
    packages = ("torch", "diffusers", "peft")
    return (
        f"machine        {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}\n"
        f"versions       {', '.join(f'{name} {version(name)}' for name in packages)}\n"
        f"load           {_load()} at the start"
    )


def _load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


main()
