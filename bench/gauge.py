"""What benches on a device share: to wait for it, what it can do at most, and how it ran."""

from __future__ import annotations

import time

import torch

from imageloom.runtime.torch_device import TorchDevice


def wait(device: TorchDevice) -> None:
    """Wait until a GPU has done what it was told."""
    if device.device.type == "cuda":
        torch.cuda.synchronize()


def matmul_tflops(device: TorchDevice, *, size: int) -> float:
    """Return what a plain product of two square matrices reaches: the best of five."""
    one, other = (torch.randn(size, size, dtype=device.dtype, device=device.device) for _ in "ab")
    best = 0.0
    for _ in range(5):
        wait(device)
        began = time.perf_counter()
        for _ in range(10):
            one @ other
        wait(device)
        best = max(best, 10 * 2 * size**3 / (time.perf_counter() - began) / 1e12)
    return best


def power(device: TorchDevice) -> str:
    """Return how a GPU ran a moment ago, where the machine says so; empty on a CPU."""
    if device.device.type != "cuda":
        return ""
    try:
        return f", at {torch.cuda.clock_rate()} MHz, {torch.cuda.power_draw() / 1000:.0f} W"
    except Exception as exc:  # noqa: BLE001  # whatever the driver's library has against it
        return f", clock unknown ({type(exc).__name__})"
