"""Every metric of an installation: its name with its unit, what it says, and by what it is split.

Declared here and nowhere else; docs/metrics.md is held to it by a test. Seconds, bytes and ratios
throughout, as Prometheus has them. No label has a value that a user makes up.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["counter", "gauge", "histogram"]
# Who tells it: the database, the same whichever API process is asked; a worker, through the
# database; the API process that is asked; or each process that does it, API and worker alike.
Source = Literal["database", "worker", "api", "each"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One metric. `buckets` are the upper bounds of a histogram's."""

    name: str
    kind: Kind
    source: Source
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()


_MOMENTS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_TASKS: Final = (0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600, 14400)
_STEPS: Final = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)

# What the database knows

QUEUE_PENDING: Final = Metric(
    name="imageloom_queue_pending_tasks",
    kind="gauge",
    source="database",
    help="Tasks that wait, those of paused workflows too",
    labels=("queue",),
)
QUEUE_RUNNING: Final = Metric(
    name="imageloom_queue_running_tasks",
    kind="gauge",
    source="database",
    help="Tasks that a worker has claimed",
    labels=("queue",),
)
QUEUE_OLDEST: Final = Metric(
    name="imageloom_queue_oldest_pending_seconds",
    kind="gauge",
    source="database",
    help="Since when the oldest task waits that a worker could claim; 0 where none does",
    labels=("queue",),
)
QUEUE_WORKERS: Final = Metric(
    name="imageloom_queue_workers",
    kind="gauge",
    source="database",
    help="Healthy workers that take tasks from the queue",
    labels=("queue",),
)
WORKERS: Final = Metric(
    name="imageloom_workers",
    kind="gauge",
    source="database",
    help="Workers of the last hour by status; silent is one whose lease ran out",
    labels=("status",),
)
WORKER_INFO: Final = Metric(
    name="imageloom_worker_info",
    kind="gauge",
    source="database",
    help="Always 1: the machine, device and version of a worker",
    labels=("worker", "host", "device", "version"),
)
WORKER_TASKS: Final = Metric(
    name="imageloom_worker_running_tasks",
    kind="gauge",
    source="database",
    help="Tasks that a live worker has under way",
    labels=("worker",),
)
DEVICE_MEMORY: Final = Metric(
    name="imageloom_worker_device_memory_bytes",
    kind="gauge",
    source="database",
    help="Memory of a live worker's device; of a GPU only",
    labels=("worker",),
)
DEVICE_MEMORY_USED: Final = Metric(
    name="imageloom_worker_device_memory_used_bytes",
    kind="gauge",
    source="database",
    help="What is used of that memory, by whomever",
    labels=("worker",),
)
DEVICE_UTILIZATION: Final = Metric(
    name="imageloom_worker_device_utilization_ratio",
    kind="gauge",
    source="database",
    help="Share of the last sample in which a kernel ran on a live worker's device; of a GPU only",
    labels=("worker",),
)
RUNS: Final = Metric(
    name="imageloom_workflow_runs",
    kind="gauge",
    source="database",
    help="Runs of workflows that are not over",
    labels=("status",),
)
APPROVALS: Final = Metric(
    name="imageloom_approvals_waiting",
    kind="gauge",
    source="database",
    help="Approvals that wait for a person's choice",
)
WEBHOOKS_PENDING: Final = Metric(
    name="imageloom_webhook_pending_events",
    kind="gauge",
    source="database",
    help="Webhook events that are to be delivered, now or at a later try",
)
WEBHOOKS_HELD: Final = Metric(
    name="imageloom_webhook_held_events",
    kind="gauge",
    source="database",
    help="Webhook events that wait for an endpoint that is off",
)
WEBHOOKS_OLDEST: Final = Metric(
    name="imageloom_webhook_oldest_due_seconds",
    kind="gauge",
    source="database",
    help="Since when the longest due webhook event is due and not delivered; 0 where none is",
)
ENDPOINTS_DISABLED: Final = Metric(
    name="imageloom_webhook_disabled_endpoints",
    kind="gauge",
    source="database",
    help="Endpoints that are off because they answered 410",
)

# What becomes of tasks, told by whichever process settles them

