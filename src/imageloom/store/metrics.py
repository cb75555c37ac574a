"""Every query behind the metrics of an installation. They lean on indexes of what is not over."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from psycopg.types.json import Jsonb

from imageloom.store.pool import Connection, one

Counts = list[tuple[str, str, dict[str, str], float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookBacklog:
    """Events that are `pending`, those `held` for an endpoint that is off, and how late we are."""

    pending: int
    held: int
    oldest_due_seconds: float
    disabled_endpoints: int


async def live_runs(conn: Connection) -> dict[str, int]:
    """Return how many runs go on, by status. Uses run_live."""
    rows = await conn.execute(
        "select status, count(*) as n from run where completed_at is null"
        " and status in ('running', 'paused') group by status"
    )
    return {row["status"]: row["n"] for row in await rows.fetchall()}


async def waiting_approvals(conn: Connection) -> int:
    """Return how many approvals wait for a choice. Uses step_deadline."""
    row = await conn.execute("select count(*) as n from step where status = 'paused'")
    count: int = one(await row.fetchone())["n"]
    return count


async def webhook_backlog(conn: Connection) -> WebhookBacklog:
    """Return what is to be told and how late it is. Uses webhook_due.

    One that is on its way is due again when its lease ends, so it is not late.
    """
    row = await conn.execute(
        "select count(*) filter (where off.endpoint is null) as pending,"
        " count(off.endpoint) as held,"
        " coalesce(greatest(0, extract(epoch from now() - min(due_at)"
        " filter (where off.endpoint is null))), 0)::float8 as oldest_due_seconds,"
        " (select count(*) from webhook_endpoint) as disabled_endpoints"
        " from webhook_event left join webhook_endpoint as off using (endpoint)"
        " where state = 'pending'"
    )
    return WebhookBacklog(**one(await row.fetchone()))


async def write_counts(conn: Connection, worker: str, counts: Counts) -> None:
    """Keep what a worker has counted since it began, in place of what it wrote before."""
    await conn.execute(
        "insert into worker_metrics (worker, samples) values (%s, %s)"
        " on conflict (worker) do update set samples = excluded.samples, at = now()",
        (worker, Jsonb(counts)),
    )


async def read_counts(conn: Connection, *, age: timedelta) -> dict[str, list[Any]]:
    """Return the counts that workers wrote within `age`, by worker."""
    rows = await conn.execute(
        "select worker, samples from worker_metrics where at > now() - %s order by worker", (age,)
    )
    return {row["worker"]: row["samples"] for row in await rows.fetchall()}


async def delete_counts(conn: Connection, *, age: timedelta) -> None:
    """Forget the counts of workers that have written none for `age`."""
    await conn.execute("delete from worker_metrics where at < now() - %s", (age,))
