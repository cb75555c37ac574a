"""Measure what a workflow adds to each of its steps, beside DBOS on the same PostgreSQL.

A chain of ten steps that do nothing. Prints one screen; `README.md` beside this file says what each
line means. Nothing here fails: a target that is missed is printed as FAIL.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

import psycopg
from procrastinate import JobContext

from imageloom.core.claim import claim
from imageloom.core.services import Services, open_services
from imageloom.core.settle import settle
from imageloom.core.workflows import RunInput, create, find_run, read, start
from imageloom.domain.tasks import Completed, Output, OutputImage
from imageloom.domain.workflow import Draft, StepSpec
from imageloom.logs import configure_logs
from imageloom.settings import Settings
from imageloom.storage.keys import output_key
from imageloom.store.migrate import migrate
from imageloom.store.pool import transaction
from imageloom.store.postgres import EmbeddedPostgres, find_binaries
from imageloom.task_types.registry import TASK_TYPES

STEPS = 10
TARGET = 15.0  # ms, p50
TENANT = "bench"
QUEUE = "bench"
AT_ONCE = 4
WARM_UP = 3  # chains: a fresh worker of DBOS takes 1.5 times as long for its first two
LOOK = 0.05  # seconds between two looks at a run of ours; no part of any figure
CHAIN_SECONDS = 30.0  # what one chain may take
BENCH_SECONDS = 175  # what everything may take
# Seconds between two looks of a DBOS queue, and of who waits for a result: what it does unless
# told, and what was quickest of 0.1 to 8 ms on a quiet machine. That keeps a core busy.
USUAL_POLL, BEST_POLL = 1.0, 0.0005

Chain = Sequence[float]  # the milliseconds of each step, first to last
RunChain = Callable[[], Awaitable[Chain]]
Turn = Callable[[], AbstractAsyncContextManager[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One way to run the chain. `turn` makes it ready for a measurement, and quiet again after."""

    name: str
    run: RunChain
    turn: Turn = nullcontext


def main() -> None:
    """Run the chains and print them; or, started by the bench itself, be one of its workers."""
    role, *arguments = sys.argv[1:] or [""]
    if role in _WORKERS:
        _WORKERS[role](*arguments)
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=8, help="turns of each side")
    parser.add_argument("--chains", type=int, default=4, help="chains in a turn, once warm")
    parser.add_argument("--poll", type=float, default=BEST_POLL * 1000, help="ms, of DBOS's queue")
    options = parser.parse_args()
    # As an exception, so that what was started is stopped.
    for number in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(number, _leave)
    signal.alarm(BENCH_SECONDS)
    configure_logs("text")
    with tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True) as folder:
        asyncio.run(_bench(Path(folder), options))


def _leave(number: int, _frame: object) -> NoReturn:
    sys.exit(f"ended by {signal.Signals(number).name}")


async def _bench(folder: Path, options: argparse.Namespace) -> None:
    print(_machine())
    with EmbeddedPostgres(folder / "pg") as server:
        url = server.start()
        await migrate(url)
        async with _imageloom(url, folder) as ours:
            if find_spec("dbos") is None:
                print("\nno DBOS here to compare with; `pip install 'imageloom[bench]'` brings it")
                await _compare([ours], options)
            else:
                peer_url = _new_database(url, "dbos")
                async with _dbos(peer_url, folder, poll=options.poll / 1000) as peers:
                    in_process, fast_queue, usual_queue = peers
                    await _compare([ours, in_process, fast_queue], options)
                    print(f"\none chain through DBOS's queue, looking every {USUAL_POLL:.0f} s")
                    async with usual_queue.turn():
                        _report_line(usual_queue.name, await usual_queue.run())
    print(f"\nload       {_load()} at the end")


async def _compare(sides: Sequence[Side], options: argparse.Namespace) -> None:
    """Give each side its turns, one side after the other, and print what came of them."""
    turns = [
        [await _turn(side, chains=options.chains) for side in sides] for _ in range(options.turns)
    ]
    _report_turns([side.name for side in sides], turns)
    print(f"\n{AT_ONCE} chains at once; imageloom's worker does one task at a time all the same")
    for side in sides:
        await _report_at_once(side, rounds=3)


async def _turn(side: Side, *, chains: int) -> Chain:
    """Return the times of all steps of some chains, one chain after another."""
    async with side.turn():
        for _ in range(WARM_UP):
            await side.run()
        return [step for _ in range(chains) for step in await side.run()]


