"""Celery with Redis behind FastAPI: what `noop.py` compares with.

    python bench/celery_app.py worker REDIS_PORT prefork|threads
    python bench/celery_app.py api REDIS_PORT PORT

As durable as it goes: a message is acknowledged after its task, and what came of it is kept.
"""

from __future__ import annotations

import sys
from typing import Any

import redis
import uvicorn
from celery import Celery
from fastapi import FastAPI
from pydantic import BaseModel

_, role, redis_port, last = sys.argv
url = f"redis://127.0.0.1:{redis_port}/0"
app = Celery("bench", broker=url, backend=url)
app.conf.update(task_acks_late=True, worker_send_task_events=False, result_expires=3600)


@app.task(name="noop")  # type: ignore[untyped-decorator]  # celery has no types
def noop(task: dict[str, Any]) -> dict[str, Any]:
    """Do nothing, and return it."""
    return {"status": "completed", "seed": task["seed"]}


class Body(BaseModel):
    """What both sides are sent."""

    prompt: str
    num_outputs: int
    steps: int
    width: int
    height: int
    guidance_scale: float
    seed: int


def serve() -> None:
    """Answer a POST with the id of the task that it made."""
    web = FastAPI()
    database = redis.Redis(port=int(redis_port))

    @web.post("/tasks", status_code=201)
    def create(body: Body) -> dict[str, Any]:
        made = noop.delay(body.model_dump())
        return {"id": made.id, "status": "pending", "params": body.model_dump()}

    @web.get("/completed")
    def completed() -> int:
        # Besides results there are only the three lists and sets of the broker's own.
        return sum(1 for _ in database.scan_iter("celery-task-meta-*", count=100_000))

    @web.get("/ready")
    def ready() -> bool:
        return bool(app.control.ping(timeout=0.5))

    uvicorn.run(web, port=int(last), log_level="warning", access_log=False)


if __name__ == "__main__":
    if role == "api":
        serve()
    else:
        slots = "2" if last == "prefork" else "8"
        app.worker_main(
            ["worker", "--loglevel=warning", f"--pool={last}", f"--concurrency={slots}"]
        )
