"""Train in two processes of one thread each, which beats two OpenMP threads on shared cores.

Also the two schedules by wall clock: a run always ends on time, however busy the machine is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from datetime import timedelta

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn


def spawn(worker: Callable[..., None], workers: int, *arguments: object) -> None:
    """Run `worker(rank, workers, *arguments)` in that many processes and wait."""
    if workers == 1:
        _enter(0, worker, 1, arguments)
        return
    mp.start_processes(_enter, (worker, workers, arguments), nprocs=workers, start_method="fork")


def average_gradients(parameters: Iterable[nn.Parameter], workers: int) -> None:
    """Replace every gradient by its mean over the workers, in one exchange."""
    if workers == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    flat /= workers
    offset = 0
    for gradient in gradients:
        gradient.copy_(flat[offset : offset + gradient.numel()].view_as(gradient))
        offset += gradient.numel()


def agreed_share(start: float, seconds: float, workers: int) -> float:
    """Return the share of the time that is spent, 0 to 1, the same in every worker."""
    share = torch.tensor([min(1.0, (time.time() - start) / seconds)])
    if workers > 1:
        dist.broadcast(share, 0)
    return float(share)


def rate_factor(step: int, share: float, *, warm_up: int, flat_until: float) -> float:
    """Return the learning-rate factor: warm up by steps, stay, then fall linearly to 1 %."""
    rise = min(1.0, (step + 1) / warm_up)
    if share <= flat_until:
        return rise
    return rise * max(0.01, (1 - share) / (1 - flat_until))


def _enter(
    rank: int, worker: Callable[..., None], workers: int, arguments: tuple[object, ...]
) -> None:
    torch.set_num_threads(1)
    if workers > 1:
        dist.init_process_group(
            "gloo",
            init_method="tcp://127.0.0.1:29512",
            rank=rank,
            world_size=workers,
            timeout=timedelta(minutes=10),
        )
    worker(rank, workers, *arguments)
