"""What tests share: one real PostgreSQL, a database per test, real processes of Imageloom."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import httpx
import psutil
import psycopg
import pytest

from imageloom.api.app import create_app
from imageloom.core.keys import create_key
from imageloom.core.services import Services, open_services
from imageloom.settings import Settings
from imageloom.store.migrate import migrate
from imageloom.store.postgres import EmbeddedPostgres

if TYPE_CHECKING:
    from playwright.async_api import Browser

    from browser import Visitor

PUBLIC_URL = "http://imageloom.test"
START_TIMEOUT = 90.0  # seconds: torch alone takes 5, and 20 on two busy cores


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL of a real PostgreSQL that lives as long as the test run."""
    # Its own short folder: the path of a Unix socket must stay below 108 bytes.
    with (
        tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True) as folder,
        EmbeddedPostgres(Path(folder) / "pg") as server,
    ):
        yield server.start()


@pytest.fixture(scope="session")
def migrated(postgres: str) -> str:
    """The URL of a migrated database, which every test of this run uses after one another."""
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute("create database tests")
    url = with_database(postgres, "tests")
    asyncio.run(migrate(url))
    return url


@pytest.fixture
def database_url(migrated: str) -> str:
    """The URL of an empty, migrated database. Emptied, not made: that is ten times faster."""
    with psycopg.connect(migrated) as conn:
        rows = conn.execute(
            "select format('%I', tablename) from pg_tables"
            " where schemaname = 'public' and tablename <> 'migration'"
        )
        # Not `truncate`, which makes a new file for every table; and without foreign keys, so that
        # the order is free.
        conn.execute("set session_replication_role = replica")
        for (table,) in rows.fetchall():
            conn.execute(f"delete from {table}")  # type: ignore[arg-type]
    return migrated


def with_database(url: str, name: str) -> str:
    """Return a connection URL with another database in it."""
    before, _, after = url.rpartition("/imageloom")
    return f"{before}/{name}{after}"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings of an installation in a temporary folder, whatever the environment says."""
    return Settings(data_dir=tmp_path, device="cpu")


@pytest.fixture
async def services(settings: Settings, database_url: str) -> AsyncIterator[Services]:
    """Services on a fresh database and a folder for storage."""
    async with open_services(settings, database_url, pool_timeout=5) as opened:
        yield opened


@pytest.fixture
async def key(services: Services) -> str:
    """A key of the tenant `default` with every scope."""
    return (await create_key(services.pool, tenant="default")).key


@pytest.fixture
async def api(services: Services, key: str) -> AsyncIterator[httpx.AsyncClient]:
    """The real app in this process, without a worker, called with `key`."""
    async with called_with(services, key) as client:
        yield client


@pytest.fixture(scope="session")
async def shared_services(
    postgres: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Services]:
    """Services for tests that leave nothing which another could see; faster than a fresh one."""
    with psycopg.connect(postgres, autocommit=True) as conn:
        conn.execute("create database shared")
    settings = Settings(data_dir=tmp_path_factory.mktemp("shared"), device="cpu")
    url = with_database(postgres, "shared")
    await migrate(url)
    async with open_services(settings, url, pool_timeout=5) as opened:
        yield opened


@pytest.fixture(scope="session")
async def shared_api(shared_services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """The app on `shared_services`, for requests that are refused or only read."""
    made = await create_key(shared_services.pool, tenant="default")
    async with called_with(shared_services, made.key) as client:
        yield client


@pytest.fixture
async def tenant(
    shared_services: Services, shared_api: httpx.AsyncClient
) -> AsyncIterator[httpx.AsyncClient]:
    """The app of `shared_api`, called with a key of a tenant that no other test has."""
    async with await _new_tenant(shared_services, shared_api) as client:
        yield client


@pytest.fixture
async def stranger(
    shared_services: Services, shared_api: httpx.AsyncClient
) -> AsyncIterator[httpx.AsyncClient]:
    """The same app, called with a key of yet another tenant."""
    async with await _new_tenant(shared_services, shared_api) as client:
        yield client


_tenants = itertools.count(1)


async def _new_tenant(services: Services, api: httpx.AsyncClient) -> httpx.AsyncClient:
    made = await create_key(services.pool, tenant=f"tenant-{next(_tenants)}")
    return _caller(api._transport, made.key)


def called_with(services: Services, key: str) -> httpx.AsyncClient:
    """Return a client of the real app in this process, which sends `key`."""
    app = create_app(services, public_url=PUBLIC_URL)
    return _caller(httpx.ASGITransport(app=app, raise_app_exceptions=False), key)


def _caller(transport: httpx.AsyncBaseTransport, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=transport,
        base_url=f"{PUBLIC_URL}/api/v1",
        headers={"Authorization": f"Bearer {key}"},
    )


@dataclass(frozen=True)
class S3Server:
    """A server of a foreign hand that speaks S3 over HTTP, and how processes find it."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """The standard variables that name it and let in; the region is a client's own choice."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """moto's S3 server, in this process, on a port of its own."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield S3Server(f"http://{host}:{port}")
    finally:
        server.stop()


