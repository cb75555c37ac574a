"""A process that is stopped in the middle of a transaction does not keep others from its tasks."""

from __future__ import annotations

from imageloom.core.services import Services
from imageloom.core.submit import submit
from imageloom.store import tasks
from imageloom.store.pool import transaction


async def test_who_is_silent_in_a_transaction_loses_its_locks(services: Services) -> None:
    task = await submit(services, tenant="default", task_type="generation", params={}, inputs={})
    async with services.pool.connection() as silent:
        assert await tasks.lock(silent, task.id) is not None
        # Says nothing more, as a process that is stopped: the server ends it, and not this one.
        async with transaction(services.pool) as conn:
            assert await tasks.lock(conn, task.id) is not None
        await silent.close()
