"""Muon: momentum whose matrix updates are made orthogonal, shared out between the workers.

For the matrices and convolutions of the UNet's inside; everything else is left to AdamW. Each
worker makes half of the matrices orthogonal and one exchange gives all of them to both.
Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
"""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import nn


class Muon:
    """Update weights of two or more dimensions in place; convolutions count as matrices."""

    def __init__(
        self, weights: list[nn.Parameter], *, rank: int, workers: int, decay: float = 0.01
    ) -> None:
        self.weights, self.rank, self.workers, self.decay = weights, rank, workers, decay
        self.momenta = [torch.zeros_like(w) for w in weights]
        self._mine = _share_of_work(weights, workers)[rank]

    @torch.no_grad()
    def step(self, rate: float, *, momentum: float = 0.95) -> None:
        """Apply one step from the gradients, which must be the same in every worker."""
        if not self.weights:
            return
        updates = [torch.zeros_like(w, memory_format=torch.contiguous_format)
                   for w in self.weights]  # fmt: skip
        for index, (weight, kept) in enumerate(zip(self.weights, self.momenta, strict=True)):
            gradient = weight.grad
            kept.lerp_(gradient, 1 - momentum)
            if index in self._mine:
                ahead = gradient.lerp(kept, momentum)
                updates[index].copy_(orthogonal(ahead.reshape(len(ahead), -1)).view_as(weight))
        if self.workers > 1:
            flat = torch.cat([u.reshape(-1) for u in updates])
            dist.all_reduce(flat)
            sizes = [u.numel() for u in updates]
            updates = [f.view_as(u) for f, u in zip(flat.split(sizes), updates, strict=True)]
        for weight, update in zip(self.weights, updates, strict=True):
            rows, columns = len(weight), weight[0].numel()
            # Gives an update the root mean square of 0.2 that AdamW's updates have, so that
            # both optimisers take the same rate and decay.
            scale = 0.2 * max(rows, columns) ** 0.5
            weight.mul_(1 - rate * self.decay).add_(update, alpha=-rate * scale)

    def state_dict(self) -> dict[str, object]:
        return {"momenta": self.momenta}

    def load_state_dict(self, state: dict[str, object]) -> None:
        for kept, saved in zip(self.momenta, state["momenta"], strict=True):
            kept.copy_(saved)


def orthogonal(matrix: torch.Tensor, *, rounds: int = 5) -> torch.Tensor:
    """Return the nearest matrix with orthonormal rows or columns, roughly (Newton-Schulz)."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(rounds):
        a = x @ x.T
        x = torch.addmm(x, torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def _share_of_work(weights: list[nn.Parameter], workers: int) -> list[set[int]]:
    """Return for each worker the indices it computes, balanced by cost."""
    costs = {
        index: weight.numel() * min(len(weight), weight[0].numel())
        for index, weight in enumerate(weights)
    }
    shares: list[set[int]] = [set() for _ in range(workers)]
    loads = [0] * workers
    for index in sorted(costs, key=lambda k: -costs[k]):
        least = loads.index(min(loads))
        shares[least].add(index)
        loads[least] += costs[index]
    return shares
