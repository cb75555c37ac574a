"""The worker process: claims tasks, has its device do them, and keeps its lease meanwhile."""

from __future__ import annotations

import asyncio
import secrets
import signal
import socket
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from os import getpid
from typing import Any

import psycopg
import structlog
from procrastinate import JobContext
from procrastinate.exceptions import ConnectorException

from imageloom import __version__
from imageloom.core.claim import claim, hand_back
from imageloom.core.maintain import maintain
from imageloom.core.services import Services
from imageloom.domain.errors import StoreUnavailable
from imageloom.store import workers
from imageloom.store.pool import transaction
from imageloom.store.reach import is_heard
from imageloom.store.workers import WorkerReport
from imageloom.task_types.registry import QUEUES, ROW_QUEUES
from imageloom.task_types.training.spec import NAME as TRAINING
from imageloom.worker.abilities import Sight
from imageloom.worker.account import Account
from imageloom.worker.attempt import AttemptTools, run_attempt
from imageloom.worker.device import DeviceOptions, DeviceProcess
from imageloom.worker.digests import WeightDigests
from imageloom.worker.gpu import GpuMeter
from imageloom.worker.handover import Handover
from imageloom.worker.lease import Lease
from imageloom.worker.metrics import MeteredFetcher, counts_kept
from imageloom.worker.room import Room
from imageloom.worker.traces import attempt_traced

_log = structlog.get_logger("imageloom.worker")

# Of the time to drain, what an attempt may take to keep what it has done; then it is handed back.
SAVE_SHARE = 0.8
# Of it, what an attempt that can keep nothing may take to end. Long ones wait for that too, and
# nobody beats for them meanwhile: so it is short, and well within a lease.
FINISH_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Running:
    """An attempt under way, and the way to keep what it has done."""

    job: asyncio.Task[object]
    handover: Handover


