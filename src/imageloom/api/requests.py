"""What is counted and logged of one request: its route as declared, never the path as sent."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from opentelemetry.trace import INVALID_SPAN, Span, SpanKind
from starlette.types import Scope

from imageloom.api.urls import BASE_PATH
from imageloom.core.meters import Meters
from imageloom.domain.metrics import REQUEST_TIME, REQUESTS
from imageloom.tracing import Tracing, fail

_log = structlog.get_logger("imageloom.api")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
# Asked every few seconds by machines, or file by file; a line is for when they are answered badly.
_QUIET = frozenset({"/healthz", "/readyz", "/metrics", "/dashboard/{name:path}"})
_LEFT = 499  # no status of HTTP: the caller left before there was one


class Request:
    """One request, from its first byte to its last."""

    def __init__(self, scope: Scope, meters: Meters) -> None:
        self._scope = scope
        self._meters = meters
        self._began = time.perf_counter()
        self._status: int | None = None
        self._span: Span = INVALID_SPAN

    @contextmanager
    def traced(self, tracing: Tracing) -> Iterator[None]:
        """Have a span around it, whose parent is the one that the caller named, if it did."""
        path = self._scope["path"]
        if not tracing.on or path.rstrip("/") in _QUIET or path.startswith("/dashboard/"):
            yield
            return
        headers = dict(self._scope["headers"])
        parent = headers.get(b"traceparent", b"").decode("latin-1") or None
        with tracing.span(self._method(), parent=parent, kind=SpanKind.SERVER) as span:
            self._span = span
            yield

    def answers(self, status: int) -> None:
        """Note that the answer begins."""
        self._status = status
        self._meters.observe(
            REQUEST_TIME, self._seconds(), method=self._method(), route=self._route()
        )

    def left(self) -> None:
        """Note that the caller left in the middle: what was answered to nobody is no fault."""
        self._status = _LEFT

    def ended(self) -> None:
        """Note that the answer was sent, or that there is nobody to send it to."""
        status, route = self._status or _LEFT, self._route()
        self._meters.count(REQUESTS, method=self._method(), route=route, status=str(status))
        self._span.update_name(f"{self._method()} {route}")
        self._span.set_attribute("http.request.method", self._method())
        self._span.set_attribute("http.route", route)
        self._span.set_attribute("http.response.status_code", status)
        self._span.set_attribute("imageloom.request_id", self._scope["state"]["request_id"])
        if status >= 500:
            fail(self._span, str(status))
        if route in _QUIET and status < 400:
            return
        _log.info(
            "request",
            request_id=self._scope["state"]["request_id"],
            method=self._method(),
            route=route,
            status=status,
            duration_s=round(self._seconds(), 6),
        )

    def _seconds(self) -> float:
        return time.perf_counter() - self._began

    def _method(self) -> str:
        method: str = self._scope["method"]
        return method if method in _METHODS else "other"

    def _route(self) -> str:
        """Return the route as it is declared: what callers write would make a series of each."""
        declared: str = getattr(self._scope.get("route"), "path", "")
        path = declared.rstrip("/") or declared
        versioned = self._scope["path"].startswith(f"{BASE_PATH}/")
        if path and versioned and not path.startswith(BASE_PATH):
            path = BASE_PATH + path  # a router within a router says only its own part
        return path or "other"