def _report_turns(names: Sequence[str], turns: Sequence[Sequence[Chain]]) -> None:
    """Print what every turn of every side came to, and what all turns together."""
    print(f"\na chain of {STEPS} steps that do nothing, ms per step, p50 of each turn")
    print("  " + "".join(f"{name:>18}" for name in names))
    for turn in turns:
        print("  " + "".join(f"{statistics.median(steps):18.2f}" for steps in turn))
    print("\nall steps, one chain at a time")
    for name, of_side in zip(names, zip(*turns, strict=True), strict=True):
        _report_line(name, [step for steps in of_side for step in steps])
    p50 = statistics.median(step for turn in turns for step in turn[0])
    print(f"  target     p50 {TARGET:.0f} ms   {'PASS' if p50 <= TARGET else 'FAIL'}")
    for number, name in enumerate(names[1:], start=1):
        ratios = [statistics.median(turn[0]) / statistics.median(turn[number]) for turn in turns]
        print(
            f"  {names[0]} / {name}: {statistics.median(ratios):.2f}"
            f"   range {min(ratios):.2f} to {max(ratios):.2f}"
        )


async def _report_at_once(side: Side, *, rounds: int) -> None:
    steps: list[float] = []
    async with side.turn():
        for _ in range(WARM_UP):
            await side.run()
        for _ in range(rounds):
            for chain in await asyncio.gather(*(side.run() for _ in range(AT_ONCE))):
                steps += chain
    _report_line(side.name, steps)


def _report_line(name: str, steps: Chain) -> None:
    p95 = statistics.quantiles(steps, n=20, method="inclusive")[18]
    print(f"  {name:18} p50 {statistics.median(steps):8.2f} ms   p95 {p95:8.2f} ms")


@asynccontextmanager
async def _imageloom(url: str, folder: Path) -> AsyncIterator[Side]:
    """Yield our side: the verbs here as in the API, the queue's consumer in a worker process."""
    async with open_services(Settings(data_dir=folder), url, pool_timeout=5) as services:
        with _worker("consume", url, folder):
            yield Side(name="imageloom", run=lambda: _our_chain(services))


async def _our_chain(services: Services) -> Chain:
    """Run a workflow and return its steps' times by the database's clock, from the run's start."""
    config = {"operation": "adjust", "brightness": 1.1}
    names = [f"step-{number}" for number in range(STEPS)]
    first = StepSpec(name=names[0], type="processing", config=config)
    rest = [
        StepSpec(name=name, type="processing", config=config, depends_on=(before,))
        for before, name in pairwise(names)
    ]
    draft = Draft(
        name="chain", description=None, origin_instance=None, steps=(first, *rest), input=None
    )
    made = await create(services, draft, tenant=TENANT)
    picture = RunInput(values={"image_url": "https://example.com/dress.jpg"}, inputs={})
    await start(services, made.workflow.id, tenant=TENANT, start_with=picture)
    async with asyncio.timeout(CHAIN_SECONDS):
        while True:
            async with transaction(services.pool) as conn:
                run = await find_run(conn, made.workflow.id, tenant=TENANT, run_id=made.run.id)
            if run.status.over:
                break
            await asyncio.sleep(LOOK)
    done = await read(services, made.workflow.id, tenant=TENANT)
    times = [run.started_at, *(step.completed_at for step in done.steps)]
    known = [moment.timestamp() for moment in times if moment is not None]
    if len(known) != STEPS + 1:
        raise RuntimeError(f"the chain is {run.status.value}: {run.error}")
    return [(end - begin) * 1000 for begin, end in pairwise(known)]


def _consume(url: str, folder: str) -> None:
    """Be a worker without a device: claim each task and say that its picture is made."""
    asyncio.run(_consume_until_told(url, Path(folder)))


async def _consume_until_told(url: str, folder: Path) -> None:
    configure_logs("json")
    settings = Settings(data_dir=folder)
    async with open_services(settings, url, pool_timeout=5) as services:

        async def handle(context: JobContext, task_id: str) -> None:
            assert context.job.id is not None
            claimed = await claim(services, task_id, job_id=context.job.id, worker="bench")
            if claimed is not None:
                made = Completed(output=Output(images=(_picture(task_id, claimed.attempt),)))
                await settle(services, task_id, attempt=claimed.attempt, outcome=made)

        services.queue.handle(handle)
        consumer = asyncio.create_task(
            services.queue.app.run_worker_async(  # with what `imageloom.worker.main` gives it
                queues=list(TASK_TYPES),
                name="bench",
                concurrency=1,
                install_signal_handlers=False,
                fetch_job_polling_interval=1,
                abort_job_polling_interval=1,
                update_heartbeat_interval=settings.heartbeat_interval,
                stalled_worker_timeout=24 * 3600,
                shutdown_graceful_timeout=settings.drain_timeout,
                delete_jobs="always",
            )
        )
        print("ready", flush=True)
        told = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
        await asyncio.wait([consumer, told], return_when=asyncio.FIRST_COMPLETED)
        consumer.cancel()
        await asyncio.wait([consumer])


def _picture(task_id: str, attempt: int) -> OutputImage:
    return OutputImage(
        key=output_key(task_id, attempt, 0, "png"),
        seed=None,
        width=1024,
        height=1024,
        media_type="image/png",
        size=1_000_000,
        sha256="0" * 64,
    )


