"""Start a server where none runs: make the cluster if need be, spawn it, wait for its answer."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from imageloom.domain.errors import StoreUnavailable
from imageloom.store.postgres.accounts import Account, server_account
from imageloom.store.postgres.binaries import ENVIRONMENT, binaries_for
from imageloom.store.postgres.errors import PostgresUnusable
from imageloom.store.postgres.folder import NAME, Folder, sync_folder, write_private
from imageloom.store.postgres.postmaster import QUIT_SECONDS, Server, wait_for_answer

INITDB_SECONDS = 120.0  # 0.5 s on an SSD; a slow network disk needs minutes
PORT_TRIES = 3

_log = logging.getLogger(__name__)


def launch(folder: Folder, *, bin_dir: Path | None, server_lock: int) -> Server:
    """Return a new server that answers.

    `server_lock` is held and so proves that no other process of this cluster lives. Needs
    start.lock too.
    Raises: PostgresUnusable when no server can run here; StoreUnavailable when it is slow.
    """
    began = time.monotonic()
    binaries = binaries_for(folder.data, bin_dir)
    account = server_account(folder.path, folder.data, binaries)
    password = folder.password()
    for path in (folder.password_file, folder.start_lock, folder.users_lock, folder.server_lock):
        account.own(path)
    if not folder.data.exists():
        _create_cluster(folder, binaries, account, password)
    # Stale, as just proved. PostgreSQL itself would refuse to start where the pid that they
    # name belongs to some other process of this user by now.
    (folder.data / "postmaster.pid").unlink(missing_ok=True)
    for stale in folder.path.glob(".s.PGSQL.*"):
        stale.unlink(missing_ok=True)
    log_start = folder.bound_log()
    for _ in range(PORT_TRIES):
        port = _choose_port(folder, account)
        process = _spawn(folder, binaries, account, port=port, server_lock=server_lock)
        url = _wait_for_child(folder, process, port, password)
        if url is not None:
            seconds = round(time.monotonic() - began, 3)
            fields = {"pid": process.pid, "port": port, "duration_s": seconds}
            _log.info("postgres started", extra=fields)
            return Server(pid=process.pid, url=url)
        if _port_is_free(port):  # then somebody taking the port is not what ended it
            break
    raise PostgresUnusable(
        f"PostgreSQL ({binaries}) ended while starting in {folder.path}. The end of "
        f"{folder.log}:\n{folder.log_end(log_start)}"
    )


def _create_cluster(folder: Folder, binaries: Path, account: Account, password: str) -> None:
    """Make `data/` in one step: whatever ends initdb half-way leaves only a folder to clear."""
    for leftover in folder.path.glob("init-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    workshop = Path(tempfile.mkdtemp(prefix="init-", dir=folder.path))
    try:
        write_private(workshop / "password", password)
        account.own(workshop)
        account.own(workshop / "password")
        command = (
            binaries / "initdb",
            f"--pgdata={workshop / 'data'}",
            f"--pwfile={workshop / 'password'}",
            f"--username={NAME}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--data-checksums",
        )
        result = account.run(command, cwd=folder.path, seconds=INITDB_SECONDS)
        if result.returncode != 0:
            raise PostgresUnusable(
                f"{binaries / 'initdb'} could not make a cluster in {folder.path}:\n"
                f"{result.stdout.strip()[-2000:]}"
            )
        (workshop / "data").rename(folder.data)
        sync_folder(folder.path)
    except subprocess.TimeoutExpired as exc:
        raise StoreUnavailable(
            f"initdb in {folder.path} did not end within {INITDB_SECONDS:.0f} s; is the disk "
            "full or very slow?"
        ) from exc
    finally:
        shutil.rmtree(workshop, ignore_errors=True)


def _choose_port(folder: Folder, account: Account) -> int:
    """Return the port of the last time, or a new one when that is taken; it is recorded."""
    try:
        port = int(folder.port_file.read_text())
    except (FileNotFoundError, ValueError):
        port = 0
    if 0 < port < 65536 and _port_is_free(port):
        return port
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    write_private(folder.port_file, f"{port}\n")
    account.own(folder.port_file)
    return port


def _port_is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as PostgreSQL does
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _spawn(
    folder: Folder, binaries: Path, account: Account, *, port: int, server_lock: int
) -> subprocess.Popen[bytes]:
    """Return the postmaster, in a session of its own."""
    settings = {
        "listen_addresses": "127.0.0.1",
        "port": str(port),
        "unix_socket_directories": f'"{folder.path}"' if folder.socket_works(port) else "",
        "unix_socket_permissions": "0700",
        "max_connections": "100",
        "shared_buffers": "64MB",
        "fsync": "on",
        "synchronous_commit": "on",
        "timezone": "UTC",
        "log_timezone": "UTC",
        "log_destination": "stderr",
        "logging_collector": "off",
    }
    arguments = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    log_file = os.open(folder.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        account.own(folder.log)
        process = subprocess.Popen(  # noqa: S603  # our own arguments
            [*account.prefix, binaries / "postgres", "-D", folder.data, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            cwd=folder.path,
            env=ENVIRONMENT,
            start_new_session=True,  # Ctrl-C in the terminal is ours; we stop it in order
            pass_fds=(server_lock,),
            user=account.user,
            group=account.group,
            extra_groups=account.extra_groups,
            umask=0o077,
        )
    finally:
        os.close(log_file)
    # Reaps it whenever it ends, also when another process stops it after we are done.
    threading.Thread(target=process.wait, name="postgres-reaper", daemon=True).start()
    return process


def _wait_for_child(
    folder: Folder, process: subprocess.Popen[bytes], port: int, password: str
) -> str | None:
    """Return the URL; None when the postmaster just made ended instead of answering."""
    try:
        return wait_for_answer(folder, port, password, lambda: process.poll() is None)
    except BaseException:  # Ctrl-C included: never leave a server that nobody uses
        process.send_signal(signal.SIGINT)
        try:
            process.wait(QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
