"""Every query about webhook events: what is to be told, who is telling it, what became of it.

An event is due at `due_at`. Whoever claims it has until the `due_at` that the claim writes; after
that it is anybody's again, and what the first writes then carries an old attempt number. Time is
the database's.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from psycopg import sql
from psycopg.types.json import Jsonb

from imageloom.domain.webhooks import Happening, Resource, Webhook
from imageloom.store.notices import CHANNEL
from imageloom.store.pool import Connection, one

SUBJECT = "webhooks"  # of the notice that there is something to tell
State = Literal["pending", "delivered", "failed"]
_CLAIMING = 0x696D_7768  # "imwh": the advisory lock of who claims
_MOST_ATTEMPTS = 200  # kept of an event that is replayed again and again
_COLUMNS = sql.SQL(
    "id, tenant, resource, resource_id, run_id, type, url, endpoint, host, occurred_at, snapshot,"
    " body, state, attempt, tries, due_at, attempts, ended_at, traceparent"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewEvent:
    """What happened. `snapshot` is what the resource said then and may not say any more.

    `traceparent` is the span that it is part of."""

    id: str
    tenant: str
    resource: Resource
    resource_id: str
    run_id: str | None
    happening: Happening
    url: str
    endpoint: str
    host: str
    snapshot: dict[str, Any]
    traceparent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One delivery: the status that was answered, or what kind of error came instead of one."""

    at: datetime
    status: int | None
    error: str | None
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """An event as the store knows it. `attempt` is the fencing token of who sends it."""

    id: str
    tenant: str
    resource: Resource
    resource_id: str
    run_id: str | None
    type: str
    url: str
    endpoint: str
    host: str
    occurred_at: datetime
    snapshot: dict[str, Any]
    body: str | None
    state: State
    attempt: int
    tries: int
    due_at: datetime
    attempts: tuple[Attempt, ...]
    ended_at: datetime | None
    traceparent: str | None


def webhook_from(stored: dict[str, Any] | None) -> Webhook | None:
    """Return the webhook of a row of a task, a workflow or a run."""
    if stored is None:
        return None
    events = tuple(Happening(each) for each in stored["events"])
    return Webhook(url=stored["url"], events=events)


async def add(conn: Connection, new: NewEvent) -> None:
    """Add an event that is due now, in the transaction in which it happened; notices tell of it."""
    await conn.execute(
        "with new as (insert into webhook_event"
        " (id, tenant, resource, resource_id, run_id, type, url, endpoint, host, snapshot,"
        " traceparent) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s) returning id)"
        " select pg_notify(%s, %s) from new",
        (
            new.id,
            new.tenant,
            new.resource,
            new.resource_id,
            new.run_id,
            f"{new.resource}.{new.happening}",
            new.url,
            new.endpoint,
            new.host,
            Jsonb(new.snapshot),
            new.traceparent,
            CHANNEL,
            f"{SUBJECT} new",
        ),
    )


async def drop_progress(conn: Connection, subject: str) -> None:
    """Forget the progress of a task or run that was not told yet. Uses webhook_progress."""
    await conn.execute(
        "delete from webhook_event where coalesce(run_id, resource_id) = %s"
        " and state = 'pending' and type like '%%.progress'",
        (subject,),
    )


async def clock(conn: Connection) -> datetime:
    """Return the database's time, which a machine with a wrong clock signs by too."""
    row = await conn.execute("select clock_timestamp() as now")
    found: datetime = one(await row.fetchone())["now"]
    return found


async def claim_due(
    conn: Connection,
    *,
    free: int,
    full: Collection[str],
    of_host: int,
    of_endpoint: int,
    rate: int,
    lease: timedelta,
) -> list[Event]:
    """Take up to `free` events that are due, the longest due first, for as long as `lease`.

    At most `of_endpoint` of an endpoint are on their way at once, and at most `rate` are begun in a
    second, by however many processes: they claim one after the other, and who comes meanwhile gets
    nothing. At most `of_host` are of one host, and none of a host in `full`. Endpoints are found by
    skipping through webhook_due, so that what one of them has waiting does not hide the others.
    """
    lock = await conn.execute("select pg_try_advisory_xact_lock(%s) as ours", (_CLAIMING,))
    if not one(await lock.fetchone())["ours"]:
        return []
    query = sql.SQL(
        "with recursive line as ("
        " (select min(endpoint) as endpoint from webhook_event where state = 'pending')"
        " union all select (select min(endpoint) from webhook_event where state = 'pending'"
        " and endpoint > line.endpoint) from line where line.endpoint is not null"
        "), due as (select event.* from line cross join lateral ("
        " select id, host, due_at from webhook_event"
        " where state = 'pending' and endpoint = line.endpoint and due_at <= now()"
        " order by due_at limit greatest(0, least("
        " %(of_endpoint)s - (select count(*) from webhook_event"
        " where endpoint = line.endpoint and sending and due_at > now()),"
        " %(rate)s - (select count(*) from webhook_event"
        " where endpoint = line.endpoint and begun_at > clock_timestamp() - interval '1 second')"
        " )) for update skip locked) as event"
        " where not exists (select 1 from webhook_endpoint where endpoint = line.endpoint)"
        " and event.host <> all(%(full)s::text[])"
        "), ranked as ("
        " select id, due_at, row_number() over (partition by host order by due_at) as n from due"
        ") update webhook_event set sending = true, begun_at = clock_timestamp(),"
        " attempt = attempt + 1, tries = tries + 1, due_at = now() + %(lease)s"
        " where id in"
        " (select id from ranked where n <= %(of_host)s order by due_at limit %(free)s)"
        " returning {columns}"
    ).format(columns=_COLUMNS)
    rows = await conn.execute(
        query,
        {
            "free": free,
            "full": list(full),
            "of_host": of_host,
            "of_endpoint": of_endpoint,
            "rate": rate,
            "lease": lease,
        },
    )
    return [_event(row) for row in await rows.fetchall()]


