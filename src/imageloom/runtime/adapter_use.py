"""Adapters on a loaded pipeline: which layers they change, and which files fit them.

Nothing of the base is ever written to: `applied` here and `lane_adapters` add what adapters say to
the outputs of layers, and leave no trace.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Self
from weakref import WeakValueDictionary

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

from imageloom.domain.errors import BadWeights
from imageloom.domain.work import LoraUse
from imageloom.runtime.adapters import Adapter, Layer, read_adapter

# What an adapter may change of a pipeline, and what kohya calls it.
_COMPONENTS: Final = {
    "unet": ("lora_unet",),
    "transformer": (),
    "text_encoder": ("lora_te", "lora_te1"),
    "text_encoder_2": ("lora_te2",),
    "text_encoder_3": (),
}
# kohya trains SDXL on a UNet with the names of the Stable Diffusion research code ("sgm").
_SGM_ENDS: Final = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}
_SGM_RESNET: Final = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
KEPT: Final = 16  # as many as one request may name
KEPT_BYTES: Final = 2_000_000_000

Changeable = nn.Linear | nn.Conv2d
ActingKey = tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
    """What one adapter adds to one layer; tensors of the layer's device and dtype."""

    module: Changeable
    down: Tensor
    up: Tensor
    scale: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """An adapter on the device, one term for each of its layers."""

    terms: tuple[Term, ...]
    weight_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class AdapterSet:
    """Several adapters of a network, each with its weight, as one term a layer.

    Equal to itself alone. Ranks add up and scales are in `up`: any number costs what one does.
    """

    terms: Mapping[Changeable, Term]

    @classmethod
    def of(cls, adapters: Sequence[tuple[Fitted, float]], network: nn.Module) -> Self:
        """Return fitted adapters with their weights as one, as far as they change `network`."""
        layers = set(network.modules())
        by_layer: dict[Changeable, list[tuple[Term, float]]] = {}
        for fitted, weight in adapters:
            for term in fitted.terms:
                if term.module in layers:
                    by_layer.setdefault(term.module, []).append((term, term.scale * weight))
        return cls(terms={module: _merged(module, parts) for module, parts in by_layer.items()})


def acting_key(uses: Sequence[LoraUse]) -> ActingKey:
    """Return what tells the adapters of a request from others; empty where none acts."""
    return tuple(sorted((use.sha256, use.weight) for use in uses if use.weight))


def _merged(module: Changeable, parts: Sequence[tuple[Term, float]]) -> Term:
    return Term(
        module=module,
        down=torch.cat([term.down for term, _ in parts]),
        # Scaled in float32: half precision would round every weight once more.
        up=torch.cat([(term.up.float() * factor).to(term.up) for term, factor in parts], dim=1),
        scale=1.0,
    )


class PipelineAdapters:
    """The adapters of one pipeline, by the digest of their file; the latest used ones are kept."""

    def __init__(
        self, pipeline: Any, *, model_name: str, device: torch.device | None = None
    ) -> None:
        """On `device`, wherever parts of the pipeline are at the moment; else where they are."""
        self._pipeline = pipeline
        self._device = device
        self._model_name = model_name
        self._kept: OrderedDict[str, Fitted] = OrderedDict()
        # Rows with the same adapters share one, which is gone with the last of them.
        self._sets: WeakValueDictionary[ActingKey, AdapterSet] = WeakValueDictionary()

    @property
    def weight_bytes(self) -> int:
        """The bytes of all adapters that are kept."""
        # A list at once: the loader may keep another meanwhile.
        return sum(fitted.weight_bytes for fitted in list(self._kept.values()))

    def load(self, uses: Sequence[LoraUse]) -> list[tuple[Fitted, float]]:
        """Return adapters with their weights, reading those that are not kept.

        Raises: BadWeights where one cannot be read or does not fit the model.
        """
        loaded = [(self._get(use), use.weight) for use in uses]
        needed = len({use.sha256 for use in uses})
        while len(self._kept) > needed and (
            len(self._kept) > KEPT or self.weight_bytes > KEPT_BYTES
        ):
            self._kept.popitem(last=False)
        return loaded

    def as_one(
        self,
        uses: Sequence[LoraUse],
        loaded: Sequence[tuple[Fitted, float]],
        network: nn.Module,
    ) -> AdapterSet | None:
        """Return what `load` returned for a request as one, None where none of it acts."""
        key = acting_key(uses)
        if not key:
            return None
        found = self._sets.get(key)
        if found is None:
            acting = [(fitted, weight) for fitted, weight in loaded if weight]
            found = self._sets[key] = AdapterSet.of(acting, network)
        return found

    def _get(self, use: LoraUse) -> Fitted:
        if use.sha256 not in self._kept:
            adapter = read_adapter(Path(use.path), name=use.name)
            self._kept[use.sha256] = _fit(
                adapter, self._modules, model_name=self._model_name, device=self._device
            )
        self._kept.move_to_end(use.sha256)
        return self._kept[use.sha256]

    @cached_property
    def _modules(self) -> dict[str, Changeable]:
        return changeable_layers(self._pipeline)


