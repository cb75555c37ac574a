"""How fast one large GPU draws: SDXL with random weights, ours beside the stock pipeline.

    python bench/gpu.py [--small] [--plain] [--steps 30] [--minutes 8.5] [--out FILE]

SDXL at 1024 px in the device's dtype, built from its published configuration, so that nothing is
downloaded; guidance on, so that a picture takes two lanes. In one run: what a plain matrix product
reaches, the stock pipeline one picture at a time, ours with 1, 4, 8 and 16 pictures in a pass,
mixed adapters beside one, switching adapters, whether company changes a bit, and both sides
compiled. What no time or memory is left for says so. It wants 7 GB of disk and nine minutes.
`--small` is the same code on narrow layers, which any CPU runs in two minutes, in half of one with
`--plain`; its speed says nothing. Without a GPU and without `--small` there is nothing to do.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path

os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns of torchvision; nobody needs that

import msgspec
import torch

from gauge import matmul_tflops, power, wait
from gpu_report import STOCK, Report
from imageloom.domain.catalog import Model
from imageloom.domain.speed import Compile, Speed
from imageloom.domain.work import GenerationWork, LoraUse
from imageloom.images import Picture
from imageloom.runtime.denoiser import Denoiser, load_drawing
from imageloom.runtime.fast_path import FastPath
from imageloom.runtime.rows import Row
from imageloom.runtime.stock import StockPipeline
from imageloom.runtime.torch_device import TorchDevice, choose_device, release_memory
from random_adapters import write_adapters
from sdxl import SIDE, Scale, build_sdxl, tflop

BATCHES = (1, 4, 8, 16)
MIXED_ROWS = 8
RANKS = (4, 16, 64)
COLD_RANK = 8
TARGET_STOCK = 2.0  # times the pictures a second of the stock pipeline, eager, one at a time
TARGET_PEAK = 0.5  # of the matrix product's TFLOP/s
TARGET_MIXED = 0.85  # of the pictures a second with one adapter
TARGET_SWITCH = 10.0  # ms
COMPILING = 120.0  # seconds that a network may take to compile


def main() -> None:
    """Measure one side after the other and print what was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--small", action="store_true", help="narrow layers, on any machine")
    parser.add_argument("--plain", action="store_true", help="compile nothing")
    parser.add_argument("--steps", type=int, help="denoising steps: 30, with --small 2")
    parser.add_argument("--minutes", type=float, default=8.5, help="start nothing long after these")
    parser.add_argument("--out", type=Path, help="write the result there as markdown")
    options = parser.parse_args()
    if not options.small and not torch.cuda.is_available():
        print("GPU: not yet measured (no CUDA device here); --small tries the same code without")
        return
    with tempfile.TemporaryDirectory(prefix="il-") as folder:
        # Cold is cold: nothing that an earlier run compiled.
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/compiled"
        bench = _Bench.build(
            Path(folder),
            scale="small" if options.small else "full",
            steps=options.steps or (2 if options.small else 30),
            deadline=time.monotonic() + 60 * options.minutes,
        )
        bench.run(compiling=not options.plain)
    found = bench.report.markdown()
    print(f"\n{found}")
    if options.out is not None:
        options.out.write_text(found)


