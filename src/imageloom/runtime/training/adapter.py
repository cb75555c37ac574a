"""The weights that are trained: a LoRA on every linear layer of the UNet's transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from imageloom.domain.work import TrainingWork
from imageloom.runtime.training.checkpoint import ADAPTER_KEY
from imageloom.runtime.training.plan import derived_seed

TARGETS = (
    "ff.net.0.proj",
    "ff.net.2",
    "proj_in",
    "proj_out",
    "to_k",
    "to_out.0",
    "to_q",
    "to_v",
)
_PEFT_NAME = "default"


class Adapter:
    """The LoRA of a UNet, float32, with all its numbers in one tensor.

    `parameters` is that tensor [n] with its gradient, tensors end to end in the order of their
    names, so that clipping and the optimiser are one operation each instead of hundreds.
    """

    def __init__(self, unet: nn.Module, work: TrainingWork) -> None:
        """Add the LoRA to `unet`, which must be frozen; it changes no answer yet."""
        self._unet = unet
        self._work = work
        config = LoraConfig(r=work.rank, lora_alpha=work.alpha, target_modules=list(TARGETS))
        inject_adapter_in_model(config, unet, adapter_name=_PEFT_NAME)
        named = {name: value for name, value in unet.named_parameters() if value.requires_grad}
        for parameter in named.values():
            # A half-precision weight would swallow most updates: they are 1e-4 of it.
            parameter.data = parameter.data.float()
        # Sorted as the file's names are, which lack peft's name for the adapter.
        self._named = {name: named[name] for name in sorted(named, key=_file_name)}
        self._layers = [module for module in unet.modules() if isinstance(module, LoraLayer)]
        self._scaling = work.alpha / work.rank
        self._begin()
        self.parameters = self._laid_end_to_end()

    def tensors(self) -> dict[str, Tensor]:
        """Return a copy of the tensors by the names that diffusers reads."""
        return {
            f"unet.{_file_name(name)}": parameter.detach().clone()
            for name, parameter in self._named.items()
        }

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the numbers of `tensors`, as `tensors()` returned them."""
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(tensors[f"unet.{_file_name(name)}"])

    @contextmanager
    def weighing(self, weight: float) -> Iterator[None]:
        """Let the adapter act with `weight` times its strength: 1 as a rule, 0 for the base."""
        for layer in self._layers:
            layer.scaling[_PEFT_NAME] = weight * self._scaling
        try:
            yield
        finally:
            for layer in self._layers:
                layer.scaling[_PEFT_NAME] = self._scaling

    def metadata(self) -> dict[str, str]:
        """Return what a file of this adapter says of itself, in the one key that diffusers reads.

        Ours are the entries that begin with `imageloom.`; diffusers takes those of `unet.` only.
        """
        work = self._work
        entries: dict[str, Any] = {
            "unet.r": work.rank,
            "unet.lora_alpha": work.alpha,
            "unet.target_modules": list(TARGETS),
            "imageloom.base_model": work.model.name,
            "imageloom.base_source": work.model.source,
            "imageloom.base_revision": work.model.revision,
            "imageloom.family": work.model.family,
        }
        return {ADAPTER_KEY: json.dumps(entries, sort_keys=True)}

    def _begin(self) -> None:
        """Draw the down projections and zero the up ones, so that the sum starts as the base.

        Drawn on the CPU, so that a seed means the same start on every device.
        Source: Hu et al. 2021 (arXiv:2106.09685), section 4.1; the deviation 1 / rank is peft's.
        """
        generator = torch.Generator("cpu").manual_seed(derived_seed(self._work.seed, "lora", 0))
        with torch.no_grad():
            for name, parameter in self._named.items():
                if ".lora_A." in name:
                    drawn = torch.randn(parameter.shape, generator=generator)
                    parameter.copy_(drawn / self._work.rank)
                else:
                    parameter.zero_()

    def _laid_end_to_end(self) -> nn.Parameter:
        parts = [parameter.detach().reshape(-1) for parameter in self._named.values()]
        whole = nn.Parameter(torch.cat(parts))
        whole.grad = torch.zeros_like(whole)
        start = 0
        for parameter in self._named.values():
            end = start + parameter.numel()
            parameter.data = whole.data[start:end].view(parameter.shape)
            parameter.grad = whole.grad[start:end].view(parameter.shape)
            start = end
        return whole


def _file_name(name: str) -> str:
    return name.replace(f".{_PEFT_NAME}.", ".")
