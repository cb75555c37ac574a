"""`imageloom status`: what waits and runs, and how the workers are."""

from __future__ import annotations

import sys

import typer

from imageloom.cli._client import ApiKey, AsJson, Url, connect, failures_told, print_json
from imageloom.cli._rows import print_rows, shown_bytes, shown_duration, shown_time
from imageloom.client import Queue, Worker

QUEUES = ("queue", "pending", "running", "workers", "oldest waits")
WORKERS = ("worker", "status", "device", "busy", "memory", "tasks", "models", "heartbeat", "reason")


def status(
    context: typer.Context, url: Url = None, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Show the queues and the workers of the installation."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        queues, workers = client.queues(), client.workers()
        if as_json:
            found = {
                "queues": [queue.raw for queue in queues],
                "workers": [worker.raw for worker in workers],
            }
            print_json(found)
            return
        print_rows(QUEUES, (_queue_row(queue) for queue in queues))
        if sys.stdout.isatty():
            typer.echo()
        print_rows(WORKERS, (_worker_row(worker) for worker in workers))


def _queue_row(queue: Queue) -> tuple[str, ...]:
    waits = "" if queue.oldest_age is None else shown_duration(queue.oldest_age)
    return (queue.name, str(queue.pending), str(queue.running), str(queue.workers), waits)


def _worker_row(worker: Worker) -> tuple[str, ...]:
    busy = "" if worker.gpu_utilization is None else f"{worker.gpu_utilization:.0%}"
    memory = "" if worker.memory_bytes is None else shown_bytes(worker.memory_bytes)
    if memory and worker.memory_used_bytes is not None:
        memory = f"{shown_bytes(worker.memory_used_bytes)} of {memory}"
    return (
        worker.id,
        worker.status,
        worker.device,
        busy,
        memory,
        str(worker.task_count),
        ", ".join(worker.models),
        shown_time(worker.last_heartbeat),
        worker.reason or "",
    )
