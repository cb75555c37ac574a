"""What lies before a task that is not over: when it will begin and end, and whether it ever can.

Each process looks at queues, workers and paces once a second at most, and only where somebody asks:
a forecast of one more task is then arithmetic.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from imageloom.core.models import read_models
from imageloom.domain.catalog import Model
from imageloom.domain.forecast import (
    Forecast,
    Line,
    Pace,
    Span,
    Wait,
    foresee,
    foresee_running,
    spread,
    told,
)
from imageloom.domain.runnable import Able, Demand, Verdict, judge
from imageloom.domain.tasks import Eta, Moments, Outlook, Status, Task
from imageloom.settings import Settings
from imageloom.store import forecasts, workers
from imageloom.store.forecasts import Foretold, Running, Waiting
from imageloom.store.pool import Connection
from imageloom.task_types.registry import QUEUES, ROW_QUEUES
from imageloom.task_types.training.spec import NAME as TRAINING

AGE_LIMIT = 1.0  # seconds that a look at queues and workers serves for
PACES_AGE_LIMIT = 5.0  # the same of paces, which change slowly
# Before a task is called one that nothing can run: a worker that has just come must count.
REFUSAL_AGE_LIMIT = 0.2


_Place = tuple[str, str | None, float | None, int]  # queue, pace, units and how many are ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Queues and workers at one moment, `at` by the database and `seen` by our own clock."""

    at: datetime
    seen: float
    workers: Sequence[_Serving]
    models: dict[str, Model]
    running: Sequence[Running]
    waiting: Sequence[Waiting]
    paces: dict[str, Pace]
    told: dict[_Place, tuple[Wait, Forecast] | None] = field(default_factory=dict, compare=False)

    @property
    def now(self) -> datetime:
        """The database's time."""
        return self.at + timedelta(seconds=time.monotonic() - self.seen)

    def judge(self, task: Task) -> Verdict:
        """Return whether a live worker can ever run the task."""
        demand = _demand(task, self.models)
        return judge(demand, [each.able for each in self.workers], self.models.values())

    def foresee(self, task: Task) -> Wait | None:
        """Return the wait of a pending task whose position is known, by arithmetic alone."""
        pace, ahead = self.pace_of(task), task.queue_position or 0
        company = self.company(task.type, ahead=ahead)
        seconds = _seconds(pace, task.units, company)
        return foresee(
            self._line(task.type, company, like=seconds),
            ahead=ahead,
            seconds=seconds,
            beside=pace.beside_seconds if pace else 0.0,
        )

    def tell(self, task: Task) -> tuple[Wait, Forecast] | None:
        """Return what `foresee` does and how it should be told; worked out once for each place.

        It looks through hundreds of earlier forecasts, which is a tenth of a submission.
        """
        place = (task.type, task.pace, task.units, task.queue_position or 0)
        if place not in self.told:
            wait = self.foresee(task)
            self.told[place] = None if wait is None else (wait, told(wait, self.pace_of(task)))
        return self.told[place]

    def foresee_running(self, task: Task) -> Span | None:
        """Return the seconds in which a running task finishes."""
        pace, company = self.pace_of(task), self.company(task.type, ahead=0)
        needed = _seconds(pace, task.units, company)
        if pace is None or needed is None:
            return None
        line = self._line(task.type, company, like=needed)
        others = [
            self._left(each, line.mean or needed, company)
            for each in self.running
            if each.queue == task.type and each.id != task.id
        ]
        left = foresee_running(
            line,
            others=others,
            seconds=needed * (1 - task.progress),
            beside=pace.beside_seconds,
        )
        return None if left is None else spread(left, pace.finishes)

    def pace_of(self, task: Task) -> Pace | None:
        """Return how fast tasks like this one went."""
        return None if task.pace is None else self.paces.get(task.pace)

    def company(self, queue: str, *, ahead: int) -> float:
        """Return how many tasks will share a device with one that so many others come before."""
        serving = self._serving(queue)
        running = sum(1 for each in self.running if each.queue == queue)
        if not serving:
            return 1.0
        return max(1.0, min(_slots(queue, serving), running + ahead + 1) / len(serving))

    def _serving(self, queue: str) -> list[_Serving]:
        return [each for each in self.workers if queue in each.able.queues and each.takes]

    def _line(self, queue: str, company: float, *, like: float | None) -> Line:
        """Return a queue; where nobody was seen, who came since is `like` the one asked of."""
        serving = self._serving(queue)
        there = {each.queue for each in self.running} | {each.queue for each in self.waiting}
        mean = self._mean(queue, company) if queue in there else like
        running = tuple(
            self._left(each, mean or 0.0, company) for each in self.running if each.queue == queue
        )
        return Line(
            slots=_slots(queue, serving),
            devices=len(serving),
            share=self._share(queue, serving),
            running=running,
            mean=mean,
        )

    def _mean(self, queue: str, company: float) -> float | None:
        """Return the device seconds that a waiting task of a queue needs on average."""
        seconds, count = 0.0, 0
        for each in self.waiting:
            pace = None if each.pace is None else self.paces.get(each.pace)
            if each.queue == queue and pace is not None and each.measured:
                seconds += each.units * pace.unit_seconds(company)
                count += each.measured
        if not count:
            known = [
                needed
                for each in self.running
                if each.queue == queue
                and (pace := self.paces.get(each.pace or "")) is not None
                and (needed := _seconds(pace, each.units, company)) is not None
            ]
            seconds, count = sum(known), len(known)
        return seconds / count if count else None

    def _left(self, running: Running, mean: float, company: float) -> float:
        """Return the device seconds that a running task still needs."""
        needed = _seconds(self.paces.get(running.pace or ""), running.units, company)
        return (mean if needed is None else needed) * (1 - running.progress)

    def _share(self, queue: str, serving: Sequence[_Serving]) -> float:
        """Return what a queue gets of the time of the devices that serve it.

        A training gets its share of a device that has pictures to make, and all of an idle one.
        Queues of pictures share the rest equally, as far as they have work.
        """
        alive = {each.queue for each in self.running} | {each.queue for each in self.waiting}
        alive &= {name for each in serving for name in each.able.queues}
        others = alive - {queue, TRAINING}
        ration = max((each.training_share for each in serving), default=0.0)
        if queue == TRAINING:
            return ration if others else 1.0
        left = 1 - ration if TRAINING in alive else 1.0
        return left / (1 + len(others))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Serving:
    """A live worker: what it is able to, and how many tasks share its device."""

    able: Able
    slots: int
    takes: bool
    training_share: float


