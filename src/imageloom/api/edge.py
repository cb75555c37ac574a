"""The outermost layer of the API: request ids, body limits, and no exception past this line."""

from __future__ import annotations

import re
import secrets

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from imageloom.api.errors import error_response, internal_error
from imageloom.api.requests import Request
from imageloom.core.meters import Meters
from imageloom.domain.errors import ImageloomError, NotFound, PayloadTooLarge
from imageloom.settings import Limits
from imageloom.tracing import Tracing

_log = structlog.get_logger("imageloom.api")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,128}", re.ASCII)
_FORM_OVERHEAD = 64 * 1024  # bytes of multipart headers around an upload


class Edge:
    """Wraps the app. Every answer carries X-Request-Id: the caller's own, where it is harmless."""

    def __init__(self, app: ASGIApp, limits: Limits, meters: Meters, tracing: Tracing) -> None:
        self._app = app
        self._meters = meters
        self._tracing = tracing
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        request = Request(scope, self._meters)
        with request.traced(self._tracing):
            try:
                await self._serve(scope, receive, send, request)
            finally:
                request.ended()

    async def _serve(self, scope: Scope, receive: Receive, send: Send, request: Request) -> None:
        request_id = scope["state"]["request_id"]
        started = finished = False

        async def send_with_id(message: Message) -> None:
            nonlocal started, finished
            if message["type"] == "http.response.start":
                started = True
                request.answers(message["status"])
                headers = MutableHeaders(scope=message)
                headers["X-Request-Id"] = request_id
                headers.setdefault("X-Content-Type-Options", "nosniff")
            elif message["type"] == "http.response.body":
                finished = not message.get("more_body", False)
            await send(message)

        if "\0" in scope["path"]:
            # PostgreSQL refuses such text, so nothing that we look up can be named so.
            missing = NotFound("there is nothing at this path; /docs lists the routes")
            await error_response(missing, request_id=request_id)(scope, receive, send_with_id)
            return
        try:
            await self._app(scope, self._limited(scope, receive), send_with_id)
        except ImageloomError as exc:
            if started:
                raise
            await error_response(exc, request_id=request_id)(scope, receive, send_with_id)
        except ClientDisconnect:
            request.left()
        except Exception:
            _log.exception("request_failed", request_id=request_id, path=scope["path"])
            if finished:
                return
            if started:
                raise
            await internal_error(request_id)(scope, receive, send_with_id)

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        """Return `receive` that refuses a body over the limit of its route."""
        uploads = scope["path"].rstrip("/").endswith("/files")
        limit = self._limits.upload + _FORM_OVERHEAD if uploads else self._limits.body
        refusal = PayloadTooLarge(f"the body is over the limit of {limit} bytes")
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        seen = 0

        async def limited() -> Message:
            nonlocal seen
            if declared.isdigit() and int(declared) > limit:
                raise refusal
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise refusal
            return message

        return limited


def _request_id(scope: Scope) -> str:
    given = dict(scope["headers"]).get(b"x-request-id", b"").decode("latin-1")
    return given if _REQUEST_ID.fullmatch(given) else f"req_{secrets.token_hex(12)}"
