"""The device loop with the embedded model: whose turn it is, and who pays for whose faults."""

from __future__ import annotations

import inspect
import queue
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import pytest

from imageloom.domain.catalog import BUILTIN
from imageloom.domain.messages import (
    Cancel,
    Done,
    Errored,
    Progress,
    Run,
    Stopped,
    ToDevice,
    ToParent,
    Usage,
)
from imageloom.domain.messages import Picture as PictureMessage
from imageloom.domain.shares import Claimant, Ration, Shares
from imageloom.domain.work import GenerationWork, LoraUse

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

from imageloom.device import loop as loop_module  # noqa: E402  # needs torch
from imageloom.device.loop import DeviceLoop  # noqa: E402
from imageloom.device.metering import Bill, Meter  # noqa: E402
from imageloom.runtime.denoiser import Denoiser, load_drawing  # noqa: E402
from imageloom.runtime.residency import Residency  # noqa: E402
from imageloom.runtime.torch_device import TorchDevice, choose_device  # noqa: E402
from imageloom.runtime.units import Loading  # noqa: E402
from imageloom.task_types.generation.run import RowUnits  # noqa: E402

TINY = next(model for model in BUILTIN if model.name == "imageloom-tiny")


class Script:
    """A parent that says what it was told to say; it hangs up when everything is answered."""

    def __init__(self, *messages: ToDevice) -> None:
        self._arrived: queue.SimpleQueue[ToDevice | None] = queue.SimpleQueue()
        self._open = 0
        self._cancelled: set[str] = set()
        self.sent: list[ToParent] = []
        self.on_send: Callable[[ToParent], None] = lambda _: None
        for message in messages:
            self.say(message)

    def say(self, message: ToDevice) -> None:
        self._open += isinstance(message, Run)
        if isinstance(message, Cancel):
            self._cancelled.add(message.key)
        self._arrived.put(message)

    def next_message(self, *, block: bool) -> ToDevice | None:
        if not self._open:
            raise SystemExit
        try:
            return self._arrived.get(block=block)
        except queue.Empty:
            return None

    def wake(self) -> None:
        self._arrived.put(None)

    def is_cancelled(self, key: str) -> bool:
        return key in self._cancelled

    def forget(self, key: str) -> None:
        self._cancelled.discard(key)

    def send(self, message: ToParent) -> None:
        self.sent.append(message)
        self._open -= isinstance(message, Done | Errored | Stopped)
        self.on_send(message)

    def ended(self) -> list[str]:
        """The attempts in the order in which they ended."""
        return [each.key for each in self.sent if isinstance(each, Done | Errored | Stopped)]


class Ticks:
    """A clock that goes on by one each time that somebody looks."""

    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> float:
        self.now += 1
        return self.now


@pytest.fixture(scope="module")
def device() -> TorchDevice:
    return choose_device("cpu", threads=1)


@pytest.fixture(scope="module")
def resident(device: TorchDevice) -> Residency:
    residency = Residency(device)
    residency.get(TINY, load_drawing)
    return residency


def run(key: str, *, tenant: str = "a", priority: int = 0, **changes: Any) -> Run:
    plain = GenerationWork(
        model=TINY,
        prompt="a red dress",
        negative_prompt=None,
        width=64,
        height=64,
        steps=6,
        guidance_scale=3.0,
        strength=1.0,
        seeds=(1,),
        image=None,
    )
    work = msgspec.msgpack.encode(msgspec.structs.replace(plain, **changes))
    return Run(key=key, task_type="generation", work=work, tenant=tenant, priority=priority)


def work_off(residency: Residency, script: Script) -> list[ToParent]:
    link: Any = script
    with pytest.raises(SystemExit):
        DeviceLoop(link, residency, clock=Ticks()).run()
    return script.sent


def pictures(sent: list[ToParent], key: str) -> dict[int, bytes]:
    return {
        each.index: each.rgb
        for each in sent
        if isinstance(each, PictureMessage) and each.key == key
    }


def test_one_picture_does_not_wait_behind_another_tenants_many(resident: Residency) -> None:
    script = Script(run("many/1", seeds=tuple(range(16))), run("one/1", tenant="b"))
    assert pictures(work_off(resident, script), "one/1")
    assert script.ended() == ["one/1", "many/1"]


def test_short_work_of_a_tenant_comes_before_its_long(resident: Residency) -> None:
    script = Script(run("long/1", steps=30, seeds=tuple(range(9))), run("short/1", steps=3))
    work_off(resident, script)
    assert script.ended() == ["short/1", "long/1"]


