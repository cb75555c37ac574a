"""A network's fast path beside its plain one: fused projections, and compiled code.

Only passes take it whose rows have no adapters and need not be exact. Adapters are hooks on layers
that fused projections pass by, and that compiled code does not look at again once it is made; and a
row that takes one path in one company and the other in another would not keep its bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

import torch
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_processor import Attention
from torch import nn

from imageloom.domain.speed import Speed

# Each shape of latents and bucket of lanes is one, so that 12 sizes can be drawn in turns. Torch's
# own limit is 8; beyond the limit a network runs as if it were not compiled.
MOST_SHAPES: Final = 64


class FastPath:
    """What a network can do faster, and when."""

    def __init__(self, network: Any, speed: Speed, *, backend: str = "inductor") -> None:
        """`backend` is torch.compile's; others than its own compile in seconds, for tests."""
        self._fused = FusedProjections(network) if speed.fused_projections else None
        self._compiled = speed.compile
        if self._compiled != "off":
            dynamo = torch._dynamo.config  # noqa: SLF001  # it has no public name
            dynamo.recompile_limit = MOST_SHAPES
            # What cannot be compiled here, where a compiler is missing, runs as it is.
            dynamo.suppress_errors = True
            compiling = (
                network.compile_repeated_blocks if speed.compile == "blocks" else network.compile
            )
            # Every bucket is compiled for its shape: a number of lanes that is open costs speed.
            compiling(backend=backend, dynamic=False)

    @contextmanager
    def taken(self, *, wanted: bool) -> Iterator[None]:
        """Run the network in the block by its fast path, or with `wanted` false by its plain."""
        if self._fused is not None:
            self._fused.use(wanted=wanted)
        if self._compiled == "off" or wanted:
            yield
            return
        with torch.compiler.set_stance("force_eager"):
            yield

    def lanes(self, count: int) -> int:
        """Return how many lanes a pass of the fast path has: the next of 1, 2, 4, 8, 16.

        Where it is compiled for fixed numbers; else `count`.
        """
        return count if self._compiled == "off" else 1 << (count - 1).bit_length()

    def named(self) -> dict[str, str]:
        """Return what the path is made of, for receipts; empty where it is the plain one."""
        found = {"compiled": self._compiled} if self._compiled != "off" else {}
        return {"projections": "fused", **found} if self._fused is not None else {**found}

    def give_up_memory(self) -> None:
        """Drop what the fast path has in memory beside the plain; it is slower from now on."""
        if self._fused is not None:
            self._fused.undo()
            self._fused = None


class FusedProjections:
    """The attention layers of a network with one product for queries, keys and values.

    They share their weights with the separate products, so that having both takes no memory.
    """

    def __init__(self, network: Any) -> None:
        attention = [
            layer
            for layer in network.modules()
            if isinstance(layer, Attention | AttentionModuleMixin)
        ]
        # Kept, not made anew: compiled code may look at which it was made for.
        self._apart = {layer: layer.processor for layer in attention}
        network.fuse_qkv_projections()
        self._joined = {layer: layer.processor for layer in attention}
        for layer in attention:
            for whole, parts in _joined(layer):
                _share(whole, parts)
        self._on = True

    def use(self, *, wanted: bool) -> None:
        """Run the layers fused from now on, or as they were."""
        if wanted == self._on:
            return
        for layer, processor in (self._joined if wanted else self._apart).items():
            layer.processor = processor
            layer.fused_projections = wanted
        self._on = wanted

    def undo(self) -> None:
        """Run the layers as they were, and forget the joined weights."""
        self.use(wanted=False)
        for layer in self._joined:
            for name in ("to_qkv", "to_kv", "to_added_qkv"):
                if hasattr(layer, name):
                    delattr(layer, name)


def _joined(layer: Any) -> list[tuple[nn.Linear, Sequence[nn.Linear]]]:
    """Return the joined products of an attention layer, each with those that it joins."""
    found: list[tuple[nn.Linear, Sequence[nn.Linear]]] = []
    for name, parts in (
        ("to_qkv", ("to_q", "to_k", "to_v")),
        ("to_kv", ("to_k", "to_v")),
        ("to_added_qkv", ("add_q_proj", "add_k_proj", "add_v_proj")),
    ):
        whole = getattr(layer, name, None)
        if whole is not None:
            found.append((whole, [getattr(layer, part) for part in parts]))
    return found


def _share(whole: nn.Linear, parts: Sequence[nn.Linear]) -> None:
    sizes = [part.out_features for part in parts]
    for part, rows in zip(parts, torch.split(whole.weight.data, sizes), strict=True):
        part.weight.data = rows
    if whole.bias is not None:
        for part, values in zip(parts, torch.split(whole.bias.data, sizes), strict=True):
            part.bias.data = values
