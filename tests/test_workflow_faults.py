"""Fifty workflows while the worker and the API are killed at random: all complete, nothing twice.

Real processes. What happened to a task is read from the log, which has one event per settlement.
"""

from __future__ import annotations

import io
import json
import random
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from PIL import Image

from conftest import serve, wait_for

if TYPE_CHECKING:
    from conftest import Live

WORKFLOWS = 50
KILLS = 6
SEED = 20261124
# A diamond that fans out: two pictures, each through b and c, and what they make through d.
STEPS = [
    {"name": "a", "type": "processing", "config": {"operation": "resize", "width": 24}},
    {
        "name": "b",
        "type": "processing",
        "config": {"operation": "adjust", "brightness": 1.2},
        "depends_on": ["a"],
    },
    {
        "name": "c",
        "type": "processing",
        "config": {"operation": "crop", "aspect_ratio": "1:1"},
        "depends_on": ["a"],
    },
    {
        "name": "d",
        "type": "processing",
        "config": {"operation": "convert", "output_format": "webp"},
        "depends_on": ["b", "c"],
    },
]
TASKS = {"a": 2, "b": 2, "c": 2, "d": 4}


@pytest.fixture
def server() -> Iterator[Live]:
    with (
        # A short folder: the path of a Unix socket must stay below 108 bytes.
        tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True) as folder,
        serve(
            Path(folder) / "data",
            IMAGELOOM_HEARTBEAT_INTERVAL="0.5",
            IMAGELOOM_LEASE_SECONDS="4",
            IMAGELOOM_LOG_FORMAT="json",
            # A task that is hit by three kills would be given up as poison.
            IMAGELOOM_MAX_ATTEMPTS="20",
        ) as running,
    ):
        running.wait_ready()
        yield running


def test_workflows_survive_the_deaths_of_worker_and_api(server: Live) -> None:
    dice = random.Random(SEED)
    urls = [upload(server, number) for number in range(2)]
    workflows = [start(server, urls) for _ in range(WORKFLOWS)]
    for kill in range(KILLS):
        # Spread over the work: the next one falls when so many more tasks have ended.
        due = (kill + dice.random()) * WORKFLOWS * sum(TASKS.values()) / (KILLS + 1)
        wait_for(lambda: settled(server)["completed"] >= due, what="work to interrupt")  # noqa: B023
        server.kill(dice.choice(["imageloom worker", "imageloom api", "imageloom device"]))
    for workflow_id in workflows:
        ended = wait_for(lambda: over(server, workflow_id), what="the workflow's end")  # noqa: B023
        check(server, ended)
    # No task completed twice: neither by the log, where a kill may cost the line of what it hit,
    # nor by what is stored, where a second completion would leave a second attempt's pictures.
    counts = Counter(event["task_id"] for event in settlements(server, "completed"))
    tasks = WORKFLOWS * sum(TASKS.values())
    assert tasks - KILLS <= len(counts) <= tasks
    assert set(counts.values()) == {1}
    assert settled(server)["failed"] == 0
    outputs = server.data_dir / "storage" / "outputs"
    wait_for(
        lambda: {len(list(task.rglob("*.*"))) for task in outputs.iterdir()} == {1},
        what="one picture for each task, and nothing that a killed attempt left",
    )
    assert len(list(outputs.iterdir())) == tasks


def check(server: Live, workflow: dict[str, Any]) -> None:
    """Every step has its tasks, once, and its pictures are there, in the order of its input."""
    assert workflow["status"] == "completed", workflow["error"]
    assert {step["name"]: len(step["tasks"]) for step in workflow["steps"]} == TASKS
    with server.client() as client:
        path = f"/tasks?workflow_id={workflow['id']}&page_size=100"
        tasks = ask(client, path).json()["items"]
    assert len({(task["workflow"]["step"], task["workflow"]["item"]) for task in tasks}) == 10
    assert len(tasks) == 10
    last = workflow["steps"][-1]["output"]["images"]
    # b keeps the shape of what it gets, c makes it square; the pictures are 1:2 and 2:1.
    assert [(image["width"], image["height"]) for image in last] == [
        (24, 48),
        (24, 12),
        (24, 24),
        (12, 12),
    ]
    for image in last:
        stored = Image.open(io.BytesIO(httpx.get(image["url"]).content))
        assert stored.size == (image["width"], image["height"])


def upload(server: Live, number: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (40, 80) if number == 0 else (80, 40), (200, 30, 40)).save(file, "PNG")
    with server.client() as client:
        return str(client.post("/files", files={"file": file.getvalue()}).json()["url"])


def start(server: Live, urls: list[str]) -> str:
    body = {"name": "under fire", "steps": STEPS, "input": {"image_urls": urls}}
    with server.client() as client:
        made = client.post("/workflows", json=body).raise_for_status().json()
        # Without the cache: each workflow has its own work to do.
        path = f"/workflows/{made['id']}/start"
        client.post(path, json={"cache": False}).raise_for_status()
    return str(made["id"])


def over(server: Live, workflow_id: str) -> dict[str, Any] | None:
    with server.client() as client:
        now: dict[str, Any] = ask(client, f"/workflows/{workflow_id}").json()
    return now if now["status"] not in ("running", "created") else None


def ask(client: httpx.Client, path: str) -> httpx.Response:
    """Ask until there is an answer: the API may have been killed just now."""

    def answer() -> httpx.Response | None:
        try:
            got = client.get(path)
        except httpx.TransportError:
            return None
        assert got.status_code in (200, 503), got.text  # never a wrong answer
        return got if got.status_code == 200 else None

    return wait_for(answer, what=f"an answer from {path}")


def settlements(server: Live, status: str) -> list[dict[str, Any]]:
    log = server.data_dir.parent / f"{server.data_dir.name}.log"
    whole, _, _unfinished = log.read_text().rpartition("\n")
    events = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
    return [each for each in events if each["event"] == "settled" and each["status"] == status]


def settled(server: Live) -> dict[str, int]:
    return {status: len(settlements(server, status)) for status in ("completed", "failed")}
