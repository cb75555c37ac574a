"""The same bits in any company: a forward pass in which no row depends on the others.

Libraries choose kernels by the shapes of their inputs, and another kernel adds in another order.
What was measured on a CPU with torch 2.13, float32, channels last: where every row has two lanes,
attention, convolutions and products of many tokens give a row the same bits whatever the number of
rows, and oneDNN's products as well as MKL's; only products of one vector a lane (timesteps, pooled
prompts) change with it. So rows have two lanes, and those products are made lane by lane, as one
batched product, which costs nothing measurable. Each number of rows is compared once with its rows
alone; where a library is of another mind, as on another processor, rows are drawn alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
import torch
from torch import Tensor, nn

_log = structlog.get_logger("imageloom.device")

_HAS_ONEDNN: Final = hasattr(torch.ops.mkldnn, "_linear_pointwise")

# Runs the network on the lanes of these numbers, and returns its answers [n, ...] in their order.
Call = Callable[[Sequence[int]], Tensor]


class LaneWise:
    """A network whose answer to a row is, to the bit, what it answers to that row alone."""

    def __init__(self, network: nn.Module) -> None:
        self._active = False
        self._together: dict[tuple[object, int], bool] = {}
        for layer in network.modules():
            if isinstance(layer, nn.Linear):
                layer.forward = self._lane_wise(layer, layer.forward)  # type: ignore[method-assign]

    def run(self, call: Call, rows: int, *, shape: object) -> Tensor:
        """Return the answers [2 rows, ...] to rows of two lanes each.

        `shape` is what else the choice of kernels may depend on, such as that of the latents. The
        first pass of each number of rows takes twice as long: it is compared with its rows alone.
        """
        self._active = True
        try:
            if rows == 1:
                return call(range(2))
            kind = (shape, rows)
            if kind in self._together:
                return call(range(2 * rows)) if self._together[kind] else _each_alone(call, rows)
            alone = _each_alone(call, rows)
            self._together[kind] = torch.equal(call(range(2 * rows)), alone)
            if not self._together[kind]:
                _log.info("rows_are_drawn_alone", rows=rows)
            return alone
        finally:
            self._active = False

    def _lane_wise(
        self, layer: nn.Linear, plain: Callable[[Tensor], Tensor]
    ) -> Callable[..., Tensor]:
        def forward(x: Tensor, *rest: Any) -> Tensor:
            if not self._active:
                return plain(x, *rest)
            if x.ndim != 2:
                return _onednn(layer, x) if _takes_onednn(layer, x) else plain(x, *rest)
            weight = layer.weight.t().expand(len(x), -1, -1)
            if layer.bias is None:
                return torch.bmm(x[:, None], weight)[:, 0]
            return torch.baddbmm(layer.bias, x[:, None], weight)[:, 0]

        return forward


def _takes_onednn(layer: nn.Linear, x: Tensor) -> bool:
    """Whether oneDNN can make the product of a layer."""
    return _HAS_ONEDNN and x.device.type == "cpu" and x.dtype == layer.weight.dtype == torch.float32


def _onednn(layer: nn.Linear, x: Tensor) -> Tensor:
    """Return a layer's answer to tokens [n, m, d].

    Torch asks MKL, which on an AMD EPYC takes 1.5 to 2.2 times as long as oneDNN at 16 lanes of 16
    or 64 tokens: together a seventh of a denoising step.
    """
    answer: Tensor = torch.ops.mkldnn._linear_pointwise(  # noqa: SLF001  # as torch.compile does
        x, layer.weight, layer.bias, "none", [], ""
    )
    return answer


def _each_alone(call: Call, rows: int) -> Tensor:
    return torch.cat([call(range(2 * row, 2 * row + 2)) for row in range(rows)])
