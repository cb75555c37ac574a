"""Every query about webhook endpoints: URLs of a tenant that events go to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from imageloom.domain.webhooks import endpoint_of
from imageloom.store.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A URL that events go to, by what is known of its events. `disabled_at` is None while on."""

    url: str
    pending: int
    delivered: int
    failed: int
    last_event_at: datetime | None
    disabled_at: datetime | None


async def disable(conn: Connection, *, tenant: str, url: str) -> None:
    """Send nothing to the URL any more; what is to be told waits. Idempotent."""
    await conn.execute(
        "insert into webhook_endpoint (endpoint, tenant, url) values (%s, %s, %s)"
        " on conflict (endpoint) do nothing",
        (endpoint_of(tenant, url), tenant, url),
    )


async def enable(conn: Connection, *, tenant: str, url: str) -> bool:
    """Send to the URL again, what waits included; False where it was not off."""
    cursor = await conn.execute(
        "delete from webhook_endpoint where endpoint = %s", (endpoint_of(tenant, url),)
    )
    return cursor.rowcount == 1


async def is_disabled(conn: Connection, endpoint: str) -> bool:
    """Whether nothing is sent to that endpoint."""
    row = await conn.execute("select 1 from webhook_endpoint where endpoint = %s", (endpoint,))
    return await row.fetchone() is not None


async def find(conn: Connection, *, tenant: str, url: str) -> Endpoint | None:
    """Return the tenant's endpoint of that URL, None where nothing was ever to go there."""
    found, _ = await list_page(conn, tenant=tenant, limit=1, offset=0, url=url)
    return found[0] if found else None


async def list_page(
    conn: Connection, *, tenant: str, limit: int, offset: int, url: str | None = None
) -> tuple[list[Endpoint], int]:
    """Return one page of the tenant's endpoints by URL, and how many there are.

    Reads every event of the tenant that is kept, which is those of a week. Uses webhook_by_tenant.
    """
    rows = await conn.execute(
        "with counted as (select url, endpoint, max(occurred_at) as last_event_at,"
        " count(*) filter (where state = 'pending') as pending,"
        " count(*) filter (where state = 'delivered') as delivered,"
        " count(*) filter (where state = 'failed') as failed"
        " from webhook_event where tenant = %(tenant)s and %(url)s::text in (url, '')"
        " group by url, endpoint)"
        " select coalesce(counted.url, off.url) as url, coalesce(pending, 0) as pending,"
        " coalesce(delivered, 0) as delivered, coalesce(failed, 0) as failed, last_event_at,"
        " disabled_at, count(*) over () as total from counted"
        " full join (select * from webhook_endpoint where tenant = %(tenant)s"
        " and %(url)s::text in (url, '')) as off using (endpoint)"
        " order by 1 limit %(limit)s offset %(offset)s",
        {"tenant": tenant, "url": url or "", "limit": limit, "offset": offset},
    )
    found = await rows.fetchall()
    total = found[0]["total"] if found else 0
    if not found and offset:
        # Past the end no row is left to say how many there are.
        _, total = await list_page(conn, tenant=tenant, limit=1, offset=0, url=url)
    for row in found:
        del row["total"]
    return [Endpoint(**row) for row in found], total
