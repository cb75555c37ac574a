"""The step cache: what a task would make, found among what its tenant's tasks have made.

The worker looks, because only it has read the inputs. docs/decisions/0007 says why here.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import metadata, resources
from importlib.resources.abc import Traversable

import msgspec

from imageloom.core.services import Services
from imageloom.domain.catalog import Model
from imageloom.domain.tasks import Output
from imageloom.domain.work import LoraUse
from imageloom.runtime.digests import weights_digest
from imageloom.store import tasks
from imageloom.store.pool import transaction

# Our code that pictures come from, and the libraries that they come from.
_PACKAGES = ("images", "runtime", "task_types", "device")
LIBRARIES = ("torch", "diffusers", "transformers", "pillow", "numpy", "opencv-python-headless")


async def key_of(
    base: str,
    inputs: Mapping[str, str],
    model: Model | None,
    *,
    loras: Sequence[LoraUse] = (),
) -> str:
    """Return what two tasks have in common that make the same pictures.

    `base` is of the type and the parameters, `inputs` are digests by parameter.
    Raises: ModelNotInstalled.
    """
    weights = None
    if model is not None:
        # The entry too: it says how the same weights are used.
        digest = await asyncio.to_thread(weights_digest, model)
        weights = [digest, msgspec.to_builtins(model)]
    adapters = [[lora.sha256, lora.weight] for lora in loras]
    parts = [base, dict(inputs), weights, adapters, code_version()]
    return hashlib.sha256(msgspec.json.encode(parts, order="sorted")).hexdigest()


async def look_up(services: Services, tenant: str, cache_key: str) -> Output | None:
    """Return what the tenant's latest task of that key made, None where there is none."""
    async with transaction(services.pool) as conn:
        found = await tasks.find_cached(conn, tenant=tenant, cache_key=cache_key)
    if found is None:
        return None
    output, seconds = found
    return replace(output, cache="hit", cache_key=cache_key, seconds_saved=seconds)


@cache
def code_version() -> str:
    """Return a digest of the code that makes pictures: another one may make other pixels."""
    digest = hashlib.sha256()
    for package in _PACKAGES:
        for name, data in sorted(_sources(resources.files("imageloom") / package)):
            digest.update(f"{package}/{name}:{len(data)}\n".encode())
            digest.update(data)
    for library in LIBRARIES:
        digest.update(f"{library}=={metadata.version(library)}\n".encode())
    return digest.hexdigest()


def _sources(folder: Traversable) -> list[tuple[str, bytes]]:
    found = []
    for entry in folder.iterdir():
        if entry.is_dir():
            found += [(f"{entry.name}/{name}", data) for name, data in _sources(entry)]
        elif entry.name.endswith(".py"):
            found.append((entry.name, entry.read_bytes()))
    return found
