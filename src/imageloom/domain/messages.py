"""What a worker and its device process say to each other: typed messages, no torch, no pickle.

A frame is four bytes of length (big endian) and a msgpack map whose `type` names the message.
`key` is the attempt that a message is about, as `task_id/attempt`.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

# The largest picture that leaves has 100 megapixels and alpha, 400 MB; more is a fault.
MAX_FRAME: Final = 512 * 2**20
_HEADER: Final = struct.Struct(">I")
HEADER_SIZE: Final = _HEADER.size


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type"):
    pass


class Run(_Message, frozen=True, kw_only=True, tag="run"):
    """Parent to device: begin this attempt. `work` is the task type's own struct, encoded.

    An attempt in the background is stepped where no other one is there, and on a device that is
    never idle gets `share` of its time, 0 to 1. Tenants share the device by `domain.shares`. One
    that is `alone` shares it with nobody, the background included.
    """

    key: str
    task_type: str
    work: bytes
    background: bool = False
    share: float = 0.0
    alone: bool = False
    tenant: str = ""
    priority: int = 0


class Cancel(_Message, frozen=True, kw_only=True, tag="cancel"):
    """Parent to device: drop this attempt at the next step; answered by `Stopped`."""

    key: str


class Save(_Message, frozen=True, kw_only=True, tag="save"):
    """Parent to device: before anything else of this attempt, write what another can go on from.

    Answered by a `Checkpoint` that is not `planned`, unless the attempt ends before. Work that has
    not come to its first step, or is of another kind, gives no answer.
    """

    key: str


class Ping(_Message, frozen=True, kw_only=True, tag="ping"):
    """Parent to device: say how you are; answered by `Pong`, beside whatever the loop does."""


class DeviceInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What the device is: cpu, cuda or mps. `memory_bytes` is null on a CPU.

    `uuid` is that of an NVIDIA GPU, as its management library names it.
    """

    kind: str
    name: str
    memory_bytes: int | None = None
    uuid: str | None = None


class Ready(_Message, frozen=True, kw_only=True, tag="ready"):
    """Device to parent: imports are done and work can come."""

    device: DeviceInfo


class Pong(_Message, frozen=True, kw_only=True, tag="pong"):
    """Device to parent: for how many seconds the loop has been in the step that it does, and for
    how many of them, up to now, the process has not computed. Both 0 where it waits for work.
    """

    step: float
    still: float


class Progress(_Message, frozen=True, kw_only=True, tag="progress"):
    """Device to parent, after every step: how much of the attempt is done, 0 to 1."""

    key: str
    value: float


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """How a picture was drawn: the class and settings of its scheduler, and what drew it."""

    scheduler: dict[str, Any]
    device: dict[str, str]


class Picture(_Message, frozen=True, kw_only=True, tag="picture"):
    """Device to parent: one finished picture, row-major RGB, and alpha where it is a cut-out.

    `method` and `confidence` (0 to 1) say how a subject was told from its background, `setup` how a
    generation was drawn.
    """

    key: str
    index: int
    width: int
    height: int
    rgb: bytes
    alpha: bytes | None = None
    seed: int | None = None
    method: str | None = None
    confidence: float | None = None
    setup: Setup | None = None


class Preview(_Message, frozen=True, kw_only=True, tag="preview"):
    """Device to parent: what a picture may become, seen after `step` of its `steps`; RGB."""

    key: str
    index: int
    step: int
    steps: int
    width: int
    height: int
    rgb: bytes


class TrainingStep(_Message, frozen=True, kw_only=True, tag="training_step"):
    """Device to parent: one optimiser step of a training; `step` counts from 1 to `steps`."""

    key: str
    step: int
    steps: int
    epoch: int
    loss: float
    learning_rate: float
    images_per_second: float


class Checkpoint(_Message, frozen=True, kw_only=True, tag="checkpoint"):
    """Device to parent: a training can go on from the file at `path`, after `step` steps.

    `adapter_path` is the adapter alone, as others load it. `held_out_loss` is null where no picture
    was held out. One that is not `planned` answers a `Save`: nothing judged it, and it must not
    change what is published in the end.
    """

    key: str
    step: int
    path: str
    adapter_path: str
    held_out_loss: float | None
    last: bool
    planned: bool = True


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What an attempt had of its device.

    `seconds` is its share: the time of a step is divided over the rows in it. `memory_bytes` is the
    most that the device process had while the attempt had it, models and rows of others included:
    on CUDA what torch had allocated, on a CPU the process's resident set, looked at after each
    step. `relief` names the rungs that were taken meanwhile because memory did not suffice.
    """

    seconds: float
    memory_bytes: int | None = None
    relief: tuple[str, ...] = ()


class Done(_Message, frozen=True, kw_only=True, tag="done"):
    """Device to parent: everything of this attempt was sent."""

    key: str
    usage: Usage | None = None


class Stopped(_Message, frozen=True, kw_only=True, tag="stopped"):
    """Device to parent: the attempt was dropped as asked."""

    key: str
    usage: Usage | None = None


class Errored(_Message, frozen=True, kw_only=True, tag="errored"):
    """Device to parent: the attempt raised. `message` is fit for the user."""

    key: str
    code: str
    message: str
    retryable: bool
    param: str | None = None
    usage: Usage | None = None


class Spent(_Message, frozen=True, kw_only=True, tag="spent"):
    """Device to parent: what it just did, from when on (Unix time) and for which attempts.

    `phase` is open, load, begin, denoise, decode, or work for the units of other kinds. `seconds`
    are those of the clock, `device_seconds` what is left of them without the turns of others.
    `rows` are those of a pass, whosoever; `task_type` is that of the first attempt.
    """

    phase: str
    task_type: str
    keys: tuple[str, ...]
    began: float
    seconds: float
    device_seconds: float
    rows: int = 0


class Relieved(_Message, frozen=True, kw_only=True, tag="relieved"):
    """Device to parent: memory did not suffice, and this rung of `runtime.relief` was taken."""

    rung: str


class Residents(_Message, frozen=True, kw_only=True, tag="residents"):
    """Device to parent: the models now in memory."""

    models: tuple[str, ...]


Request = Run | Cancel | Save
ToDevice = Request | Ping
ToParent = (
    Ready
    | Pong
    | Progress
    | Preview
    | Picture
    | TrainingStep
    | Checkpoint
    | Done
    | Stopped
    | Errored
    | Spent
    | Relieved
    | Residents
)

_encoder = msgspec.msgpack.Encoder()
_to_device: msgspec.msgpack.Decoder[ToDevice] = msgspec.msgpack.Decoder(ToDevice)
_to_parent: msgspec.msgpack.Decoder[ToParent] = msgspec.msgpack.Decoder(ToParent)


def encode_frame(message: ToDevice | ToParent) -> bytes:
    """Return the message as one frame."""
    body = _encoder.encode(message)
    return _HEADER.pack(len(body)) + body


def frame_length(header: bytes) -> int:
    """Return how many bytes follow a header. Raises: ValueError where it is over the limit."""
    (length,) = _HEADER.unpack(header)
    if length > MAX_FRAME:
        raise ValueError(f"a frame of {length} bytes is over the limit of {MAX_FRAME}")
    return int(length)


def decode_for_device(body: bytes) -> ToDevice:
    """Return the message in a frame that the parent sent."""
    return _to_device.decode(body)


def decode_for_parent(body: bytes) -> ToParent:
    """Return the message in a frame that the device sent."""
    return _to_parent.decode(body)
