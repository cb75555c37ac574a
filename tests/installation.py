"""Processes of an installation as many machines run them: each started alone, by its own role."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from conftest import wait_for

API_KEY = "installation-key"


@dataclass(frozen=True)
class Process:
    """A started command and the file that its logs go to."""

    running: subprocess.Popen[bytes]
    log: Path

    def stop(self) -> int:
        """Ask it to end and return its exit status."""
        self.running.send_signal(signal.SIGTERM)
        return self.running.wait(timeout=60)


@contextmanager
def started(
    folder: Path, name: str, command: Sequence[str], environment: Mapping[str, str]
) -> Iterator[Process]:
    """Run `imageloom COMMAND` until the block ends, in a folder of its own, as on a machine."""
    home = folder / name
    home.mkdir()
    log = folder / f"{name}.log"
    with log.open("ab") as errors:
        running = subprocess.Popen(
            [sys.executable, "-m", "imageloom.cli.main", *command],
            env={**clean_environment(), "IMAGELOOM_DATA_DIR": str(home), **environment},
            stdout=errors,
            stderr=errors,
        )
    process = Process(running, log)
    try:
        yield process
    finally:
        if running.poll() is None:
            process.stop()


def clean_environment() -> dict[str, str]:
    """Return the environment without settings of ours, and without those of a cloud."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("IMAGELOOM", "AWS_")) and name != "DATABASE_URL"
    }


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def client_of(port: int) -> httpx.Client:
    """Return a client with the key of an API process, once that answers."""
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{port}/api/v1",
        headers={"Authorization": f"Bearer {API_KEY}"},
        timeout=30,
    )

    def answers() -> bool:
        try:
            return client.get("/models").status_code == 200
        except httpx.TransportError:
            return False

    wait_for(answers, what="an API process")
    return client
