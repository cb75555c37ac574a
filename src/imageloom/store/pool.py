"""Connections to PostgreSQL: one pool per process, shared with the queue."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import ContextVar
from typing import Any

import psycopg
from procrastinate.exceptions import ConnectorException
from psycopg.rows import DictRow, dict_row
from psycopg_pool import AsyncConnectionPool, PoolTimeout

from imageloom.domain.errors import StoreUnavailable

Connection = psycopg.AsyncConnection[DictRow]


class _Pooled(psycopg.AsyncConnection[DictRow]):
    """A connection that knows when it was last asked whether the database is there."""

    asked_at = 0.0


Pool = AsyncConnectionPool[_Pooled]

_after_commit: ContextVar[list[Callable[[], None]]] = ContextVar("after_commit")

# A database that is paused keeps its connections and says nothing; TCP sees no fault in that.
CHECK_TIMEOUT = 2.0  # seconds for "are you there"
# Asked before a connection is used, but not again for so many seconds while its socket has nothing
# to say: a database that went away has closed it. Asked each time, it was 9 % of a busy worker.
ASKED_LATELY = 1.0
TRANSACTION_TIMEOUT = 8.0  # seconds; ours take milliseconds, and a caller must hear 503 within 10

# What the server does about us. A process that is stopped in a transaction, or whose machine is
# gone, keeps its locks else, for hours, and whoever would take over its tasks waits for them.
_LET_GO = {
    "idle_in_transaction_session_timeout": "5s",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "3",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "15s",
}

# Keepalives notice a database that vanished without a word within 15 seconds.
KEEPALIVE: dict[str, Any] = {
    "keepalives_idle": 5,
    "keepalives_interval": 3,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
    "connect_timeout": 5,
}


@asynccontextmanager
async def open_pool(
    conninfo: str, *, max_size: int = 12, wait: float = 300.0
) -> AsyncIterator[Pool]:
    """Yield a pool; a request for a connection waits up to `wait` seconds for one.

    Raises: StoreUnavailable where the database does not answer within ten seconds.
    """
    pool: Pool = AsyncConnectionPool(
        conninfo,
        connection_class=_Pooled,
        kwargs={"row_factory": dict_row, **KEEPALIVE},
        min_size=2,
        max_size=max_size,
        timeout=wait,
        # The delay between two tries doubles from 1 s on. Giving up early lets the next request
        # begin anew: with an hour here, a pool found a database that was away for 15 s 15 s late.
        reconnect_timeout=3,
        check=_check,
        configure=_configure,
        open=False,
    )
    try:
        await pool.open(wait=True, timeout=10)
    except PoolTimeout as exc:
        await pool.close(timeout=1)
        raise StoreUnavailable("the database does not answer; check DATABASE_URL") from exc
    try:
        yield pool
    finally:
        await pool.close(timeout=5)


@asynccontextmanager
async def transaction(pool: Pool, *, wait: float | None = None) -> AsyncIterator[Connection]:
    """Yield a connection inside one transaction: committed at the end, rolled back on an error.

    What was asked for by `after_commit` is done once it is committed, and only then.
    Raises: StoreUnavailable where the database is away for longer than the pool waits, or goes away
    meanwhile.
    """
    asked: list[Callable[[], None]] = []
    token = _after_commit.set(asked)
    try:
        async with statements(pool, wait=wait) as conn, conn.transaction():
            yield conn
    finally:
        _after_commit.reset(token)
    for act in asked:
        act()


@asynccontextmanager
async def statements(pool: Pool, *, wait: float | None = None) -> AsyncIterator[Connection]:
    """Yield a connection on which each statement is a transaction of its own.

    For who only looks: it saves the two round trips to begin and to commit.
    Raises: StoreUnavailable, as `transaction` does.
    """
    try:
        async with pool.connection(timeout=wait) as conn:
            with _hung_up_after(TRANSACTION_TIMEOUT, conn):
                yield conn
    except (PoolTimeout, psycopg.OperationalError) as exc:
        raise StoreUnavailable("the database does not answer") from exc
    except ConnectorException as exc:
        # What the queue makes of any error of the database inside our transaction.
        if isinstance(exc.__cause__, psycopg.OperationalError):
            raise StoreUnavailable("the database does not answer") from exc
        raise


def after_commit(act: Callable[[], None]) -> None:
    """Do `act` when the transaction around has committed; never where it is rolled back.

    A log that tells of what did not happen is worse than none.
    Raises: LookupError outside of a transaction.
    """
    _after_commit.get().append(act)


async def _configure(conn: Connection) -> None:
    """Tell the server when to give a session up. One round trip for each new connection."""
    # The queue's statements come alone; where ours belong together, `transaction` says so.
    await conn.set_autocommit(True)
    await conn.execute(
        "select set_config(name, value, false)"
        " from unnest(%s::text[], %s::text[]) as setting (name, value)",
        (list(_LET_GO), list(_LET_GO.values())),
    )


async def _check(conn: _Pooled) -> None:
    if time.monotonic() - conn.asked_at < ASKED_LATELY and _is_quiet(conn):
        return
    with _hung_up_after(CHECK_TIMEOUT, conn):
        await AsyncConnectionPool.check_connection(conn)
    conn.asked_at = time.monotonic()


def _is_quiet(conn: Connection) -> bool:
    """Whether nothing has arrived unasked, such as the end of the connection."""
    if conn.closed:
        return False
    socket_of = select.poll()  # not `select`: it knows no descriptor above 1023
    socket_of.register(conn.fileno(), select.POLLIN)
    return not socket_of.poll(0)


@contextmanager
def _hung_up_after(seconds: float, conn: Connection) -> Iterator[None]:
    """End the connection when the block takes longer: whoever waits on it gets an error at once.

    Cancelling would not do: psycopg then asks the silent server to cancel, for ten seconds.
    """
    timer = asyncio.get_running_loop().call_later(seconds, _hang_up, conn)
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(conn: Connection) -> None:
    with (
        suppress(OSError, psycopg.OperationalError),
        socket.socket(fileno=os.dup(conn.fileno())) as line,
    ):
        line.shutdown(socket.SHUT_RDWR)


def one(row: DictRow | None) -> dict[str, Any]:
    """Return the row of a query that always has one."""
    if row is None:
        raise RuntimeError("a query that always returns a row returned none")
    return row
