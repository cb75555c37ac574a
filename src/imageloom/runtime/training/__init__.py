"""Fine-tuning: LoRA adapters of a denoiser, one optimiser step at a time.

`plan`, `cost`, `estimate` and `ordinary` need no torch, so that what a training will do and take is
known before any device sees it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imageloom.domain.work import TrainingWork
    from imageloom.runtime.torch_device import TorchDevice
    from imageloom.runtime.training.base import Base
    from imageloom.runtime.training.trainer import Trainer
    from imageloom.runtime.units import Attempt


def open_trainer(
    work: TrainingWork,
    attempt: Attempt,
    device: TorchDevice,
    *,
    load: Callable[[Callable[[], Base]], Base] = operator.call,
) -> Trainer:
    """Return the units of a training: caching, one picture each, then one optimiser step each.

    A checkpoint adds units after its step: one for each held-out picture, one for each denoising
    step of a sample, one to write. `load` returns what its argument makes, wherever it has it made.
    Raises: InvalidParams for a model or configuration that cannot be trained; ModelNotInstalled;
    BadWeights; what `load` raises.
    """
    from imageloom.runtime.training.trainer import Trainer  # torch

    return Trainer(work, attempt, device, load=load)
