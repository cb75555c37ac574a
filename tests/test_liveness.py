"""How a worker tells that its device hangs: by what it says of itself, and by its silence."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from conftest import wait_for
from imageloom.device.link import Link
from imageloom.device.pulse import Pulse
from imageloom.domain.messages import (
    HEADER_SIZE,
    Cancel,
    Ping,
    Pong,
    decode_for_parent,
    encode_frame,
    frame_length,
)
from imageloom.settings import Settings
from imageloom.worker.gpu import GpuMeter
from imageloom.worker.liveness import GPU_STEP, PING_INTERVAL, Liveness

SILENCE = 10.0


@dataclass
class Clock:
    """A clock, and how much of its time was computed in."""

    now: float = 100.0
    worked: float = 5.0

    def go(self, seconds: float, *, computing: float) -> None:
        self.now += seconds
        self.worked += seconds * computing


def looked(do: Callable[[Pulse, Clock], None]) -> Pong:
    clock = Clock()
    pulse = Pulse(clock=lambda: clock.now, worked=lambda: clock.worked)
    do(pulse, clock)
    return pulse.look()


def spent(pulse: Pulse, clock: Clock, *, computing: float) -> None:
    for _ in range(20):
        clock.go(1, computing=computing)
        pulse.look()


def test_a_loop_that_waits_for_work_does_nothing_wrong() -> None:
    def wait(pulse: Pulse, clock: Clock) -> None:
        pulse.rest()
        spent(pulse, clock, computing=0)

    assert looked(wait) == Pong(step=0, still=0)


def test_a_long_step_that_computes_does_not_stand_still() -> None:
    def step(pulse: Pulse, clock: Clock) -> None:
        pulse.beat()
        spent(pulse, clock, computing=0.1)

    assert looked(step) == Pong(step=20, still=0)


def test_a_step_in_which_nothing_is_computed_stands_still() -> None:
    def step(pulse: Pulse, clock: Clock) -> None:
        pulse.beat()
        spent(pulse, clock, computing=0.9)
        spent(pulse, clock, computing=0.001)

    assert looked(step) == Pong(step=40, still=20)


def test_a_step_begins_when_the_one_before_it_ends() -> None:
    def steps(pulse: Pulse, clock: Clock) -> None:
        spent(pulse, clock, computing=0)
        pulse.beat()
        clock.go(3, computing=0)

    assert looked(steps) == Pong(step=3, still=3)


@pytest.fixture
def linked(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Link, socket.socket]]:
    """A device's end of the pipe, and the parent's."""
    ours, theirs = socket.socketpair()
    # Whoever hangs up ends the device's process, which here is that of the tests.
    ended = threading.Event()
    monkeypatch.setattr("imageloom.device.link.os._exit", lambda _status: ended.set())
    link = Link(theirs)
    link.start()
    with ours, theirs:
        yield link, ours
        ours.shutdown(socket.SHUT_RDWR)
        assert ended.wait(10)


def asked(parent: socket.socket) -> Pong:
    parent.sendall(encode_frame(Ping()))
    header = parent.recv(HEADER_SIZE, socket.MSG_WAITALL)
    answer = decode_for_parent(parent.recv(frame_length(header), socket.MSG_WAITALL))
    assert isinstance(answer, Pong)
    return answer


def test_a_device_answers_in_the_middle_of_a_step(linked: tuple[Link, socket.socket]) -> None:
    link, parent = linked
    loop = threading.Thread(target=link.next_message, kwargs={"block": True})
    loop.start()
    wait_for(lambda: asked(parent) == Pong(step=0, still=0), what="a loop that waits")
    parent.sendall(encode_frame(Cancel(key="t/1")))
    loop.join()
    # From here on nobody comes back for the next message.
    first = wait_for(lambda: asked(parent).step, what="a step")
    assert asked(parent).step > first
    wait_for(lambda: asked(parent).still, what="a loop that stands still")
    assert link.next_message(block=False) is None


# What the parent makes of it


def liveness(**options: Any) -> Liveness:
    return Liveness(**{"silence": SILENCE, "compiles": False, **options})


def test_silence_is_trouble_until_the_device_answers() -> None:
    device = liveness()
    questions = [device.ask() for _ in range(10)]
    assert questions == [True] + [False] * 9
    assert device.trouble(kind="cpu") is None
    device.ask()
    assert device.trouble(kind="cpu") == "the device has not answered for 10 s"
    device.answered(Pong(step=0, still=0))
    assert device.trouble(kind="cpu") is None
    assert device.ask()


@pytest.mark.parametrize(
    ("pong", "kind", "trouble"),
    [
        (Pong(step=9, still=9), "cuda", None),
        (Pong(step=11, still=11), "cpu", "the device has stood still in a step for 11 s"),
        (Pong(step=600, still=0), "cpu", None),
        (Pong(step=GPU_STEP - 1, still=0), "cuda", None),
        (Pong(step=GPU_STEP, still=0), "cuda", "a step of the device has taken 30 s"),
    ],
)
def test_a_step_is_trouble_where_it_cannot_be_work(
    pong: Pong, kind: str, trouble: str | None
) -> None:
    device = liveness()
    device.answered(pong)
    assert device.trouble(kind=kind) == trouble


def test_a_step_that_may_wait_for_a_compiler_is_left_alone() -> None:
    device = liveness(compiles=True)
    device.answered(Pong(step=300, still=300))
    assert device.trouble(kind="cuda") is None


def test_trouble_is_seen_within_fifteen_seconds() -> None:
    settings = Settings()
    told = settings.heartbeat_interval + 2 * PING_INTERVAL
    assert settings.device_silence + told <= 15
    assert settings.lease_seconds <= 15


# The GPU


def test_a_machine_without_an_nvidia_gpu_reads_nothing() -> None:
    for uuid in (None, "GPU-00000000-0000-0000-0000-000000000000"):
        meter = GpuMeter(uuid)
        assert (meter.utilization(), meter.memory_used()) == (None, None)


@pytest.mark.gpu
def test_the_gpu_that_the_worker_uses_is_read() -> None:
    torch = pytest.importorskip("torch", reason="the worker's packages are not installed")
    if not torch.cuda.is_available():
        pytest.skip("no GPU on this machine: nothing to read")
    from imageloom.runtime.torch_device import choose_device  # needs torch

    info = choose_device("cuda", threads=1).info
    meter = GpuMeter(info.uuid)
    before = meter.memory_used()
    held = torch.ones(2**30, dtype=torch.uint8, device="cuda")
    after = meter.memory_used()
    assert before is not None
    assert after is not None
    assert held.nbytes <= after - before < 2 * held.nbytes
    assert after < (info.memory_bytes or 0)
    assert 0 <= (meter.utilization() or 0) <= 1
