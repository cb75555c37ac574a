"""Adapters in one forward pass, a set of its own for every row.

Hooks on the layers add to each row's lanes what its adapters say. They stay while the rows are the
same, and are gone with the first pass that has no adapters: the base is then as if there had never
been any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.hooks import RemovableHandle

from imageloom.runtime.adapter_use import AdapterSet, Changeable, Term, change

Hook = Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]
# Whole numbers as a tensor on a device; the same for most layers, and each costs a copy there.
Indices = Callable[[tuple[int, ...], torch.device], Tensor]


class Owner(Protocol):
    """A row, as far as adapters go."""

    adapters: AdapterSet | None


@dataclass(frozen=True, slots=True)
class Span:
    """Lanes from `start` up to but not including `stop`, and what acts on them."""

    start: int
    stop: int
    adapters: AdapterSet


class LaneAdapters:
    """What acts on the lanes of a network's next forward pass."""

    def __init__(self) -> None:
        self._spans: tuple[Span, ...] = ()
        self._stacked = False
        self._handles: list[RemovableHandle] = []

    def act(self, owners: Sequence[Owner], *, exact: bool) -> None:
        """Let the adapters of each lane's owner act on it from now on, until told otherwise.

        With `exact`, what is added to an owner's lanes does not depend on the others, to the bit.
        Else the lanes of many sets are computed together, in two operations a layer however many
        there are.
        """
        spans = _spans(owners, exact=exact)
        stacked = not exact and len(spans) > 2
        if (spans, stacked) == (self._spans, self._stacked):
            return
        for handle in self._handles:
            handle.remove()
        self._spans, self._stacked, self._handles = (), False, []
        by_layer: dict[Changeable, list[tuple[Span, Term]]] = {}
        for span in spans:
            for module, term in span.adapters.terms.items():
                by_layer.setdefault(module, []).append((span, term))
        # Made before any is set: to make one takes memory, which may not suffice.
        indices = cache(_index)
        hooks = {
            module: _together(parts, indices)
            if stacked and isinstance(module, nn.Linear)
            else _apart(parts)
            for module, parts in by_layer.items()
        }
        self._handles = [module.register_forward_hook(hook) for module, hook in hooks.items()]
        self._spans, self._stacked = spans, stacked


def _spans(owners: Sequence[Owner], *, exact: bool) -> tuple[Span, ...]:
    """Return neighbours of one owner, or without `exact` of one set, as spans.

    Lanes without adapters are left out.
    """
    spans: list[Span] = []
    for lane, owner in enumerate(owners):
        if owner.adapters is None:
            continue
        last = spans[-1] if spans else None
        joins = last and last.stop == lane and last.adapters is owner.adapters
        if last and joins and (not exact or owners[last.start] is owner):
            spans[-1] = Span(last.start, lane + 1, owner.adapters)
            continue
        spans.append(Span(lane, lane + 1, owner.adapters))
    return tuple(spans)


def _apart(parts: Sequence[tuple[Span, Term]]) -> Hook:
    def hook(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for span, term in parts:
            x = inputs[0][span.start : span.stop]
            output[span.start : span.stop].add_(change(term, x))
        return output

    return hook


def _together(parts: Sequence[tuple[Span, Term]], indices: Indices) -> Hook:
    """Return a hook that multiplies a matrix for each lane, all of them at once.

    Ranks are filled up with zeros to the largest, which add nothing. Made whenever the rows change,
    for hundreds of layers: so each set is filled up once, however many lanes it acts on.
    """
    rank = max(len(term.down) for _, term in parts)
    terms = list({id(term): term for _, term in parts}.values())
    places = {id(term): place for place, term in enumerate(terms)}
    device = terms[0].down.device
    of_lanes = indices(
        tuple(places[id(term)] for span, term in parts for _ in _lanes(span)), device
    )
    down = _stacked([_filled(term.down, rank, dim=0) for term in terms], of_lanes)
    up = _stacked([_filled(term.up, rank, dim=1) for term in terms], of_lanes)
    numbers = [lane for span, _ in parts for lane in _lanes(span)]
    gapless = all(after == before + 1 for before, after in pairwise(numbers))
    first, end = numbers[0], numbers[-1] + 1
    lanes = None if gapless else indices(tuple(numbers), device)

    def hook(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        x = inputs[0][first:end] if lanes is None else inputs[0][lanes]
        flat = x.reshape(len(numbers), -1, x.shape[-1])
        added = torch.bmm(torch.bmm(flat, down), up).view(*x.shape[:-1], -1)
        if lanes is None:
            output[first:end].add_(added)
        else:
            output.index_add_(0, lanes, added)
        return output

    return hook


def _lanes(span: Span) -> range:
    return range(span.start, span.stop)


def _index(numbers: tuple[int, ...], device: torch.device) -> Tensor:
    return torch.tensor(numbers, device=device)


def _stacked(matrices: list[Tensor], places: Tensor) -> Tensor:
    """Return the transposed matrices of the lanes [n, ...], of those at their places."""
    return torch.stack(matrices).transpose(1, 2).contiguous().index_select(0, places)


def _filled(matrix: Tensor, rank: int, *, dim: int) -> Tensor:
    missing = rank - matrix.shape[dim]
    if not missing:
        return matrix
    return functional.pad(matrix, (0, 0, 0, missing) if dim == 0 else (0, missing))
