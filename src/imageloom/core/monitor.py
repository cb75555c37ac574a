"""What an operator sees: queues and workers of the whole installation."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from imageloom.core.services import Services
from imageloom.store import tasks, workers
from imageloom.store.pool import transaction
from imageloom.store.tasks import QueueCount
from imageloom.store.workers import Worker


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueState:
    """How many tasks of one type wait and run, and how many live workers serve them."""

    name: str
    count: QueueCount
    workers: int


async def queue_states(services: Services, *, names: tuple[str, ...]) -> list[QueueState]:
    """Return the state of each named queue, in that order."""
    async with transaction(services.pool) as conn:
        counts = await tasks.count_live(conn)
        found = await workers.list_all(conn, lease=lease(services))
    return [
        QueueState(
            name=name,
            count=counts.get(name, QueueCount()),
            workers=sum(1 for worker in found if healthy(worker) and name in worker.queues),
        )
        for name in names
    ]


async def list_workers(services: Services, *, wait: float | None = None) -> list[Worker]:
    """Return the workers of the last hour, silent ones too, oldest first.

    `wait` is how many seconds to wait for the database. Raises: StoreUnavailable.
    """
    async with transaction(services.pool, wait=wait) as conn:
        return await workers.list_all(conn, lease=lease(services))


async def watch_workers(
    services: Services, *, tenant: str | None
) -> list[tuple[Worker, tuple[str, ...]]]:
    """Return the workers of the last hour, each with those of its tasks that are the tenant's.

    With all of its tasks where the tenant is None.
    """
    async with transaction(services.pool) as conn:
        found = await workers.list_all(conn, lease=lease(services))
        named = [task for worker in found for task in worker.tasks]
        theirs = set(named)
        if tenant is not None and named:
            theirs = await tasks.owned(conn, named, tenant=tenant)
    return [(each, tuple(task for task in each.tasks if task in theirs)) for each in found]


def healthy(worker: Worker) -> bool:
    """Whether the worker is alive and says that it can work."""
    return worker.alive and worker.status != "unhealthy"


def lease(services: Services) -> timedelta:
    """Return how long a worker may be silent before its tasks are taken back."""
    return timedelta(seconds=services.settings.lease_seconds)
