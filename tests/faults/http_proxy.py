"""An HTTP proxy before one server that spoils a share of what passes, in the ways of its list.

One request a connection: what is spoiled is then one answer, and nothing beside it.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

# No answer although it was done, a refusal, a pause, an answer that breaks off, other bytes stored.
Way = Literal["drop", "refuse", "stall", "cut", "lie"]
_PASSED_ON = {"connection", "keep-alive", "proxy-connection", "transfer-encoding", "content-length"}


class SpoilingProxy:
    """Spoils `percent` of the requests whose method is among `methods`, until `percent` is 0."""

    def __init__(
        self,
        target: int,
        *,
        seed: int,
        percent: int,
        ways: Sequence[Way],
        methods: Sequence[str] = ("GET", "POST", "PUT"),
        stall: float = 1.0,
    ) -> None:
        self.target = target
        self.percent = percent
        self.ways = ways
        self.methods = methods
        self.stall = stall
        self.spoiled: Counter[Way] = Counter()
        self.port = 0
        self._dice = random.Random(seed)
        self._lock = threading.Lock()
        self.ending = threading.Event()

    def fate(self, method: str) -> Way | None:
        """Return what becomes of the next request, None for nothing."""
        with self._lock:
            if method not in self.methods or self._dice.randrange(100) >= self.percent:
                return None
            way = self._dice.choice(self.ways)
            self.spoiled[way] += 1
            return way

    @contextmanager
    def running(self) -> Iterator[SpoilingProxy]:
        """Serve on a free port until the block ends."""
        proxy = self

        class Handler(_Handler):
            at = proxy

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, name="spoiling", daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.ending.set()
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    at: SpoilingProxy

    def _serve(self) -> None:
        body = self._body()
        way = self.at.fate(self.command)
        if way == "refuse":
            self._answer(503, [("Retry-After", "1")], b"")
            return
        if way == "stall":
            self.at.ending.wait(self.at.stall)
        if way == "lie" and body:
            body = bytes([body[0] ^ 1]) + body[1:]
        with suppress(OSError, HTTPException):
            status, headers, data = self._ask(body)
            if way == "drop":
                return
            self._answer(status, headers, data, short=way == "cut")

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815  # the base class's names

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = HTTPConnection("127.0.0.1", self.at.target, timeout=60)
        try:
            kept = {k: v for k, v in self.headers.items() if k.lower() not in _PASSED_ON}
            connection.request(self.command, self.path, body or None, kept)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def _answer(
        self, status: int, headers: Sequence[tuple[str, str]], data: bytes, *, short: bool = False
    ) -> None:
        told = len(data)
        if self.command == "HEAD":
            told = int({k.lower(): v for k, v in headers}.get("content-length", 0))
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in _PASSED_ON | {"date", "server"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(told))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if short else data)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        """Say nothing: what was spoiled is counted."""
