"""What is in a device's memory: models that come and go, and trainings that bring their own."""

from __future__ import annotations

import socket
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from PIL import Image

from imageloom.domain.catalog import BUILTIN, Model
from imageloom.domain.messages import Cancel, Run
from imageloom.domain.work import TrainingPicture, TrainingWork

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

from imageloom.device.link import Link  # noqa: E402  # needs torch
from imageloom.device.loop import DeviceLoop  # noqa: E402
from imageloom.runtime.residency import Residency  # noqa: E402
from imageloom.runtime.torch_device import TorchDevice, choose_device  # noqa: E402
from imageloom.runtime.training.trainer import Trainer  # noqa: E402

TINY = next(model for model in BUILTIN if model.name == "imageloom-tiny")
BUDGET = 100


@dataclass
class Weights:
    weight_bytes: int


def load(model: Model, _device: TorchDevice) -> Weights:
    return Weights(weight_bytes=model.size_bytes)


def model(name: str, size: int) -> Model:
    return msgspec.structs.replace(TINY, name=name, size_bytes=size)


@pytest.fixture
def device() -> TorchDevice:
    return choose_device("cpu", threads=1)


@pytest.fixture
def residency(device: TorchDevice, monkeypatch: pytest.MonkeyPatch) -> Residency:
    """Four models of 20 bytes on a device for 100, `a` the least recently used."""
    monkeypatch.setattr(TorchDevice, "budget", lambda _self: BUDGET)
    made = Residency(device)
    for name in "abcd":
        made.get(model(name, 20), load)
    return made


def test_reserve_evicts_as_many_of_the_least_recently_used_as_it_needs(
    residency: Residency,
) -> None:
    residency.reserve("t/1", 20)
    assert residency.names() == ("a", "b", "c", "d")
    residency.reserve("u/1", 30)
    assert residency.names() == ("c", "d")


def test_models_leave_room_for_what_is_reserved(residency: Residency) -> None:
    residency.reserve("t/1", 60)
    assert residency.names() == ("c", "d")
    residency.get(model("e", 20), load)
    assert residency.names() == ("d", "e")


def test_release_gives_the_room_back_once(residency: Residency) -> None:
    residency.reserve("t/1", 60)
    for _ in range(2):
        residency.release("t/1")
    for name in "efg":
        residency.get(model(name, 20), load)
    assert residency.names() == ("c", "d", "e", "f", "g")


def test_a_second_size_takes_the_place_of_the_first(residency: Residency) -> None:
    residency.reserve("t/1", 90)
    residency.reserve("t/1", 10)
    for name in "abcd":
        residency.get(model(name, 20), load)
    assert residency.names() == ("a", "b", "c", "d")


def test_what_does_not_fit_empties_the_device_and_is_tried(residency: Residency) -> None:
    residency.reserve("t/1", BUDGET + 1)
    assert residency.names() == ()
    residency.get(model("e", 20), load)
    assert residency.names() == ("e",)


# A training on the device loop


@pytest.fixture
def work(tmp_path: Path) -> TrainingWork:
    pictures = []
    for index in range(4):
        path = tmp_path / f"{index}.png"
        Image.fromarray(np.full((64, 64, 3), 50 * index, np.uint8)).save(path)
        pictures.append(TrainingPicture(path=str(path), caption="a red dress"))
    return TrainingWork(
        model=TINY,
        pictures=tuple(pictures),
        epochs=2,
        learning_rate=1e-3,
        batch_size=4,
        gradient_accumulation=1,
        rank=4,
        alpha=4.0,
        resolution=64,
        seed=5,
        schedule="cosine",
        warmup_steps=0,
        min_snr_gamma=5.0,
        noise_offset=0.0,
        flip=False,
        text_encoders=False,
        checkpoint_every=5,
        sample_prompts=(),
        layout="diffusers",
        folder=str(tmp_path),
    )


@dataclass
class Device:
    """A device loop that is stepped by hand, and what it trains with."""

    link: Link
    loop: DeviceLoop
    residency: Residency
    trainers: list[weakref.ref[Trainer]]

    def begin(self, work: TrainingWork) -> None:
        encoded = msgspec.msgpack.encode(work)
        self.link._arrived.put(Run(key="t/1", task_type="training", work=encoded, background=True))
        self.step()

    def step(self) -> None:
        self.loop._admit(block=False)
        self.loop._turn()

    @property
    def reserved(self) -> int:
        return sum(self.residency._reserved.values())


@pytest.fixture
def training(device: TorchDevice, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    trainers: list[weakref.ref[Trainer]] = []
    begin: Callable[..., None] = Trainer.__init__

    def seen(self: Trainer, *args: object, **options: object) -> None:
        trainers.append(weakref.ref(self))
        begin(self, *args, **options)

    monkeypatch.setattr(Trainer, "__init__", seen)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        link, residency = Link(theirs), Residency(device)
        yield Device(link, DeviceLoop(link, residency), residency, trainers)


def test_a_training_counts_while_it_runs_and_leaves_nothing(
    training: Device, work: TrainingWork
) -> None:
    training.begin(work)
    weights = 4 * 3_940_000
    assert training.reserved > weights + 90_000_000
    larger = training.trainers[0]()
    assert larger is not None
    adapter = larger._adapter.parameters.numel()
    assert training.reserved > larger._base.weight_bytes + 12 * adapter
    del larger
    while training.loop._live:
        training.step()
    assert training.reserved == 0
    assert training.trainers[0]() is None  # collected, although its units refer to it


class Later(Executor):
    """Does what it was asked for when it is told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, job: Callable[[], Any], /) -> Future[Any]:  # type: ignore[override]
        future: Future[Any] = Future()
        self.asked.append((future, job))
        return future


def test_pictures_are_drawn_while_the_base_of_a_training_loads(
    device: TorchDevice, work: TrainingWork
) -> None:
    loader = Later()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        link, residency = Link(theirs), Residency(device, loader=loader)
        waiting = Device(link, DeviceLoop(link, residency), residency, [])
        waiting.begin(work)
        (live,) = waiting.loop._live
        assert (live.units, live.ready) == (None, False)
        waiting.step()  # does nothing, and does not load here
        ((future, job),) = loader.asked
        future.set_result(job())
        waiting.step()
        assert isinstance(live.units, Trainer)
        link._cancelled.add("t/1")
        waiting.step()
        assert (waiting.reserved, waiting.loop._live) == (0, [])


def test_a_cancelled_training_leaves_nothing(training: Device, work: TrainingWork) -> None:
    training.begin(work)
    training.link._cancelled.add("t/1")
    training.link._arrived.put(Cancel(key="t/1"))
    training.step()
    assert (training.reserved, training.loop._live) == (0, [])
    assert training.trainers[0]() is None


@pytest.mark.parametrize("when", ["as it loads", "later"])
def test_a_training_that_fails_leaves_nothing(
    training: Device, work: TrainingWork, when: str
) -> None:
    first = Path(work.pictures[0].path)
    content = first.read_bytes()
    if when == "as it loads":
        first.write_bytes(b"no picture")
    training.begin(work)
    if when == "later":
        assert training.reserved > 0
        first.write_bytes(content[:60])
        training.step()
    assert (training.reserved, training.loop._live) == (0, [])
    assert training.trainers[0]() is None
