"""One process's use of the embedded PostgreSQL: start or attach, keep it up, stop.

The three locks that make this safe between processes are explained in `folder`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from imageloom.domain.errors import StoreUnavailable
from imageloom.store.postgres.cluster import INITDB_SECONDS, launch
from imageloom.store.postgres.errors import PostgresUnusable, clear_errors
from imageloom.store.postgres.folder import Folder
from imageloom.store.postgres.locks import (
    POLL_SECONDS,
    open_lock,
    opened_lock,
    try_exclusive,
    wait,
)
from imageloom.store.postgres.postmaster import (
    ANSWER_SECONDS,
    attach,
    find_postmaster,
    shut_down,
)

ALONE_SECONDS = ANSWER_SECONDS + INITDB_SECONDS  # somebody else's first start, at worst

_log = logging.getLogger(__name__)


class EmbeddedPostgres:
    """One process's use of the server in `folder`; blocking, safe from several threads.

    Any number of processes may use one folder: the first starts the server, the others attach,
    the last one to stop ends it. A process forked without exec shares its parent's use.
    """

    def __init__(self, folder: Path, *, bin_dir: Path | None = None) -> None:
        self._folder = Folder(path=folder.resolve())
        self._bin_dir = bin_dir
        self._users: int | None = None  # descriptor that holds users.lock
        self._pid = 0  # of the postmaster seen last
        self._url = ""

    def start(self) -> str:
        """Return the URL of a server that answers, made and started if need be. Idempotent.

        About a second the first time and 0.1 s after. The URL contains the password.
        Raises: PostgresUnusable when no server can run here; StoreUnavailable when it is slow.
        """
        with clear_errors(self._folder.path):
            self._folder.path.mkdir(parents=True, mode=0o700, exist_ok=True)
            with self._alone():
                entered = self._users is None
                if self._users is None:
                    self._users = open_lock(self._folder.users_lock)
                    fcntl.flock(self._users, fcntl.LOCK_SH)
                try:
                    self._attach_or_launch()
                except BaseException:
                    if entered:
                        self._forget()
                    raise
                return self._url

    def ensure_running(self) -> bool:
        """Bring a dead server back, on the same data and, while it is free, on the same port.

        Returns True when the server seen last had died, whoever restarted it; then ask `start()`
        for the URL, which changes when the port was taken. Cheap when all is well: no connection
        is made. Also keeps the log bounded.
        """
        if self._users is None:
            raise PostgresUnusable("ensure_running() was called before start()")
        with clear_errors(self._folder.path):
            self._folder.bound_log()
            running = find_postmaster(self._folder.data)
            if running is not None and running.pid == self._pid:
                return False
            with self._alone():
                if self._users is None:  # stopped by another thread meanwhile
                    return False
                _log.warning("postgres is not running; starting it", extra={"pid": self._pid})
                self._attach_or_launch()
                return True

    def stop(self) -> None:
        """Give up this process's use; the server ends when it was the last. Idempotent."""
        if self._users is None:
            return
        with clear_errors(self._folder.path), self._alone():
            if self._users is None:
                return
            try:
                # A shared lock becomes exclusive only for the last user; and nobody can take a
                # new one meanwhile, because that needs start.lock.
                if try_exclusive(self._users):
                    shut_down(self._folder)
            finally:
                self._forget()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold start.lock: one start or stop at a time, over all processes and threads."""
        with opened_lock(self._folder.start_lock) as start_lock:
            if not wait(lambda: try_exclusive(start_lock), ALONE_SECONDS):
                raise StoreUnavailable(
                    "another process has been starting or stopping PostgreSQL in "
                    f"{self._folder.path} for {ALONE_SECONDS:.0f} s; see {self._folder.log}"
                )
            yield

    def _attach_or_launch(self) -> None:
        """Leave a server that answers, its URL and its pid. Needs start.lock."""
        deadline = time.monotonic() + ANSWER_SECONDS
        with opened_lock(self._folder.server_lock) as server_lock:
            while True:
                server = attach(self._folder)
                # Held without a postmaster: one that has just been started, or the last backends
                # of one that was killed, which must be gone before the data is opened again.
                if server is None and try_exclusive(server_lock):
                    server = launch(self._folder, bin_dir=self._bin_dir, server_lock=server_lock)
                if server is not None:
                    self._pid, self._url = server.pid, server.url
                    return
                if time.monotonic() > deadline:
                    raise StoreUnavailable(
                        f"processes of an earlier PostgreSQL still hold {self._folder.path}, "
                        "perhaps in another container that shares the folder; end them and try "
                        "again"
                    )
                time.sleep(POLL_SECONDS)

    def _forget(self) -> None:
        if self._users is not None:
            os.close(self._users)
        self._users = None
        self._pid = 0
