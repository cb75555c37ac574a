"""Which models this worker can be given tasks for, as of a moment ago."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Final

import structlog

from imageloom.core.models import read_models
from imageloom.domain.catalog import Model, is_method
from imageloom.domain.errors import ImageloomError, ModelNotInstalled, StoreUnavailable
from imageloom.domain.fit import Abilities, abilities
from imageloom.runtime.weights import locate
from imageloom.settings import Settings
from imageloom.store import workers
from imageloom.store.pool import Pool, transaction
from imageloom.store.workers import Worker

_log = structlog.get_logger("imageloom.worker")

# Looks at the catalog between two looks at the files of a model that has not changed: weights that
# were pulled are soon there. 8 looks of 8 models take 25 ms on a local disk.
LOOKS: Final = 5
# Seconds for which a model that another worker had counts as there: machines that are upgraded one
# by one come back, and what waits for them must not fail meanwhile.
REMEMBERED: Final = 3600.0


class Sight:
    """What there is of the catalog on this machine. Call `look` now and then."""

    def __init__(self, pool: Pool, settings: Settings) -> None:
        self._pool = pool
        self._serves = settings.worker_models
        self._lease = timedelta(seconds=settings.lease_seconds)
        self._elsewhere: dict[str, float] = {}
        self._here: dict[Model, bool] = {}
        self._looks = 0
        self._strange: frozenset[str] = frozenset()
        self.abilities = Abilities(serves=settings.worker_models)

    async def look(self, *, memory_bytes: int | None) -> None:
        """Read the catalog, and look for the files of what is new in it; of the rest now and then.

        Where the database is away, all stays as it was.
        """
        try:
            async with transaction(self._pool, wait=2) as conn:
                models = tuple((await read_models(conn)).values())
                others = await workers.list_all(conn, lease=self._lease)
        except StoreUnavailable as exc:
            _log.warning("models_not_listed", error=exc.message)
            return
        known: Mapping[Model, bool] = self._here if self._looks % LOOKS else {}
        self._looks += 1
        new = [model for model in models if model not in known]
        found = await asyncio.to_thread(_located, new)
        self._here = {model: found.get(model, known.get(model, False)) for model in models}
        self._tell_strange(models)
        self.abilities = abilities(
            models,
            serves=self._serves,
            lacking=[model.name for model, here in self._here.items() if not here],
            elsewhere=self._seen_elsewhere(models, others),
            memory_bytes=memory_bytes,
        )

    def _seen_elsewhere(self, models: Sequence[Model], others: Sequence[Worker]) -> set[str]:
        """Return the models that a live worker can be given, or could a short time ago."""
        now = time.monotonic()
        for model in models:
            if any(each.alive and _has(each, model.name) for each in others):
                self._elsewhere[model.name] = now
        return {name for name, at in self._elsewhere.items() if now - at < REMEMBERED}

    def _tell_strange(self, models: Sequence[Model]) -> None:
        """Warn, once, of names in the setting that no model has, such as a slip of the pen."""
        strange = frozenset(self._serves or ()) - {model.name for model in models}
        if strange - self._strange:
            _log.warning("worker_models_not_known", models=sorted(strange))
        self._strange = strange


def _has(worker: Worker, name: str) -> bool:
    return (
        name not in worker.lacking
        and name not in worker.too_large
        and (worker.serves is None or name in worker.serves)
    )


def _located(models: Sequence[Model]) -> dict[Model, bool]:
    return {model: _is_here(model) for model in models}


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
