"""What is in the device's memory: the least recently used models leave when it is full."""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, TypeVar

import structlog
import torch

from imageloom.domain.catalog import Model
from imageloom.runtime.torch_device import TorchDevice

_log = structlog.get_logger("imageloom.residency")


class Loaded(Protocol):
    """What a model's weights became: a pipeline, an upscaler, a segmenter."""

    weight_bytes: int


L = TypeVar("L", bound=Loaded)


class Residency:
    """Loaded models by catalog entry, and bytes reserved for what attempts load by themselves.

    Together at most `device.budget()` bytes, unless one of them alone is more.
    """

    def __init__(self, device: TorchDevice) -> None:
        self.device = device
        self._loaded: OrderedDict[Model, Loaded] = OrderedDict()
        self._reserved: dict[str, int] = {}

    def get(self, model: Model, load: Callable[[Model, TorchDevice], L]) -> L:
        """Return what `load` makes of the model, loading it and evicting others if need be.

        Keyed by the whole entry: one that was changed in the catalog is another model. One model
        is always loaded by one function: its kind and family choose it.
        Raises: what `load` raises, such as ModelNotInstalled and BadWeights.
        """
        if model not in self._loaded:
            self._make_room(model.size_bytes)
            loaded = load(model, self.device)
            self._loaded[model] = loaded
            _log.info("loaded", model=model.name, weight_bytes=loaded.weight_bytes)
        self._loaded.move_to_end(model)
        return self._loaded[model]  # type: ignore[return-value]  # see above: the same function

    def reserve(self, key: str, size: int) -> None:
        """Keep `size` bytes for the attempt `key` until `release`; models are evicted for them.

        Another size for the same key takes the place of the first. What does not fit is reserved
        nevertheless, and the attempt may run out of memory.
        """
        self._reserved.pop(key, None)
        self._make_room(size)
        self._reserved[key] = size
        _log.info("reserved", key=key, bytes=size)

    def release(self, key: str) -> None:
        """Give back what is reserved for an attempt that let go of its own; else do nothing."""
        if self._reserved.pop(key, None) is not None:
            self.release_memory()

    def names(self) -> tuple[str, ...]:
        """Return the names of the resident models, least recently used first."""
        return tuple(model.name for model in self._loaded)

    def release_memory(self) -> None:
        """Give cached blocks back to the device, as after an out-of-memory failure."""
        gc.collect()
        if self.device.device.type == "cuda":
            torch.cuda.empty_cache()

    def _make_room(self, needed: int) -> None:
        used = sum(loaded.weight_bytes for loaded in self._loaded.values())
        used += sum(self._reserved.values())
        while self._loaded and used + needed > self.device.budget():
            model, loaded = self._loaded.popitem(last=False)
            used -= loaded.weight_bytes
            _log.info("evicted", model=model.name, weight_bytes=loaded.weight_bytes)
            del loaded
            self.release_memory()
        if used + needed > self.device.budget():
            _log.warning("over_budget", bytes=used + needed, budget=self.device.budget())
