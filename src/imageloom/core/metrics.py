"""Metrics: what the database knows, what workers wrote, and what this process counted, as one text.

The first two are the same whichever API process is asked: where there are several, one of them is
scraped for the `installation` and each for its `process`, and sums over all count nothing twice.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from datetime import timedelta
from typing import Final, Literal

from imageloom import __version__
from imageloom.core.meters import Sample, exposition
from imageloom.core.monitor import healthy, lease
from imageloom.core.services import Services
from imageloom.domain import metrics
from imageloom.domain.metrics import Metric
from imageloom.store import metrics as stored
from imageloom.store import tasks, workers
from imageloom.store.pool import transaction
from imageloom.store.tasks import QueueCount
from imageloom.store.workers import Worker
from imageloom.task_types.registry import QUEUES

Part = Literal["installation", "process"]
PARTS: Final[tuple[Part, ...]] = ("installation", "process")
FRESH: Final = 1.0  # seconds for which the database is not asked again, however many scrape
# What a worker counted last is shown for so long, when it stopped or went silent: five scrapes a
# minute apart have seen it then.
KEEP_COUNTS: Final = timedelta(minutes=5)
_STATUSES: Final = ("idle", "busy", "draining", "unhealthy", "silent")

Named = tuple[str, Sample]


class Scraper:
    """Reads the metrics for whoever scrapes an API process."""

    def __init__(self, services: Services, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._services = services
        self._clock = clock
        self._reading = asyncio.Lock()
        self._read_at = -math.inf
        self._installation: list[Named] = []

    async def scrape(self, parts: Collection[Part] = PARTS) -> bytes:
        """Return those parts in the text format of Prometheus. Raises: StoreUnavailable."""
        samples: list[Named] = []
        if "installation" in parts:
            samples += await self._read_installation()
        if "process" in parts:
            samples += [*self._services.meters.samples(), *self._process()]
        return exposition(samples)

    async def _read_installation(self) -> list[Named]:
        async with self._reading:
            if self._clock() - self._read_at >= FRESH:
                self._installation = await read_installation(self._services)
                self._read_at = self._clock()
        return self._installation

    def _process(self) -> Iterator[Named]:
        found = self._services.pool.get_stats()
        size, idle = found.get("pool_size", 0), found.get("pool_available", 0)
        yield _of(metrics.POOL_CONNECTIONS, idle, state="idle")
        yield _of(metrics.POOL_CONNECTIONS, size - idle, state="used")
        yield _of(metrics.POOL_WAITING, found.get("requests_waiting", 0))
        yield _of(metrics.WATCHERS, self._services.feeds.watchers)
        yield _of(metrics.BUILD, 1, version=__version__)


async def keep_counts(services: Services, worker: str) -> None:
    """Write what this worker process has counted. Raises: StoreUnavailable."""
    counts = [(name, *sample) for name, sample in services.meters.samples()]
    async with transaction(services.pool, wait=2) as conn:
        await stored.write_counts(conn, worker, counts)


async def read_installation(services: Services) -> list[Named]:
    """Return what the database knows and what workers wrote. Raises: StoreUnavailable."""
    async with transaction(services.pool) as conn:
        counts = await tasks.count_live(conn)
        found = await workers.list_all(conn, lease=lease(services))
        runs = await stored.live_runs(conn)
        approvals = await stored.waiting_approvals(conn)
        webhooks = await stored.webhook_backlog(conn)
        written = await stored.read_counts(conn, age=KEEP_COUNTS)
    samples = []
    for queue in QUEUES:
        live = counts.get(queue, QueueCount())
        serving = sum(1 for worker in found if healthy(worker) and queue in worker.queues)
        samples += [
            _of(metrics.QUEUE_PENDING, live.pending, queue=queue),
            _of(metrics.QUEUE_RUNNING, live.running, queue=queue),
            _of(metrics.QUEUE_OLDEST, live.oldest_age or 0.0, queue=queue),
            _of(metrics.QUEUE_WORKERS, serving, queue=queue),
        ]
    samples += _of_workers(found)
    samples += [_of(metrics.RUNS, runs.get(each, 0), status=each) for each in ("running", "paused")]
    samples += [
        _of(metrics.APPROVALS, approvals),
        _of(metrics.WEBHOOKS_PENDING, webhooks.pending),
        _of(metrics.WEBHOOKS_HELD, webhooks.held),
        _of(metrics.WEBHOOKS_OLDEST, webhooks.oldest_due_seconds),
        _of(metrics.ENDPOINTS_DISABLED, webhooks.disabled_endpoints),
    ]
    for worker, its in written.items():
        for name, sample, labels, value in its:
            samples.append((name, Sample(sample, {**labels, "worker": worker}, value)))
    return samples


def _of_workers(found: Collection[Worker]) -> Iterator[Named]:
    by_status = Counter(_status(worker) for worker in found)
    for status in {*_STATUSES, *by_status}:
        yield _of(metrics.WORKERS, by_status[status], status=status)
    for worker in found:
        if not worker.alive:
            continue
        told = {"host": worker.host, "device": worker.device, "version": worker.version}
        yield _of(metrics.WORKER_INFO, 1, worker=worker.id, **told)
        yield _of(metrics.WORKER_TASKS, len(worker.tasks), worker=worker.id)
        if worker.memory_bytes is not None:
            yield _of(metrics.DEVICE_MEMORY, worker.memory_bytes, worker=worker.id)
        if worker.memory_used_bytes is not None:
            yield _of(metrics.DEVICE_MEMORY_USED, worker.memory_used_bytes, worker=worker.id)
        if worker.gpu_utilization is not None:
            yield _of(metrics.DEVICE_UTILIZATION, worker.gpu_utilization, worker=worker.id)


def _status(worker: Worker) -> str:
    if not worker.alive:
        return "silent"
    return worker.status if healthy(worker) else "unhealthy"


def _of(metric: Metric, value: float, **labels: str) -> Named:
    return metric.name, Sample(metric.name, labels, value)
