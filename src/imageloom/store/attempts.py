"""The ledger of attempts: who made each, how it ended, and what came of that."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from imageloom.domain.messages import Usage
from imageloom.domain.retry import Decision
from imageloom.domain.tasks import Failed, Lost, Outcome, Task
from imageloom.store.pool import Connection, one


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt; `outcome` is null while it runs. Times are database time.

    `next` is the status that the task had afterwards; where that is pending, `next_at` is when it
    is tried again, and `tried_next` says it in words. `device_seconds` and `device_memory_bytes`
    are as `domain.messages.Usage` has them, null where the attempt was lost or had no device.
    """

    number: int
    worker: str
    started_at: datetime
    ended_at: datetime | None
    outcome: str | None
    code: str | None
    message: str | None
    next: str | None
    next_at: datetime | None
    tried_next: str | None
    device_seconds: float | None
    device_memory_bytes: int | None


async def begin(conn: Connection, task: Task) -> None:
    """Note that the task's attempt begins; one before it that nobody ended was lost."""
    if task.attempt > 1:
        await conn.execute(
            "update attempt set ended_at = clock_timestamp(), outcome = 'lost', next = 'running',"
            " message = 'another worker began the next', tried_next = 'again at once'"
            " where task_id = %s and ended_at is null",
            (task.id,),
        )
    await conn.execute(
        "insert into attempt (task_id, number, worker, pace, units)"
        " select id, attempt, worker, pace, units from task where id = %s",
        (task.id,),
    )


async def end(
    conn: Connection,
    task_id: str,
    number: int,
    *,
    outcome: Outcome,
    decision: Decision,
    tried_next: str | None,
    usage: Usage | None,
) -> None:
    """Note how an attempt ended; nothing where it never began, as of a task that waited."""
    code: str | None = None
    message: str | None = None
    match outcome:
        case Failed(code=code, message=message):
            pass
        case Lost(reason=message):
            pass
    await conn.execute(
        "update attempt set ended_at = clock_timestamp(), outcome = %(outcome)s, code = %(code)s,"
        " message = %(message)s, tried_next = %(tried_next)s, device_seconds = %(seconds)s,"
        " device_memory_bytes = %(memory)s, relief = %(relief)s,"
        " next = %(next)s, next_at = case when %(next)s = 'pending'"
        " then clock_timestamp() + make_interval(secs => %(delay)s) end"
        " where task_id = %(task)s and number = %(number)s and ended_at is null",
        {
            "task": task_id,
            "number": number,
            "outcome": type(outcome).__name__.lower(),
            "code": code,
            "message": message,
            "next": decision.status.value,
            "delay": decision.delay,
            "tried_next": tried_next,
            "seconds": usage and usage.seconds,
            "memory": usage and usage.memory_bytes,
            "relief": list(usage.relief) if usage and usage.relief else None,
        },
    )


async def note_usage(conn: Connection, task_id: str, number: int, usage: Usage) -> None:
    """Note what an attempt had of its device, where nobody has."""
    await conn.execute(
        "update attempt set device_seconds = %s, device_memory_bytes = %s, relief = %s"
        " where task_id = %s and number = %s and device_seconds is null",
        (usage.seconds, usage.memory_bytes, list(usage.relief) or None, task_id, number),
    )


async def unswept(conn: Connection, *, age: timedelta, limit: int) -> list[tuple[str, int]]:
    """Return attempts that ended so long ago without completing, and were not swept yet.

    Uses attempt_unswept.
    """
    rows = await conn.execute(
        "select task_id, number from attempt where not swept and outcome <> 'completed'"
        " and ended_at < now() - %s order by ended_at limit %s",
        (age, limit),
    )
    return [(row["task_id"], row["number"]) for row in await rows.fetchall()]


async def mark_swept(conn: Connection, task_id: str, number: int) -> None:
    """Note that nothing of the attempt is in storage any more."""
    await conn.execute(
        "update attempt set swept = true where task_id = %s and number = %s", (task_id, number)
    )


async def list_page(
    conn: Connection, task_id: str, *, limit: int, offset: int
) -> tuple[list[Attempt], int]:
    """Return one page of a task's attempts, the first first, and how many there are in all."""
    total = await conn.execute("select count(*) as n from attempt where task_id = %s", (task_id,))
    rows = await conn.execute(
        "select number, worker, started_at, ended_at, outcome, code, message, next, next_at,"
        " tried_next, device_seconds, device_memory_bytes from attempt"
        " where task_id = %s order by number limit %s offset %s",
        (task_id, limit, offset),
    )
    found = [Attempt(**row) for row in await rows.fetchall()]
    return found, one(await total.fetchone())["n"]
