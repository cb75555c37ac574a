"""Connect to the address that was checked, and to no other.

The check sits in the network backend of httpcore, the last step before the socket: a name is
resolved once, every address it has must be public, and the connection goes to one of exactly
these. There is no second resolution, so a name server that changes its answer gains nothing. The
Host header, the TLS name and the certificate check stay with the name.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from concurrent.futures import Executor
from functools import partial

import httpcore

from imageloom.domain.errors import InvalidInput
from imageloom.fetch.addresses import is_public
from imageloom.fetch.targets import parse_allowed, refuse_private, shorten

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
CONNECT_TIMEOUT = 5.0  # seconds for one address, so that a dead one leaves time for the next
MOST_ADDRESSES = 4  # tried of one name


async def resolve_host(host: str, port: int, *, threads: Executor | None = None) -> Sequence[str]:
    """Return every address of `host` in the system's order; raises OSError when it has none.

    Asked in one of `threads`, else in one of the process's few common ones.
    """
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(threads, ask)
    return [str(address[0]) for *_, address in found]


class UnknownHost(InvalidInput):
    """The name has no address. Told apart by type: the pool drops the cause of an error."""


def guarded_pool(
    allow: Collection[str], *, most: int, resolve: Resolve, tls: ssl.SSLContext | None
) -> httpcore.AsyncConnectionPool:
    """Return a pool of at most so many connections, each to an address that was checked.

    `allow` are the `host:port` pairs that may be dialled whatever their address.
    """
    return httpcore.AsyncConnectionPool(
        ssl_context=tls or httpcore.default_ssl_context(),
        max_connections=most,
        max_keepalive_connections=0,  # every request is dialled, so every request is checked
        network_backend=GuardedBackend(allowed=parse_allowed(allow), resolve=resolve),
    )


class GuardedBackend(httpcore.AsyncNetworkBackend):
    """Dial public addresses, and the hosts and ports in `allowed` whatever their address."""

    def __init__(self, *, allowed: frozenset[tuple[str, int]], resolve: Resolve) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._network = httpcore.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Return a connection to a checked address of `host`.

        Raises: InvalidInput when the host has no address or one that is not public,
        httpcore.ConnectError or ConnectTimeout when none of them answers.
        """
        host = host.lower()
        addresses = await self._checked_addresses(host, port)
        failure: Exception | None = None
        for address in addresses[:MOST_ADDRESSES]:
            try:
                return await self._network.connect_tcp(
                    address,
                    port,
                    timeout=CONNECT_TIMEOUT if timeout is None else min(timeout, CONNECT_TIMEOUT),
                    local_address=local_address,
                    socket_options=socket_options,
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
                failure = exc
        raise httpcore.ConnectError("no address answered") from failure

    async def _checked_addresses(self, host: str, port: int) -> Sequence[str]:
        try:
            addresses = list(dict.fromkeys(await self._resolve(host, port)))
        except (OSError, UnicodeError) as exc:
            raise UnknownHost(f"the host {shorten(host)} was not found") from exc
        if not addresses:
            raise UnknownHost(f"the host {shorten(host)} was not found")
        # One private address among public ones is refused too: the order is the name server's.
        if (host, port) not in self._allowed and not all(map(is_public, addresses)):
            refuse_private(host, port)
        return addresses

    async def connect_unix_socket(
        self,
        path: str,
        timeout: float | None = None,  # noqa: ASYNC109 - the signature is httpcore's
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        """Refuse: no URL names a socket of this machine."""
        raise httpcore.UnsupportedProtocol("unix sockets are not dialled")

    async def sleep(self, seconds: float) -> None:
        """Wait between the retries of httpcore, of which there are none here."""
        await asyncio.sleep(seconds)
