"""How busy the GPU is, from NVIDIA's management library; null on everything else."""

from __future__ import annotations

import pynvml


class GpuMeter:
    """Reads the utilisation of one GPU; a machine without one reads None."""

    def __init__(self, index: int = 0) -> None:
        try:
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        except pynvml.NVMLError:
            self._handle = None

    def utilization(self) -> float | None:
        """Return the share of the last sample period in which a kernel ran, 0 to 1."""
        if self._handle is None:
            return None
        try:
            return float(pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu) / 100
        except pynvml.NVMLError:
            return None
