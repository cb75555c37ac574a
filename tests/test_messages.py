"""The typed messages between a worker and its device."""

from __future__ import annotations

import msgspec
import pytest

from imageloom.domain.messages import (
    HEADER_SIZE,
    MAX_FRAME,
    Cancel,
    Checkpoint,
    DeviceInfo,
    Done,
    Errored,
    Picture,
    Ping,
    Pong,
    Progress,
    Ready,
    Residents,
    Run,
    Save,
    Stopped,
    decode_for_device,
    decode_for_parent,
    encode_frame,
    frame_length,
)

TO_PARENT = [
    Ready(device=DeviceInfo(kind="cpu", name="CPU")),
    Pong(step=1.5, still=0.5),
    Progress(key="t/1", value=0.5),
    Picture(key="t/1", index=0, seed=2**63 - 1, width=1, height=1, rgb=b"\x00\xff\x80"),
    Checkpoint(
        key="t/1", step=3, path="a", adapter_path="b", held_out_loss=None, last=False, planned=False
    ),
    Done(key="t/1"),
    Stopped(key="t/1"),
    Errored(key="t/1", code="x", message="y", retryable=False),
    Residents(models=("a", "b")),
]
TO_DEVICE = [
    Run(key="t/1", task_type="generation", work=b"\x00"),
    Cancel(key="t/1"),
    Save(key="t/1"),
    Ping(),
]


@pytest.mark.parametrize("message", TO_PARENT)
def test_what_the_device_sends_arrives_as_it_was(message: Done) -> None:
    frame = encode_frame(message)
    assert frame_length(frame[:HEADER_SIZE]) == len(frame) - HEADER_SIZE
    assert decode_for_parent(frame[HEADER_SIZE:]) == message


@pytest.mark.parametrize("message", TO_DEVICE)
def test_what_the_parent_sends_arrives_as_it_was(message: Run) -> None:
    assert decode_for_device(encode_frame(message)[HEADER_SIZE:]) == message


def test_an_unknown_message_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_for_parent(msgspec.msgpack.encode({"type": "exec", "code": "1"}))


def test_a_frame_over_the_limit_is_refused_before_it_is_read() -> None:
    with pytest.raises(ValueError, match="over the limit"):
        frame_length((MAX_FRAME + 1).to_bytes(HEADER_SIZE, "big"))
