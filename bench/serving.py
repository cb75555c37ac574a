"""What benches share: a server of their own, and what machine this is."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import httpx

from imageloom.store.postgres import find_binaries

LOOK = 0.02  # seconds between two looks at whether the server is ready


def word(good: bool) -> str:
    """Return how a target is said to be met."""
    return "PASS" if good else "FAIL"


@contextmanager
def server() -> Iterator[httpx.Client]:
    """Run `imageloom serve` in a temporary folder and yield a client once its worker is ready."""
    with tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "serve.log"
        clean = {name: value for name, value in os.environ.items() if "IMAGELOOM" not in name}
        clean.pop("DATABASE_URL", None)
        own = {"DATA_DIR": f"{folder}/data", "API_KEY": "bench", "DEVICE": "cpu"}
        with log.open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "imageloom.cli.main", "serve", "--port", "0"],
                env=clean | {f"IMAGELOOM_{name}": value for name, value in own.items()},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            assert process.stdout is not None
            url = next((line.split()[-1] for line in process.stdout if "API" in line), None)
            if url is None:
                raise RuntimeError(f"serve did not start:\n{log.read_text()[-2000:]}")
            with httpx.Client(
                base_url=url, headers={"Authorization": "Bearer bench"}, timeout=60
            ) as client:
                while client.get(url.replace("/api/v1", "/readyz")).status_code != 200:
                    time.sleep(LOOK)
                yield client
        finally:
            process.terminate()
            process.wait(timeout=30)


def machine() -> str:
    """Return the lines that every bench begins with."""
    packages = ("torch", "diffusers", "procrastinate")
    postgres = subprocess.check_output([find_binaries(None) / "postgres", "-V"], text=True)
    return (
        f"machine    {platform.machine()}, {os.cpu_count()} cores, Python "
        f"{platform.python_version()}, one torch thread on each side\n"
        f"versions   {', '.join(f'{name} {version(name)}' for name in packages)}, "
        f"PostgreSQL {postgres.split()[2]}\n"
        f"load       {load()} at the start"
    )


def load() -> str:
    """Return the load averages of 1, 5 and 15 minutes."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())
