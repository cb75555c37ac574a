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
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns of torchvision; nobody needs that

import msgspec
import torch
from diffusers import AutoencoderKL
from torch.utils.flop_counter import FlopCounterMode

from gauge import matmul_tflops, wait
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
from sdxl import SIDE, TOKENS, UNET, VAE, VAE_OF_BOTH, Scale, build_sdxl, unet

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
    report = bench.markdown()
    print(f"\n{report}")
    if options.out is not None:
        options.out.write_text(report)


@dataclass(slots=True, kw_only=True)
class _Line:
    """Pictures of one side, and the seconds that they took, once for each turn."""

    pictures: int
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Pictures a second, the median of the turns."""
        return self.pictures / statistics.median(self.seconds)


@dataclass(slots=True, kw_only=True)
class _Bench:
    """One model on one device, and what was found of it."""

    folder: Path
    scale: Scale
    model: Model
    device: TorchDevice
    work: GenerationWork
    deadline: float
    peak: float  # TFLOP/s
    tflop_of_lane: float
    tflop_of_decode: float
    lines: dict[str, _Line] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    targets: list[tuple[str, str, str, bool]] = field(default_factory=list)
    _slowest: float = 0.0  # seconds a picture

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
        lane, decode = _tflop(scale)
        print(
            f"model          {model.name}, random weights, {side} px, {steps} steps, guidance on, "
            f"{_name(device.dtype)}; built in {built:.0f} s\n"
            f"matmul         {peak:.4g} TFLOP/s, {_name(device.dtype)}, square{_power(device)}\n"
            f"TFLOP          {lane:.4g} a lane and step, {decode:.4g} a decode, "
            f"{2 * steps * lane + decode:.4g} a picture"
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
            peak=peak,
            tflop_of_lane=lane,
            tflop_of_decode=decode,
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
        self._judge()

    def markdown(self) -> str:
        """Return what was found as tables, to be kept in docs/benchmarks.md."""
        per_picture = 2 * self.work.steps * self.tflop_of_lane + self.tflop_of_decode
        rows = [
            f"| {name} | {line.rate:.3g} | {line.rate * per_picture:.3g} "
            f"| {line.rate * per_picture / self.peak:.0%} |"
            for name, line in self.lines.items()
        ]
        judged = [
            f"| {what} | {found} | {target} | {_word(good)} |"
            for what, found, target, good in self.targets
        ]
        return "\n".join(
            [
                self._what(),
                "",
                "| Side | Pictures/s | TFLOP/s | Of the product |",
                "|---|---|---|---|",
                *rows,
                "",
                "| | Found | Target | |",
                "|---|---|---|---|",
                *judged,
                "",
                *[f"- {note}" for note in self.notes],
                "",
            ]
        )

    def _what(self) -> str:
        return (
            f"{datetime.now(UTC).date()}, {self.device.info.name}, {', '.join(_versions())}; "
            f"{self.model.name}, {self.work.width} px, {self.work.steps} steps, guidance on, "
            f"{_name(self.device.dtype)}; a square product reaches {self.peak:.4g} TFLOP/s."
        )

    def _beside_stock(self, stock: StockPipeline, denoiser: Denoiser) -> None:
        sides: dict[str, tuple[int, Callable[[], object]]] = {
            "stock, eager, one at a time": (1, partial(self._by_stock, stock))
        }
        for batch in BATCHES:
            sides[f"ours, {batch} in a pass"] = (batch, partial(self._by_ours, denoiser, batch))
        for name, (pictures, draw) in sides.items():
            self._measure(name, draw, pictures=pictures)
        for name, (pictures, draw) in sides.items():  # again: a card may have got warm meanwhile
            if name in self.lines:
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
        self._target("three adapters mixed, of one", mixed, TARGET_MIXED)
        self.notes.append(f"{MIXED_ROWS} rows without adapters: {none:.2f} x of those with one")
        self._switching(denoiser, uses, cold)

    def _switching(self, denoiser: Denoiser, uses: Sequence[LoraUse], cold: LoraUse) -> None:
        """Measure what it takes until other adapters act, between two passes."""
        one, other = (self._rows(denoiser, 1, loras=[(use,)]) * 2 for use in uses[:2])
        found = self._switch(denoiser, one, other)
        mixed = self._rows(denoiser, len(uses), loras=[(use,) for use in uses])
        into = self._switch(denoiser, one, [row for row in mixed for _ in row.lanes])
        self.notes.append(f"from one adapter to a mix of three, or back: {into:.1f} ms on average")
        self.targets.append(
            (
                "adapter switch, warm",
                f"{found:.2f} ms",
                f"<= {TARGET_SWITCH:.0f} ms",
                found <= TARGET_SWITCH,
            )
        )
        began = self._now()
        self._rows(denoiser, 1, loras=[(cold,)])
        cold_ms = (self._now() - began) * 1000
        self.notes.append(f"a row with an adapter from a file: begun in {cold_ms:.0f} ms")

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
            if exact:
                same = all(other == alone for other in rest)
                self.targets.append(
                    (
                        "exact, any company",
                        "the same bits" if same else f"{worst} of 255",
                        "the same bits",
                        same,
                    )
                )
                together = denoiser._lane_wise._together  # noqa: SLF001  # a bench looks inside
                apart = [rows for (_, rows), fits in together.items() if not fits]
                self.notes.append(
                    f"exact passes of {apart} rows are made row by row"
                    if apart
                    else "exact rows share their passes"
                )
            else:
                self.targets.append(
                    ("default, any company", f"{worst} of 255", "<= 1 of 255", worst <= 1)
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
            self.notes.append(f"{kind} compiled, first pass {name}: {self._now() - began:.1f} s")
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

    def _judge(self) -> None:
        ours = {name: line.rate for name, line in self.lines.items() if name.startswith("ours")}
        stock = self.lines.get("stock, eager, one at a time")
        if not ours or stock is None:
            return
        best = max(ours, key=lambda name: ours[name])
        per_picture = 2 * self.work.steps * self.tflop_of_lane + self.tflop_of_decode
        self._target(f"{best}, of stock eager", ours[best] / stock.rate, TARGET_STOCK)
        self._target(f"{best}, of the product", ours[best] * per_picture / self.peak, TARGET_PEAK)

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
        turns = 1 if name in self.lines else 2
        if not self._is_time(name, seconds=self._slowest * pictures * turns):
            return
        try:
            if turns == 2:
                draw()
            began = self._now()
            draw()
            seconds = self._now() - began
        except torch.OutOfMemoryError:
            self.notes.append(f"{name}: does not fit in memory")
            self.lines.pop(name, None)
            release_memory()
            return
        self.lines.setdefault(name, _Line(pictures=pictures)).seconds.append(seconds)
        self._slowest = max(self._slowest, seconds / pictures)
        print(f"  {name:48} {seconds / pictures:8.3f} s a picture")

    def _is_time(self, name: str, *, seconds: float) -> bool:
        """Whether so many seconds are left; it is noted where they are not."""
        there_is = time.monotonic() + seconds <= self.deadline
        if not there_is:
            self.notes.append(f"{name}: no time was left")
        return there_is

    def _target(self, what: str, ratio: float, target: float) -> None:
        self.targets.append((what, f"{ratio:.2f} x", f">= {target} x", ratio >= target))

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


def _tflop(scale: Scale) -> tuple[float, float]:
    """Return the TFLOP of a lane's step and of a decode; a product with its addition is 2."""
    told = UNET[scale]
    pooled = told["projection_class_embeddings_input_dim"] - 6 * told["addition_time_embed_dim"]
    with torch.device("meta"):
        network, vae = unet(scale), AutoencoderKL(**VAE_OF_BOTH, **VAE[scale])
        latents = torch.empty(1, 4, SIDE[scale] // 8, SIDE[scale] // 8)
        tokens = torch.empty(1, TOKENS, told["cross_attention_dim"])
        conditions = {"text_embeds": torch.empty(1, pooled), "time_ids": torch.empty(1, 6)}
        with FlopCounterMode(display=False) as of_lane:
            network(latents, torch.ones(1), tokens, added_cond_kwargs=conditions)
        with FlopCounterMode(display=False) as of_decode:
            vae.decode(latents)
    return of_lane.get_total_flops() / 1e12, of_decode.get_total_flops() / 1e12


def _apart(one: Picture, other: Picture) -> int:
    return max(abs(a - b) for a, b in zip(one.rgb, other.rgb, strict=True))


def _give_back() -> None:
    gc.collect()
    release_memory()


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def _versions() -> list[str]:
    found = [f"{name} {version(name)}" for name in ("torch", "diffusers")]
    return [*found, f"CUDA {torch.version.cuda}"] if torch.version.cuda else found


def _power(device: TorchDevice) -> str:
    """Return how a GPU ran a moment ago, where the machine says so."""
    if device.device.type != "cuda":
        return ""
    try:
        return f", at {torch.cuda.clock_rate()} MHz, {torch.cuda.power_draw() / 1000:.0f} W"
    except Exception as exc:  # noqa: BLE001  # whatever the driver's library has against it
        return f", clock unknown ({type(exc).__name__})"


def _machine(device: TorchDevice) -> str:
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"machine        {device.info.name}, {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}\n"
        f"versions       {', '.join(_versions())}\n"
        f"load           {load} at the start"
    )


def _word(good: bool) -> str:
    return "PASS" if good else "FAIL"


if __name__ == "__main__":
    main()