@contextmanager
def applied(adapters: Sequence[tuple[Fitted, float]]) -> Iterator[None]:
    """Let adapters act on their pipeline inside the block, each with its weight.

    A weight of 0 adds nothing, to the bit.
    """
    terms: dict[Changeable, list[tuple[Term, float]]] = {}
    for fitted, weight in adapters:
        for term in fitted.terms if weight else ():
            terms.setdefault(term.module, []).append((term, term.scale * weight))
    handles = []
    try:
        for module, of_module in terms.items():
            handles.append(module.register_forward_hook(_adding(of_module)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def changeable_layers(pipeline: Any) -> dict[str, Changeable]:
    """Return the layers of a pipeline that an adapter may change, by every name that files use."""
    layers = {}
    for component, kohya in _COMPONENTS.items():
        network = getattr(pipeline, component, None)
        if network is None:
            continue
        for path, module in network.named_modules():
            if not isinstance(module, Changeable) or getattr(module, "groups", 1) != 1:
                continue
            for alias in _aliases(component, network, path):
                layers[f"{component}.{alias}"] = module
                for prefix in kohya:
                    layers[f"{prefix}_{alias.replace('.', '_')}"] = module
    return layers


def _aliases(component: str, network: Any, path: str) -> Iterator[str]:
    """Yield the names of a layer inside its network, its own first."""
    yield path
    if component.startswith("text_encoder"):
        # transformers 5 dropped this level from CLIP's text model; files have it or not.
        level = "text_model."
        yield path.removeprefix(level) if path.startswith(level) else level + path
    if isinstance(network, UNet2DConditionModel):
        for ours, theirs in _sgm_names(network):
            if path == ours:
                yield theirs
            elif path.startswith(f"{ours}."):
                yield f"{theirs}.{_sgm_inside(ours, path.removeprefix(f'{ours}.'))}"


def _sgm_names(unet: Any) -> Iterator[tuple[str, str]]:
    """Yield the parts of a UNet, by their names here and in the research code.

    There, a block is numbered through all resolutions, and its parts by their place in it.
    """
    yield from _SGM_ENDS.items()
    number = 1
    for b, block in enumerate(unet.down_blocks):
        for r, attention in _resnets(block):
            yield f"down_blocks.{b}.resnets.{r}", f"input_blocks.{number}.0"
            if attention:
                yield f"down_blocks.{b}.attentions.{r}", f"input_blocks.{number}.1"
            number += 1
        if block.downsamplers:
            yield f"down_blocks.{b}.downsamplers.0", f"input_blocks.{number}.0"
            number += 1
    yield "mid_block.resnets.0", "middle_block.0"
    yield "mid_block.attentions.0", "middle_block.1"
    yield "mid_block.resnets.1", "middle_block.2"
    number = 0
    for b, block in enumerate(unet.up_blocks):
        for r, attention in _resnets(block):
            yield f"up_blocks.{b}.resnets.{r}", f"output_blocks.{number}.0"
            if attention:
                yield f"up_blocks.{b}.attentions.{r}", f"output_blocks.{number}.1"
            if block.upsamplers and r == len(block.resnets) - 1:
                place = 2 if attention else 1
                yield f"up_blocks.{b}.upsamplers.0", f"output_blocks.{number}.{place}"
            number += 1


def _resnets(block: Any) -> Iterator[tuple[int, bool]]:
    """Yield the numbers of a block's resnets, and whether attention follows them."""
    attention = hasattr(block, "attentions")
    for number in range(len(block.resnets)):
        yield number, attention


def _sgm_inside(part: str, path: str) -> str:
    if ".resnets." in part:
        return _SGM_RESNET.get(path, path)
    return "op" if ".downsamplers." in part else path


def _fit(
    adapter: Adapter,
    modules: dict[str, Changeable],
    *,
    model_name: str,
    device: torch.device | None,
) -> Fitted:
    unfit = f"the adapter {adapter.name!r} does not fit the model {model_name!r}:"
    unknown = [name for name in adapter.layers if name not in modules]
    if unknown:
        more = f", nor {len(unknown) - 1} others" if len(unknown) > 1 else ""
        raise BadWeights(
            f"{unfit} the model has no layer {unknown[0][:160]!r}{more}; "
            "an adapter works on the kind of model that it was trained on"
        )
    for name, layer in adapter.layers.items():
        weight = modules[name].weight
        if layer.shape != list(weight.shape):
            raise BadWeights(
                f"{unfit} layer {name} is {layer.shape}, the model has {list(weight.shape)}"
            )
    terms = tuple(_term(modules[name], layer, device) for name, layer in adapter.layers.items())
    return Fitted(
        terms=terms,
        weight_bytes=sum(term.down.nbytes + term.up.nbytes for term in terms),
    )


def _term(module: Changeable, layer: Layer, device: torch.device | None) -> Term:
    # A copy, as what was read may still be the file itself, mapped into memory.
    down, up = (
        matrix.to(device or module.weight.device, module.weight.dtype, copy=True)
        for matrix in (layer.down, layer.up)
    )
    return Term(module=module, down=down, up=up, scale=layer.scale)


def _adding(terms: Sequence[tuple[Term, float]]) -> Callable[[Any, Any, Tensor], Tensor]:
    def hook(_module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        for term, factor in terms:
            output = output + change(term, inputs[0]) * factor
        return output

    return hook


def change(term: Term, x: Tensor) -> Tensor:
    """Return up(down(x)); of a convolution, down goes over the picture as the layer does."""
    if isinstance(term.module, nn.Linear):
        return functional.linear(functional.linear(x, term.down), term.up)
    module = term.module
    reduced = functional.conv2d(
        x, term.down, stride=module.stride, padding=module.padding, dilation=module.dilation
    )
    return functional.conv2d(reduced, term.up)
