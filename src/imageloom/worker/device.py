"""The parent's handle on its device process: start it, talk to it, notice its death, replace it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import structlog

from imageloom.core.meters import Meters
from imageloom.domain.drill import Drill
from imageloom.domain.errors import DeviceAway, DeviceLost
from imageloom.domain.messages import (
    HEADER_SIZE,
    Cancel,
    DeviceInfo,
    Done,
    Errored,
    Ping,
    Pong,
    Ready,
    Relieved,
    Residents,
    Run,
    Save,
    Spent,
    Stopped,
    ToDevice,
    ToParent,
    Usage,
    decode_for_parent,
    encode_frame,
    frame_length,
)
from imageloom.domain.metrics import DEVICE_RESTARTS, DEVICE_TIME, RELIEF, STEP_ROWS, STEPS
from imageloom.domain.speed import Speed
from imageloom.worker.liveness import PING_INTERVAL, Liveness

_log = structlog.get_logger("imageloom.worker")

# A step that does not end within this is wedged, or a model is loading: then the process goes.
STOP_TIMEOUT = 20.0  # seconds
# The same where a step may compile its network first, which takes a minute or more.
COMPILING_TIMEOUT = 600.0
RESTART_DELAY = 1.0  # seconds; grows with each start that did not become ready
RESTART_DELAY_LIMIT = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceOptions:
    """How the device process is started; compiled code is kept below `cache_dir`.

    `silence` is how many seconds it may give no sign of life, and `patience` how many more pass
    before it is ended for that.
    """

    device: str
    threads: int
    log_format: str
    speed: Speed
    cache_dir: Path
    drill: Drill = field(default_factory=Drill)
    silence: float = 10.0
    patience: float = 300.0

    @property
    def stop_timeout(self) -> float:
        """Return how many seconds a step may take before an attempt is dropped."""
        return STOP_TIMEOUT if self.speed.compile == "off" else COMPILING_TIMEOUT


class DeviceProcess:
    """A device process that is replaced whenever it dies. Use `keep` in a task group."""

    def __init__(self, options: DeviceOptions, meters: Meters) -> None:
        self._options = options
        self._meters = meters
        self._watched: dict[str, Callable[[Spent], None]] = {}
        self._ready = asyncio.Event()
        self._lost = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._attempts: dict[str, asyncio.Queue[ToParent | None]] = {}
        self.info: DeviceInfo | None = None
        self.models: tuple[str, ...] = ()
        self._liveness = self._new_liveness()

    @property
    def trouble(self) -> str | None:
        """Return why no work can be expected of the process now, None where all seems well."""
        if not self.is_ready:
            return "the device process is starting"
        return self._liveness.trouble(kind=self.info.kind if self.info else None)

    @property
    def is_ready(self) -> bool:
        """Whether work can be sent now."""
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        """Wait until the device process has imported torch and can work."""
        await self._ready.wait()

    async def wait_lost(self) -> None:
        """Wait until the process that can work is gone."""
        await self._lost.wait()

    async def keep(self) -> None:
        """Run a device process, and another one after it, until cancelled; then kill it."""
        delay = RESTART_DELAY
        try:
            while True:
                became_ready = await self._run_once()
                delay = RESTART_DELAY if became_ready else min(delay * 2, RESTART_DELAY_LIMIT)
                _log.warning("device_died", restart_in_s=delay)
                self._meters.count(DEVICE_RESTARTS)
                await asyncio.sleep(delay)
        finally:
            self.kill()

    async def run(self, message: Run) -> AsyncGenerator[ToParent]:
        """Send an attempt and yield what the device says of it; the last is Done or Errored.

        After `stop` it ends with Stopped. Raises: DeviceLost where the process dies before the end,
        DeviceAway where there is none.
        """
        if not self.is_ready:
            raise DeviceAway("the device process is starting")
        incoming: asyncio.Queue[ToParent | None] = asyncio.Queue()
        self._attempts[message.key] = incoming
        try:
            await self._send(message)
            while True:
                answer = await incoming.get()
                if answer is None:
                    raise DeviceLost("the device process died during the task")
                yield answer
                if isinstance(answer, Done | Errored | Stopped):
                    return
        finally:
            self._attempts.pop(message.key, None)

    async def stop(self, key: str) -> Usage | None:
        """Make the device drop an attempt; kill the process where it does not listen in time.

        Returns what the attempt had of the device, None where that is not known any more.
        """
        incoming = self._attempts.setdefault(key, asyncio.Queue())
        try:
            await self._send(Cancel(key=key))
            async with asyncio.timeout(self._options.stop_timeout):
                while True:
                    answer = await incoming.get()
                    if answer is None:
                        return None
                    if isinstance(answer, Done | Errored | Stopped):
                        return answer.usage
        except TimeoutError:
            _log.warning("device_does_not_listen", key=key, after_s=self._options.stop_timeout)
            self.kill()
            return None
        except DeviceLost:
            return None
        finally:
            self._attempts.pop(key, None)

    @contextmanager
    def watched(self, key: str, tell: Callable[[Spent], None]) -> Iterator[None]:
        """Have `tell` hear what the device does for an attempt, inside the block."""
        self._watched[key] = tell
        try:
            yield
        finally:
            del self._watched[key]

    async def save(self, key: str) -> None:
        """Ask for a checkpoint of an attempt; it comes through `run`. Raises: DeviceLost."""
        await self._send(Save(key=key))

    def kill(self) -> None:
        """End the process now; what ran on it is lost."""
        if self._process is not None and self._process.returncode is None:
            # Not Process.kill: it takes the exit status of one that has just died, and asyncio,
            # which waits for that status, warns of an unknown child.
            with suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def _run_once(self) -> bool:
        """Start a process and serve it until it dies; True where it became ready."""
        ours, theirs = socket.socketpair()
        # A frame of a large picture is megabytes: the default 64 KiB would make reading it slow.
        reader, writer = await asyncio.open_connection(sock=ours, limit=2**20)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command(theirs.fileno()),
                pass_fds=(theirs.fileno(),),
                env=_environment(self._options.cache_dir),
            )
        finally:
            theirs.close()
        self._writer = writer
        self._liveness = self._new_liveness()
        asking = asyncio.create_task(self._ask(writer), name="ask")
        try:
            await self._listen(reader)
        finally:
            asking.cancel()
            was_ready = self._ready.is_set()
            self._ready.clear()
            self._lost.set()
            self._writer = None
            self.models = ()
            writer.close()
            self.kill()
            await self._process.wait()
            for incoming in self._attempts.values():
                incoming.put_nowait(None)
        return was_ready

    async def _ask(self, writer: asyncio.StreamWriter) -> None:
        """Ask the process how it is, once a second from when it is ready, and log what is new.

        One that stays in trouble is ended. Its seconds are counted in questions, not timed: where
        the parent itself was stopped, the device is not to blame.
        """
        await self._ready.wait()
        before, in_trouble = None, 0.0
        while True:
            if self._liveness.ask():
                writer.write(encode_frame(Ping()))
            trouble = self.trouble
            if trouble and not before:
                _log.warning("device_in_trouble", reason=trouble)
            elif before and not trouble:
                _log.info("device_is_well_again")
            before = trouble
            in_trouble = in_trouble + PING_INTERVAL if trouble else 0.0
            if in_trouble > self._options.patience:
                _log.error("device_ended", reason=trouble)
                self.kill()
                return
            await asyncio.sleep(PING_INTERVAL)

    def _new_liveness(self) -> Liveness:
        return Liveness(
            silence=self._options.silence, compiles=self._options.speed.compile != "off"
        )

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                length = frame_length(await reader.readexactly(HEADER_SIZE))
                self._dispatch(decode_for_parent(await reader.readexactly(length)))
        except (asyncio.IncompleteReadError, ConnectionError):
            return

    def _dispatch(self, message: ToParent) -> None:
        match message:
            case Ready(device=info):
                self.info = info
                self._ready.set()
                self._lost.clear()
                _log.info("device_ready", device=info.name, kind=info.kind)
            case Residents(models=models):
                self.models = models
            case Pong():
                self._liveness.answered(message)
            case Spent():
                self._note(message)
            case Relieved(rung=rung):
                self._meters.count(RELIEF, rung=rung)
            case _:
                if (incoming := self._attempts.get(message.key)) is not None:
                    incoming.put_nowait(message)

    def _note(self, spent: Spent) -> None:
        self._meters.count(DEVICE_TIME, max(0.0, spent.device_seconds), type=spent.task_type)
        if spent.phase == "denoise":
            self._meters.observe(STEPS, spent.seconds)
            self._meters.observe(STEP_ROWS, spent.rows)
        for key in spent.keys:
            if (tell := self._watched.get(key)) is not None:
                tell(spent)

    async def _send(self, message: ToDevice) -> None:
        if self._writer is None:
            raise DeviceLost("the device process is not there")
        try:
            self._writer.write(encode_frame(message))
            await self._writer.drain()
        except ConnectionError as exc:
            raise DeviceLost("the device process died during the task") from exc

    def _command(self, fd: int) -> list[str]:
        return [
            sys.executable,
            "-m",
            "imageloom.device",
            f"--fd={fd}",
            f"--device={self._options.device}",
            f"--threads={self._options.threads}",
            f"--log-format={self._options.log_format}",
            f"--speed={msgspec.json.encode(self._options.speed).decode()}",
            f"--drill={msgspec.json.encode(self._options.drill).decode()}",
        ]


def _environment(cache_dir: Path) -> dict[str, str]:
    """The device process reads weights from this machine only, whatever a library would like."""
    return {
        **os.environ,  # noqa: TID251  # passed on, not read
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        # It warns of torchvision, which nothing here needs.
        "TRANSFORMERS_VERBOSITY": "error",
        # glibc gives blocks of 128 KiB back to the system and asks for them again: at eight rows a
        # tenth of a denoising step was page faults. Weights are larger and do go back.
        "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
        "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
        # Torch's own place is below /tmp, which a restart of the machine empties.
        "TORCHINDUCTOR_CACHE_DIR": str(cache_dir.absolute() / "compiled"),
    }