def test_every_task_shows_progress_before_any_has_ended(resident: Residency) -> None:
    script = Script(*[run(f"{number}/1", tenant=str(number)) for number in range(8)])
    sent = work_off(resident, script)
    first_end = next(place for place, each in enumerate(sent) if isinstance(each, Done))
    moving = {e.key for e in sent[:first_end] if isinstance(e, Progress) and e.value > 0}
    assert len(moving) == 8


def test_long_work_of_a_tenant_rides_along_with_its_short(resident: Residency) -> None:
    script = Script(*[run(f"{steps}/1", steps=steps) for steps in (30, 20, 10, 6)])
    sent = work_off(resident, script)
    first_end = next(place for place, each in enumerate(sent) if isinstance(each, Done))
    moving = {e.key for e in sent[:first_end] if isinstance(e, Progress) and e.value > 0}
    assert len(moving) == 4
    assert script.ended() == ["6/1", "10/1", "20/1", "30/1"]


def test_a_picture_is_the_same_in_company_and_alone(resident: Residency) -> None:
    (alone,) = pictures(work_off(resident, Script(run("x/1", seeds=(5,)))), "x/1").values()
    crowd = Script(run("y/1", seeds=(4, 5, 6)), run("z/1", tenant="b", steps=9, guidance_scale=1.0))
    assert pictures(work_off(resident, crowd), "y/1")[1] == alone


def test_a_cancel_in_mid_denoising_leaves_the_others_as_they_are(resident: Residency) -> None:
    calm = pictures(work_off(resident, Script(run("stays/1", seeds=(1, 2)))), "stays/1")
    script = Script(run("stays/1", seeds=(1, 2)), run("goes/1", tenant="b", seeds=(3, 4, 5)))

    def cancel_once_under_way(message: ToParent) -> None:
        if isinstance(message, Progress) and message.key == "goes/1" and message.value > 0.3:
            script.on_send = lambda _: None
            script.say(Cancel(key="goes/1"))

    script.on_send = cancel_once_under_way
    sent = work_off(resident, script)
    assert script.ended() == ["goes/1", "stays/1"]
    assert isinstance(next(e for e in sent if isinstance(e, Stopped)), Stopped)
    assert pictures(sent, "goes/1") == {}
    assert pictures(sent, "stays/1") == calm


def test_an_adapter_that_does_not_fit_fails_its_own_task_alone(
    resident: Residency, tmp_path: Path
) -> None:
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"no safetensors")
    use = LoraUse(name="broken", path=str(broken), sha256="0" * 64, weight=1.0)
    calm = pictures(work_off(resident, Script(run("good/1"))), "good/1")
    script = Script(run("bad/1", loras=(use,), tenant="b"), run("good/1"))
    sent = work_off(resident, script)
    (failure,) = [each for each in sent if isinstance(each, Errored)]
    assert (failure.key, failure.code) == ("bad/1", "bad_weights")
    assert pictures(sent, "good/1") == calm


def test_what_loads_lets_the_others_go_on(device: TorchDevice) -> None:
    with ThreadPoolExecutor(1) as loader:
        residency = Residency(device, loader=loader)
        script = Script(run("first/1"), run("second/1", tenant="b"))
        sent = work_off(residency, script)
    assert sorted(script.ended()) == ["first/1", "second/1"]
    assert pictures(sent, "first/1") == pictures(sent, "second/1")


