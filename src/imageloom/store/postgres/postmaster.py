"""The life of a server that was started: it is found, it answers, it is ended."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg

from imageloom.domain.errors import StoreUnavailable
from imageloom.store.postgres.errors import PostgresUnusable
from imageloom.store.postgres.folder import NAME, Folder
from imageloom.store.postgres.locks import POLL_SECONDS, opened_lock, try_exclusive, wait

ANSWER_SECONDS = 60.0  # crash recovery of a small cluster takes a few seconds
FAST_STOP_SECONDS = 30.0  # fast shutdown writes a checkpoint of at most shared_buffers
QUIT_SECONDS = 10.0  # on SIGQUIT the postmaster kills its children after 5 s

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Postmaster:
    """The first process of a server, which may not answer yet."""

    pid: int
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A server that has answered; the URL contains the password."""

    pid: int
    url: str


def attach(folder: Folder) -> Server | None:
    """Return the running server once it answers; None when none runs or it ended first."""
    running = find_postmaster(folder.data)
    if running is None:
        return None

    def alive() -> bool:
        return find_postmaster(folder.data) == running

    url = wait_for_answer(folder, running.port, folder.password(), alive)
    if url is None:
        return None
    _log.info("attached to postgres", extra={"pid": running.pid, "port": running.port})
    return Server(pid=running.pid, url=url)


def find_postmaster(data: Path) -> Postmaster | None:
    """Return the living postmaster of `data`; None for a stale file or a pid reused by others."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        pid, port = int(lines[0]), int(lines[3])
        command = psutil.Process(pid).cmdline()
        # Its children rewrite their command line: only a postmaster names a data folder there.
        named = command[command.index("-D") + 1]
    except (FileNotFoundError, ValueError, IndexError, psutil.Error):
        return None
    if Path(command[0]).name not in ("postgres", "postmaster"):
        return None
    try:
        return Postmaster(pid=pid, port=port) if data.samefile(named) else None
    except OSError:
        return None


def wait_for_answer(
    folder: Folder, port: int, password: str, alive: Callable[[], bool]
) -> str | None:
    """Wait until the server takes a connection and return its URL; None when it ended first.

    Raises: PostgresUnusable when it refuses the password; StoreUnavailable when it is slow.
    """
    deadline = time.monotonic() + ANSWER_SECONDS
    while alive():
        url = folder.url(port, password)
        try:
            _ensure_database(url)
        except psycopg.OperationalError as exc:
            refused = "password authentication failed" in str(exc)
            # Unless it was another server, which took the port just before ours, that refused.
            if refused and not wait(lambda: not alive(), 1.0):
                raise PostgresUnusable(
                    f"the PostgreSQL in {folder.path} refuses the password in "
                    f"{folder.password_file}; restore that file from a backup"
                ) from exc
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"PostgreSQL in {folder.path} did not answer within "
                    f"{ANSWER_SECONDS:.0f} s: {exc}\n{folder.log_end(0)}"
                ) from exc
            time.sleep(POLL_SECONDS)
        else:
            return url
    return None


def _ensure_database(url: str) -> None:
    with psycopg.connect(url, dbname="postgres", autocommit=True, connect_timeout=5) as connection:
        if not connection.execute(
            "select 1 from pg_database where datname = %s", (NAME,)
        ).fetchone():
            connection.execute(f"create database {NAME}")


def shut_down(folder: Folder) -> None:
    """End the server: fast shutdown, then SIGQUIT, each bounded. Needs start.lock.

    Returns when every process of the cluster is gone.
    Raises: StoreUnavailable when some are not.
    """
    with opened_lock(folder.server_lock) as server_lock:

        def gone() -> bool:
            return find_postmaster(folder.data) is None and try_exclusive(server_lock)

        for number, seconds in (
            (signal.SIGINT, FAST_STOP_SECONDS),
            (signal.SIGQUIT, QUIT_SECONDS),
        ):
            running = find_postmaster(folder.data)
            if running is not None:
                try:
                    os.kill(running.pid, number)
                except ProcessLookupError:
                    pass  # it ended by itself between the two lines
            if wait(gone, seconds):
                _log.info("postgres stopped", extra={"signal": number.name})
                return
    raise StoreUnavailable(
        f"PostgreSQL in {folder.path} did not end within "
        f"{FAST_STOP_SECONDS + QUIT_SECONDS:.0f} s; see {folder.log}"
    )
