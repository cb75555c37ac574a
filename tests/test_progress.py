"""How progress is written: the first step at once, the others seldom."""

from __future__ import annotations

import asyncio

from imageloom.worker.progress import ProgressWriter


async def test_the_first_denoising_step_is_written_without_delay() -> None:
    written: asyncio.Queue[float] = asyncio.Queue()

    async def write(progress: float) -> bool:
        written.put_nowait(progress)
        return True

    async with ProgressWriter(write) as progress:
        progress.note(0.0)  # a row has begun
        await asyncio.sleep(0)  # the writer has its turn
        progress.note(0.1)
        assert await written.get() == 0.1
