"""Whose turn it is on a device that trains and draws: the order of units, never their times."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from imageloom.domain.catalog import BUILTIN
from imageloom.domain.messages import (
    Cancel,
    Checkpoint,
    Done,
    Errored,
    Picture,
    Progress,
    Residents,
    Run,
    Spent,
    Stopped,
    ToParent,
    TrainingStep,
)
from imageloom.domain.work import GenerationWork, TrainingPicture, TrainingWork
from training_pictures import checkered_dress, png

pytest.importorskip("torch", reason="the worker's packages are not installed")

from imageloom.device.link import Link  # needs torch
from imageloom.device.loop import DeviceLoop
from imageloom.runtime.residency import Residency
from imageloom.runtime.torch_device import choose_device

TINY = next(model for model in BUILTIN if model.name == "imageloom-tiny")
TRAINING, DRAWING = "train_1/1", "task_1/1"


class HungUp(BaseException):
    """The parent is gone: the loop, which works for ever, is over."""


class Parent(Link):
    """The parent's side of the pipe, without one: a message comes exactly when it is meant to.

    It begins with `first`, asks for a picture the moment `when` is true of what was heard, cancels
    the training once it has the picture, and hangs up.
    """

    def __init__(
        self, first: Run, then: Run | None = None, *, when: Callable[[list[ToParent]], bool]
    ) -> None:
        super().__init__(socket.socket())  # connected to nothing, and not used
        self.heard: list[ToParent] = []
        self.asked_after = 0
        self._over = False
        self._then = then
        self._when = when
        self._arrived.put(first)

    def send(self, message: ToParent) -> None:
        assert not isinstance(message, Errored), message
        self.heard.append(message)
        if self._then is not None and self._when(self.heard):
            self._arrived.put(self._then)
            self._then = None
            self.asked_after = len(self.heard)
        match message:
            case Done() if self.asked_after:
                self._cancelled.add(TRAINING)
                self._arrived.put(Cancel(key=TRAINING))
            case Done() | Stopped():
                self._over = True
            case Residents() if self._over:  # the last that an attempt says
                self._connection.close()
                raise HungUp


@pytest.fixture(scope="module")
def residency() -> Residency:
    """A device on which the model is loaded: who has to load it waits for that."""
    made = Residency(choose_device("cpu", threads=1))
    with pytest.raises(HungUp):
        DeviceLoop(Parent(drawing(seeds=(1,)), when=bool), made).run()
    return made


def drawing(*, seeds: tuple[int, ...], steps: int = 4) -> Run:
    work = GenerationWork(
        model=TINY,
        prompt="a red dress",
        negative_prompt=None,
        width=64,
        height=64,
        steps=steps,
        guidance_scale=4.0,
        strength=0.5,
        seeds=seeds,
        image=None,
    )
    return Run(key=DRAWING, task_type="generation", work=msgspec.msgpack.encode(work))


@pytest.fixture
def training(tmp_path: Path) -> Run:
    """Four pictures and a held-out one; a checkpoint with a sample after every other step."""
    pictures = []
    for index in range(5):
        path = tmp_path / f"{index}.png"
        path.write_bytes(png(checkered_dress(index)))
        pictures.append(TrainingPicture(path=str(path), caption="a dress", held_out=index == 4))
    work = TrainingWork(
        model=TINY,
        pictures=tuple(pictures),
        epochs=1000,
        learning_rate=1e-3,
        batch_size=1,
        gradient_accumulation=1,
        rank=4,
        alpha=4.0,
        resolution=64,
        seed=1,
        schedule="constant",
        warmup_steps=0,
        min_snr_gamma=None,
        noise_offset=0.0,
        flip=False,
        text_encoders=False,
        checkpoint_every=2,
        sample_prompts=("a dress",),
        layout="diffusers",
        folder=str(tmp_path),
    )
    encoded = msgspec.msgpack.encode(work)
    return Run(key=TRAINING, task_type="training", work=encoded, background=True)


def steps(heard: list[ToParent]) -> int:
    return sum(isinstance(message, TrainingStep) for message in heard)


def units_after_checkpointed_step(heard: list[ToParent]) -> int:
    """Return how many units have ended since the second step, its own among them."""
    if steps(heard) != 2:
        return 0
    last = max(index for index, each in enumerate(heard) if isinstance(each, TrainingStep))
    return sum(isinstance(message, Progress) for message in heard[last:])


def test_a_training_gets_its_share_of_a_device_that_is_never_idle(
    residency: Residency, training: Run
) -> None:
    clock = itertools.count()
    shared = msgspec.structs.replace(training, share=0.25)
    pictures = drawing(seeds=(1, 2), steps=40)
    parent = Parent(shared, pictures, when=MOMENTS["in a training step"])
    with pytest.raises(HungUp):
        DeviceLoop(parent, residency, clock=lambda: next(clock)).run()
    keys = [each.key for each in parent.heard if isinstance(each, Progress)]
    first, last = keys.index(DRAWING), len(keys) - 1 - keys[::-1].index(DRAWING)
    beside = keys[first : last + 1]
    # Every unit takes one look at the clock: of 40 steps and two beginnings, a third as many.
    assert 10 <= beside.count(TRAINING) <= 18
    assert beside.count(DRAWING) >= 40
    # Never two of its units at once.
    assert f"{TRAINING} {TRAINING}" not in " ".join(beside)


MOMENTS: dict[str, Callable[[list[ToParent]], bool]] = {
    "in a training step": lambda heard: steps(heard) == 1,
    "in a sample": lambda heard: units_after_checkpointed_step(heard) == 5,
    "with a sample": lambda heard: isinstance(heard[-1], Picture),
    "with a checkpoint": lambda heard: isinstance(heard[-1], Checkpoint),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_picture_waits_for_one_unit_of_a_training_and_is_drawn_at_a_stretch(
    residency: Residency, training: Run, moment: str
) -> None:
    parent = Parent(training, drawing(seeds=(1, 2)), when=MOMENTS[moment])
    with pytest.raises(HungUp):
        DeviceLoop(parent, residency).run()
    assert parent.asked_after
    heard = [each for each in parent.heard if not isinstance(each, Residents | Spent)]
    keys = [getattr(each, "key", "") for each in heard]
    first, last = keys.index(DRAWING), len(keys) - 1 - keys[::-1].index(DRAWING)
    since = parent.heard[parent.asked_after :]
    waited = [each for each in since[: since.index(heard[first])] if isinstance(each, Progress)]
    assert len(waited) <= 1  # each unit ends with one
    assert set(keys[first : last + 1]) == {DRAWING}
    assert sum(isinstance(each, Picture) for each in heard[first : last + 1]) == 2
    assert isinstance(heard[last], Done)
    assert isinstance(heard[-1], Stopped)
    assert heard[-1].key == TRAINING
