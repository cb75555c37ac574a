"""Adapters of the embedded model for a running installation, without the minutes of a training."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING

import torch
from safetensors import safe_open
from safetensors.torch import save

from imageloom.core.services import open_services
from imageloom.domain.tasks import AdapterFile
from imageloom.settings import Settings
from imageloom.store import adapters
from imageloom.store.pool import transaction
from imageloom.store.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from conftest import Live

EMBEDDED = resources.files("imageloom.runtime") / "embedded" / "imageloom-tiny"
QUICK = {"prompt": "a hat", "steps": 1, "width": 64, "height": 64}


def adapter(pattern: str, *, rank: int, seed: int) -> bytes:
    """Return random matrices for the layers of the embedded UNet whose names match."""
    generator, tensors = torch.Generator().manual_seed(seed), {}
    with (
        resources.as_file(EMBEDDED / "unet" / "diffusion_pytorch_model.safetensors") as path,
        safe_open(path, framework="pt") as unet,
    ):
        for key in filter(re.compile(pattern).search, unet.keys()):
            out, into = unet.get_slice(key).get_shape()
            layer = f"unet.{key.removesuffix('.weight')}"
            down = torch.randn(rank, into, generator=generator) / rank
            up = torch.randn(out, rank, generator=generator) * 0.1
            tensors |= {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    assert tensors
    return save(tensors)


def publish(live: Live, files: Mapping[str, bytes]) -> None:
    """Make these files adapters of the embedded model under their names, whatever they hold."""
    with live.client() as client:
        answer = client.post("/tasks/generation", json=QUICK)
        made_by = answer.raise_for_status().json()["id"]  # the tables ask for a task

    async def put() -> None:
        settings = Settings(data_dir=live.data_dir, device="cpu")
        with EmbeddedPostgres(live.data_dir / "postgres") as shared:
            async with open_services(settings, shared.start(), pool_timeout=5) as services:
                for name, data in files.items():
                    key = f"adapters/default/{name}.safetensors"
                    await services.storage.put(key, data, media_type="application/octet-stream")
                    file = AdapterFile(
                        key=key,
                        sha256=hashlib.sha256(data).hexdigest(),
                        size=len(data),
                        step=1,
                        held_out_loss=None,
                    )
                    async with transaction(services.pool) as conn:
                        await adapters.insert(
                            conn,
                            tenant="default",
                            name=name,
                            base_model="imageloom-tiny",
                            file=file,
                            rank=4,
                            trigger_word=None,
                            task_id=made_by,
                            lineage={},
                        )

    asyncio.run(put())