class Worker:
    """One device and the tasks that share it: many that draw rows, one of each other type.

    A task that was tried before is done alone: it may be what took the device down, and others
    would pay for it with their own attempts.
    """

    def __init__(self, services: Services, *, queues: tuple[str, ...]) -> None:
        settings = services.settings
        # Unique per start: a worker that comes back under its old name would renew the lease of
        # the tasks that its predecessor took to the grave.
        self.id = f"{socket.gethostname()}-{getpid()}-{secrets.token_hex(3)}"
        self._services = services
        self._queues = queues or QUEUES
        self._device = DeviceProcess(
            DeviceOptions(
                device=settings.device,
                threads=settings.device_threads,
                log_format=settings.log_format,
                speed=settings.speed,
                drill=settings.drill,
                cache_dir=settings.data_dir,
                silence=settings.device_silence,
                patience=settings.device_patience,
            ),
            services.meters,
        )
        self._gpu = GpuMeter(None)
        self._fetcher = MeteredFetcher(
            settings.fetch_allow, settings.fetch_timeout, meters=services.meters
        )
        self._draining = asyncio.Event()
        self._room = Room()
        self._lease = Lease(
            seconds=settings.lease_seconds,
            is_heard=lambda: is_heard(str(services.pool.conninfo)),
            clock=time.monotonic,
        )
        self._digests = WeightDigests()
        self._running: dict[str, _Running] = {}
        self._sight = Sight(services.pool, settings)
        services.queue.handle(self._handle)
        services.queue.take_only(lambda: self._sight.abilities.able)

    async def run(self) -> None:
        """Work until SIGTERM or SIGINT, then hand back what is not finished and leave."""
        loop = asyncio.get_running_loop()
        # Decoding, encoding and name look-ups block; asyncio's default has too few threads for it.
        loop.set_default_executor(ThreadPoolExecutor(32, thread_name_prefix="worker"))
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.drain)
        try:
            # A background task that fails ends the process: better a restart than half a worker.
            async with (
                counts_kept(self._services, self.id, self._queues),
                asyncio.TaskGroup() as group,
            ):
                background = [
                    group.create_task(self._device.keep(), name="device"),
                    group.create_task(maintain(self._services), name="maintain"),
                    group.create_task(self._report(), name="report"),
                    group.create_task(self._lease.keep_watch(), name="lease"),
                ]
                await self._consume()
                for task in background:
                    task.cancel()
        finally:
            await self._fetcher.aclose()
            with suppress(StoreUnavailable):
                async with transaction(self._services.pool, wait=2) as conn:
                    await workers.remove(conn, self.id)
            _log.info("worker_stopped", worker=self.id)

    def drain(self) -> None:
        """Take no more tasks and hand back those that run; `run` then returns."""
        if not self._draining.is_set():
            _log.info("draining", worker=self.id, tasks=list(self._running))
            self._draining.set()

    async def _consume(self) -> None:
        """Take jobs until drained; starts over where the queue lost its database.

        While there is no device process it takes none: other workers can do them meanwhile.
        """
        while await self._first(self._device.wait_ready(), self._draining.wait()):
            # Else the first job is not seen.
            await self._sight.look(memory_bytes=self._memory_bytes())
            consumers = {
                name: asyncio.create_task(self._consume_queue(name), name="consume")
                for name in self._queues
            }
            try:
                either = asyncio.wait(consumers.values(), return_when=asyncio.FIRST_COMPLETED)
                stop = self._first(self._device.wait_lost(), self._draining.wait())
                await self._first(either, stop)
            finally:
                lost = not self._draining.is_set() and not self._device.is_ready
                # A cancelled consumer beats no more. The one of trainings beats on while its
                # training is saved, and takes no other meanwhile.
                for name, consumer in consumers.items():
                    if lost or name != TRAINING:
                        consumer.cancel()
                if lost:
                    await self._end_by_themselves()
                await asyncio.gather(*(self._leave(each) for each in self._running.values()))
                # Once each: a second cancel would not wait for what is being handed back.
                if TRAINING in consumers and not lost:
                    consumers[TRAINING].cancel()
                for ended in await asyncio.gather(*consumers.values(), return_exceptions=True):
                    if isinstance(ended, psycopg.Error | ConnectorException):
                        _log.warning("queue_lost", error=str(ended))
                        await asyncio.sleep(1)
                    elif isinstance(ended, Exception):
                        raise ended

    async def _end_by_themselves(self) -> None:
        """Let attempts say that their device is gone.

        Who does something else yet has half a lease for it: nobody beats for it any more.
        """
        if jobs := [each.job for each in self._running.values()]:
            await asyncio.wait(jobs, timeout=self._services.settings.lease_seconds / 2)

    async def _leave(self, running: _Running) -> None:
        """Stop an attempt; on a drain, once it has kept what it can of its work.

        One that can keep nothing has a moment to end by itself: a deploy then redoes no short task.
        """
        if self._draining.is_set() and not running.handover.offered:
            within = FINISH_SHARE * self._services.settings.drain_timeout
            await asyncio.wait((running.job,), timeout=within)
        elif self._draining.is_set():
            saving = asyncio.create_task(running.handover.save(), name="save")
            within = SAVE_SHARE * self._services.settings.drain_timeout
            await asyncio.wait(
                (saving, running.job), timeout=within, return_when=asyncio.FIRST_COMPLETED
            )
            saving.cancel()
            # Where it failed, the device is gone, and the attempt says so itself.
            await asyncio.gather(saving, return_exceptions=True)
        running.job.cancel()

    async def _consume_queue(self, name: str) -> None:
        """Take the jobs of a queue until cancelled."""
        settings = self._services.settings
        await self._services.queue.app.run_worker_async(
            queues=[name],
            name=f"{self.id}-{name}",
            concurrency=settings.device_tasks if name in ROW_QUEUES else 1,
            install_signal_handlers=False,
            # Only an INSERT notifies: a job that is due later is found by polling.
            fetch_job_polling_interval=1,
            abort_job_polling_interval=1,
            update_heartbeat_interval=settings.heartbeat_interval,
            # The tasks of a pruned worker count as lost: nobody is pruned for a silence
            # that an outage of the database may explain.
            stalled_worker_timeout=24 * 3600,
            shutdown_graceful_timeout=settings.drain_timeout,
            delete_jobs="always",
        )

    async def _handle(self, context: JobContext, task_id: str) -> None:
        """Run one job: claim its task and do one attempt at it."""
        job_id = context.job.id
        if job_id is None:
            raise RuntimeError("a job without an id cannot be claimed")
        if self._draining.is_set() or not self._device.is_ready:
            # The job vanishes when this returns; the task needs another.
            await hand_back(self._services, task_id, job_id=job_id)
            return
        asked_at = time.time()
        claimed = await claim(self._services, task_id, job_id=job_id, worker=self.id)
        if claimed is None:
            return
        handover = Handover()
        current = asyncio.current_task()
        if current is not None:
            self._running[task_id] = _Running(job=current, handover=handover)
        tools = AttemptTools(
            services=self._services,
            device=self._device,
            fetcher=self._fetcher,
            handover=handover,
            room=self._room,
            digests=self._digests,
            account=Account(),
            lease=self._lease,
        )
        try:
            with attempt_traced(self._services.tracing, self._device, claimed, asked_at=asked_at):
                await run_attempt(tools, claimed)
        finally:
            self._running.pop(task_id, None)

    async def _report(self) -> None:
        """Tell the installation that this worker is alive, once it can work, and what it does."""
        await self._device.wait_ready()
        # Every process of this worker gets the same device.
        if self._device.info is not None:
            self._gpu = GpuMeter(self._device.info.uuid)
        while True:
            await self._sight.look(memory_bytes=self._memory_bytes())
            began = time.monotonic()
            try:
                async with transaction(self._services.pool, wait=2) as conn:
                    await workers.heartbeat(conn, self._state())
                self._lease.renew(at=began)
            except StoreUnavailable as exc:
                _log.warning("heartbeat_not_written", error=exc.message)
            await asyncio.sleep(self._services.settings.heartbeat_interval)

    def _state(self) -> WorkerReport:
        info = self._device.info
        able = self._sight.abilities
        status = "busy" if self._running else "idle"
        trouble = self._device.trouble
        if self._draining.is_set():
            status = "draining"
        elif trouble is not None:
            status = "unhealthy"
        return WorkerReport(
            id=self.id,
            host=socket.gethostname(),
            pid=getpid(),
            version=__version__,
            status=status,
            reason=trouble if status == "unhealthy" else None,
            queues=self._queues,
            device_kind=info.kind if info else None,
            device=info.name if info else "unknown",
            memory_bytes=self._memory_bytes(),
            memory_used_bytes=self._gpu.memory_used(),
            gpu_utilization=self._gpu.utilization(),
            models=self._device.models,
            tasks=tuple(self._running),
            slots=self._services.settings.device_tasks,
            serves=able.serves,
            lacking=able.lacking,
            too_large=able.too_large,
        )

    def _memory_bytes(self) -> int | None:
        """Return the memory of the device that is to be counted with."""
        measured = self._device.info.memory_bytes if self._device.info else None
        return self._services.settings.worker_memory or measured

    async def _first(
        self, work: Coroutine[Any, Any, object], stop: Coroutine[Any, Any, object]
    ) -> bool:
        """Wait for either and cancel the other; True where `work` ended and `stop` did not."""
        both = [asyncio.create_task(item) for item in (work, stop)]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            return not both[1].done()
        finally:
            for task in both:
                task.cancel()
            await asyncio.wait(both)