@asynccontextmanager
async def _dbos(url: str, folder: Path, *, poll: float) -> AsyncIterator[tuple[Side, Side, Side]]:
    """Yield DBOS's ways, its workflows in this process.

    In process: a step is called and its result recorded. Through a queue: a worker process does it.
    There the queue and the waiting workflow both poll, every `poll` seconds or, last, as they do
    unless told. That worker lives for a turn, so that it takes no time from the other sides.
    A step receives and returns the record of a picture.
    """
    app, queued_step = _dbos_app(url, name="flows", queues=[])
    interval = USUAL_POLL

    @app.step(name="step")
    def step(picture: dict[str, Any]) -> dict[str, Any]:
        return picture

    @app.workflow(name="plain")
    def plain() -> Chain:
        return _timed(step)

    @app.workflow(name="queued")
    def queued() -> Chain:
        def through_queue(picture: dict[str, Any]) -> Any:
            handle = app.enqueue_workflow(QUEUE, queued_step, picture)
            return handle.get_result(polling_interval_sec=interval)

        return _timed(through_queue)

    def run(workflow: Callable[[], Chain]) -> Chain:
        steps: Chain = app.start_workflow(workflow).get_result()
        return steps

    @asynccontextmanager
    async def worker(seconds: float) -> AsyncIterator[None]:
        nonlocal interval
        interval = seconds
        # In a thread: DBOS's own async verbs take the event loop's executor over, and close it.
        await asyncio.to_thread(app.register_queue, QUEUE, polling_interval_sec=seconds)
        with _worker("dequeue", url, folder):
            yield

    def queue_side(name: str, seconds: float) -> Side:
        return Side(
            name=name,
            run=lambda: asyncio.to_thread(run, queued),
            turn=lambda: worker(seconds),
        )

    try:
        app.launch()
        yield (
            Side(name="DBOS, in process", run=lambda: asyncio.to_thread(run, plain)),
            queue_side("DBOS, queue", poll),
            queue_side("DBOS, as it comes", USUAL_POLL),
        )
    finally:
        app.destroy()


def _timed(step: Callable[[dict[str, Any]], dict[str, Any]]) -> Chain:
    """Run the chain inside a DBOS workflow and return its steps' times, from its first line."""
    picture = asdict(_picture("task", 1))
    moments = [time.perf_counter()]
    for _ in range(STEPS):
        picture = step(picture)  # when this returns, the result is recorded
        moments.append(time.perf_counter())
    return [(end - begin) * 1000 for begin, end in pairwise(moments)]


def _dequeue(url: str, _folder: str) -> None:
    """Be a DBOS worker: run the steps that are queued."""
    app, _ = _dbos_app(url, name="steps", queues=[QUEUE])
    app.launch()
    print("ready", flush=True)
    sys.stdin.read()
    app.destroy()


def _dbos_app(url: str, *, name: str, queues: list[str]) -> tuple[Any, Any]:
    """Return DBOS, not launched, and the step that goes through its queue: a workflow of its own.

    `queues` are those that this process works on.
    """
    from dbos import DBOS

    DBOS(
        config={
            "name": "bench",
            "system_database_url": url,
            "executor_id": name,
            "application_version": "1",
            "log_level": "WARNING",
        }
    )
    DBOS.listen_queues(queues)

    @DBOS.workflow(name="queued-step")
    def queued_step(picture: dict[str, Any]) -> dict[str, Any]:
        return picture

    return DBOS, queued_step


@contextmanager
def _worker(role: str, url: str, folder: Path) -> Iterator[None]:
    """Run this file as a worker of that role, from when it is ready. It ends when we do."""
    log = folder / f"{role}.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, __file__, role, url, str(folder)],
            stdin=subprocess.PIPE,  # closed, however this process ends
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if not any(line == "ready\n" for line in process.stdout):
            raise RuntimeError(f"the worker did not start:\n{log.read_text()[-2000:]}")
        yield
    finally:
        process.stdin.close()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _new_database(url: str, name: str) -> str:
    """Add a database to the server and return its URL."""
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(psycopg.sql.SQL("create database {}").format(psycopg.sql.Identifier(name)))
    before, _, after = url.rpartition("/imageloom")
    return f"{before}/{name}{after}"


def _machine() -> str:
    packages = [name for name in ("procrastinate", "psycopg", "dbos") if find_spec(name)]
    postgres = subprocess.check_output([find_binaries(None) / "postgres", "-V"], text=True)
    return (
        f"machine    {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}\n"
        f"versions   {', '.join(f'{name} {version(name)}' for name in packages)}, "
        f"PostgreSQL {postgres.split()[2]}\n"
        f"load       {_load()} at the start"
    )


def _load() -> str:
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


_WORKERS = {"consume": _consume, "dequeue": _dequeue}

if __name__ == "__main__":
    main()
