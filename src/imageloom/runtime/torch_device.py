"""Which device torch works on here, and how numbers are kept on it."""

from __future__ import annotations

import gc
import platform
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Final

import torch

from imageloom.domain.errors import InvalidParams
from imageloom.domain.messages import DeviceInfo, Ready
from imageloom.domain.speed import Speed

_DTYPES: Final = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TorchDevice:
    """A torch device, the dtype that weights get on it, and what else is chosen for speed."""

    device: torch.device
    dtype: torch.dtype
    info: DeviceInfo
    speed: Speed = field(default_factory=Speed)

    def ready(self) -> Ready:
        """Return the message that says this device can work."""
        return Ready(device=self.info)

    def take_peak(self) -> int | None:
        """Return the most bytes that this process had on the device since it was last asked.

        On CUDA what torch had allocated. Elsewhere nobody keeps the peak, and it is what there is
        now: on a CPU the resident set of the process. 30 µs.
        """
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            return peak
        if self.device.type == "mps":
            return torch.mps.current_allocated_memory()
        return int(_process().memory_info().rss)

    def budget(self) -> int:
        """Return the bytes that resident models may take: what is left is for activations."""
        if self.info.memory_bytes is None:
            import psutil

            return int(psutil.virtual_memory().total * 0.5)
        return int(self.info.memory_bytes * 0.75)


@cache
def _process() -> Any:
    import psutil

    return psutil.Process()


def release_memory() -> None:
    """Give cached blocks back to the device, as after memory did not suffice."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def choose_device(name: str, *, threads: int, speed: Speed | None = None) -> TorchDevice:
    """Return the named device, or with `auto` the best there is; sets torch's thread number.

    Unless `speed` says otherwise, weights are bf16 on a GPU that has it, else fp16, and fp32 on a
    CPU.
    Raises: InvalidParams where the named device is not here.
    """
    found = _found(name, threads=threads)
    if speed is None:
        return found
    return replace(found, speed=speed, dtype=_DTYPES.get(speed.dtype, found.dtype))


def _found(name: str, *, threads: int) -> TorchDevice:
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    # Fixed kernels: autotuning may choose others from run to run, and with them other last bits.
    torch.backends.cudnn.benchmark = False
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        if not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count():
            raise InvalidParams(f"device: {name} is not here; use auto or cpu", param="device")
        properties = torch.cuda.get_device_properties(device)
        return TorchDevice(
            device=device,
            dtype=torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16,
            info=DeviceInfo(
                kind="cuda",
                name=properties.name,
                memory_bytes=properties.total_memory,
                uuid=f"GPU-{properties.uuid}",
            ),
        )
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            raise InvalidParams("device: mps is not here; use auto or cpu", param="device")
        return TorchDevice(
            device=device, dtype=torch.float16, info=DeviceInfo(kind="mps", name="Apple GPU")
        )
    return TorchDevice(
        device=device,
        dtype=torch.float32,
        info=DeviceInfo(kind="cpu", name=platform.processor() or platform.machine() or "CPU"),
    )
