"""Queries of what ended long ago: find it, and delete it with everything that hangs on it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from imageloom.store.pool import Connection


async def old_tasks(conn: Connection, *, age: timedelta, limit: int) -> list[str]:
    """Return tasks of no run that ended so long ago, the oldest first, and hold their rows.

    Not trainings whose adapter is there. Uses task_ended and adapter_of_task.
    """
    rows = await conn.execute(
        "select id from task where completed_at < now() - %s and run_id is null"
        " and not exists (select from adapter where adapter.task_id = task.id)"
        " order by completed_at limit %s for update skip locked",
        (age, limit),
    )
    return [row["id"] for row in await rows.fetchall()]


async def old_run(conn: Connection, *, age: timedelta) -> str | None:
    """Return a run that ended so long ago and hold its row; None where there is none.

    Not one that holds a training whose adapter is there. Uses run_ended.
    """
    row = await conn.execute(
        "select id from run where completed_at < now() - %s and not exists"
        " (select from task join adapter on adapter.task_id = task.id where task.run_id = run.id)"
        " order by completed_at limit 1 for update skip locked",
        (age,),
    )
    found = await row.fetchone()
    return None if found is None else str(found["id"])


async def delete_tasks(conn: Connection, task_ids: Sequence[str]) -> None:
    """Delete tasks that are over, with their attempts, losses and events."""
    for statement in (
        "delete from attempt where task_id = any(%s)",
        "delete from loss where task_id = any(%s)",
        "delete from event where subject = any(%s)",
        "delete from task where id = any(%s) and completed_at is not null",
    ):
        await conn.execute(statement, (list(task_ids),))


async def delete_run(conn: Connection, run_id: str) -> None:
    """Delete a run whose tasks are deleted, and its workflow where that has no other run."""
    await conn.execute("delete from step where run_id = %s", (run_id,))
    await conn.execute("delete from event where subject = %s", (run_id,))
    row = await conn.execute("delete from run where id = %s returning workflow_id", (run_id,))
    if (found := await row.fetchone()) is not None:
        await conn.execute(
            "delete from workflow where id = %s"
            " and not exists (select from run where run.workflow_id = workflow.id)",
            (found["workflow_id"],),
        )