@pytest.fixture
def s3_bucket(s3_server: S3Server) -> str:
    """The URL of an empty bucket on that server."""
    name = f"bucket-{next(_buckets)}"
    assert httpx.put(f"{s3_server.url}/{name}", timeout=30).status_code == 200
    return f"s3://{name}"


_buckets = itertools.count(1)


@dataclass
class Live:
    """A running `imageloom serve` with its own data, key and address."""

    process: subprocess.Popen[str]
    data_dir: Path
    key: str
    port: int = 0
    output: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The server's address without a path."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def base_url(self) -> str:
        """What routes are relative to."""
        return f"{self.url}/api/v1"

    def client(self, **options: object) -> httpx.Client:
        """Return an HTTP client with the key."""
        return httpx.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {self.key}"},
            timeout=30,
            **options,  # type: ignore[arg-type]
        )

    def pids(self, title: str) -> list[int]:
        """Return the processes of this server with that title, such as `imageloom worker`."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        return [child.pid for child in children if _title(child) == title]

    def kill(self, title: str) -> int:
        """kill -9 the first process with that title and return its pid."""
        pid = wait_for(lambda: next(iter(self.pids(title)), None), what=f"a process {title}")
        os.kill(pid, signal.SIGKILL)
        return pid

    def wait_ready(self) -> None:
        """Wait until a worker is alive."""

        def ready() -> bool:
            try:
                return httpx.get(f"{self.url}/readyz", timeout=5).status_code == 200
            except httpx.TransportError:
                return False

        wait_for(ready, what="a live worker")

    def wait_task(self, task_id: str, *statuses: str) -> dict[str, object]:
        """Return the task once it has one of the statuses."""
        with self.client() as client:

            def there() -> dict[str, object] | None:
                task: dict[str, object] = client.get(f"/tasks/{task_id}").json()
                return task if task.get("status") in statuses else None

            return wait_for(there, what=f"task {task_id} being {' or '.join(statuses)}")


@contextmanager
def serve(data_dir: Path, *, key: str = "test-key", **environment: str) -> Iterator[Live]:
    """Run `imageloom serve` on a free port until the block ends; it must then end by itself."""
    clean = {name: value for name, value in os.environ.items() if "IMAGELOOM" not in name}
    clean.pop("DATABASE_URL", None)
    log = data_dir.parent / f"{data_dir.name}.log"
    with log.open("a") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "imageloom.cli.main", "serve", "--port", "0"],
            env={
                **clean,
                "IMAGELOOM_DATA_DIR": str(data_dir),
                "IMAGELOOM_API_KEY": key,
                "IMAGELOOM_DEVICE": "cpu",
                **environment,
            },
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    live = Live(process=process, data_dir=data_dir, key=key)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            live.output.append(line)
            if "API" in line:
                live.port = int(line.rpartition(":")[2].partition("/")[0])
            if "Ctrl-C" in line:
                break
        assert live.port, f"serve did not start: {log.read_text()[-3000:]}"
        yield live
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """A running installation for the whole test run: real database, API, worker and device."""
    with (
        tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True) as folder,
        serve(Path(folder) / "data") as server,
    ):
        server.wait_ready()
        yield server


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The one Chromium of this test process."""
    from browser import chromium  # only where pages are looked at

    async with chromium() as opened:
        yield opened


@pytest.fixture
async def guest(browser: Browser, live: Live) -> AsyncIterator[Visitor]:
    """Somebody at the dashboard of `live` who has not signed in."""
    from browser import visiting

    async with visiting(browser, live.url, live.key) as visitor:
        yield visitor


@pytest.fixture
async def visitor(guest: Visitor) -> Visitor:
    """Somebody at the dashboard of `live` who has signed in."""
    await guest.sign_in()
    return guest


T = TypeVar("T")


def wait_for(
    condition: Callable[[], T | None],
    *,
    what: str,
    timeout: float = START_TIMEOUT,
    every: float = 0.02,
) -> T:
    """Return the first true answer of `condition`; asks often and gives up after `timeout` seconds.

    A state is awaited, not a time: how long it takes decides nothing.
    """
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(every)
    raise AssertionError(f"waited {timeout:.0f} s in vain for {what}")


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""
