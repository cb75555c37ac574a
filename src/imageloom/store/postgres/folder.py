"""The folder of one embedded PostgreSQL and the small files in it.

data/          the cluster               password   of the database user, 0600
port           kept between starts       postgres.log, .s.PGSQL.<port>
start.lock     exclusive, while one process starts or stops the server
users.lock     shared, held by every process that uses the server; the last one stops it
server.lock    exclusive, inherited by the postmaster and its children on purpose: as long as
               it is held, a process of this cluster is alive, whatever postmaster.pid says
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from imageloom.store.postgres.errors import PostgresUnusable

NAME = "imageloom"  # of the user and of the database
LOG_BYTES = 10_000_000
SOCKET_PATH_BYTES = 100  # sun_path holds 108 bytes on Linux, 104 on macOS


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Where things are, and how the small files are read; `path` is absolute."""

    path: Path

    @property
    def data(self) -> Path:
        return self.path / "data"

    @property
    def password_file(self) -> Path:
        return self.path / "password"

    @property
    def port_file(self) -> Path:
        return self.path / "port"

    @property
    def log(self) -> Path:
        return self.path / "postgres.log"

    @property
    def start_lock(self) -> Path:
        return self.path / "start.lock"

    @property
    def users_lock(self) -> Path:
        return self.path / "users.lock"

    @property
    def server_lock(self) -> Path:
        return self.path / "server.lock"

    def password(self) -> str:
        """Return the password, made and written the first time.

        Raises: PostgresUnusable when it is lost, which shows in data without a password.
        """
        try:
            return self.password_file.read_text().strip()
        except FileNotFoundError:
            if self.data.exists():
                raise PostgresUnusable(
                    f"{self.password_file} is missing although {self.data} exists; restore it "
                    "from a backup"
                ) from None
        password = secrets.token_hex(32)
        write_private(self.password_file, password)
        return password

    def url(self, port: int, password: str) -> str:
        """Return the URL of the server on that port, over its Unix socket where there is one."""
        # sslmode: else PGSSLMODE=require in the environment would break a local connection.
        if self._socket(port).exists():
            host = quote(str(self.path), safe="")
            return f"postgresql://{NAME}:{password}@/{NAME}?host={host}&port={port}&sslmode=disable"
        return f"postgresql://{NAME}:{password}@127.0.0.1:{port}/{NAME}?sslmode=disable"

    def socket_works(self, port: int) -> bool:
        """Tell whether a Unix socket can be in the folder: short path, no comma, not FUSE."""
        path = os.fsencode(self._socket(port))
        if len(path) > SOCKET_PATH_BYTES or b"," in path or b'"' in path:
            return False
        trial = self.path / ".s.trial"
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.bind(str(trial))
        except OSError:
            return False
        finally:
            trial.unlink(missing_ok=True)
        return True

    def _socket(self, port: int) -> Path:
        return self.path / f".s.PGSQL.{port}"

    def bound_log(self) -> int:
        """Empty a log that has grown too long and return its size.

        Safe at any time, because the server appends.
        """
        try:
            size = self.log.stat().st_size
        except FileNotFoundError:
            return 0
        if size <= LOG_BYTES:
            return size
        os.truncate(self.log, 0)
        return 0

    def log_end(self, start: int) -> str:
        """Return the last lines of the log from byte `start` on, to show in an error."""
        try:
            written = self.log.read_bytes()[start:]
        except OSError as exc:
            return f"(cannot be read: {exc})"
        return "\n".join(written[-4000:].decode(errors="replace").splitlines()[-15:])


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all, also over a power cut."""
    fresh = path.with_name(f"{path.name}.new")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    fresh.rename(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the renames in `folder` last over a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
