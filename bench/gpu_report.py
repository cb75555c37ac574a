"""What bench/gpu.py found, as tables to be kept in docs/benchmarks.md."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

# The side that the others are told in multiples of.
STOCK = "stock, eager, one at a time"


@dataclass(slots=True, kw_only=True)
class Line:
    """Pictures of one side, and the seconds that they took, once for each turn."""

    pictures: int
    seconds: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Pictures a second, the median of the turns."""
        return self.pictures / statistics.median(self.seconds)


@dataclass(slots=True, kw_only=True)
class Report:
    """Sides by name, what became of the targets, and what else is to be known.

    `peak` is what a square product reaches, in TFLOP/s, `tflop` what a picture takes.
    """

    title: str
    peak: float
    tflop: float
    lines: dict[str, Line] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    targets: list[tuple[str, str, str, bool]] = field(default_factory=list)

    @property
    def slowest(self) -> float:
        """The most seconds that a picture took on any side; 0 before there is one."""
        return max((max(line.seconds) / line.pictures for line in self.lines.values()), default=0.0)

    def took(self, name: str, *, pictures: int, seconds: float) -> None:
        """Keep one turn of a side."""
        self.lines.setdefault(name, Line(pictures=pictures)).seconds.append(seconds)
        print(f"  {name:48} {seconds / pictures:8.3f} s a picture")

    def target(self, what: str, *, found: str, wanted: str, met: bool) -> None:
        """Keep what became of a target."""
        self.targets.append((what, found, wanted, met))

    def at_least(self, what: str, ratio: float, target: float) -> None:
        """Keep a ratio that is to reach a target."""
        self.target(what, found=f"{ratio:.2f} x", wanted=f">= {target} x", met=ratio >= target)

    def judge(self, *, of_stock: float, of_peak: float) -> None:
        """Hold the best of our sides to the targets."""
        ours = {name: line.rate for name, line in self.lines.items() if name.startswith("ours")}
        stock = self.lines.get(STOCK)
        if not ours or stock is None:
            return
        best = max(ours, key=lambda name: ours[name])
        self.at_least(f"{best}, of stock eager", ours[best] / stock.rate, of_stock)
        self.at_least(f"{best}, of the product", ours[best] * self.tflop / self.peak, of_peak)

    def markdown(self) -> str:
        """Return everything."""
        rows = [
            f"| {name} | {line.rate:.3g} | {line.rate * self.tflop:.3g} "
            f"| {line.rate * self.tflop / self.peak:.0%} |"
            for name, line in self.lines.items()
        ]
        judged = [
            f"| {what} | {found} | {wanted} | {'PASS' if met else 'FAIL'} |"
            for what, found, wanted, met in self.targets
        ]
        sides = ["| Side | Pictures/s | TFLOP/s | Of the product |", "|---|---|---|---|", *rows]
        targets = ["| | Found | Target | |", "|---|---|---|---|", *judged]
        notes = [f"- {note}" for note in self.notes]
        return "\n".join([self.title, "", *sides, "", *targets, "", *notes, ""])
