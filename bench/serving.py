"""What benches share: a server of their own, what they ask of it, and what machine this is."""

from __future__ import annotations

import io
import os
import platform
import subprocess
import sys
import tempfile
import time
import uuid
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

from imageloom.store.postgres import find_binaries

_SERVE = (sys.executable, "-m", "imageloom.cli.main", "serve")
LOOK = 0.02  # seconds between two looks at whether the server is ready


def word(good: bool) -> str:
    """Return how a target is said to be met."""
    return "PASS" if good else "FAIL"


@contextmanager
def server(*, workers: int = 1, **settings: str) -> Iterator[httpx.Client]:
    """Run `imageloom serve` in a temporary folder and yield a client once a worker is ready.

    `settings` are variables without their prefix, such as DEVICE_TASKS.
    """
    with tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True) as folder:
        log = Path(folder) / "serve.log"
        clean = {name: value for name, value in os.environ.items() if "IMAGELOOM" not in name}
        clean.pop("DATABASE_URL", None)
        own = {"DATA_DIR": f"{folder}/data", "API_KEY": "bench", "DEVICE": "cpu", **settings}
        with log.open("w") as errors:
            process = subprocess.Popen(
                [*_SERVE, "--port", "0", "--workers", str(workers)],
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


def finish(client: httpx.Client, body: dict[str, Any]) -> dict[str, Any]:
    """Create a generation and return it completed: the server answers when it is over.

    Where that takes longer than the wait, as a cold start may, the same request waits again.
    """
    headers = {"Prefer": "wait=30", "Idempotency-Key": uuid.uuid4().hex}
    task: dict[str, Any] = {"status": "pending"}
    while task["status"] in ("pending", "running"):
        answer = client.post("/tasks/generation", json=body, headers=headers)
        task = answer.raise_for_status().json()
    if task["status"] != "completed":
        raise RuntimeError(f"the task is {task['status']}: {task['error']}")
    return task


def upload_dataset(client: httpx.Client, *, pictures: int, caption: str) -> str:
    """Upload gradients of 96 px as a data set: what they show is no part of any figure."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for index in range(pictures):
            ramp = Image.linear_gradient("L").resize((96, 96)).rotate(index * 90 / pictures)
            picture = io.BytesIO()
            Image.merge("RGB", (ramp, ramp.rotate(90), ramp.rotate(180))).save(picture, "PNG")
            archive.writestr(f"{index:02d}.png", picture.getvalue())
            archive.writestr(f"{index:02d}.txt", caption)
    answer = client.post("/files", files={"file": ("d.zip", file.getvalue(), "application/zip")})
    return str(answer.raise_for_status().json()["url"])


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
