"""The queue: procrastinate, on the same pool and in the same transactions as our own rows.

One procrastinate task, `run`, with the id of ours; one procrastinate queue per task type, in the
order of `store.rounds`. A job is deleted when it ends, because the task row is the history.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, LiteralString

import psycopg
from procrastinate import App, JobContext, PsycopgConnector
from procrastinate.connector import Notify
from procrastinate.exceptions import ConnectorException
from procrastinate.jobs import Job
from procrastinate.sql import queries
from procrastinate.types import JSONValue

from imageloom.store.pool import Connection, Pool, after_commit
from imageloom.store.rounds import head

LISTEN_AGAIN = 1.0  # seconds; meanwhile jobs are found by polling

Handler = Callable[[JobContext, str], Awaitable[None]]


class Queue:
    """Where tasks wait. Submitting and cancelling join the caller's transaction."""

    def __init__(self, *, pool_timeout: float = 300.0) -> None:
        # Setting 6 of the measured ones: with the default of 30 s a worker dies when the database
        # is away for longer than that.
        self._connector = _Connector(timeout=pool_timeout)
        self.app = App(connector=self._connector)

    async def open(self, pool: Pool) -> None:
        """Use the process's pool; call once."""
        await self.app.open_async(pool)

    def handle(self, handler: Handler) -> None:
        """Make `handler` what runs for every job of this process."""

        async def run(context: JobContext, /, task_id: str, **_line: JSONValue) -> None:
            await handler(context, task_id)

        self.app.task(name="run", pass_context=True)(run)

    def take_only(self, able: Callable[[], Collection[str]]) -> None:
        """Make this process pass over jobs that need a model which is not among `able`.

        They keep their places. It is asked whenever a job is looked for.
        """
        self._connector.able = able

    async def enqueue_again(
        self, conn: Connection, *, queue: str, task_id: str, delay: float = 0.0
    ) -> int:
        """Add a job for a task that has had its turn, and return its id; `delay` is in seconds.

        Joins the caller's transaction.
        """
        deferrer = self.app.configure_task(
            "run",
            queue=queue,
            priority=-await head(conn, queue),
            schedule_in={"milliseconds": round(delay * 1000)} if delay else None,
            connection=conn,
        )
        return await deferrer.defer_async(task_id=task_id)

    async def cancel(self, conn: Connection, job_id: int) -> None:
        """Remove a waiting job, or tell the worker of a running one, when `conn` commits."""
        await self.app.job_manager.cancel_job_by_id_async(
            job_id, abort=True, delete_job=True, connection=conn
        )

    async def cancel_all(self, conn: Connection, job_ids: Sequence[int]) -> None:
        """Do what `cancel` does for many jobs; those that wait go in one statement."""
        rows = await conn.execute(
            "delete from procrastinate_jobs where id = any(%s) and status = 'todo' returning id",
            (list(job_ids),),
        )
        waiting = {row["id"] for row in await rows.fetchall()}
        for job_id in job_ids:
            if job_id not in waiting:
                await self.cancel(conn, job_id)

    async def finish(self, conn: Connection, job_id: int) -> None:
        """Remove the job that this process runs, when `conn` commits.

        The queue would do so after its handler: in a transaction of its own, with a sync to disk.
        """
        await drop_job(conn, job_id)
        after_commit(partial(self._connector.finished.add, job_id))

    async def stalled(self, *, silence: timedelta) -> list[Job]:
        """Return the jobs whose worker gave no heartbeat for `silence`, or is gone."""
        jobs = await self.app.job_manager.get_stalled_jobs(
            seconds_since_heartbeat=silence.total_seconds()
        )
        return list(jobs)


async def drop_job(conn: Connection, job_id: int) -> None:
    """Delete the job of a worker that will not finish it. Idempotent; uses the primary key."""
    await conn.execute(
        "delete from procrastinate_jobs where id = %s and status = 'doing'", (job_id,)
    )


# Procrastinate's own, but of the jobs that this worker can do: migrations/0016_able_workers.sql.
_TAKE_JOB: LiteralString = (
    "select id, status, task_name, priority, lock, queueing_lock, args, scheduled_at, queue_name,"
    " attempts, worker_id from take_job(%(queue)s, %(worker_id)s, %(able)s)"
)


class _Connector(PsycopgConnector):
    """Outlives its database: procrastinate would end the worker, and with it the running task.

    Where `able` is set it takes only what the worker can do. `finished` are jobs of this process
    that are removed already, until the queue says so.
    """

    able: Callable[[], Collection[str]] | None = None

    def __init__(self, *, timeout: float) -> None:
        super().__init__(timeout=timeout)
        self.finished: set[int] = set()

    async def execute_query_one_async(
        self, query: LiteralString, **arguments: Any
    ) -> dict[str, Any]:
        """Run a query of one row; the one that takes a job is ours where not every job will do."""
        if query == queries["fetch_job"] and self.able is not None:
            (queue,) = arguments.pop("queues")  # a consumer has one: see worker.main
            query, arguments = _TAKE_JOB, {**arguments, "queue": queue, "able": list(self.able())}
        row: dict[str, Any] = await super().execute_query_one_async(query, **arguments)
        return row

    async def listen_notify(self, on_notification: Notify, channels: Iterable[str]) -> None:
        """Listen, and listen again where the connection cannot be made."""
        names = list(channels)
        while True:
            try:
                await super().listen_notify(on_notification, names)
            except ConnectorException:
                await asyncio.sleep(LISTEN_AGAIN)

    async def execute_query_async(self, query: LiteralString, **arguments: Any) -> None:
        """Run a statement; a heartbeat that the database did not take is followed by the next."""
        if query == queries["finish_job"] and arguments["job_id"] in self.finished:
            self.finished.remove(arguments["job_id"])
            return
        try:
            await super().execute_query_async(query, **arguments)
        except ConnectorException as exc:
            away = isinstance(exc.__cause__, psycopg.OperationalError)
            if not away or query != queries["update_heartbeat"]:
                raise
