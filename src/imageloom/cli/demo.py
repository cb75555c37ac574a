"""`imageloom demo`: from nothing to four pictures, telling what happens on the way."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from imageloom.client import Client, ConnectionFailed, Task

PROMPT = "a striped blue dress on a pink background"
START_TIMEOUT = 180.0  # seconds: importing torch takes 5, from a cold disk a minute


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the pictures.")] = Path("outputs"),
    prompt: Annotated[str, typer.Option(help="What the pictures show.")] = PROMPT,
    image: Annotated[
        Path | None, typer.Option(help="Photograph to start from.", show_default="a red dress")
    ] = None,
) -> None:
    """Start everything, make four pictures from a photograph and a prompt, and stop everything."""
    console = Console(highlight=False, soft_wrap=True)
    photo = image or Path(str(resources.files("imageloom.runtime") / "embedded" / "dress.jpg"))
    console.print("[bold]Imageloom demo[/]: a photograph and a prompt become four pictures")
    console.print(f"  photograph  {photo.name}\n  prompt      {prompt}")
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="il-demo-", ignore_cleanup_errors=True) as folder,
        _serving(Path(folder), console) as client,
    ):
        _wait_for_worker(client, console)
        task = client.generate(prompt, image=photo, num_outputs=4)
        console.print(f"  task        {task.id} is in the queue")
        _follow(task, console)
        for path, made in zip(task.download(out), task.output.images, strict=True):  # type: ignore[union-attr]  # completed
            console.print(f"  picture     {path}  (seed {made.seed})")
    seconds = time.monotonic() - began
    console.print(f"Done in {seconds:.0f} s; everything that was started is stopped again.")
    console.print('Next: `imageloom serve`, then `imageloom generate "a red hat"`; see README.md')


@contextmanager
def _serving(folder: Path, console: Console) -> Iterator[Client]:
    """Run `imageloom serve` in a folder of its own and yield a client for it."""
    key = f"il_{secrets.token_urlsafe(32)}"
    environment = {
        **os.environ,  # noqa: TID251  # passed on, not read
        "IMAGELOOM_DATA_DIR": str(folder / "data"),
        "IMAGELOOM_API_KEY": key,
    }
    # A demo shows the embedded defaults, whatever the caller's installation is.
    environment.pop("DATABASE_URL", None)
    log_path = folder / "serve.log"
    with log_path.open("w") as log:
        server = subprocess.Popen(  # our own program, no user text
            [sys.executable, "-m", "imageloom.cli.main", "serve", "--port", "0"],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        with console.status("starting PostgreSQL, the API and a worker"):
            url = _address(server)
        if url is None:
            typer.echo(f"imageloom: the server did not start:\n{log_path.read_text()}", err=True)
            raise typer.Exit(1)
        console.print(f"  server      {url} (PostgreSQL, API and worker in a temporary folder)")
        with Client(url, key) as client:
            yield client
    finally:
        server.terminate()
        server.wait(timeout=40)
        if server.stdout is not None:
            server.stdout.close()


def _address(server: subprocess.Popen[str]) -> str | None:
    """Return the address that `serve` announces, None where it ends without one."""
    url = None
    for line in server.stdout or ():
        if "/api/v1" in line:
            url = line.split()[-1].removesuffix("/api/v1")
        if "Ctrl-C" in line:
            break
    return url


def _wait_for_worker(client: Client, console: Console) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    with console.status("the worker imports torch and diffusers"):
        while time.monotonic() < deadline:
            try:
                workers = client.workers()
            except ConnectionFailed:
                workers = []
            if workers:
                console.print(f"  worker      {workers[0].id} is ready")
                return
            time.sleep(0.1)
    typer.echo(f"imageloom: no worker was ready within {START_TIMEOUT:.0f} s", err=True)
    raise typer.Exit(1)


def _follow(task: Task, console: Console) -> None:
    """Show the task's progress until it is over."""
    bar = Progress(
        TextColumn("  {task.description}"),
        BarColumn(40),
        TaskProgressColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    with bar:
        line = bar.add_task("pending    ", total=1.0)
        task.wait(
            timeout=START_TIMEOUT,
            poll=0.1,
            progress=lambda now: bar.update(
                line, completed=now.progress, description=f"{now.status:11}"
            ),
        )
