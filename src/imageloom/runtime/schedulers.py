"""Schedulers by name: every row has one of its own, made from the settings of its model."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any, Final

import diffusers
import torch

from imageloom.domain.schedulers import Scheduler

# diffusers' class, and what it is asked for beyond the model's own settings.
_CLASSES: Final[Mapping[Scheduler, tuple[str, Mapping[str, Any]]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-ancestral": ("EulerAncestralDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": False}),
    "dpmpp-2m-karras": ("DPMSolverMultistepScheduler", {"use_karras_sigmas": True}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "flow-euler": ("FlowMatchEulerDiscreteScheduler", {}),
}


def make_scheduler(name: str | None, of_model: Any) -> Any:
    """Return a new scheduler with the settings of the model's own, of another kind where named."""
    if name is None:
        return copy.deepcopy(of_model)
    class_name, options = _CLASSES[name]  # type: ignore[index]  # checked when it was asked for
    return getattr(diffusers, class_name).from_config(of_model.config, **options)


def step_options(scheduler: Any, generator: torch.Generator) -> dict[str, Any]:
    """Return what the stock pipelines hand to each step: no eta, and the row's random numbers."""
    accepted = inspect.signature(scheduler.step).parameters
    options: dict[str, Any] = {"eta": 0.0} if "eta" in accepted else {}
    if "generator" in accepted:
        options["generator"] = generator
    return options
