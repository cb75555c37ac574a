"""Webhooks as their tenant sees them: the secret, the log of deliveries, the endpoints."""

from __future__ import annotations

import base64
from datetime import timedelta

from imageloom.core.keys import DEFAULT_TENANT
from imageloom.core.services import Services
from imageloom.domain.errors import Conflict, NotFound
from imageloom.store import endpoints, outbox, webhook_secrets
from imageloom.store.endpoints import Endpoint
from imageloom.store.outbox import Event, EventFilter
from imageloom.store.pool import Connection, transaction
from imageloom.store.webhook_secrets import Secrets

OVERLAP = timedelta(hours=24)  # after a rotation the old secret signs too, so that none is refused


async def get_secret(services: Services, *, tenant: str) -> str:
    """Return the secret that the tenant's deliveries are signed with, made on first use."""
    async with transaction(services.pool) as conn:
        return shown((await secrets_of(services, conn, tenant)).current)


async def rotate_secret(services: Services, *, tenant: str) -> str:
    """Give the tenant a new secret and return it; the old one signs beside it for a day."""
    async with transaction(services.pool) as conn:
        await secrets_of(services, conn, tenant)
        await webhook_secrets.rotate(conn, tenant)
        return shown((await secrets_of(services, conn, tenant)).current)


async def secrets_of(services: Services, conn: Connection, tenant: str) -> Secrets:
    """Return what signs the tenant's deliveries now."""
    given = services.settings.webhook_key if tenant == DEFAULT_TENANT else None
    return await webhook_secrets.current(conn, tenant, given=given, overlap=OVERLAP)


def shown(secret: bytes) -> str:
    """Return a secret as Standard Webhooks writes it."""
    return f"whsec_{base64.b64encode(secret).decode('ascii')}"


async def list_events(
    services: Services, *, tenant: str, wanted: EventFilter, page: int, page_size: int
) -> tuple[list[Event], int]:
    """Return one page of the tenant's events, newest first, and how many there are."""
    async with transaction(services.pool) as conn:
        return await outbox.list_page(
            conn, tenant=tenant, wanted=wanted, limit=page_size, offset=(page - 1) * page_size
        )


async def get_event(services: Services, event_id: str, *, tenant: str) -> Event:
    """Return the event. Raises: NotFound, also where it is another tenant's."""
    async with transaction(services.pool) as conn:
        return await _found(conn, event_id, tenant)


async def replay(services: Services, event_id: str, *, tenant: str) -> Event:
    """Have the event delivered again, now, under the same id and with the same body.

    Raises: NotFound; Conflict where its endpoint is off.
    """
    async with transaction(services.pool) as conn:
        event = await _found(conn, event_id, tenant)
        if await endpoints.is_disabled(conn, event.endpoint):
            raise Conflict(
                "the endpoint answered 410 and is off; POST /webhooks/endpoints/enable first"
            )
        replayed = await outbox.replay(conn, event_id, tenant=tenant)
    if replayed is None:
        raise NotFound(f"there is no delivery {event_id}")
    return replayed


async def list_endpoints(
    services: Services, *, tenant: str, page: int, page_size: int
) -> tuple[list[Endpoint], int]:
    """Return one page of the URLs that the tenant's events of the last week went to."""
    async with transaction(services.pool) as conn:
        return await endpoints.list_page(
            conn, tenant=tenant, limit=page_size, offset=(page - 1) * page_size
        )


async def enable_endpoint(services: Services, url: str, *, tenant: str) -> Endpoint:
    """Send to a URL again that answered 410; what waits for it is due now. Harmless to repeat.

    Raises: NotFound where the tenant's events never went there.
    """
    async with transaction(services.pool) as conn:
        await endpoints.enable(conn, tenant=tenant, url=url)
        found = await endpoints.find(conn, tenant=tenant, url=url)
    if found is None:
        raise NotFound("no events go to this URL; GET /webhooks/endpoints lists those that do")
    return found


async def _found(conn: Connection, event_id: str, tenant: str) -> Event:
    event = await outbox.get(conn, event_id, tenant=tenant)
    if event is None:
        raise NotFound(f"there is no delivery {event_id}")
    return event
