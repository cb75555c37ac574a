"""Every query about workers: who is alive, on what device, doing what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from imageloom.store.pool import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReport:
    """What a worker says of itself with every heartbeat.

    `gpu_utilization` is 0 to 1; it and `memory_used_bytes` are None without an NVIDIA GPU. `reason`
    says why the status is unhealthy. `slots` tasks that draw rows share its device, None where it
    does not say. It takes no task that needs a model which it does not serve (`serves` names those
    that it may, None where it is any), whose weights it lacks, or that is too large for its device.
    """

    id: str
    host: str
    pid: int
    version: str
    status: str
    queues: tuple[str, ...]
    device: str
    memory_bytes: int | None
    gpu_utilization: float | None
    models: tuple[str, ...]
    tasks: tuple[str, ...]
    device_kind: str | None = None
    memory_used_bytes: int | None = None
    reason: str | None = None
    slots: int | None = None
    serves: tuple[str, ...] | None = None
    lacking: tuple[str, ...] = ()
    too_large: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Worker(WorkerReport):
    """A report and the database's time of it; `alive` is false once the lease ran out.

    `silent` is how many seconds ago it was.
    """

    started_at: datetime
    last_heartbeat: datetime
    alive: bool
    silent: float


async def heartbeat(conn: Connection, report: WorkerReport) -> None:
    """Add or renew a worker. One statement, so a heartbeat costs one round trip."""
    await conn.execute(
        "insert into worker (id, host, pid, version, status, queues, device, memory_bytes,"
        " gpu_utilization, models, tasks, device_kind, memory_used_bytes, reason, slots,"
        " serves, lacking, too_large)"
        " values (%(id)s, %(host)s, %(pid)s, %(version)s, %(status)s, %(queues)s,"
        " %(device)s, %(memory_bytes)s, %(gpu_utilization)s, %(models)s, %(tasks)s,"
        " %(device_kind)s, %(memory_used_bytes)s, %(reason)s, %(slots)s,"
        " %(serves)s, %(lacking)s, %(too_large)s)"
        " on conflict (id) do update set status = excluded.status, models = excluded.models,"
        " tasks = excluded.tasks, gpu_utilization = excluded.gpu_utilization,"
        " device = excluded.device, memory_bytes = excluded.memory_bytes,"
        " device_kind = excluded.device_kind, memory_used_bytes = excluded.memory_used_bytes,"
        " slots = excluded.slots, lacking = excluded.lacking, too_large = excluded.too_large,"
        " reason = excluded.reason, last_heartbeat = now()",
        {
            "id": report.id,
            "host": report.host,
            "pid": report.pid,
            "version": report.version,
            "status": report.status,
            "queues": list(report.queues),
            "device": report.device,
            "memory_bytes": report.memory_bytes,
            "gpu_utilization": report.gpu_utilization,
            "models": list(report.models),
            "tasks": list(report.tasks),
            "device_kind": report.device_kind,
            "memory_used_bytes": report.memory_used_bytes,
            "reason": report.reason,
            "slots": report.slots,
            "serves": None if report.serves is None else list(report.serves),
            "lacking": list(report.lacking),
            "too_large": list(report.too_large),
        },
    )


async def remove(conn: Connection, worker_id: str) -> None:
    """Forget a worker that stopped in order."""
    await conn.execute("delete from worker where id = %s", (worker_id,))


async def list_all(conn: Connection, *, lease: timedelta) -> list[Worker]:
    """Return every worker of the last hour, oldest first; silent for `lease` means not alive."""
    rows = await conn.execute(
        "select *, last_heartbeat > now() - %(lease)s as alive,"
        " extract(epoch from now() - last_heartbeat)::float8 as silent from worker"
        " where last_heartbeat > now() - interval '1 hour' order by started_at, id",
        {"lease": lease},
    )
    return [
        Worker(
            **{
                **row,
                "queues": tuple(row["queues"]),
                "models": tuple(row["models"]),
                "tasks": tuple(row["tasks"]),
                "serves": None if row["serves"] is None else tuple(row["serves"]),
                "lacking": tuple(row["lacking"]),
                "too_large": tuple(row["too_large"]),
            }
        )
        for row in await rows.fetchall()
    ]


async def prune(conn: Connection) -> None:
    """Forget workers that have been silent for an hour; nobody looks for them any more."""
    await conn.execute("delete from worker where last_heartbeat < now() - interval '1 hour'")
