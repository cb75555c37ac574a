"""Send to a user's URL: to a checked address, once, and without showing what it answers.

What comes back is the status, and how long the receiver asks us to wait. A redirect is an answer
like any other and is not followed. The body is read so far that a receiver can finish it, and
thrown away: whoever can name a URL must not read through it what only we can reach.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import partial
from typing import cast

import httpcore

from imageloom.domain.errors import InvalidInput
from imageloom.fetch.dialing import Resolve, UnknownHost, guarded_pool, resolve_host
from imageloom.fetch.targets import Target, parse_target

TIMEOUT = 15.0  # seconds for all of it, from the name to the last byte that is read
MOST_READ = 65_536  # bytes of an answer
_BROKEN = (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException)


@dataclass(frozen=True, slots=True, kw_only=True)
class Posted:
    """What was answered. `retry_after` is in seconds, None where nothing of it was said."""

    status: int
    retry_after: float | None


class PostFailed(Exception):
    """No status came back. `kind` says why: it is shown to whoever named the URL.

    Kinds: `unknown_host`, `address_refused`, `unreachable`, `tls`, `timeout`, `invalid_answer`.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Poster:
    """Sends to users' URLs. One for a process; close it with `aclose`.

    `allow`, `resolve` and `tls` are as for `Fetcher`; `most` is how many requests go at once.
    """

    def __init__(
        self,
        allow: Collection[str],
        *,
        most: int,
        timeout: float = TIMEOUT,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._timeout = timeout
        # Of their own: a name server that says nothing holds a thread for longer than we wait, and
        # the process has six in common on two cores.
        self._threads = ThreadPoolExecutor(most, thread_name_prefix="names")
        self._pool = guarded_pool(
            allow,
            most=most,
            resolve=resolve or partial(resolve_host, threads=self._threads),
            tls=tls,
        )

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Posted:
        """Send `body` and return what was answered. Raises: PostFailed.

        Once there is a status it stands, whatever becomes of the rest of the answer.
        """
        posted = None
        try:
            target = parse_target(url)
            async with asyncio.timeout(self._timeout):
                response = await self._pool.handle_async_request(_request(target, body, headers))
                posted = Posted(status=response.status, retry_after=_retry_after(response))
                await _discard(response)
        except (InvalidInput, TimeoutError, *_BROKEN) as exc:
            if posted is None:
                raise PostFailed(_kind(exc)) from exc
        return posted

    async def aclose(self) -> None:
        """Close every connection."""
        await self._pool.aclose()
        self._threads.shutdown(wait=False, cancel_futures=True)


def _request(target: Target, body: bytes, headers: Mapping[str, str]) -> httpcore.Request:
    own = {"User-Agent": "imageloom", "Accept-Encoding": "identity", **headers}
    return httpcore.Request(
        "POST",
        httpcore.URL(
            scheme=target.scheme.encode("ascii"),
            host=target.host.encode("ascii"),
            port=target.port,
            target=target.url.raw_path,
        ),
        headers=[
            (b"Host", target.url.netloc),
            (b"Content-Length", str(len(body)).encode("ascii")),
            *((name.encode("ascii"), value.encode("ascii")) for name, value in own.items()),
        ],
        content=body,
    )


async def _discard(response: httpcore.Response) -> None:
    received = 0
    try:
        # Typed as an iterator, but a generator: to be closed here, not when it is collected.
        chunks = cast("AsyncGenerator[bytes, None]", response.aiter_stream())
        async with aclosing(chunks) as stream:
            async for chunk in stream:
                received += len(chunk)
                if received >= MOST_READ:
                    return
    finally:
        await response.aclose()


def _retry_after(response: httpcore.Response) -> float | None:
    """Return the seconds of a Retry-After, which is a number or a date; None for anything else."""
    for name, value in response.headers:
        if name.lower() != b"retry-after":
            continue
        text = value.decode("latin-1").strip()
        if text.isascii() and text.isdecimal():
            return float(text[:9])
        try:
            moment = parsedate_to_datetime(text)
        except ValueError:
            return None
        aware = moment.replace(tzinfo=moment.tzinfo or UTC)
        return max(0.0, (aware - datetime.now(UTC)).total_seconds())
    return None


def _kind(exc: BaseException) -> str:
    match exc:
        case UnknownHost():
            return "unknown_host"
        case InvalidInput():
            return "address_refused"
        case httpcore.ConnectError() if _is_tls(exc):
            return "tls"
        case httpcore.ConnectError():
            return "unreachable"
        case TimeoutError() | httpcore.TimeoutException():
            return "timeout"
        case _:
            return "invalid_answer"


def _is_tls(error: BaseException) -> bool:
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    return cause is not None
