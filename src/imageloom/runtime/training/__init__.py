"""Fine-tuning: LoRA adapters of a denoiser, one optimiser step at a time.

`plan`, `cost`, `estimate` and `ordinary` need no torch, so that what a training will do and take is
known before any device sees it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from imageloom.domain.work import TrainingWork
    from imageloom.runtime.torch_device import TorchDevice
    from imageloom.runtime.training.trainer import Trainer
    from imageloom.runtime.units import Attempt


def open_trainer(work: TrainingWork, attempt: Attempt, device: TorchDevice) -> Trainer:
    """Return the units of a training: caching, one picture each, then one optimiser step each.

    A checkpoint adds units after its step: one for each held-out picture, one for each denoising
    step of a sample, one to write.
    Raises: InvalidParams for a model or configuration that cannot be trained; ModelNotInstalled;
    BadWeights.
    """
    from imageloom.runtime.training.trainer import Trainer  # torch

    return Trainer(work, attempt, device)
