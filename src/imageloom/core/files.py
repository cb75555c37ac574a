"""Uploaded inputs: their bytes in storage, their row, and what a URL of ours stands for."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncIterator
from datetime import timedelta

from imageloom.core.idempotency import Idempotency, earlier_use, remember_use
from imageloom.core.services import Services
from imageloom.domain.errors import (
    Gone,
    IdempotencyMismatch,
    InvalidInput,
    NotFound,
    PayloadTooLarge,
)
from imageloom.domain.ids import new_id
from imageloom.storage.keys import task_of, upload_key
from imageloom.store import files, tasks
from imageloom.store.files import File
from imageloom.store.pool import transaction

# What an input can be, by its first bytes: what a client says of it counts for nothing.
_SIGNATURES = (
    (b"\xff\xd8\xff", 0, "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", 0, "image/png"),
    (b"WEBP", 8, "image/webp"),
    (b"PK\x03\x04", 0, "application/zip"),
    (b"PK\x05\x06", 0, "application/zip"),  # an empty one: the data set's own refusal says so
)
_LONGEST_SIGNATURE = 12


async def save_file(
    services: Services,
    *,
    tenant: str,
    chunks: AsyncIterator[bytes],
    idempotency_key: str | None = None,
) -> File:
    """Store an upload and return its record, or that of the same upload under the same key.

    Nothing is kept where it is refused. Raises: InvalidInput where it is no JPEG, PNG, WebP or zip;
    PayloadTooLarge; IdempotencyMismatch where the key came with other bytes; StorageUnavailable.
    """
    file_id = new_id("file", now_ms=time.time_ns() // 1_000_000)
    key = upload_key(tenant, file_id)
    digest = hashlib.sha256()
    head = bytearray()

    limit = services.settings.limits.upload
    received = 0

    async def watched() -> AsyncIterator[bytes]:
        nonlocal received
        async for chunk in chunks:
            received += len(chunk)
            if received > limit:
                raise PayloadTooLarge(f"file: is over the limit of {limit} bytes", param="file")
            digest.update(chunk)
            head.extend(chunk[: _LONGEST_SIGNATURE - len(head)])
            yield chunk

    size = await services.storage.put_stream(key, watched(), media_type="application/octet-stream")
    media_type = sniff(bytes(head))
    if media_type is None:
        await services.storage.delete([key])
        raise InvalidInput(
            "file: JPEG, PNG and WebP pictures and zip archives are accepted; this is none of them",
            param="file",
        )
    use = None
    if idempotency_key is not None:
        use = Idempotency(route="files", key=idempotency_key, body_hash=digest.digest())
    try:
        async with transaction(services.pool) as conn:
            earlier = None
            if use is not None and (earlier_id := await earlier_use(conn, tenant, use)) is not None:
                earlier = await files.get_live(conn, earlier_id)
            if earlier is None:
                saved = await files.insert(
                    conn,
                    file_id=file_id,
                    tenant=tenant,
                    key=key,
                    media_type=media_type,
                    size=size,
                    sha256=digest.hexdigest(),
                    life=timedelta(seconds=services.settings.file_ttl),
                )
                if use is not None:
                    await remember_use(conn, tenant, use, file_id)
                return saved
    except IdempotencyMismatch:
        await services.storage.delete([key])
        raise
    await services.storage.delete([key])
    return earlier


async def get_file(services: Services, file_id: str, *, tenant: str | None) -> File:
    """Return a file that has not expired; `tenant` None where a signature vouched for the caller.

    Raises: NotFound, also where it is another tenant's.
    """
    async with transaction(services.pool) as conn:
        file = await files.get_live(conn, file_id)
    if file is None or tenant not in (None, file.tenant):
        raise NotFound(f"there is no file {file_id}; it may have expired")
    return file


async def input_of_tenant(services: Services, file_id: str, *, tenant: str) -> str:
    """Return the storage key of an upload that a task of the tenant may start from.

    Raises: NotFound; InvalidInput where it is larger than an input may be.
    """
    file = await get_file(services, file_id, tenant=tenant)
    limit = services.settings.limits.fetch
    if file.size > limit:
        raise InvalidInput(f"the file has {file.size} bytes; an input has at most {limit}")
    return file.key


async def dataset_of_tenant(services: Services, file_id: str, *, tenant: str) -> str:
    """Return the storage key of an upload that a training of the tenant may start from.

    Raises: NotFound; InvalidInput where it is no zip, or larger than a data set may be.
    """
    file = await get_file(services, file_id, tenant=tenant)
    limit = services.settings.limits.dataset
    if file.size > limit:
        raise InvalidInput(f"the file has {file.size} bytes; a data set has at most {limit}")
    if file.media_type != "application/zip":
        raise InvalidInput(f"the file is {file.media_type}; a data set is a zip of pictures")
    return file.key


async def output_of_tenant(services: Services, key: str, *, tenant: str) -> str:
    """Return the storage key of an output, once it is certain that the tenant's task made it.

    Raises: NotFound; Gone after the task's outputs were deleted.
    """
    async with transaction(services.pool) as conn:
        task = await tasks.get(conn, task_of(key), tenant=tenant)
    if task is None:
        raise NotFound("there is no such output")
    if task.cleaned_at is not None:
        raise Gone("this output was deleted")
    return key


def sniff(head: bytes) -> str | None:
    """Return the media type that a file's first 12 bytes show, None where it is none of ours."""
    for signature, offset, media_type in _SIGNATURES:
        if head[offset : offset + len(signature)] == signature:
            return media_type
    return None