class Outlooks:
    """The looks of one process, shared by all who ask."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = asyncio.Lock()
        self._scene: Scene | None = None
        self._paces: dict[str, tuple[float, Pace | None]] = {}

    def forget(self) -> None:
        """Make the next look a fresh one."""
        self._scene = None
        self._paces = {}

    async def look(
        self, conn: Connection, names: Iterable[str | None] = (), *, age: float = AGE_LIMIT
    ) -> Scene:
        """Return the scene as of `age` seconds ago at most, with the paces of those names in it.

        Five queries where nobody has looked lately, none where somebody has.
        """
        async with self._lock:
            scene = self._scene
            if scene is None or time.monotonic() - scene.seen > age:
                scene = await self._read(conn)
            wanted = {name for name in names if name is not None} - self._fresh()
            if wanted:
                await self._read_paces(conn, wanted)
                scene = replace(scene, paces=self._known(), told={})
            self._scene = scene
            return scene

    async def _read(self, conn: Connection) -> Scene:
        at = await forecasts.now(conn)
        seen = time.monotonic()
        lease = timedelta(seconds=self._settings.lease_seconds)
        found = await workers.list_all(conn, lease=lease)
        running = await forecasts.list_running(conn)
        waiting = await forecasts.sum_waiting(conn, QUEUES)
        named = [each.pace for each in running] + [each.pace for each in waiting]
        names = {name for name in named if name is not None}
        if stale := names - self._fresh():
            await self._read_paces(conn, stale)
        return Scene(
            at=at,
            seen=seen,
            workers=[
                _Serving(
                    able=Able(
                        queues=each.queues,
                        memory_bytes=each.memory_bytes,
                        lacking=each.lacking,
                        serves=each.serves,
                    ),
                    slots=each.slots or self._settings.device_tasks,
                    takes=each.status != "unhealthy",
                    training_share=self._settings.training_share,
                )
                for each in found
                # One that drains takes nothing any more; one that is unhealthy may be well soon.
                if each.alive and each.status != "draining"
            ],
            models=dict(await read_models(conn)),
            running=running,
            waiting=waiting,
            paces=self._known(),
        )

    async def _read_paces(self, conn: Connection, names: set[str]) -> None:
        found = await forecasts.read_paces(conn, names)
        now = time.monotonic()
        self._paces |= {name: (now, found.get(name)) for name in names}

    def _fresh(self) -> set[str]:
        now = time.monotonic()
        # One that was not known may be by now.
        return {
            name
            for name, (at, pace) in self._paces.items()
            if now - at < (AGE_LIMIT if pace is None else PACES_AGE_LIMIT)
        }

    def _known(self) -> dict[str, Pace]:
        return {name: pace for name, (_, pace) in self._paces.items() if pace is not None}


async def with_outlooks(outlooks: Outlooks, conn: Connection, tasks: Sequence[Task]) -> list[Task]:
    """Return tasks with what lies before those that are not over; their positions are known."""
    live = [task for task in tasks if not task.status.terminal]
    if not live:
        return list(tasks)
    scene = await outlooks.look(conn, {task.pace for task in live})
    found = {task.id: _outlook(scene, task) for task in live}
    if any(each.verdict is not None and not each.verdict.runnable for each in found.values()):
        scene = await outlooks.look(conn, age=REFUSAL_AGE_LIMIT)
        found = {task.id: _outlook(scene, task) for task in live}
    return [replace(task, outlook=found.get(task.id)) for task in tasks]


async def note_forecasts(outlooks: Outlooks, conn: Connection, made: Sequence[Task]) -> None:
    """Write down what is told of tasks just made, to be held against what becomes of them.

    Nothing where nothing can be told.
    """
    scene = await outlooks.look(conn, {task.pace for task in made})
    told = [each for task in made if (each := _foretold(scene, task)) is not None]
    if told:
        await forecasts.insert(conn, told)


def _foretold(scene: Scene, task: Task) -> Foretold | None:
    found, pace = scene.tell(task), scene.pace_of(task)
    if found is None:
        return None
    unit_seconds = None
    if pace is not None:
        unit_seconds = pace.unit_seconds(scene.company(task.type, ahead=task.queue_position or 0))
    wait, forecast = found
    return Foretold(task=task, wait=wait, forecast=forecast, unit_seconds=unit_seconds)


def _outlook(scene: Scene, task: Task) -> Outlook:
    now = scene.now
    if task.status is Status.RUNNING:
        finish = _moments(now, scene.foresee_running(task))
        return Outlook(eta=None if finish is None else Eta(start=None, finish=finish))
    verdict = scene.judge(task)
    found = scene.tell(task) if verdict.runnable else None
    if found is None:
        return Outlook(eta=None, verdict=verdict)
    _, forecast = found
    eta = Eta(start=_moments(now, forecast.start), finish=_moments(now, forecast.finish))
    return Outlook(eta=eta, verdict=verdict)


def _moments(now: datetime, span: Span | None) -> Moments | None:
    if span is None:
        return None
    return Moments(p50=now + timedelta(seconds=span.p50), p90=now + timedelta(seconds=span.p90))


def _demand(task: Task, models: dict[str, Model]) -> Demand:
    name = task.params.get("base_model" if task.type == TRAINING else "model")
    model = models.get(name) if isinstance(name, str) else None
    size = None
    width, height = task.params.get("width"), task.params.get("height")
    if task.type in ROW_QUEUES and width and height and model and model.native_size is None:
        size = (width, height)
    return Demand(queue=task.type, model=model, size=size)


def _slots(queue: str, serving: Sequence[_Serving]) -> int:
    return sum(each.slots if queue in ROW_QUEUES else 1 for each in serving)


def _seconds(pace: Pace | None, units: float | None, company: float) -> float | None:
    return None if pace is None or units is None else pace.unit_seconds(company) * units
