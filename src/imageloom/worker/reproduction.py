"""Compare an output that was made again with the first."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np

from imageloom.core.services import Services
from imageloom.domain.errors import InvalidInput, NotFound
from imageloom.domain.receipts import OutputRef, judge
from imageloom.domain.tasks import Output, OutputImage, Task
from imageloom.images import decode_picture
from imageloom.store import tasks
from imageloom.store.pool import transaction


async def compared(services: Services, task: Task, first: OutputRef, output: Output) -> Output:
    """Return the output of a task that makes another's again, with how the two compare.

    Raises: InvalidInput where the first was deleted meanwhile; StorageUnavailable.
    """
    before, after = await _first(services, task, first), output.images[0]
    old, new = before.images[first.output], after
    same_bytes = old.sha256 == new.sha256
    difference: int | None = 0
    if not same_bytes:
        difference = await _largest_difference(services, old, new)
    receipts = before.receipts
    return replace(
        output,
        reproduction=judge(
            same_bytes=same_bytes,
            largest_difference=difference,
            media_type=new.media_type,
            before=receipts[first.output] if receipts else None,
            now=output.receipts[0] if output.receipts else None,
        ),
    )


async def _first(services: Services, task: Task, first: OutputRef) -> Output:
    async with transaction(services.pool) as conn:
        found = await tasks.get(conn, first.task_id, tenant=task.tenant)
    if found is None or found.output is None or first.output >= len(found.output.images):
        raise InvalidInput(f"the output {first.output} of {first.task_id} was deleted")
    return found.output


async def _largest_difference(services: Services, old: OutputImage, new: OutputImage) -> int | None:
    """Return by how much two pictures differ in any channel, 0 to 255; None of two sizes."""
    if (old.width, old.height) != (new.width, new.height):
        return None
    try:
        first, second = [await services.storage.get(image.key) for image in (old, new)]
    except NotFound as exc:
        raise InvalidInput("the output to compare with was deleted") from exc
    return await asyncio.to_thread(_difference, first, second, old.width * old.height)


def _difference(old: bytes, new: bytes, pixels: int) -> int:
    first, second = (
        np.frombuffer(decode_picture(data, max_pixels=pixels).rgb, np.uint8).astype(np.int16)
        for data in (old, new)
    )
    return int(np.abs(first - second).max())
