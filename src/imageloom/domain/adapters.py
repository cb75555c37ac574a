"""Adapters as values: what was trained on a base model, and how a training stands."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from imageloom.domain.tasks import AdapterFile, OutputImage


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """A LoRA that a tenant's requests may name. `key` names its bytes in storage."""

    tenant: str
    name: str
    version: int
    base_model: str
    key: str
    sha256: str
    size: int
    rank: int
    trigger_word: str | None
    task_id: str
    lineage: dict[str, Any]
    created_at: datetime
    retired_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The loss of one optimiser step; steps count from 1."""

    step: int
    loss: float
    learning_rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A picture that a training drew of one of its prompts after `step` steps."""

    image: OutputImage
    step: int
    prompt: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How fast a training went, for estimates of others.

    `side` is that of the square in pixels, `keeping` whether it also learnt to leave prompts alone.
    """

    device: str
    side: int
    batch_size: int
    keeping: bool
    images_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """How a training stands. `checkpoint` is the storage key of what it can go on from.

    `best` and `last` are the adapters of the checkpoint with the lowest held-out loss and of the
    latest one; they may be the same. `pace` is that of the attempt that wrote last.
    """

    metrics: dict[str, Any] = field(default_factory=dict)
    samples: tuple[Sample, ...] = ()
    lineage: dict[str, Any] = field(default_factory=dict)
    checkpoint: str | None = None
    checkpoint_step: int = 0
    best: AdapterFile | None = None
    last: AdapterFile | None = None
    pace: Pace | None = None

    def chosen(self, *, best: bool) -> AdapterFile | None:
        """Return the adapter to publish, None before the first checkpoint."""
        return self.best if best else self.last
