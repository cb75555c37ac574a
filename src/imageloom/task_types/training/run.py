"""Training on the device: one optimiser step a unit of work."""

from __future__ import annotations

from functools import partial

import msgspec

from imageloom.domain.work import TrainingWork
from imageloom.runtime.residency import Residency
from imageloom.runtime.training import open_trainer
from imageloom.runtime.units import Attempt, Units


def open_units(work: bytes, attempt: Attempt, residency: Residency) -> Units:
    """Return the steps of a training, which has a copy of the base model to itself.

    Room is made for it before it loads, by what the catalog says, and then for what it takes; the
    loop releases that when the attempt ends. Raises: Loading while the base is on its way.
    """
    decoded = msgspec.msgpack.decode(work, type=TrainingWork)
    residency.reserve(attempt.key, decoded.model.size_bytes)
    trainer = open_trainer(
        decoded, attempt, residency.device, load=partial(residency.prepared, attempt.key)
    )
    residency.reserve(attempt.key, trainer.memory_bytes)
    return trainer
