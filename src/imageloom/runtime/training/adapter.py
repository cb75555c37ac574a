"""The weights that are trained: a LoRA on the linear layers of a model's transformers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from imageloom.domain.work import TrainingWork
from imageloom.runtime.training.checkpoint import ADAPTER_KEY
from imageloom.runtime.training.plan import derived_seed

_CLIP = ("fc1", "fc2", "k_proj", "out_proj", "q_proj", "v_proj")
# The layers that get a LoRA, by how their names end or as a regular expression of the whole name,
# for each network that may be trained.
TARGETS: Final[Mapping[str, str | tuple[str, ...]]] = {
    "unet": (
        "ff.net.0.proj",
        "ff.net.2",
        "proj_in",
        "proj_out",
        "to_k",
        "to_out.0",
        "to_q",
        "to_v",
    ),
    # Inside blocks: the last layer of all, which makes the latents, is a `proj_out` too.
    "transformer": (
        r".*\.(attn\.(to_[qkv]|to_out\.0|add_[qkv]_proj|to_add_out)"
        r"|ff(_context)?\.net\.(0\.proj|2)|proj_mlp|proj_out)"
    ),
    "text_encoder": _CLIP,
    "text_encoder_2": _CLIP,
}
_PEFT_NAME = "default"


class Adapter:
    """The LoRA of one network or several, float32, with all its numbers in one tensor.

    `parameters` is that tensor [n] with its gradient, tensors end to end in the order of their
    names, so that clipping and the optimiser are one operation each instead of hundreds.
    """

    def __init__(self, networks: Mapping[str, nn.Module], work: TrainingWork) -> None:
        """Add the LoRA to frozen networks, by name in the pipeline; it changes no answer yet."""
        self._networks = tuple(sorted(networks))
        self._work = work
        named: dict[str, nn.Parameter] = {}
        self._layers: list[LoraLayer] = []
        for part, network in networks.items():
            config = LoraConfig(r=work.rank, lora_alpha=work.alpha, target_modules=_targets(part))
            inject_adapter_in_model(config, network, adapter_name=_PEFT_NAME)
            for name, parameter in network.named_parameters():
                if parameter.requires_grad:
                    # A half-precision weight would swallow most updates: they are 1e-4 of it.
                    parameter.data = parameter.data.float()
                    named[_file_name(part, name)] = parameter
            self._layers += [each for each in network.modules() if isinstance(each, LoraLayer)]
        for layer in self._layers:
            # autocast rounds the weights to what comes in; peft would first widen that, each time.
            layer.cast_input_dtype_enabled = False
        self._named = {name: named[name] for name in sorted(named)}
        self._scaling = work.alpha / work.rank
        self._begin()
        self.parameters = self._laid_end_to_end()

    def tensors(self) -> dict[str, Tensor]:
        """Return a copy of the tensors by the names that diffusers reads."""
        return {name: parameter.detach().clone() for name, parameter in self._named.items()}

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take the numbers of `tensors`, as `tensors()` returned them."""
        with torch.no_grad():
            for name, parameter in self._named.items():
                parameter.copy_(tensors[name])

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

        Ours are the entries that begin with `imageloom.`; diffusers takes those of its networks.
        """
        work = self._work
        entries: dict[str, Any] = {
            "imageloom.base_model": work.model.name,
            "imageloom.base_source": work.model.source,
            "imageloom.base_revision": work.model.revision,
            "imageloom.family": work.model.family,
        }
        for part in self._networks:
            entries[f"{part}.r"] = work.rank
            entries[f"{part}.lora_alpha"] = work.alpha
            entries[f"{part}.target_modules"] = _targets(part)
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


def _targets(part: str) -> str | list[str]:
    targets = TARGETS[part]
    return targets if isinstance(targets, str) else list(targets)


def _file_name(part: str, name: str) -> str:
    """Return a parameter's name in files: without peft's name for the adapter.

    transformers 5 dropped a level of CLIP's text model; files have it, and every version reads it.
    """
    bare = name.replace(f".{_PEFT_NAME}.", ".")
    level = "text_model."
    if part.startswith("text_encoder") and not bare.startswith(level):
        bare = level + bare
    return f"{part}.{bare}"
