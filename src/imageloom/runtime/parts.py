"""The parts of a model: all on the device, or one at a time while the others wait on the host.

To move a part changes no bit of it, nor its memory format, and a layer stays the object that hooks
are on. The network of SDXL in half precision is 5 GB, which a bus of 25 GB/s brings in 0.2 s.
"""

from __future__ import annotations

from typing import Any, Final, Literal

import torch
from torch import nn

Part = Literal["text", "autoencoder", "network"]

_COMPONENTS: Final[dict[Part, tuple[str, ...]]] = {
    "text": ("text_encoder", "text_encoder_2", "text_encoder_3"),
    "autoencoder": ("vae", "safety_checker"),
    "network": ("unet", "transformer"),
}


class Parts:
    """The parts of a loaded pipeline."""

    def __init__(self, pipeline: Any, device: torch.device) -> None:
        """Each may be on the host or on `device` as a whole."""
        self._device = device
        self._modules: dict[Part, tuple[nn.Module, ...]] = {
            part: tuple(
                module
                for name in names
                if isinstance(module := getattr(pipeline, name, None), nn.Module)
            )
            for part, names in _COMPONENTS.items()
        }
        self.present: set[Part] = {
            part for part, modules in self._modules.items() if _are_on(modules, device)
        }

    @property
    def largest_bytes(self) -> int:
        """The bytes of the largest part."""
        return max(sum(map(weight_bytes, modules)) for modules in self._modules.values())

    def bring(self, part: Part, *, alone: bool) -> None:
        """Have a part on the device; with `alone` the others leave it first.

        Raises: RuntimeError where it does not fit, and the part is then on the host.
        """
        if alone:
            for other in self.present - {part}:
                self._move(other, torch.device("cpu"))
                self.present.discard(other)
        if part in self.present:
            return
        try:
            self._move(part, self._device)
        except RuntimeError:
            self._move(part, torch.device("cpu"))
            raise
        self.present.add(part)

    def _move(self, part: Part, device: torch.device) -> None:
        for module in self._modules[part]:
            module.to(device)


def weight_bytes(module: nn.Module) -> int:
    """Return the bytes of a module's parameters."""
    return sum(each.numel() * each.element_size() for each in module.parameters())


def _are_on(modules: tuple[nn.Module, ...], device: torch.device) -> bool:
    weights = (parameter for module in modules for parameter in module.parameters())
    return all(weight.device.type == device.type for weight in weights)
