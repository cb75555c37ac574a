"""A webhook receiver that writes down what it answered with 200."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from faults.ledgers import Book, Delivery


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    book: Book

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a sender that was killed in the middle of a sentence."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        # Written before it is answered: what was answered is in the book.
        self.server.book.note(
            id=self.headers["webhook-id"],
            task=body["data"]["id"],
            type=body["type"],
            at=time.time(),
        )
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Write no log of its own."""


class Receiver:
    """L3: where webhooks go."""

    def __init__(self, server: _Server) -> None:
        self._server = server
        self.address = f"127.0.0.1:{server.server_port}"
        self.url = f"http://{self.address}/hook"

    @classmethod
    @contextmanager
    def listening(cls, book: Book) -> Iterator[Receiver]:
        """Yield one that listens until the block ends."""
        server = _Server(("127.0.0.1", 0), _Handler)
        server.book = book
        thread = threading.Thread(target=server.serve_forever, name="receiver", daemon=True)
        thread.start()
        try:
            yield cls(server)
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
            book.close()

    def deliveries(self) -> tuple[Delivery, ...]:
        """Return what has arrived."""
        return tuple(Delivery(**line) for line in self._server.book.lines())