TASKS_ENDED: Final = Metric(
    name="imageloom_tasks_ended_total",
    kind="counter",
    source="each",
    help="Tasks that came to their end, by type and status",
    labels=("type", "status"),
)
ATTEMPTS_ENDED: Final = Metric(
    name="imageloom_attempts_ended_total",
    kind="counter",
    source="each",
    help="Attempts that ended, by outcome and, where it failed, the code of its error",
    labels=("type", "outcome", "code"),
)
TASK_WAIT: Final = Metric(
    name="imageloom_task_wait_seconds",
    kind="histogram",
    source="each",
    help="From the making of a task to the claim of its first attempt",
    labels=("type",),
    buckets=_TASKS,
)
TASK_RUN: Final = Metric(
    name="imageloom_task_run_seconds",
    kind="histogram",
    source="each",
    help="From the claim of a task's last attempt to its end",
    labels=("type", "status"),
    buckets=_TASKS,
)
PICTURES: Final = Metric(
    name="imageloom_pictures_total",
    kind="counter",
    source="each",
    help="Pictures that completed tasks made; those found in the step cache are not among them",
    labels=("type",),
)

# What workers did

DEVICE_TIME: Final = Metric(
    name="imageloom_device_seconds_total",
    kind="counter",
    source="worker",
    help="Time that the device was at work, by the type of the task that it worked for",
    labels=("type",),
)
STEPS: Final = Metric(
    name="imageloom_denoising_step_seconds",
    kind="histogram",
    source="worker",
    help="Denoising steps, each of all rows that rode along",
    buckets=_STEPS,
)
STEP_ROWS: Final = Metric(
    name="imageloom_denoising_step_rows",
    kind="histogram",
    source="worker",
    help="Rows that rode along in a denoising step",
    buckets=(1, 2, 3, 4, 6, 8, 12, 16),
)
DEVICE_RESTARTS: Final = Metric(
    name="imageloom_device_restarts_total",
    kind="counter",
    source="worker",
    help="Device processes that died and were replaced",
)
RELIEF: Final = Metric(
    name="imageloom_out_of_memory_relief_total",
    kind="counter",
    source="worker",
    help="What was done where a device's memory did not suffice, by rung of the ladder",
    labels=("rung",),
)
FETCHES: Final = Metric(
    name="imageloom_fetches_total",
    kind="counter",
    source="worker",
    help="URLs of users that were opened, by whether that gave an input",
    labels=("outcome",),
)
FETCHED: Final = Metric(
    name="imageloom_fetched_bytes_total",
    kind="counter",
    source="worker",
    help="Bytes that users' URLs answered",
)

# What an API process did

REQUESTS: Final = Metric(
    name="imageloom_http_requests_total",
    kind="counter",
    source="api",
    help="Answers by method, route and status; 499 where the caller left before one",
    labels=("method", "route", "status"),
)
REQUEST_TIME: Final = Metric(
    name="imageloom_http_request_seconds",
    kind="histogram",
    source="api",
    help="To the beginning of the answer, the wait that a caller asked for included",
    labels=("method", "route"),
    buckets=_MOMENTS,
)
SUBMIT_TIME: Final = Metric(
    name="imageloom_submit_seconds",
    kind="histogram",
    source="api",
    help="The transaction that makes a task, by its type",
    labels=("type",),
    buckets=_MOMENTS,
)
DELIVERIES: Final = Metric(
    name="imageloom_webhook_deliveries_total",
    kind="counter",
    source="api",
    help="Tries of webhook events, by what came of it: delivered, again, failed, off",
    labels=("outcome",),
)
DELIVERY_TIME: Final = Metric(
    name="imageloom_webhook_delivery_seconds",
    kind="histogram",
    source="api",
    help="One try of a webhook event, however it ended",
    buckets=_MOMENTS,
)
WATCHERS: Final = Metric(
    name="imageloom_event_watchers",
    kind="gauge",
    source="api",
    help="Streams of server-sent events that are open",
)
POOL_CONNECTIONS: Final = Metric(
    name="imageloom_database_pool_connections",
    kind="gauge",
    source="api",
    help="Connections of the process's pool to PostgreSQL",
    labels=("state",),
)
POOL_WAITING: Final = Metric(
    name="imageloom_database_pool_waiting_requests",
    kind="gauge",
    source="api",
    help="Who waits for a connection of the pool",
)
BUILD: Final = Metric(
    name="imageloom_build_info",
    kind="gauge",
    source="api",
    help="Always 1: the version of the process",
    labels=("version",),
)

METRICS: Final = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
