"""One child process of `serve`: started, replaced when it dies, and ended in order."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

import structlog

_log = structlog.get_logger("imageloom.serve")

RESTART_DELAY = 0.2  # seconds after a death; doubles while it keeps dying young
RESTART_DELAY_LIMIT = 30.0
YOUNG = 10.0  # seconds: a process that lived longer was not broken from the start


class Child:
    """A command that should run until `stop`."""

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        environment: Mapping[str, str],
        fds: Sequence[int],
    ) -> None:
        self.name = name
        self._command = [sys.executable, "-m", "imageloom.cli.main", *command]
        self._environment = dict(environment)
        self._fds = tuple(fds)
        self._process: asyncio.subprocess.Process | None = None

    async def keep(self) -> None:
        """Run the command, and again whenever it ends, until cancelled."""
        delay = RESTART_DELAY
        loop = asyncio.get_running_loop()
        while True:
            started = loop.time()
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                pass_fds=self._fds,
                # Never written to: its end tells the child that we are gone, however we went.
                stdin=subprocess.PIPE,
                # Ctrl-C is for `serve` alone, which then ends its children in order.
                start_new_session=True,
            )
            code = await self._process.wait()
            delay = RESTART_DELAY if loop.time() - started > YOUNG else delay
            _log.warning("process_died", process=self.name, code=code, restart_in_s=delay)
            await asyncio.sleep(delay)
            delay = min(delay * 2, RESTART_DELAY_LIMIT)

    def restart(self) -> None:
        """Ask the process to end; `keep` then starts another."""
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)

    async def stop(self, *, within: float) -> None:
        """Ask the process to end, and kill it after `within` seconds. `keep` must be cancelled."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.send_signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(within):
                await process.wait()
        except TimeoutError:
            _log.warning("process_killed", process=self.name, after_s=within)
            process.kill()
            await process.wait()
