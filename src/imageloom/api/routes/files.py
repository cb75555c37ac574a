"""Routes about bytes: uploads that tasks start from, and outputs that they made."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import StreamingResponse
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException

from imageloom.api.auth import Writer, reader_of
from imageloom.api.bodies import idempotency_key
from imageloom.api.context import InContext
from imageloom.api.routing import IDEMPOTENCY_KEY, both_slashes, errors_of
from imageloom.api.shapes import FileView, file_view
from imageloom.core.files import get_file, save_file
from imageloom.domain.errors import (
    Gone,
    InvalidParams,
    NotFound,
    UnsupportedMediaType,
)

_CHUNK = 1 << 20  # bytes
_MEDIA_TYPES = {
    "jpg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "safetensors": "application/octet-stream",
}
_UPLOAD_BODY = {
    "parameters": [IDEMPOTENCY_KEY],
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {"file": {"type": "string", "format": "binary"}},
                    "required": ["file"],
                }
            }
        },
    },
}


def files_router() -> APIRouter:
    """Return the routes of uploads and outputs."""
    router = APIRouter(tags=["files"])

    @both_slashes(
        router.post,
        "/files",
        status_code=201,
        operation_id="upload_file",
        summary="Upload a picture or a data set for use in any *_url field",
        responses=errors_of(401, 403, 413, 415, 422, 503),
        openapi_extra=_UPLOAD_BODY,
    )
    async def upload_file(request: Request, context: InContext, tenant: Writer) -> FileView:
        content_type = request.headers.get("content-type", "")
        if not content_type.lower().startswith("multipart/form-data"):
            raise UnsupportedMediaType("send the file as multipart/form-data in the field `file`")
        async with _form(request) as form:
            part = form.get("file")
            if not isinstance(part, UploadFile):
                raise InvalidParams("file: is required, one file", param="file")
            if unknown := set(form) - {"file"}:
                raise InvalidParams(
                    f"{min(unknown)[:60]}: there is no such field; send `file` alone",
                    param="file",
                )
            saved = await save_file(
                context.services,
                tenant=tenant,
                chunks=_chunks(part),
                idempotency_key=idempotency_key(request),
            )
        return file_view(saved, context.urls)

    @both_slashes(
        router.get,
        "/files/{file_id}",
        operation_id="get_file",
        summary="Download an upload, with a key or with the token of its URL",
        response_class=StreamingResponse,
        responses=errors_of(401, 403, 404, 410, 422, 503),
    )
    async def download_file(
        request: Request,
        file_id: str,
        context: InContext,
        token: Annotated[str | None, Query()] = None,
    ) -> StreamingResponse:
        tenant = None
        if token is None:
            tenant = await reader_of(request, context)
        elif context.urls.file_id(token) != file_id:
            raise NotFound(f"there is no file {file_id}")
        file = await get_file(context.services, file_id, tenant=tenant)
        return await _stream(context, file.key, file.media_type, name=file_id, inline=False)

    @router.head("/outputs/{token}/{name}", include_in_schema=False)
    @router.get(
        "/outputs/{token}/{name}",
        operation_id="get_output",
        summary="Download an output; the URL is signed and needs no key",
        response_class=StreamingResponse,
        responses=errors_of(404, 410, 422, 503),
    )
    async def download_output(token: str, name: str, context: InContext) -> StreamingResponse:
        key = context.urls.output_key(token)
        media_type = _MEDIA_TYPES.get(key.rpartition(".")[2])
        if media_type is None:
            raise NotFound("there is nothing at this URL")
        try:
            return await _stream(context, key, media_type, name=name, inline=True)
        except NotFound:
            # The signature is good, so it was there: cleaned up since.
            raise Gone("this output was deleted") from None

    return router


@asynccontextmanager
async def _form(request: Request) -> AsyncIterator[FormData]:
    """Yield the form of an upload. Raises: InvalidParams where it is malformed or has two files."""
    try:
        form = await request.form(max_files=1, max_fields=1)
    except HTTPException as exc:
        raise InvalidParams(f"the form cannot be read: {exc.detail}", param="file") from exc
    try:
        yield form
    finally:
        await form.close()


async def _chunks(part: UploadFile) -> AsyncIterator[bytes]:
    while chunk := await part.read(_CHUNK):
        yield chunk


async def _stream(
    context: InContext, key: str, media_type: str, *, name: str, inline: bool
) -> StreamingResponse:
    stored = await context.services.storage.open(key)
    return StreamingResponse(
        stored.chunks,
        media_type=media_type,
        headers={
            "Content-Length": str(stored.size),
            "Content-Disposition": "inline" if inline else f'attachment; filename="{name}"',
            "X-Content-Type-Options": "nosniff",
            # Whatever the bytes are, a browser runs nothing of them.
            "Content-Security-Policy": "default-src 'none'; sandbox",
            "Cache-Control": "private, max-age=3600, immutable",
        },
    )
