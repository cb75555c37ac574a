"""How busy and how full the GPU is, from NVIDIA's management library; null on everything else."""

from __future__ import annotations

from contextlib import suppress

import pynvml


class GpuMeter:
    """Reads the one GPU that the device process uses; of anything else it reads None.

    Known by its UUID: the library counts all GPUs of the machine, in another order than CUDA, which
    may be shown a few of them.
    """

    def __init__(self, uuid: str | None) -> None:
        self._handle = None
        if uuid is None:
            return
        with suppress(pynvml.NVMLError):
            pynvml.nvmlInit()
            self._handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)

    def utilization(self) -> float | None:
        """Return the share of the last sample period in which a kernel ran, 0 to 1."""
        if self._handle is None:
            return None
        try:
            return float(pynvml.nvmlDeviceGetUtilizationRates(self._handle).gpu) / 100
        except pynvml.NVMLError:
            return None

    def memory_used(self) -> int | None:
        """Return the bytes in use on the GPU, those of other processes too."""
        if self._handle is None:
            return None
        try:
            return int(pynvml.nvmlDeviceGetMemoryInfo(self._handle).used)
        except pynvml.NVMLError:
            return None
