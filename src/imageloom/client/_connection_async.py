"""The wire: one request and its retries, answers read into values, failures into typed errors."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any, TypeVar

import httpx

from imageloom.client import _io_async as _io
from imageloom.client._errors import (
    APIError,
    ConnectionFailed,
    ImageloomError,
    Unavailable,
    error_from,
    not_understood,
)
from imageloom.client._events import PATIENCE, TAKE_UP, Seen
from imageloom.client._files import Upload
from imageloom.client._requests import output_url
from imageloom.client._retry import RetryPolicy, delay_before_retry
from imageloom.client._types import JSON

T = TypeVar("T")


class AsyncConnection:
    """Requests to one server under one key. Every request may be tried again; see `_retry`."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        *,
        base_url: str,
        headers: Mapping[str, str],
        timeout: float,
        retry: RetryPolicy,
        sleep: _io.Sleep,
        jitter: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        self.base_url = base_url
        self.sleep = sleep
        self.clock = clock
        self._http = http
        self._headers = dict(headers)
        self._timeout = timeout
        self._retry = retry
        self._jitter = jitter

    async def call(
        self,
        method: str,
        path: str,
        *,
        read: Callable[[JSON], T],
        params: Mapping[str, Any] | None = None,
        body: JSON | None = None,
        key: str | None = None,
        wait: int | None = None,
    ) -> T:
        """Send one request, as often as it is worth it, and return what `read` makes of it.

        With `wait` the server may take that many seconds longer over its answer, for a task to end.
        Raises: APIError for an error answer, ConnectionFailed for none.
        """
        headers = self._headers if key is None else self._headers | {"Idempotency-Key": key}
        if wait is not None:
            headers = headers | {"Prefer": f"wait={wait}"}

        async def once() -> httpx.Response:
            request = self._http.build_request(
                method,
                self.base_url + path,
                params=params,
                json=body,
                headers=headers,
                timeout=self._timeout + (wait or 0),
            )
            return await self._send(request)

        return _read(await self._retrying(once), read)

    async def upload(self, path: str, upload: Upload, *, read: Callable[[JSON], T], key: str) -> T:
        """Send a file as multipart, read in small pieces, and return what `read` makes of it.

        The boundary comes from the key, so that every try sends the same bytes.
        """
        headers = self._headers | {
            "Idempotency-Key": key,
            "Content-Type": f"multipart/form-data; boundary={key}",
        }

        async def once() -> httpx.Response:
            with upload.open() as file:
                request = self._http.build_request(
                    "POST",
                    self.base_url + path,
                    files={"file": (upload.name, file, upload.media_type)},
                    headers=headers,
                    timeout=self._timeout,
                )
                return await self._send(request)

        return _read(await self._retrying(once), read)

    async def fetch(self, url: str) -> httpx.Response:
        """Return what a signed URL answers. The API key does not go there: it may be any host.

        Raises: ImageloomError when it is no URL to fetch from.
        """
        try:
            target = output_url(url, base_url=self.base_url)
        except ValueError as exc:
            raise ImageloomError(str(exc)) from exc

        async def once() -> httpx.Response:
            request = self._http.build_request("GET", target, timeout=self._timeout)
            request.headers.pop("Authorization", None)
            return await self._send(request, follow_redirects=True)

        return await self._retrying(once)

    async def events(self, path: str) -> AsyncIterator[JSON]:
        """Yield the data of a stream of events until one says that it is over.

        A stream that breaks is taken up where it was; a server that is away for less than a minute
        is waited for. Raises: APIError for an error answer, ConnectionFailed for none.
        """
        last = Seen()
        heard = self.clock()
        while not last.over:
            try:
                async for data in self._stream(path, last):
                    heard = self.clock()
                    yield data
                if last.ended:
                    return
            except (ConnectionFailed, Unavailable):
                if self.clock() - heard > PATIENCE:
                    raise
            if not last.over:
                await self.sleep(TAKE_UP)

    async def _stream(self, path: str, last: Seen) -> AsyncIterator[JSON]:
        headers = self._headers | {"Accept": "text/event-stream"}
        if last.id is not None:
            headers = headers | {"Last-Event-ID": last.id}
        # The server says every 15 s that it is there.
        timeout = httpx.Timeout(self._timeout, read=PATIENCE)
        try:
            async with self._http.stream(
                "GET", self.base_url + path, headers=headers, timeout=timeout, auth=None
            ) as response:
                if not response.is_success:
                    await response.aread()
                    raise error_from(response)
                last.ended = response.status_code == httpx.codes.NO_CONTENT
                async for line in response.aiter_lines():
                    if (data := last.take(line)) is not None:
                        yield data
        except httpx.RequestError as exc:
            raise ConnectionFailed(f"the stream of {path} broke: {exc}") from exc

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _retrying(self, once: _io.Thunk[httpx.Response]) -> httpx.Response:
        for tried in itertools.count(1):
            try:
                return await once()
            except (APIError, ConnectionFailed) as failure:
                delay = delay_before_retry(
                    failure, tried=tried, jitter=self._jitter(), policy=self._retry
                )
                if delay is None:
                    raise
            await self.sleep(delay)
        raise AssertionError("unreachable: the count has no end")

    async def _send(
        self, request: httpx.Request, *, follow_redirects: bool = False
    ) -> httpx.Response:
        try:
            response = await self._http.send(request, auth=None, follow_redirects=follow_redirects)
        except httpx.RequestError as exc:
            where = request.url.copy_with(query=None)
            raise ConnectionFailed(
                f"no answer from {where}: {str(exc) or type(exc).__name__}"
            ) from exc
        if not response.is_success:
            raise error_from(response)
        return response


def _read(response: httpx.Response, read: Callable[[JSON], T]) -> T:
    try:
        return read(response.json())
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise not_understood(response, "what this client expects") from exc
