"""The same bits in any company: a forward pass in which no row depends on the others.

Libraries choose kernels by the shapes of their inputs, and another kernel adds in another order.
What was measured on a CPU with torch 2.13, float32, channels last: where every row has two lanes,
attention, convolutions and products of many tokens give a row the same bits whatever the number of
rows; only products of one vector a lane (timesteps, pooled prompts) change with it. So rows have
two lanes, and those products are made lane by lane, as one batched product, which costs nothing
measurable. Each number of rows is compared once with its rows alone; where a library is of another
mind, as on another processor, rows are drawn alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import structlog
import torch
from torch import Tensor, nn

_log = structlog.get_logger("imageloom.device")

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
            if not self._active or x.ndim != 2:
                return plain(x, *rest)
            weight = layer.weight.t().expand(len(x), -1, -1)
            if layer.bias is None:
                return torch.bmm(x[:, None], weight)[:, 0]
            return torch.baddbmm(layer.bias, x[:, None], weight)[:, 0]

        return forward


def _each_alone(call: Call, rows: int) -> Tensor:
    return torch.cat([call(range(2 * row, 2 * row + 2)) for row in range(rows)])
