"""An installation of many processes on this machine, which the laboratory starts, breaks and reads.

PostgreSQL is the embedded one and can be restarted at will; API processes and workers are what an
operator runs (`imageloom api`, `imageloom worker`) against one DATABASE_URL and one storage, which
is a folder or an S3 bucket over HTTP. Nothing of it is played but the device.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import httpx
import psutil
import psycopg
from psycopg.rows import DictRow, dict_row

from faults.bucket import Bucket, bucket_server
from faults.ledgers import Book, Fault
from faults.receiver import Receiver
from faults.waiting import wait_for
from imageloom.core.keys import create_key
from imageloom.store.migrate import migrate
from imageloom.store.pool import open_pool
from imageloom.store.postgres import EmbeddedPostgres

Mode = Literal["fast", "immediate", "crash"]
# What `pg_ctl stop -m` sends, and what a machine does that loses its power.
_SIGNALS: Mapping[Mode, signal.Signals] = {
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
    "crash": signal.SIGKILL,
}
# Every change of a task, written down by the database itself in the transaction of the change: what
# it says is what was committed, whatever the code believes. `strike` makes commits fail.
_WATCH = """
create schema lab;
create table lab.change (
    seq bigint generated always as identity primary key,
    task text not null, before text not null, after text not null, attempt integer not null,
    at double precision not null default extract(epoch from clock_timestamp())
);
create function lab.note_change() returns trigger language plpgsql as $$
begin
    if (old.status, old.attempt) is distinct from (new.status, new.attempt)
        or (old.status in ('completed', 'failed', 'cancelled') and old.output::text
            is distinct from new.output::text) then
        insert into lab.change (task, before, after, attempt)
            values (new.id, old.status, new.status, new.attempt);
    end if;
    return null;
end;
$$;
create trigger lab_note_change after update on task
    for each row execute function lab.note_change();
create table lab.strike (percent integer not null);
insert into lab.strike values (0);
create sequence lab.dice;
create function lab.maybe_strike() returns trigger language plpgsql as $$
begin
    if abs(hashint8extended(nextval('lab.dice'), {seed})) % 100
        < (select percent from lab.strike) then
        perform pg_terminate_backend(pg_backend_pid());
    end if;
    return null;
end;
$$;
create constraint trigger lab_maybe_strike after insert or update on task
    deferrable initially deferred for each row execute function lab.maybe_strike();
"""


class Database:
    """The PostgreSQL of an experiment."""

    def __init__(self, folder: Path) -> None:
        self._embedded = EmbeddedPostgres(folder)
        self._folder = folder
        self.url = self._embedded.start()

    @property
    def pid(self) -> int:
        """The postmaster's."""
        return int((self._folder / "data" / "postmaster.pid").read_text().split()[0])

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        return int((self._folder / "port").read_text())

    @property
    def tcp_url(self) -> str:
        """The URL over TCP, for what stands between."""
        password = (self._folder / "password").read_text().strip()
        return f"postgresql://imageloom:{password}@127.0.0.1:{self.port}/imageloom?sslmode=disable"

    def stop(self, mode: Mode) -> None:
        """End it in that way, and wait until it has gone."""
        postmaster = psutil.Process(self.pid)
        family = [postmaster, *postmaster.children()]
        postmaster.send_signal(_SIGNALS[mode])
        psutil.wait_procs(family, timeout=60)

    def start(self) -> None:
        """Have it run again, at the same address."""
        assert self._embedded.start() == self.url, "the port was taken meanwhile"

    def restart(self, mode: Mode) -> None:
        """Stop and start it."""
        self.stop(mode)
        self.start()

    def close(self) -> None:
        """End it in order."""
        self._embedded.stop()


@dataclass(eq=False)
class Process:
    """One process of the installation, a group of its own, so that all of it can be killed."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    port: int = 0

    @property
    def alive(self) -> bool:
        """Whether it runs, stopped or not."""
        return self.process.poll() is None

    @property
    def devices(self) -> frozenset[int]:
        """The device processes of a worker."""
        with suppress(psutil.NoSuchProcess):
            return frozenset(each.pid for each in psutil.Process(self.process.pid).children())
        return frozenset()

    @property
    def url(self) -> str:
        """What routes of an API process are relative to."""
        return f"http://127.0.0.1:{self.port}/api/v1"

    def send(self, number: signal.Signals) -> None:
        """Send a signal to all of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def end(self) -> None:
        """Kill it if need be, and wait."""
        self.send(signal.SIGKILL)
        self.process.wait()


