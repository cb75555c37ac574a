"""Fetch what a user's URL answers, within a time, a size and the public internet.

One deadline covers name resolution, connections, up to three redirects and the body. The body is
counted while it streams, and is never decompressed, so its size is what came over the wire.
Proxies of the environment are not used: a proxy would dial for us, unchecked.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import cast

import httpcore

from imageloom.domain.errors import InvalidInput
from imageloom.fetch.data_urls import read_data_url, too_large
from imageloom.fetch.dialing import Resolve, guarded_pool, resolve_host
from imageloom.fetch.targets import (
    Target,
    is_data_url,
    parse_redirect,
    parse_target,
)

MOST_REDIRECTS = 3
MOST_CONNECTIONS = 64  # at once; the next one waits, and its wait counts to its deadline
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_HEADERS = [
    (b"Accept", b"*/*"),
    (b"Accept-Encoding", b"identity"),
    (b"User-Agent", b"imageloom"),
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetched:
    """What a URL answered. `media_type` is what the server claims, lower-case, no parameters."""

    data: bytes
    media_type: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer whose body is still on its way; iterate `chunks` once.

    `size` is what the server announced. The chunks are counted: they never exceed `max_bytes`.
    """

    media_type: str | None
    size: int | None
    chunks: AsyncIterator[bytes]


class Fetcher:
    """Opens users' URLs. One for a process; close it with `aclose`.

    `allow` lists the exact `host:port` pairs that may be dialled although their address is
    private. `timeout` is the total number of seconds for one URL. `resolve` and `tls` are seams:
    how a host name becomes addresses, and which certificates are trusted.
    """

    def __init__(
        self,
        allow: Collection[str],
        timeout: float,
        *,
        resolve: Resolve = resolve_host,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout = timeout
        self._pool = guarded_pool(allow, most=MOST_CONNECTIONS, resolve=resolve, tls=tls)

    async def fetch(self, url: str, *, max_bytes: int, timeout: float | None = None) -> Fetched:  # noqa: ASYNC109
        """Return all that `url` answers. Holds up to twice `max_bytes` in memory for a moment.

        Raises: InvalidInput, final, with a public sentence, whatever went wrong.
        """
        async with self.stream(url, max_bytes=max_bytes, timeout=timeout) as answer:
            data = b"".join([chunk async for chunk in answer.chunks])
            return Fetched(data=data, media_type=answer.media_type)

    @asynccontextmanager
    async def stream(
        self,
        url: str,
        *,
        max_bytes: int,
        timeout: float | None = None,  # noqa: ASYNC109 - a total, over many awaits
    ) -> AsyncIterator[Answer]:
        """Open `url` for reading piece by piece, for bodies that do not fit in memory.

        The body of the `async with` runs under the deadline too.
        Raises: InvalidInput as `fetch` does, also while the chunks are read.
        """
        if is_data_url(url):
            data, media_type = read_data_url(url, max_bytes=max_bytes)
            yield Answer(media_type=media_type, size=len(data), chunks=_once(data))
            return
        target = parse_target(url)
        async with _deadline(target, self._timeout if timeout is None else timeout):
            target, response = await self._follow(target)
            chunks = _count(target, response, max_bytes=max_bytes)
            try:
                yield _read_answer(target, response, chunks, max_bytes=max_bytes)
            finally:
                await chunks.aclose()
                await response.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()

    async def _follow(self, target: Target) -> tuple[Target, httpcore.Response]:
        first = target
        for _ in range(MOST_REDIRECTS + 1):
            response = await self._send(target)
            if response.status not in _REDIRECTS:
                return target, response
            location = _header(response, b"location")
            await response.aclose()
            if not location:
                raise InvalidInput(f"{target.shown} answered {response.status} without a Location")
            target = parse_redirect(target, location)
        raise InvalidInput(
            f"{first.shown} redirects more than {MOST_REDIRECTS} times; give the final URL"
        )

    async def _send(self, target: Target) -> httpcore.Response:
        request = httpcore.Request(
            "GET",
            httpcore.URL(
                scheme=target.scheme.encode("ascii"),
                host=target.host.encode("ascii"),
                port=target.port,
                target=target.url.raw_path,
            ),
            headers=[(b"Host", target.url.netloc), *_HEADERS],
        )
        try:
            return await self._pool.handle_async_request(request)
        except (httpcore.ConnectError, httpcore.ConnectTimeout) as exc:
            raise InvalidInput(f"{target.shown} could not be reached{_tls_reason(exc)}") from exc
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as exc:
            raise InvalidInput(f"{target.shown} did not answer with valid HTTP") from exc


@asynccontextmanager
async def _deadline(target: Target, seconds: float) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(seconds) as deadline:
            yield
    except TimeoutError as exc:
        if not deadline.expired():
            raise  # the caller's own, from within its `async with`
        raise InvalidInput(f"{target.shown} took longer than {seconds:g} s") from exc


def _read_answer(
    target: Target,
    response: httpcore.Response,
    chunks: AsyncIterator[bytes],
    *,
    max_bytes: int,
) -> Answer:
    if response.status != 200:
        raise InvalidInput(f"{target.shown} answered {response.status}; 200 was expected")
    encoding = _header(response, b"content-encoding")
    if encoding and encoding.lower() != "identity":
        raise InvalidInput(
            f"{target.shown} answered compressed ({encoding[:20]!r}) although it was asked not to"
        )
    length = _header(response, b"content-length")
    size = int(length) if length.isdecimal() else None
    if size is not None and size > max_bytes:
        raise too_large(target.shown, max_bytes)
    media_type = _header(response, b"content-type").partition(";")[0].strip().lower()
    return Answer(media_type=media_type or None, size=size, chunks=chunks)


async def _count(
    target: Target, response: httpcore.Response, *, max_bytes: int
) -> AsyncGenerator[bytes, None]:
    received = 0
    try:
        # Typed as an iterator, but a generator: to be closed here, not when it is collected.
        body = cast("AsyncGenerator[bytes, None]", response.aiter_stream())
        async with aclosing(body) as stream:
            async for chunk in stream:
                received += len(chunk)
                if received > max_bytes:
                    raise too_large(target.shown, max_bytes)
                yield chunk
    except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException) as exc:
        raise InvalidInput(f"{target.shown} broke off after {received} bytes") from exc


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data


def _header(response: httpcore.Response, name: bytes) -> str:
    for found, value in response.headers:
        if found.lower() == name:
            return value.decode("latin-1").strip()
    return ""


def _tls_reason(error: BaseException) -> str:
    """Return what was wrong with the certificate, for the one failure users can act on."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f": its certificate is not valid ({cause.verify_message})"
        cause = cause.__cause__ or cause.__context__
    return ""
