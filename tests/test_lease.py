"""A worker that is not heard stops by itself, unless it is the database that is not there."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from imageloom.domain.errors import CutOff
from imageloom.store.reach import is_heard
from imageloom.worker.lease import Lease


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def heard() -> bool:
    return True


async def unheard() -> bool:
    return False


async def holding(lease: Lease) -> asyncio.Task[None]:
    """Return an attempt that has begun and never ends by itself."""
    begun = asyncio.Event()

    async def attempt() -> None:
        async with lease.held():
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(attempt())
    await begun.wait()
    return task


async def test_an_attempt_stops_when_the_lease_has_ended_unheard() -> None:
    clock = Clock()
    lease = Lease(seconds=8, is_heard=unheard, clock=clock)
    attempt = await holding(lease)
    clock.now = 7.9
    await lease.look()
    assert not attempt.cancelling()
    clock.now = 8.0
    await lease.look()
    with pytest.raises(CutOff):
        await attempt


async def test_a_heartbeat_that_was_taken_renews_it_from_when_it_was_sent() -> None:
    clock = Clock()
    lease = Lease(seconds=8, is_heard=unheard, clock=clock)
    attempt = await holding(lease)
    lease.renew(at=3.0)
    clock.now = 10.9
    await lease.look()
    assert not attempt.cancelling()
    clock.now = 11.0
    await lease.look()
    with pytest.raises(CutOff):
        await attempt


async def test_an_attempt_goes_on_while_the_database_itself_is_down() -> None:
    clock = Clock()
    lease = Lease(seconds=8, is_heard=heard, clock=clock)
    attempt = await holding(lease)
    clock.now = 1000.0
    await lease.look()
    assert not attempt.cancelling()
    attempt.cancel()
    with pytest.raises(asyncio.CancelledError):
        await attempt


async def test_what_others_cancelled_is_cancelled_and_not_cut_off() -> None:
    clock = Clock()
    lease = Lease(seconds=8, is_heard=unheard, clock=clock)
    attempt = await holding(lease)
    clock.now = 9.0
    attempt.cancel()
    await lease.look()
    with pytest.raises(asyncio.CancelledError):
        await attempt


# Whether the database is heard


async def test_a_database_that_serves_is_heard(postgres: str) -> None:
    assert await is_heard(postgres)


async def test_a_port_that_nothing_listens_on_is_heard() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    assert await is_heard(f"postgresql://u:p@127.0.0.1:{port}/d")


async def test_a_socket_that_is_gone_is_heard(tmp_path: object) -> None:
    assert await is_heard(f"host={tmp_path} port=5432 dbname=d")


@asynccontextmanager
async def listening(*, hangs_up: bool) -> AsyncIterator[int]:
    """A listener that never says a word."""
    left = asyncio.Event()

    async def connected(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not hangs_up:
            await left.wait()
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    yield int(server.sockets[0].getsockname()[1])
    left.set()
    server.close()


@pytest.mark.parametrize("hangs_up", [False, True], ids=["says nothing", "hangs up"])
async def test_who_accepts_and_says_nothing_is_not_heard(*, hangs_up: bool) -> None:
    async with listening(hangs_up=hangs_up) as port:
        assert not await is_heard(f"postgresql://u:p@127.0.0.1:{port}/d")