@dataclass(eq=False)
class Laboratory:
    """A running installation and the books that are kept of it."""

    folder: Path
    seed: int
    database: Database
    environment: dict[str, str]
    key: str
    receiver: Receiver
    bucket: Bucket | None
    requests: Book
    dice: random.Random
    apis: list[Process] = field(default_factory=list)
    workers: list[Process] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)
    _number: int = 0

    @property
    def device_ledger(self) -> Path:
        """L2."""
        return self.folder / "device.ledger"

    def start_api(self, *, database_url: str | None = None, **environment: str) -> Process:
        """Start an API process; it answers when this returns."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = int(probe.getsockname()[1])
        process = self._start("api", ["api", "--port", str(port)], database_url, environment)
        process.port = port
        self.apis.append(process)

        def answers() -> bool:
            assert process.alive, self.log_end(process)
            with suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5).status_code == 200
            return False

        wait_for(answers, what="an API process that answers")
        return process

    def start_worker(self, *, database_url: str | None = None, **environment: str) -> Process:
        """Start a worker; it may not be ready yet when this returns."""
        process = self._start("worker", ["worker"], database_url, environment)
        self.workers.append(process)
        return process

    def replace(self, process: Process) -> Process:
        """Start a worker in the place of a dead one."""
        process.end()
        self.workers.remove(process)
        return self.start_worker()

    def wait_workers(self, count: int) -> None:
        """Wait until so many workers are alive by the installation's own word.

        One that ended by itself is started again, as a service manager would.
        """
        query = "select count(*) as n from worker where last_heartbeat > now() - interval '3 s'"

        def there() -> bool:
            for worker in [each for each in self.workers if not each.alive]:
                self.replace(worker)
            return bool(self.ask(query)[0]["n"] >= count)

        wait_for(there, what=f"{count} workers")

    def ask(self, query: str, *values: object) -> list[DictRow]:
        """Look into the database, on a connection of the laboratory's own."""
        with psycopg.connect(
            self.database.url, autocommit=True, row_factory=dict_row, connect_timeout=5
        ) as conn:
            rows = conn.execute(query, values)  # type: ignore[call-overload]
            return list(rows.fetchall()) if rows.description else []

    def unfinished(self) -> int:
        """Return how many tasks have not ended; -1 while the database does not answer."""
        try:
            query = "select count(*) as n from task where status in ('pending', 'running')"
            return int(self.ask(query)[0]["n"])
        except psycopg.OperationalError:
            return -1

    def strike(self, percent: int) -> None:
        """Let so many of a hundred commits that touch a task end their session instead."""
        self.ask("update lab.strike set percent = %s", percent)

    def log_end(self, process: Process) -> str:
        """Return the last lines that a process wrote."""
        return process.log.read_text()[-3000:]

    def logged(self, event: str) -> int:
        """Return how often that event is in the logs of all processes."""
        sign = f'"event": "{event}"'
        return sum(log.read_text(errors="replace").count(sign) for log in self.logs())

    def logs(self) -> list[Path]:
        """Return the logs of all processes that ever were."""
        return sorted(self.folder.glob("*.log"))

    def _start(
        self,
        kind: str,
        command: list[str],
        database_url: str | None,
        environment: Mapping[str, str],
    ) -> Process:
        self._number += 1
        name = f"{kind}-{self._number}"
        log = self.folder / f"{name}.log"
        chosen = {
            **self.environment,
            "DATABASE_URL": database_url or self.database.url,
            "IMAGELOOM_DATA_DIR": str(self.folder / f"data-{kind}"),
            **environment,
        }
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "imageloom.cli.main", *command],
                env=chosen,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        return Process(name=name, process=process, log=log)


@contextmanager
def laboratory(
    *,
    seed: int,
    apis: int = 1,
    workers: int = 4,
    bucket: bool = False,
    step_seconds: float = 0.02,
    settings: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Laboratory]:
    """Run an installation until the block ends. `settings` are of `IMAGELOOM_`, in capitals."""
    with ExitStack() as stack:
        # A short folder: the path of a Unix socket must stay below 108 bytes.
        name = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True)
        )
        folder = Path(name)
        database = stack.enter_context(watched_database(folder, seed=seed))
        key = asyncio.run(_first_key(database.url))
        receiver = stack.enter_context(Receiver.listening(Book(folder / "webhooks.ledger")))
        store = stack.enter_context(bucket_server(folder)) if bucket else None
        made = Laboratory(
            folder=folder,
            seed=seed,
            database=database,
            environment=_environment(
                folder, receiver, store, step_seconds=step_seconds, settings=settings
            ),
            key=key,
            receiver=receiver,
            bucket=store,
            requests=Book(folder / "requests.ledger"),
            dice=random.Random(seed),
        )
        stack.callback(made.requests.close)
        stack.callback(_end_all, made)
        for _ in range(workers):
            made.start_worker()
        for _ in range(apis):
            made.start_api()
        made.wait_workers(workers)
        made.began = time.monotonic()
        yield made


def _end_all(made: Laboratory) -> None:
    for process in (*made.workers, *made.apis):
        process.send(signal.SIGCONT)
        process.end()


@contextmanager
def watched_database(folder: Path, *, seed: int) -> Iterator[Database]:
    """Yield a database of ours in which every change of a task is written down."""
    database = Database(folder / "pg")
    try:
        asyncio.run(migrate(database.url))
        with psycopg.connect(database.url, autocommit=True) as conn:
            conn.execute(_WATCH.replace("{seed}", str(seed)))  # type: ignore[arg-type]
        yield database
    finally:
        database.close()


async def _first_key(url: str) -> str:
    async with open_pool(url, max_size=2, wait=10) as pool:
        made = await create_key(pool, tenant="default", scopes=("read", "write", "monitor"))
        return made.key


def _environment(
    folder: Path,
    receiver: Receiver,
    bucket: Bucket | None,
    *,
    step_seconds: float,
    settings: Mapping[str, str],
) -> dict[str, str]:
    clean = {name: value for name, value in os.environ.items() if "IMAGELOOM" not in name}
    clean.pop("DATABASE_URL", None)
    if bucket is None:
        clean["IMAGELOOM_STORAGE_URL"] = (folder / "storage").as_uri()
    else:
        clean |= bucket.environment
    return {
        **clean,
        "IMAGELOOM_DEVICE": "drill",
        "IMAGELOOM_DRILL_STEP": str(step_seconds),
        "IMAGELOOM_DRILL_LEDGER": str(folder / "device.ledger"),
        "IMAGELOOM_LOG_FORMAT": "json",
        "IMAGELOOM_FETCH_ALLOW": receiver.address,
        "IMAGELOOM_WEBHOOK_RATE": "1000",
        # An experiment of minutes: the delays of hours between tries become those of seconds.
        "IMAGELOOM_WEBHOOK_DELAY_FACTOR": "0.01",
        **{f"IMAGELOOM_{name}": value for name, value in settings.items()},
    }
