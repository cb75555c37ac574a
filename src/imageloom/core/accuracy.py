"""How good forecasts were, as an operator or a tenant asks."""

from __future__ import annotations

from imageloom.core.services import Services
from imageloom.store.accuracy import Score, Scored, list_newest, list_scores
from imageloom.store.pool import transaction


async def eta_accuracy(
    services: Services, *, tenant: str | None, hours: int, newest: int
) -> tuple[list[Score], list[Scored]]:
    """Return how forecasts of the last hours were, all types first, and the newest of them.

    Of every tenant where `tenant` is None.
    """
    async with transaction(services.pool) as conn:
        scores = await list_scores(conn, tenant=tenant, hours=hours)
        return scores, await list_newest(conn, tenant=tenant, hours=hours, limit=newest)