@dataclass(slots=True, kw_only=True)
class _Bench:
    """One model on one device, and what was found of it."""

    folder: Path
    scale: Scale
    model: Model
    device: TorchDevice
    work: GenerationWork
    deadline: float
    report: Report

    @classmethod
    def build(cls, folder: Path, *, scale: Scale, steps: int, deadline: float) -> _Bench:
        """Write the model, and measure what the device can do at most."""
        device = choose_device("cpu" if scale == "small" else "cuda", threads=1)
        if scale == "small":
            device = replace(device, dtype=torch.bfloat16)  # what is tried out is what a GPU runs
        print(_machine(device))
        began = time.perf_counter()
        model = build_sdxl(folder / "sdxl", scale=scale, device=device.device, dtype=device.dtype)
        side, built = SIDE[scale], time.perf_counter() - began
        peak = matmul_tflops(device, size=512 if scale == "small" else 8192)
        lane, decode = tflop(scale)
        dtype = str(device.dtype).removeprefix("torch.")
        what = f"{model.name}, {side} px, {steps} steps, guidance on, {dtype}"
        print(
            f"model          {what}, random weights; built in {built:.0f} s\n"
            f"matmul         {peak:.4g} TFLOP/s, {dtype}, square{power(device)}\n"
            f"TFLOP          {lane:.4g} a lane and step, {decode:.4g} a decode, "
            f"{2 * steps * lane + decode:.4g} a picture"
        )
        title = (
            f"{datetime.now(UTC).date()}, {device.info.name}, {', '.join(_versions())}; {what}; "
            f"a square product reaches {peak:.4g} TFLOP/s."
        )
        work = GenerationWork(
            model=model,
            prompt="a red dress on a white background",
            negative_prompt=None,
            width=side,
            height=side,
            steps=steps,
            guidance_scale=7.5,
            strength=1.0,
            seeds=(0,),
            image=None,
        )
        return cls(
            folder=folder,
            scale=scale,
            model=model,
            device=device,
            work=work,
            deadline=deadline,
            report=Report(title=title, peak=peak, tflop=2 * steps * lane + decode),
        )

    def run(self, *, compiling: bool) -> None:
        """Measure what matters most first."""
        stock = StockPipeline.load(self.model, self.device)
        denoiser = self._denoiser(self.device)
        self._beside_stock(stock, denoiser)
        self._adapters(denoiser)
        self._company(denoiser)
        del denoiser
        _give_back()
        kinds: tuple[Compile, ...] = ("blocks", "whole") if self.scale == "full" else ("blocks",)
        for kind in kinds if compiling else ():
            if self._is_time(f"ours, {kind} compiled", seconds=COMPILING):
                self._compiled(kind)
            _give_back()
        if compiling and self._is_time("stock, compiled", seconds=COMPILING):
            self._stock_compiled(stock)
        self.report.judge(of_stock=TARGET_STOCK, of_peak=TARGET_PEAK)

    def _beside_stock(self, stock: StockPipeline, denoiser: Denoiser) -> None:
        sides: dict[str, tuple[int, Callable[[], object]]] = {
            STOCK: (1, partial(self._by_stock, stock))
        }
        for batch in BATCHES:
            sides[f"ours, {batch} in a pass"] = (batch, partial(self._by_ours, denoiser, batch))
        for name, (pictures, draw) in sides.items():
            self._measure(name, draw, pictures=pictures)
        for name, (pictures, draw) in sides.items():  # again: a card may have got warm meanwhile
            if name in self.report.lines:
                self._measure(name, draw, pictures=pictures)

    def _adapters(self, denoiser: Denoiser) -> None:
        network = denoiser._family.network  # noqa: SLF001  # a bench looks inside
        uses = write_adapters(network, self.folder, ranks=(*RANKS, COLD_RANK))
        cold = uses.pop()
        sets: dict[str, list[tuple[LoraUse, ...]]] = {
            "no adapter": [()] * MIXED_ROWS,
            "one adapter": [(uses[0],)] * MIXED_ROWS,
            "three adapters mixed": [(uses[row % 3],) for row in range(MIXED_ROWS)],
        }
        taken: dict[str, list[float]] = {name: [] for name in sets}
        for turn in range(4):
            for name, loras in sets.items():
                rows = self._rows(denoiser, MIXED_ROWS, steps=6, loras=loras)
                denoiser.step(rows)  # hooks are made, as whenever the rows change: see below
                began = self._now()
                while not rows[0].done:
                    denoiser.step(rows)
                if turn:  # the first warms up
                    taken[name].append(self._now() - began)
        mixed, none = (
            statistics.median(
                one / other for one, other in zip(taken["one adapter"], taken[name], strict=True)
            )
            for name in ("three adapters mixed", "no adapter")
        )
        self.report.at_least("three adapters mixed, of one", mixed, TARGET_MIXED)
        self.report.notes.append(
            f"{MIXED_ROWS} rows without adapters: {none:.2f} x of those with one"
        )
        self._switching(denoiser, uses, cold)

    def _switching(self, denoiser: Denoiser, uses: Sequence[LoraUse], cold: LoraUse) -> None:
        """Measure what it takes until other adapters act, between two passes."""
        one, other = (self._rows(denoiser, 1, loras=[(use,)]) * 2 for use in uses[:2])
        found = self._switch(denoiser, one, other)
        mixed = self._rows(denoiser, len(uses), loras=[(use,) for use in uses])
        into = self._switch(denoiser, one, [row for row in mixed for _ in row.lanes])
        self.report.notes.append(
            f"from one adapter to a mix of three, or back: {into:.1f} ms on average"
        )
        self.report.target(
            "adapter switch, warm",
            found=f"{found:.2f} ms",
            wanted=f"<= {TARGET_SWITCH:.0f} ms",
            met=found <= TARGET_SWITCH,
        )
        began = self._now()
        self._rows(denoiser, 1, loras=[(cold,)])
        cold_ms = (self._now() - began) * 1000
        self.report.notes.append(f"a row with an adapter from a file: begun in {cold_ms:.0f} ms")

    def _switch(self, denoiser: Denoiser, one: Sequence[Row], other: Sequence[Row]) -> float:
        """Return the milliseconds from the adapters of some lanes to those of others, and back."""
        acting = denoiser._acting  # noqa: SLF001  # a bench looks inside
        taken = []
        for _ in range(11):
            began = self._now()
            for owners in (one, other):
                acting.act(owners, exact=False)
            taken.append((self._now() - began) * 1000 / 2)
        acting.act([], exact=False)
        return statistics.median(taken[1:])

    def _company(self, denoiser: Denoiser) -> None:
        """Compare a row alone with itself among others, in other places of the pass."""
        companies = ((0,), (0, 1), (1, 0), (2, 0, 1, 3))
        for exact in (True, False):
            pictures = [self._in_company(denoiser, seeds, exact=exact) for seeds in companies]
            alone, rest = pictures[0], pictures[1:]
            worst = max(_apart(alone, other) for other in rest)
            same = all(other == alone for other in rest)
            self.report.target(
                f"{'exact' if exact else 'default'}, any company",
                found="the same bits" if same else f"{worst} of 255",
                wanted="the same bits" if exact else "<= 1 of 255",
                met=same or (worst <= 1 and not exact),
            )
        together = denoiser._lane_wise._together  # noqa: SLF001  # a bench looks inside
        apart = [rows for (_, rows), fits in together.items() if not fits]
        self.report.notes.append(
            f"exact passes of {apart} rows are made row by row"
            if apart
            else "exact rows share their passes"
        )

    def _in_company(self, denoiser: Denoiser, seeds: Sequence[int], *, exact: bool) -> Picture:
        works = [
            msgspec.structs.replace(
                self.work, seeds=(seed,), steps=max(2, min(8, self.work.steps)), exact=exact
            )
            for seed in seeds
        ]
        rows = [row for work in works for row in denoiser.begin(work, [])]
        for row in rows:
            row.exact = exact
        while not rows[0].done:
            denoiser.step(rows)
        return denoiser.finish(rows[seeds.index(0)])

    def _compiled(self, kind: Compile) -> None:
        speed = Speed(fused_projections=True, compile=kind)
        denoiser = self._denoiser(self.device)
        for name in ("cold", "from the cache"):
            torch._dynamo.reset()  # noqa: SLF001  # no public name
            denoiser._fast.give_up_memory()  # noqa: SLF001  # a bench looks inside
            network = denoiser._family.network  # noqa: SLF001
            denoiser._fast = FastPath(network, speed, backend=self._backend)  # noqa: SLF001
            rows = self._rows(denoiser, 1)
            began = self._now()
            denoiser.step(rows)
            self.report.notes.append(
                f"{kind} compiled, first pass {name}: {self._now() - began:.1f} s"
            )
        for batch in (1, 4):
            self._measure(
                f"ours, {kind} compiled, {batch} in a pass",
                partial(self._by_ours, denoiser, batch),
                pictures=batch,
            )

    def _stock_compiled(self, stock: StockPipeline) -> None:
        network = stock._text_to_image.unet  # noqa: SLF001  # a bench looks inside
        network.to(memory_format=torch.channels_last)
        network.compile(backend=self._backend, dynamic=False)
        self._measure(
            "stock, compiled, channels last, one at a time",
            partial(self._by_stock, stock),
            pictures=1,
        )

    def _by_stock(self, stock: StockPipeline) -> None:
        stock.draw(self.work, seed=0, between_steps=lambda _: None)

    def _by_ours(self, denoiser: Denoiser, batch: int) -> None:
        rows = self._rows(denoiser, batch)
        while not rows[0].done:
            denoiser.step(rows)
        for row in rows:
            denoiser.finish(row)

    def _rows(
        self,
        denoiser: Denoiser,
        count: int,
        *,
        steps: int | None = None,
        loras: Sequence[tuple[LoraUse, ...]] = (),
    ) -> list[Row]:
        works = [
            msgspec.structs.replace(
                self.work,
                seeds=(number,),
                steps=steps or self.work.steps,
                loras=loras[number] if loras else (),
            )
            for number in range(count)
        ]
        rows = [
            row
            for work in works
            for row in denoiser.begin(work, denoiser.read_adapters(work.loras))
        ]
        for row in rows:
            row.exact = False  # on a CPU, where --small runs, all are
        return rows

    def _measure(self, name: str, draw: Callable[[], object], *, pictures: int) -> None:
        """Draw once, the first time after one that warms up."""
        turns = 1 if name in self.report.lines else 2
        if not self._is_time(name, seconds=self.report.slowest * pictures * turns):
            return
        try:
            if turns == 2:
                draw()
            began = self._now()
            draw()
            seconds = self._now() - began
        except torch.OutOfMemoryError:
            self.report.notes.append(f"{name}: does not fit in memory")
            self.report.lines.pop(name, None)
            release_memory()
            return
        self.report.took(name, pictures=pictures, seconds=seconds)

    def _is_time(self, name: str, *, seconds: float) -> bool:
        """Whether so many seconds are left; it is noted where they are not."""
        there_is = time.monotonic() + seconds <= self.deadline
        if not there_is:
            self.report.notes.append(f"{name}: no time was left")
        return there_is

    def _denoiser(self, device: TorchDevice) -> Denoiser:
        found = load_drawing(self.model, device)
        assert isinstance(found, Denoiser)  # for mypy
        return found

    def _now(self) -> float:
        wait(self.device)
        return time.perf_counter()

    @property
    def _backend(self) -> str:
        """The compiler: on a CPU, where its speed says nothing, none."""
        return "inductor" if self.scale == "full" else "eager"


def _apart(one: Picture, other: Picture) -> int:
    return max(abs(a - b) for a, b in zip(one.rgb, other.rgb, strict=True))


def _give_back() -> None:
    gc.collect()
    release_memory()


def _versions() -> list[str]:
    found = [f"{name} {version(name)}" for name in ("torch", "diffusers")]
    return [*found, f"CUDA {torch.version.cuda}"] if torch.version.cuda else found


def _machine(device: TorchDevice) -> str:
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"machine        {device.info.name}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}\n"
        f"versions       {', '.join(_versions())}\n"
        f"load           {load} at the start"
    )


if __name__ == "__main__":
    main()
