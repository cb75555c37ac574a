"""The device that only plays one: what it does as a real one does, and how it is told from one."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from imageloom.core.meters import Meters
from imageloom.device.drill import HANG, KILL, OUT_OF_MEMORY, drill_picture
from imageloom.domain.catalog import BUILTIN
from imageloom.domain.drill import Drill
from imageloom.domain.errors import DeviceLost
from imageloom.domain.messages import Done, Errored, Picture, Run, ToParent
from imageloom.domain.speed import Speed
from imageloom.domain.work import GenerationWork, InputImage, ProcessingWork
from imageloom.settings import Settings
from imageloom.worker.device import DeviceOptions, DeviceProcess

TINY = next(model for model in BUILTIN if model.name == "imageloom-tiny")


def generation(
    key: str, *, prompt: str = "a dress", seeds: tuple[int, ...] = (7,), steps: int = 3
) -> Run:
    work = GenerationWork(
        model=TINY,
        prompt=prompt,
        negative_prompt=None,
        width=64,
        height=48,
        steps=steps,
        guidance_scale=1.0,
        strength=1.0,
        seeds=seeds,
        image=None,
    )
    return Run(key=key, task_type="generation", work=msgspec.msgpack.encode(work))


class Played:
    """A drill's device process and the file in which it says what it did."""

    def __init__(self, folder: Path, *, patience: float = 300.0) -> None:
        self.ledger = folder / "device.ledger"
        self.device = DeviceProcess(
            DeviceOptions(
                device="drill",
                threads=1,
                log_format="json",
                speed=Speed(),
                cache_dir=folder,
                drill=Drill(ledger=str(self.ledger)),
                silence=1.0,
                patience=patience,
            ),
            Meters(),
        )

    async def answers(self, run: Run) -> list[ToParent]:
        return [message async for message in self.device.run(run)]

    def lines(self) -> list[list[str]]:
        return [line.split()[:3] for line in self.ledger.read_text().splitlines()]


@pytest.fixture
async def played(tmp_path: Path) -> Any:
    made = Played(tmp_path)
    keeping = asyncio.create_task(made.device.keep())
    await made.device.wait_ready()
    yield made
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_same_seed_gives_same_picture_and_the_ledger_tells(played: Played) -> None:
    first = await played.answers(generation("t1/1", seeds=(7, 8)))
    again = await played.answers(generation("t2/1", seeds=(8,)))
    pictures = {each.index: each for each in first if isinstance(each, Picture)}
    (alone,) = [each for each in again if isinstance(each, Picture)]
    assert alone.rgb == pictures[1].rgb == drill_picture(8, 64, 48).rgb
    assert pictures[0].rgb != pictures[1].rgb
    assert alone.setup is not None
    assert alone.setup.device == {"kind": "drill", "name": "drill"}
    assert played.device.info is not None
    assert (played.device.info.kind, played.device.info.name) == ("drill", "drill")
    assert played.lines() == [
        ["start", "t1", "1"],
        ["finish", "t1", "1"],
        ["start", "t2", "1"],
        ["finish", "t2", "1"],
    ]


async def test_what_does_not_fit_fails_alone(played: Played) -> None:
    poison, good = await asyncio.gather(
        played.answers(generation("t1/1", prompt=OUT_OF_MEMORY)),
        played.answers(generation("t2/1")),
    )
    assert isinstance(poison[-1], Errored)
    assert poison[-1].code == "out_of_memory"
    assert "CUDA out of memory" in poison[-1].message
    assert isinstance(good[-1], Done)


async def test_poison_takes_the_process_down_and_another_serves(played: Played) -> None:
    with pytest.raises(DeviceLost):
        await played.answers(generation("t1/1", prompt=KILL))
    await played.device.wait_ready()
    assert isinstance((await played.answers(generation("t2/1")))[-1], Done)


async def test_poison_that_hangs_neither_ends_nor_listens(played: Played) -> None:
    hanging = asyncio.create_task(played.answers(generation("t1/1", prompt=HANG)))
    following = asyncio.create_task(played.answers(generation("t2/1")))
    done, _ = await asyncio.wait([hanging, following], timeout=0.5)
    assert not done
    played.device.kill()
    for lost in (hanging, following):
        with pytest.raises(DeviceLost):
            await lost


async def test_a_device_that_hangs_for_long_is_ended(tmp_path: Path) -> None:
    impatient = Played(tmp_path, patience=1.0)
    keeping = asyncio.create_task(impatient.device.keep())
    await impatient.device.wait_ready()
    with pytest.raises(DeviceLost):
        await impatient.answers(generation("t1/1", prompt=HANG))
    await impatient.device.wait_ready()
    assert isinstance((await impatient.answers(generation("t2/1")))[-1], Done)
    keeping.cancel()
    await asyncio.gather(keeping, return_exceptions=True)


async def test_processing_gives_the_picture_back(played: Played) -> None:
    picture = drill_picture(1, 8, 8)
    work = ProcessingWork(
        operation="upscale",
        options={"scale": 2},
        model=None,
        image=InputImage(width=8, height=8, rgb=picture.rgb),
    )
    run = Run(key="t1/1", task_type="processing", work=msgspec.msgpack.encode(work))
    answers = await played.answers(run)
    (given,) = [each for each in answers if isinstance(each, Picture)]
    assert given.rgb == picture.rgb
    assert given.method == "drill"


async def test_a_training_is_refused(played: Played) -> None:
    answers = await played.answers(Run(key="t1/1", task_type="training", work=b""))
    assert isinstance(answers[-1], Errored)
    assert not answers[-1].retryable


def test_it_is_chosen_by_name_only() -> None:
    assert Settings().device == "auto"
    assert Settings(device="drill").device == "drill"


def test_neither_it_nor_the_loop_imports_torch() -> None:
    code = (
        "import sys, imageloom.device.drill, imageloom.device.loop;"
        "sys.exit('torch' in sys.modules or 'diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
