"""Receipts of what a worker draws: what it knows of a task's making, and what its device says."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata

from imageloom import __version__
from imageloom.domain.catalog import Model
from imageloom.domain.messages import Picture as PictureMessage
from imageloom.domain.receipts import AdapterReceipt, Receipt
from imageloom.domain.work import LoraUse
from imageloom.worker.cache import LIBRARIES, code_version
from imageloom.worker.digests import WeightDigests


class Receipts:
    """Writes the receipts of one attempt.

    The digest of the weights is begun at once and awaited with the first picture: of a model that
    this process has not read before it takes 1 to 3 s a gigabyte.
    """

    def __init__(
        self,
        model: Model,
        *,
        digests: WeightDigests,
        loras: Sequence[LoraUse],
        inputs: Mapping[str, str],
    ) -> None:
        """`inputs` are the sha256 of the pictures that the task begins from, by parameter."""
        self._model = model
        self._adapters = tuple(
            AdapterReceipt(name=lora.name, sha256=lora.sha256, weight=lora.weight) for lora in loras
        )
        self._input = next(iter(inputs.values()), None)
        self._weights = digests.of(model)

    async def of(self, message: PictureMessage) -> Receipt | None:
        """Return the receipt of a picture, None where it was not drawn from a seed.

        Raises: ModelNotInstalled, BadWeights where the weights went away meanwhile.
        """
        if message.setup is None or message.seed is None:
            return None
        return Receipt(
            seed=message.seed,
            model=self._model.name,
            weights=await asyncio.shield(self._weights),
            adapters=self._adapters,
            input=self._input,
            scheduler=message.setup.scheduler,
            device=message.setup.device,
            versions=_versions(),
        )


@cache
def _versions() -> Mapping[str, str]:
    libraries = {library: metadata.version(library) for library in LIBRARIES}
    return {"imageloom": __version__, "code": code_version(), **libraries}
