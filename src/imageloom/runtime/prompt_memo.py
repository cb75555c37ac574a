"""What a network makes of prompts alone: the same in every denoising step, so made in the first.

The keys and values of cross-attention see nothing but the prompts. At 64 px they are a twentieth of
a step of the embedded model; of SDXL at 1024 px, two hundredths of that.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, Final

from torch import Tensor, nn

from imageloom.runtime.families import Prompt

# Where the prompts of a pass come to more, the network is large, and would gain nothing.
MOST_BYTES: Final = 64 * 2**20


class PromptMemo:
    """Remembers the answers of some layers for as long as passes have the same prompts."""

    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        """`layers` are those whose input are the prompts' tokens and nothing else."""
        self._prompts: tuple[Prompt, ...] = ()
        self._kept: dict[nn.Linear, Tensor] = {}
        self._bytes = 0
        for layer in layers:
            layer.forward = self._remembering(layer, layer.forward)  # type: ignore[method-assign]

    def about(self, prompts: Sequence[Prompt]) -> None:
        """Say which prompts the next pass is about, one a lane."""
        if len(prompts) != len(self._prompts) or not all(map(operator.is_, prompts, self._prompts)):
            self.forget()
            self._prompts = tuple(prompts)

    def forget(self) -> None:
        """Let go of everything."""
        self._prompts, self._bytes = (), 0
        self._kept.clear()

    def _remembering(self, layer: nn.Linear, plain: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def forward(x: Tensor, *rest: Any) -> Tensor:
            kept = self._kept.get(layer)
            if kept is None:
                kept = plain(x, *rest)
                if self._bytes + kept.nbytes <= MOST_BYTES:
                    self._bytes += kept.nbytes
                    self._kept[layer] = kept
            # Adapters are hooks that add to what a layer answers.
            return kept.clone() if layer._forward_hooks else kept  # noqa: SLF001

        return forward
