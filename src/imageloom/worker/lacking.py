"""Which models of the catalog cannot be loaded here: their weights are not on this machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import structlog

from imageloom.core.models import list_models
from imageloom.domain.catalog import Model
from imageloom.domain.errors import ImageloomError, ModelNotInstalled, StoreUnavailable
from imageloom.runtime.weights import is_method, locate
from imageloom.store.pool import Pool

_log = structlog.get_logger("imageloom.worker")

AGE_LIMIT = 5.0  # seconds between two looks: what was pulled is soon there


class LackingModels:
    """Looks for the files of every model now and then; a few milliseconds for the built-in ones."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._found: tuple[str, ...] = ()
        self._looked_at = -AGE_LIMIT

    async def names(self) -> tuple[str, ...]:
        """Return the names of the models that are not here, as of a few seconds ago."""
        if time.monotonic() - self._looked_at >= AGE_LIMIT:
            self._looked_at = time.monotonic()
            try:
                models = await list_models(self._pool)
            except StoreUnavailable as exc:
                _log.warning("models_not_listed", error=exc.message)
                return self._found
            self._found = await asyncio.to_thread(_lacking, models)
        return self._found


def _lacking(models: Iterable[Model]) -> tuple[str, ...]:
    return tuple(model.name for model in models if not _is_here(model))


def _is_here(model: Model) -> bool:
    """Whether there is something to load. What is wrong with it, the attempt that loads it says."""
    if is_method(model):
        return True
    try:
        locate(model)
    except ModelNotInstalled:
        return False
    except (ImageloomError, OSError):
        return True
    return True