def test_beginning_many_rows_of_many_tasks_goes_no_deeper(
    resident: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    deepest = 0
    plain = RowUnits.step

    def step(self: RowUnits) -> bool:
        nonlocal deepest
        deepest = max(deepest, len(inspect.stack(0)))
        return plain(self)

    monkeypatch.setattr(RowUnits, "step", step)
    tasks = [run(f"{n}/1", tenant=str(n), seeds=(1, 2, 3), steps=1) for n in range(4)]
    work_off(resident, Script(*tasks[:1]))
    alone, deepest = deepest, 0
    work_off(resident, Script(*tasks))
    assert deepest == alone


def test_what_was_loaded_for_a_cancelled_attempt_is_let_go(device: TorchDevice) -> None:
    waiting = threading.Event()
    with ThreadPoolExecutor(1) as loader:
        residency = Residency(device, loader=loader)
        with pytest.raises(Loading):
            residency.prepared("gone/1", waiting.wait)
        waiting.set()
        residency.release("gone/1")
        assert residency._jobs == {}


def test_models_on_their_way_count(device: TorchDevice) -> None:
    half = msgspec.structs.replace(TINY, size_bytes=device.budget() // 2 + 1)
    other = msgspec.structs.replace(half, name="other")
    waiting = threading.Event()
    with ThreadPoolExecutor(1) as loader:
        residency = Residency(device, loader=loader)
        residency._loaded[TINY] = _Small()
        loader.submit(waiting.wait)
        for model in (half, other):
            with pytest.raises(Loading):
                residency.get(model, lambda *_: _Small())
        waiting.set()
    assert residency.names() == ()


class _Small:
    weight_bytes = 1


def test_a_model_that_is_drawn_with_stays(device: TorchDevice) -> None:
    residency = Residency(device)
    denoiser = residency.get(TINY, load_drawing)
    residency.hold(TINY)
    residency._make_room(device.budget())
    assert residency.get(TINY, load_drawing) is denoiser
    residency.let_go(TINY)
    residency._make_room(device.budget())
    assert residency.names() == ()


def test_a_row_that_raises_fails_its_attempt_and_no_other(
    resident: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Denoiser.step

    def step(self: Denoiser, rows: Any) -> None:
        if any(row.seed == 13 for row in rows):
            raise ZeroDivisionError
        plain(self, rows)

    monkeypatch.setattr(Denoiser, "step", step)
    script = Script(run("bad/1", seeds=(13,), tenant="b"), run("good/1"))
    sent = work_off(resident, script)
    assert [each.key for each in sent if isinstance(each, Errored)] == ["bad/1"]
    assert pictures(sent, "good/1")


def test_out_of_memory_even_alone_says_what_the_users_client_looks_for(
    resident: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    def step(self: Denoiser, rows: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(Denoiser, "step", step)
        (failure,) = [e for e in work_off(resident, Script(run("big/1"))) if isinstance(e, Errored)]
    assert "CUDA out of memory" in failure.message
    assert pictures(work_off(resident, Script(run("next/1"))), "next/1")


class _Long:
    """A unit of many steps, as an upscale of many tiles is; it never looks aside itself."""

    def __init__(self, attempt: Any) -> None:
        self._attempt = attempt

    def step(self) -> bool:
        for tile in range(60):
            self._attempt.between_steps(tile / 60)
        return True


def test_rows_have_their_turns_between_the_tiles_of_a_long_unit(
    resident: Residency, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = loop_module.open_units

    def open_units(task_type: str, work: bytes, attempt: Any, residency: Residency) -> Any:
        return (
            _Long(attempt)
            if task_type == "processing"
            else plain(task_type, work, attempt, residency)
        )

    monkeypatch.setattr(loop_module, "open_units", open_units)
    tiles = Run(key="tiles/1", task_type="processing", work=b"", tenant="a")
    script = Script(tiles)

    def draw_once_under_way(message: ToParent) -> None:
        if isinstance(message, Progress) and message.value > 0.1:
            script.on_send = lambda _: None
            script.say(run("picture/1", tenant="b"))

    script.on_send = draw_once_under_way
    work_off(resident, script)
    assert script.ended() == ["picture/1", "tiles/1"]


# The order itself


def claimant(key: str, **changes: Any) -> Claimant[str]:
    return Claimant(
        **{"key": key, "tenant": key, "priority": 0, "remaining": 10, "waited": 0, **changes}
    )


def test_who_had_least_is_next() -> None:
    shares, both = Shares(), [claimant("a"), claimant("b")]
    shares.order(both)
    shares.charge("a", seconds=1)
    assert shares.order(both) == ["b", "a"]


def test_who_comes_back_has_saved_nothing_up() -> None:
    shares = Shares()
    for _ in range(100):
        shares.order([claimant("a")])
        shares.charge("a", seconds=1)
    both = [claimant("a"), claimant("b")]
    shares.order(both)
    shares.charge("b", seconds=1)
    assert shares.order(both) == ["a", "b"]


def test_who_comes_while_another_is_away_does_not_start_far_before_it() -> None:
    shares, served = Shares(), []
    for _ in range(1000):
        shares.order([claimant("a")])
        shares.charge("a", seconds=1)
    shares.order([claimant("b")])  # for the first time, and a is away for a moment
    for _ in range(10):
        served.append(shares.order([claimant("a"), claimant("b")])[0])
        shares.charge(served[-1], seconds=1)
    assert served.count("a") >= 4


def test_who_had_too_much_does_not_shed_it_by_leaving() -> None:
    shares, both = Shares(), [claimant("a"), claimant("b")]
    shares.order(both)
    shares.charge("a", seconds=5)
    shares.order([claimant("b")])
    assert shares.order(both) == ["b", "a"]


def test_the_background_gets_its_share_and_what_it_does_alone_is_free() -> None:
    ration, had = Ration(), {True: 0.0, False: 0.0}
    for _ in range(1000):
        background = ration.due
        seconds = 3.0 if background else 1.0
        had[background] += seconds
        (ration.spend if background else ration.earn)(seconds, share=0.2)
    assert 0.19 < had[True] / sum(had.values()) < 0.21
    ration = Ration()
    for _ in range(1000):
        ration.earn(1.0, share=0.2)  # is not saved up for later
    ration.spend(1.0, share=0.2)
    assert not ration.due


def test_a_tenant_does_not_pay_for_what_its_training_did_in_the_background() -> None:
    link, clock = Script(), Ticks()
    loop = DeviceLoop(link, Residency(choose_device("cpu", threads=1)), clock=clock)  # type: ignore[arg-type]
    training = loop_module._Live(
        run=msgspec.structs.replace(run("t/1"), background=True),
        attempt=None,  # type: ignore[arg-type]
    )
    loop._live = [training]
    loop._charge([training], since=-1000.0)
    asked = [
        Claimant(key=tenant, tenant=tenant, priority=0, remaining=9, waited=0) for tenant in "ab"
    ]
    assert loop._shares.order(asked) == ["a", "b"]


def test_a_priority_takes_nothing_from_another_tenant() -> None:
    shares, served = Shares(), []
    urgent = claimant("urgent", tenant="a", priority=10, remaining=500)
    everyone = [claimant("short", tenant="a", remaining=1), urgent, claimant("b")]
    for _ in range(30):
        served.append(shares.order(everyone)[0])
        shares.charge("b" if served[-1] == "b" else "a", seconds=1)
    assert (served.count("urgent"), served.count("b")) == (15, 15)


def test_a_long_task_is_not_passed_by_for_ever() -> None:
    long = claimant("long", tenant="a", remaining=500)
    short = claimant("short", tenant="a", remaining=4)
    assert Shares().order([long, short]) == ["short", "long"]
    tired = claimant("long", tenant="a", remaining=500, waited=497)
    assert Shares().order([tired, short]) == ["long", "short"]


# What each has of the device


def usages(sent: list[ToParent]) -> dict[str, Usage]:
    """What each attempt had of the device, as its last message says."""
    ended = [each for each in sent if isinstance(each, Done | Errored | Stopped)]
    return {each.key: each.usage for each in ended if each.usage is not None}


def test_time_is_billed_by_the_rows_and_to_the_innermost_work(resident: Residency) -> None:
    meter, one, three = Meter(resident, clock=Ticks()), Bill(), Bill()
    with meter.running() as outer:
        outer |= {one: 1, three: 3}
        with meter.running() as inner:
            inner[one] = 1
    assert (one.seconds, three.seconds) == (2 / 4 + 1, 2 * 3 / 4)


def test_every_attempt_hears_what_it_had_however_it_ended(
    resident: Residency, tmp_path: Path
) -> None:
    use = LoraUse(name="gone", path=str(tmp_path / "gone"), sha256="0" * 64, weight=1.0)
    script = Script(
        run("many", seeds=(1, 2, 3)), run("one"), run("bad", loras=(use,)), run("goes", steps=50)
    )
    script.on_send = lambda said: (
        script.say(Cancel(key="goes")) if isinstance(said, Done) and said.key == "many" else None
    )
    had = usages(work_off(resident, script))
    assert had["many"].seconds > had["one"].seconds > 0
    assert had.keys() == {"many", "one", "bad", "goes"}
    # The resident set of this process, with torch in it.
    assert all((usage.memory_bytes or 0) > 100_000_000 for usage in had.values())


def test_a_rung_is_told_to_whose_step_it_was(device: TorchDevice) -> None:
    residency, bill = Residency(device), Bill()
    meter = Meter(residency)
    with meter.running() as shares:
        shares[bill] = 1
        residency.relief(TINY).offload()
    with meter.running() as shares:
        shares[Bill()] = 1
    assert bill.usage.relief == ("offloaded",)
