"""How a picture was drawn, for its receipt: whatever else may change its bits."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping
from typing import Any

import torch

from imageloom.domain.messages import Setup


def setup_of(
    pipeline: Any,
    scheduler: Any,
    *,
    path: str,
    device: torch.device,
    also: Mapping[str, str],
) -> Setup:
    """Return the settings of a scheduler, and what the network worked on.

    `path` is `rows` where we step the network, `stock` where diffusers does; `also` is what else
    was not as usual.
    """
    settings = {
        name: _plain(value)
        for name, value in scheduler.config.items()
        if not name.startswith("_") and value is not None
    }
    network = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    return Setup(
        scheduler={"class": type(scheduler).__name__, **settings},
        device={
            "path": path,
            "dtype": str(network.dtype).removeprefix("torch."),
            **_device(device),
            **also,
        },
    )


def _plain(value: Any) -> Any:
    """Return a setting as JSON has it: DPM-Solver's has minus infinity among them."""
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _device(device: torch.device) -> dict[str, str]:
    if device.type == "cuda":
        properties = torch.cuda.get_device_properties(device)
        return {
            "kind": "cuda",
            "name": properties.name,
            "kernels": f"sm_{properties.major}{properties.minor}",
            "cuda": str(torch.version.cuda),
            "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        }
    return {
        "kind": device.type,
        "name": platform.processor() or platform.machine(),
        "kernels": torch.backends.cpu.get_cpu_capability(),
        "threads": str(torch.get_num_threads()),
    }
