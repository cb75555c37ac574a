"""Rounds: who is next in a queue, fair between tenants.

A waiting job has a round, which is its priority in procrastinate with the other sign: the lowest is
fetched first, and within a round who came first. The tasks of a tenant take one round each, from
the one at the head of the queue on, so that tenants take turns however much each has waiting. A
tenant that has nothing waiting begins at the head: it has saved nothing up and owes nothing.

Only jobs that wait for their first turn count, and only they name their tenant: what comes back has
had its turn. It joins the round at the head, and never holds the head up.

Source: Goyal, Vin and Cheng 1996, Start-time Fair Queuing (SIGCOMM), section 2, with a task as the
unit of work.
"""

from __future__ import annotations

from collections.abc import Sequence

from imageloom.domain.tasks import Task
from imageloom.store.pool import Connection, one


async def enqueue(conn: Connection, tasks: Sequence[Task]) -> dict[str, int]:
    """Give these tasks of one tenant, type and priority their first jobs; return them by task id.

    They come after the tenant's waiting jobs of their priority and before those of a lower one,
    which move back by as many of the tenant's own rounds: no other tenant waits for longer.
    Until the transaction ends, other new tasks of the tenant wait for it. Two index look-ups
    whatever waits, unless jobs move back. Uses job_by_round and job_by_tenant.
    """
    if not tasks:
        return {}
    first = tasks[0]
    rows = await conn.execute(
        "select task_id, job_id from enqueue(%s, %s, %s, %s)",
        (first.type, first.tenant, first.priority, [task.id for task in tasks]),
    )
    return {row["task_id"]: row["job_id"] for row in await rows.fetchall()}


async def head(conn: Connection, queue: str) -> int:
    """Return the round at the head of a queue, for what comes back to it. Uses job_by_round."""
    row = await conn.execute("select head_round(%s) as round", (queue,))
    return int(one(await row.fetchone())["round"])


async def positions(conn: Connection, job_ids: Sequence[int]) -> dict[int, int]:
    """Return how many jobs that are due will be fetched before each of these that wait.

    One pass over what is before the last of them, however many they are. Uses job_by_round.
    """
    rows = await conn.execute(
        "with wanted as (select id, queue_name, priority from procrastinate_jobs"
        " where id = any(%(ids)s) and status = 'todo')"
        " select id, ahead from (select id, count(*)"
        " filter (where scheduled_at is null or scheduled_at <= now())"
        " over (partition by queue_name order by priority desc, id"
        " rows between unbounded preceding and 1 preceding) as ahead from procrastinate_jobs"
        " where status = 'todo' and queue_name = any(array(select queue_name from wanted))"
        " and priority >= (select min(priority) from wanted)) as line"
        " where id = any(%(ids)s)",
        {"ids": list(job_ids)},
    )
    return {row["id"]: row["ahead"] for row in await rows.fetchall()}
