"""What became of tasks and runs, as their triggers wrote it down (migrations/0008_events.sql)."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from imageloom.store.pool import Connection

KEPT_DAYS: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One change of a task or a run, its `subject`; `seq` counts from 1 for each of them."""

    subject: str
    seq: int
    at: datetime
    data: dict[str, Any]

    @property
    def terminal(self) -> bool:
        """Whether the subject was over then; of a run that was resumed there may be more."""
        return self.data["status"] in ("completed", "failed", "cancelled")


async def after(conn: Connection, subject: str, seq: int) -> list[Event]:
    """Return the events of a subject that came after that one, in order. Uses the primary key."""
    rows = await conn.execute(
        "select subject, seq, at, data from event where subject = %s and seq > %s order by seq",
        (subject, seq),
    )
    return [Event(**row) for row in await rows.fetchall()]


async def latest(conn: Connection, subject: str) -> Event | None:
    """Return the newest event of a subject. Uses the primary key."""
    rows = await conn.execute(
        "select subject, seq, at, data from event where subject = %s order by seq desc limit 1",
        (subject,),
    )
    found = await rows.fetchone()
    return Event(**found) if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stretch:
    """A time in which a task kept its status and attempt, and how far it came in it."""

    at: datetime
    status: str
    attempt: int
    progress: float


async def stretches(conn: Connection, task_id: str) -> list[Stretch]:
    """Return the status changes of a task, in order. Uses the primary key."""
    rows = await conn.execute(
        "select min(at) as at, status, attempt, max(progress) as progress from ("
        " select *, count(*) filter (where changed) over (order by seq) as stretch from ("
        " select seq, at, status, attempt, progress, (status, attempt) is distinct from"
        " (lag(status) over told, lag(attempt) over told) as changed from ("
        " select seq, at, data ->> 'status' as status, (data ->> 'attempt')::integer as attempt,"
        " (data ->> 'progress')::float8 as progress from event where subject = %s"
        " ) as each window told as (order by seq)) as compared) as numbered"
        " group by stretch, status, attempt order by stretch",
        (task_id,),
    )
    return [Stretch(**row) for row in await rows.fetchall()]


async def delete_old(conn: Connection) -> None:
    """Forget what nobody will replay: of each subject the newest event stays. Uses event_age."""
    await conn.execute(
        "delete from event where at < now() - make_interval(days => %s) and exists (select from"
        " event as newer where newer.subject = event.subject and newer.seq > event.seq)",
        (KEPT_DAYS,),
    )
