"""Which models are in the device's memory: least recently used ones leave when it is full."""

from __future__ import annotations

import gc
from collections import OrderedDict

import structlog
import torch

from imageloom.domain.catalog import Model
from imageloom.runtime.stock import StockPipeline
from imageloom.runtime.torch_device import TorchDevice

_log = structlog.get_logger("imageloom.residency")


class Residency:
    """Loaded pipelines by catalog entry, at most `device.budget()` bytes of weights together."""

    def __init__(self, device: TorchDevice) -> None:
        self._device = device
        self._loaded: OrderedDict[Model, StockPipeline] = OrderedDict()

    def pipeline(self, model: Model) -> StockPipeline:
        """Return the model's pipeline, loading it and evicting others if need be.

        Keyed by the whole entry: one that was changed in the catalog is another model.
        Raises: ModelNotInstalled, BadWeights.
        """
        if model not in self._loaded:
            self._make_room(model.size_bytes)
            self._loaded[model] = StockPipeline.load(model, self._device)
            _log.info("loaded", model=model.name, weight_bytes=self._loaded[model].weight_bytes)
        self._loaded.move_to_end(model)
        return self._loaded[model]

    def names(self) -> tuple[str, ...]:
        """Return the names of the resident models, least recently used first."""
        return tuple(model.name for model in self._loaded)

    def release_memory(self) -> None:
        """Give cached blocks back to the device, as after an out-of-memory failure."""
        gc.collect()
        if self._device.device.type == "cuda":
            torch.cuda.empty_cache()

    def _make_room(self, needed: int) -> None:
        used = sum(pipeline.weight_bytes for pipeline in self._loaded.values())
        while self._loaded and used + needed > self._device.budget():
            model, pipeline = self._loaded.popitem(last=False)
            used -= pipeline.weight_bytes
            _log.info("evicted", model=model.name, weight_bytes=pipeline.weight_bytes)
            del pipeline
            self.release_memory()
