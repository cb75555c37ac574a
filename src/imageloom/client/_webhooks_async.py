"""Webhooks, asynchronous; `_webhooks_sync.py` is generated from this file."""

from __future__ import annotations

from functools import partial

from imageloom.client._connection_async import AsyncConnection
from imageloom.client._requests import delivery_path, query
from imageloom.client._types import Page, page_from
from imageloom.client._webhook_types import (
    Delivery,
    Endpoint,
    delivery_from,
    endpoint_from,
    secret_from,
)


class AsyncWebhooks:
    """What was told by webhooks, and the secret that signs it: `client.webhooks`.

    To be told, give `webhook_url` and `webhook_events` where you create something.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def secret(self) -> str:
        """Return the secret that your deliveries are signed with: `whsec_…`.

        >>> secret = await client.webhooks.secret()
        >>> secret[:6]
        'whsec_'
        """
        return await self._connection.call("GET", "/webhooks/secret", read=secret_from)

    async def rotate(self) -> str:
        """Make a new secret and return it; the old one signs beside it for 24 hours.

        >>> old = await client.webhooks.secret()
        >>> new = await client.webhooks.rotate()
        >>> old == new
        False
        """
        return await self._connection.call("POST", "/webhooks/secret/rotate", read=secret_from)

    async def deliveries(
        self,
        *,
        resource_id: str | None = None,
        type: str | None = None,  # noqa: A002 - the API's own word
        state: str | None = None,
        page: int | None = None,
        page_size: int | None = None,
    ) -> Page[Delivery]:
        """Return one page of what was told or is to be told, newest first.

        `resource_id` is that of a task, training or workflow, `type` such as task.completed,
        `state` pending, delivered or failed.

        >>> page = await client.webhooks.deliveries(state="failed")
        >>> [(each.type, each.last_attempt.status) for each in page]
        [('task.completed', 503)]
        """
        params = query(
            resource_id=resource_id, type=type, state=state, page=page, page_size=page_size
        )
        return await self._connection.call(
            "GET",
            "/webhooks/deliveries",
            params=params,
            read=partial(page_from, each=delivery_from),
        )

    async def delivery(self, delivery_id: str) -> Delivery:
        """Return a delivery with all its tries.

        Raises: NotFound when there is none, or it is another tenant's.

        >>> delivery = await client.webhooks.delivery("msg_1")
        >>> [each.status for each in delivery.attempts]
        [503, 503]
        """
        return await self._connection.call("GET", delivery_path(delivery_id), read=delivery_from)

    async def replay(self, delivery_id: str) -> Delivery:
        """Have it delivered again, now: the same id, the same body.

        Raises: NotFound; Conflict when its endpoint is off, as after a 410.

        >>> delivery = await client.webhooks.replay("msg_1")
        >>> delivery.state
        'pending'
        """
        return await self._connection.call(
            "POST", delivery_path(delivery_id, "/replay"), read=delivery_from
        )

    async def endpoints(
        self, *, page: int | None = None, page_size: int | None = None
    ) -> Page[Endpoint]:
        """Return one page of the URLs that events of the last week went to.

        >>> page = await client.webhooks.endpoints()
        >>> [(each.url, each.disabled_at is None) for each in page]
        [('https://example.com/hooks', False)]
        """
        return await self._connection.call(
            "GET",
            "/webhooks/endpoints",
            params=query(page=page, page_size=page_size),
            read=partial(page_from, each=endpoint_from),
        )

    async def enable(self, url: str) -> Endpoint:
        """Have events sent to a URL again that answered 410; what waits is sent at once.

        Raises: NotFound when nothing was ever to go there.

        >>> endpoint = await client.webhooks.enable("https://example.com/hooks")
        >>> endpoint.disabled_at is None
        True
        """
        return await self._connection.call(
            "POST", "/webhooks/endpoints/enable", body={"url": url}, read=endpoint_from
        )
