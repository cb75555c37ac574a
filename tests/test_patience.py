"""What must go on to its end does, however often and by whom its caller is cancelled."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import httpx
import pytest

from api_helpers import begun, created
from imageloom.core.services import Services
from imageloom.worker.patience import to_the_end
from imageloom.worker.room import Room


async def test_what_is_cancelled_again_and_again_ends_first() -> None:
    may_end = asyncio.Event()
    done: list[str] = []

    async def clean_up() -> None:
        await may_end.wait()
        done.append("cleaned")

    caller = asyncio.create_task(to_the_end(clean_up()))
    for _ in range(3):
        await asyncio.sleep(0)
        caller.cancel()
    await asyncio.sleep(0)
    assert not caller.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert done == ["cleaned"]


async def test_what_nobody_cancels_answers_or_fails_as_it_is() -> None:
    async def give(value: int) -> int:
        return 10 // value

    assert await to_the_end(give(5)) == 2
    with pytest.raises(ZeroDivisionError):
        await to_the_end(give(0))


async def test_who_was_cancelled_hears_of_that_and_of_what_failed() -> None:
    began = asyncio.Event()

    async def fail() -> None:
        began.set()
        await asyncio.sleep(0)
        raise OSError("the disk is full")

    caller = asyncio.create_task(to_the_end(fail()))
    await began.wait()
    caller.cancel()
    with pytest.raises(asyncio.CancelledError) as caught:
        await caller
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_place_at_the_device_is_given_back_by_who_is_cancelled_twice(
    api: httpx.AsyncClient, services: Services
) -> None:
    room, inside = Room(), asyncio.Event()
    mine = await begun(services, await created(api))

    async def stay() -> None:
        async with room.for_attempt(mine):
            inside.set()
            await asyncio.Event().wait()

    staying = asyncio.create_task(stay())
    await inside.wait()
    async with room._changed:  # as while another one comes or goes
        for _ in range(2):
            staying.cancel()
            await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await staying
    async with asyncio.timeout(30), room.for_attempt(replace(mine, attempt=2)) as alone:
        assert alone
