"""What is in the device's memory: the least recently used models leave when it is full.

What is drawn with is held, and stays. Loading happens off the loop, one at a time.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Protocol, TypeVar, cast

import structlog

from imageloom.domain.catalog import Model
from imageloom.runtime.relief import Relief
from imageloom.runtime.shortage import forget_frames, is_out_of_memory
from imageloom.runtime.torch_device import TorchDevice, release_memory
from imageloom.runtime.units import Loading

_log = structlog.get_logger("imageloom.residency")


class Loaded(Protocol):
    """What a model's weights became: a pipeline, an upscaler, a segmenter."""

    @property
    def weight_bytes(self) -> int:
        """What its weights take on the device."""
        ...


T = TypeVar("T")
L = TypeVar("L", bound=Loaded)


class Residency:
    """Loaded models by catalog entry, and bytes reserved for what attempts load by themselves.

    Together at most `device.budget()` bytes, unless one of them alone is more.
    """

    def __init__(
        self,
        device: TorchDevice,
        *,
        loader: Executor | None = None,
        relieved: Callable[[str], None] = lambda _rung: None,
    ) -> None:
        """With a `loader`, loading happens there, one after the other, and who asks is told to
        come again (`Loading`); without, asking takes as long as loading. `relieved` hears of every
        rung that is taken where memory does not suffice.
        """
        self.device = device
        self._loader = loader
        self._relieved = relieved
        self._jobs: dict[object, Future[Any]] = {}
        self._held: Counter[Model] = Counter()
        self._loaded: OrderedDict[Model, Loaded] = OrderedDict()
        self._reserved: dict[str, int] = {}
        self._reliefs: dict[Model, Relief] = {}
        self._taken: list[str] = []

    def get(self, model: Model, load: Callable[[Model, TorchDevice], L]) -> L:
        """Return what `load` makes of the model, loading it and evicting others if need be.

        Keyed by the whole entry: one that was changed in the catalog is another model. One model
        is always loaded by one function: its kind and family choose it.
        Raises: what `load` raises, such as ModelNotInstalled and BadWeights; Loading.
        """
        if model not in self._loaded:
            if model not in self._jobs:
                self._make_room(model.size_bytes)
            loaded = self.prepared(model, lambda: load(model, self.device))
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
        """Give back what is reserved for an attempt that is over, and what it never asked for."""
        self._jobs.pop(key, None)
        if self._reserved.pop(key, None) is not None:
            release_memory()

    def take_peak(self) -> int | None:
        """Return the most bytes in use on the device since it was asked last."""
        return self.device.take_peak()

    def give_back(self) -> None:
        """Give cached blocks back to the device, as after an attempt that raised."""
        release_memory()

    def prepared(self, key: object, job: Callable[[], T]) -> T:
        """Return what `job` makes, done by the loader; `key` tells it from other jobs.

        What is for one attempt alone has its key, so that `release` forgets it.

        Where memory does not suffice, it is done again without other models there, and a model
        that draws is then loaded for its parts to take turns.

        Raises: what `job` raises; Loading.
        """
        try:
            return self._result(key, job)
        except RuntimeError as exc:
            if not is_out_of_memory(exc):
                raise
            forget_frames(exc)
            failure = exc
        if not self._make_do(key):
            raise failure
        return self.prepared(key, job)

    def hold(self, model: Model) -> None:
        """Keep a model in memory until it is let go as often as it was held."""
        self._held[model] += 1

    def let_go(self, model: Model) -> None:
        """Undo one `hold`."""
        self._held[model] -= 1

    def names(self) -> tuple[str, ...]:
        """Return the names of the resident models, least recently used first."""
        return tuple(model.name for model in self._loaded)

    def relief(self, model: Model) -> Relief:
        """Return what was done so far for a model where memory did not suffice."""
        if model not in self._reliefs:
            self._reliefs[model] = Relief(model.name, evict=self.evict_idle, tell=self._note_rung)
        return self._reliefs[model]

    def _note_rung(self, rung: str) -> None:
        self._taken.append(rung)
        self._relieved(rung)

    def take_relief(self) -> tuple[str, ...]:
        """Return the rungs that were taken since this was last asked."""
        taken = tuple(self._taken)
        del self._taken[: len(taken)]
        return taken

    def evict_idle(self) -> bool:
        """Drop every model that nobody draws with; False where there is none."""
        idle = [model for model in self._loaded if not self._held[model]]
        for model in idle:
            self._evict(model)
        return bool(idle)

    def _result(self, key: object, job: Callable[[], T]) -> T:
        if self._loader is None:
            return job()
        if key not in self._jobs:
            self._jobs[key] = self._loader.submit(job)
        future = self._jobs[key]
        if not future.done():
            raise Loading(future)
        del self._jobs[key]
        return cast("T", future.result())

    def _make_do(self, key: object) -> bool:
        """Free memory for what is loaded; False where nothing more can be done."""
        release_memory()
        if self.evict_idle():
            return True
        return isinstance(key, Model) and key.kind == "base" and self.relief(key).offload()

    def _evict(self, model: Model) -> None:
        loaded = self._loaded.pop(model)
        _log.info("evicted", model=model.name, weight_bytes=loaded.weight_bytes)
        del loaded
        release_memory()

    def _make_room(self, needed: int) -> None:
        used = sum(loaded.weight_bytes for loaded in self._loaded.values())
        used += sum(self._reserved.values())
        used += sum(each.size_bytes for each in self._jobs if isinstance(each, Model))
        for model in [each for each in self._loaded if not self._held[each]]:
            if used + needed <= self.device.budget():
                return
            used -= self._loaded[model].weight_bytes
            self._evict(model)
        if used + needed > self.device.budget():
            _log.warning("over_budget", bytes=used + needed, budget=self.device.budget())
