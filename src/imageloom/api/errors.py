"""One envelope for every error, and the one table from error to HTTP status."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from imageloom.domain import errors

STATUS: dict[type[errors.ImageloomError], int] = {
    errors.InvalidParams: 422,
    errors.InvalidInput: 422,
    errors.InvalidWorkflow: 422,
    errors.UnknownTaskType: 422,
    errors.UnknownModel: 422,
    errors.IdempotencyMismatch: 422,
    errors.Unauthorized: 401,
    errors.NotPermitted: 403,
    errors.CrossSite: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.Gone: 410,
    errors.PayloadTooLarge: 413,
    errors.UnsupportedMediaType: 415,
    errors.TooManySignIns: 429,
    errors.StoreUnavailable: 503,
    errors.NoWorker: 503,
    errors.StorageUnavailable: 503,
}
RETRY_AFTER = 5  # seconds: about what a database restart takes
_LONGEST = 400  # characters of a message: an id or a name that it repeats may be of any length


def envelope(
    *,
    status: int,
    code: str,
    message: str,
    param: str | None,
    request_id: str,
    retry_after: int = RETRY_AFTER,
) -> JSONResponse:
    """Return an error in the shape that every route has."""
    headers = {}
    if status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if status in (HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.TOO_MANY_REQUESTS):
        headers["Retry-After"] = str(retry_after)
    shown = message if len(message) <= _LONGEST else f"{message[: _LONGEST - 1]}…"
    body = {"type": code, "message": shown, "param": param, "request_id": request_id}
    return JSONResponse({"error": body}, status_code=status, headers=headers)


def error_response(error: errors.ImageloomError, *, request_id: str) -> JSONResponse:
    """Return the envelope of one of our errors; one that the table lacks is a fault of ours."""
    status = STATUS.get(type(error), 500)
    return envelope(
        status=status,
        code=error.code if status != HTTPStatus.INTERNAL_SERVER_ERROR else "internal_error",
        message=error.message,
        param=error.param,
        request_id=request_id,
        retry_after=error.retry_after if isinstance(error, errors.TooManySignIns) else RETRY_AFTER,
    )


def internal_error(request_id: str) -> JSONResponse:
    """Return what a caller sees of an exception that nobody expected: nothing of its inside."""
    return envelope(
        status=500,
        code="internal_error",
        message="the server failed; the log has the details under this request id",
        param=None,
        request_id=request_id,
    )


def install_handlers(app: FastAPI) -> None:
    """Make every error of the app an envelope."""

    @app.exception_handler(errors.ImageloomError)
    async def ours(request: Request, exc: errors.ImageloomError) -> JSONResponse:
        return error_response(exc, request_id=request.state.request_id)

    @app.exception_handler(Exception)
    async def unexpected(request: Request, _exc: Exception) -> JSONResponse:
        # Starlette raises it again once this is sent; the edge writes it to the log.
        return internal_error(request.state.request_id)

    @app.exception_handler(RequestValidationError)
    async def validation(request: Request, exc: RequestValidationError) -> JSONResponse:
        first = exc.errors()[0]
        # The second part is the parameter's name; a third counts the values of a repeated one.
        name = ".".join(str(part) for part in first["loc"][1:2]) or None
        return error_response(
            errors.InvalidParams(f"{name}: {first['msg']}", param=name),
            request_id=request.state.request_id,
        )

    @app.exception_handler(HTTPException)
    async def http(request: Request, exc: HTTPException) -> JSONResponse:
        types = {404: "not_found", 405: "method_not_allowed"}
        messages = {
            404: "there is nothing at this path; /docs lists the routes",
            405: f"{request.method} is not allowed on this path",
        }
        response = envelope(
            status=exc.status_code,
            code=types.get(exc.status_code, "invalid_request"),
            message=messages.get(exc.status_code, str(exc.detail)),
            param=None,
            request_id=request.state.request_id,
        )
        response.headers.update(exc.headers or {})
        return response