async def keep_body(conn: Connection, event: Event, body: str) -> bool:
    """Write what every delivery of the event will say; False where it is another's by now."""
    cursor = await conn.execute(
        "update webhook_event set body = %s where id = %s and attempt = %s and body is null",
        (body, event.id, event.attempt),
    )
    return cursor.rowcount == 1


async def note_attempt(
    conn: Connection,
    event: Event,
    made: Attempt,
    *,
    state: State,
    delay: float = 0.0,
    fresh: bool = False,
) -> bool:
    """Write what came of the claimed attempt; False where the event is another's, or gone.

    A pending one is due again in `delay` seconds; with `fresh` its tries are counted anew.
    """
    cursor = await conn.execute(
        "update webhook_event set sending = false, state = %(state)s,"
        " due_at = clock_timestamp() + make_interval(secs => %(delay)s),"
        " tries = case when %(fresh)s then 0 else tries end,"
        " ended_at = case when %(state)s <> 'pending' then clock_timestamp() end,"
        " attempts = case when jsonb_array_length(attempts) >= %(most)s then attempts - 0"
        " else attempts end || %(made)s"
        " where id = %(id)s and attempt = %(attempt)s and state = 'pending'",
        {
            "id": event.id,
            "attempt": event.attempt,
            "state": state,
            "delay": delay,
            "fresh": fresh,
            "most": _MOST_ATTEMPTS,
            "made": Jsonb(
                {
                    "at": made.at.isoformat(),
                    "status": made.status,
                    "error": made.error,
                    "seconds": made.seconds,
                }
            ),
        },
    )
    return cursor.rowcount == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EventFilter:
    """Which events a list shows; None means any."""

    resource_id: str | None = None
    type: str | None = None
    state: State | None = None


async def get(conn: Connection, event_id: str, *, tenant: str) -> Event | None:
    """Return the tenant's event, or None where it has none of that id."""
    query = sql.SQL("select {columns} from webhook_event where id = %s and tenant = %s")
    row = await conn.execute(query.format(columns=_COLUMNS), (event_id, tenant))
    found = await row.fetchone()
    return _event(found) if found else None


async def list_page(
    conn: Connection, *, tenant: str, wanted: EventFilter, limit: int, offset: int
) -> tuple[list[Event], int]:
    """Return one page of the tenant's events, newest first, and how many there are.

    Uses webhook_by_tenant or webhook_by_resource.
    """
    conditions = [sql.SQL("tenant = %(tenant)s")]
    if wanted.resource_id is not None:
        conditions.append(sql.SQL("resource_id = %(resource_id)s"))
    if wanted.type is not None:
        conditions.append(sql.SQL("type = %(type)s"))
    if wanted.state is not None:
        conditions.append(sql.SQL("state = %(state)s"))
    values = {
        "tenant": tenant,
        "resource_id": wanted.resource_id,
        "type": wanted.type,
        "state": wanted.state,
        "limit": limit,
        "offset": offset,
    }
    where = sql.SQL(" and ").join(conditions)
    count = await conn.execute(
        sql.SQL("select count(*) as n from webhook_event where {}").format(where), values
    )
    total = one(await count.fetchone())["n"]
    page = sql.SQL(
        "select {columns} from webhook_event where {where}"
        " order by occurred_at desc, id desc limit %(limit)s offset %(offset)s"
    ).format(columns=_COLUMNS, where=where)
    rows = await conn.execute(page, values)
    return [_event(row) for row in await rows.fetchall()], total


async def replay(conn: Connection, event_id: str, *, tenant: str) -> Event | None:
    """Make the tenant's event due now, with all its tries before it; None where there is none.

    One that is on its way goes on first, and what comes of it does not count.
    """
    query = sql.SQL(
        "update webhook_event set state = 'pending', ended_at = null, tries = 0,"
        " attempt = attempt + 1, sending = false, due_at = clock_timestamp()"
        " where id = %s and tenant = %s returning {columns}"
    ).format(columns=_COLUMNS)
    row = await conn.execute(query, (event_id, tenant))
    found = await row.fetchone()
    return _event(found) if found else None


async def delete_old(conn: Connection, *, age: timedelta) -> None:
    """Forget events that ended so long ago, and those that wait for an endpoint that is off.

    Uses webhook_ended and webhook_due.
    """
    await conn.execute("delete from webhook_event where ended_at < now() - %s", (age,))
    await conn.execute(
        "delete from webhook_event using webhook_endpoint as off where off.endpoint ="
        " webhook_event.endpoint and state = 'pending' and occurred_at < now() - %s",
        (age,),
    )


def _event(row: dict[str, Any]) -> Event:
    attempts = tuple(
        Attempt(**{**each, "at": datetime.fromisoformat(each["at"])}) for each in row["attempts"]
    )
    return Event(**{**row, "attempts": attempts})
