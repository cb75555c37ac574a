"""Read super-resolution networks from a user's files, through the libraries that know them."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from imageloom.domain.errors import BadWeights


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A super-resolution network.

    `run` takes [1, channels, height, width], 0 to 1, of the module's dtype and device, and returns
    it with `factor` times the height and width. Inputs whose sides are multiples of `multiple_of`
    need no padding. `half` says that fp16 is enough for it.
    """

    module: torch.nn.Module
    run: Callable[[Tensor], Tensor]
    factor: int
    channels: int
    multiple_of: int
    half: bool


def load_spandrel(path: Path, *, name: str) -> Network:
    """Read a .safetensors file of whatever architecture spandrel recognises, onto the CPU.

    Raises: BadWeights where it is none, is damaged, or is for anything but super-resolution.
    """
    if path.suffix != ".safetensors":
        raise BadWeights(
            f"the upscaler {name!r} is {path.name}; only a .safetensors file is loaded, "
            "pickles never are"
        )
    spandrel = _import_spandrel(name)
    try:
        weights = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError) as exc:
        raise BadWeights(
            f"{path.name} of the upscaler {name!r} is damaged or no safetensors file: {exc}"
        ) from exc
    try:
        found = spandrel.ModelLoader().load_from_state_dict(weights)
    except Exception as exc:
        # Anything at all: an architecture takes a file for its own by a few names in it, and reads
        # on regardless.
        raise BadWeights(
            f"the weights of the upscaler {name!r} are of no architecture that spandrel "
            f"{spandrel.__version__} knows, or do not fit it ({type(exc).__name__})"
        ) from exc
    architecture = found.architecture.name
    if found.purpose != "SR":
        raise BadWeights(
            f"the network of {name!r} ({architecture}) is for {found.purpose}, not for "
            "super-resolution; an upscaler must enlarge any picture"
        )
    if found.input_channels not in (1, 3) or found.output_channels != found.input_channels:
        raise BadWeights(
            f"the network of {name!r} ({architecture}) turns {found.input_channels} channels into "
            f"{found.output_channels}; 3 (RGB) or 1 (brightness) of both would do"
        )
    return Network(
        module=found.model,
        run=found,
        factor=found.scale,
        channels=found.input_channels,
        multiple_of=found.size_requirements.multiple_of,
        half=found.supports_half,
    )


def _import_spandrel(name: str) -> Any:
    if importlib.util.find_spec("spandrel") is None:
        raise BadWeights(
            f"the upscaler {name!r} needs spandrel, which is not installed on this worker; "
            "run `pip install --no-deps 'spandrel>=0.4.2,<0.5'` there"
        )
    with _torchvision_for_import():
        import spandrel
    return spandrel


@contextmanager
def _torchvision_for_import() -> Iterator[None]:
    """Let spandrel be imported without torchvision, which this package does without.

    Two of its 42 architectures, LaMa (inpainting) and RestoreFormer (faces), import three functions
    of torchvision at import, and neither is super-resolution: we refuse both by their purpose, so
    that nothing calls the empty names given here. They are gone again once spandrel is there, so
    that no library takes them for torchvision.
    """
    if "spandrel" in sys.modules or importlib.util.find_spec("torchvision") is not None:
        yield
        return
    functions = ModuleType("torchvision.transforms.functional")
    vars(functions).update(InterpolationMode=None, normalize=None, rotate=None)
    stand_ins = {
        "torchvision": ModuleType("torchvision"),
        "torchvision.transforms": ModuleType("torchvision.transforms"),
        "torchvision.transforms.functional": functions,
    }
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for module in stand_ins:
            del sys.modules[module]


def load_swin2sr(folder: Path, *, name: str) -> Network:
    """Read a Swin2SR of a folder in transformers layout, onto the CPU. Raises: BadWeights."""
    from transformers import Swin2SRForImageSuperResolution
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        module, report = Swin2SRForImageSuperResolution.from_pretrained(
            folder,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as exc:
        raise BadWeights(
            f"the weights of the upscaler {name!r} cannot be loaded: {type(exc).__name__}; "
            "the worker's log has the details"
        ) from exc
    if missing := sorted(report["missing_keys"]):
        # transformers would fill them with random numbers.
        raise BadWeights(
            f"the weights of the upscaler {name!r} lack {len(missing)} of the tensors that its "
            f"config.json asks for, {missing[0]} among them"
        )
    config = module.config
    if config.num_channels != 3 or config.num_channels_out != 3:
        raise BadWeights(
            f"the network of {name!r} turns {config.num_channels} channels into "
            f"{config.num_channels_out}; 3 (RGB) of both would do"
        )

    def run(values: Tensor) -> Tensor:
        height, width = values.shape[2:]
        answer: Tensor = module(pad_to_multiple(values, config.window_size)).reconstruction
        return answer[:, :, : height * config.upscale, : width * config.upscale]

    return Network(
        module=module,
        run=run,
        # Without an upsampler it removes noise, whatever its scale says.
        factor=config.upscale if config.upsampler else 1,
        channels=3,
        multiple_of=config.window_size,
        half=True,
    )


def pad_to_multiple(values: Tensor, step: int) -> Tensor:
    """Return [1, channels, height, width] grown at the right and below to multiples of `step`.

    What is added mirrors the edge; where there is too little to mirror, the last pixels repeat.
    """
    height, width = values.shape[2:]
    right, below = -width % step, -height % step
    mirrored_right, mirrored_below = min(right, width - 1), min(below, height - 1)
    pad = torch.nn.functional.pad
    values = pad(values, (0, mirrored_right, 0, mirrored_below), "reflect")
    return pad(values, (0, right - mirrored_right, 0, below - mirrored_below), "replicate")
