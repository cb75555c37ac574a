"""One generation task through everything: HTTP, queue, worker, device, storage."""

from __future__ import annotations

import io
from datetime import datetime
from typing import TYPE_CHECKING

import httpx
from PIL import Image

if TYPE_CHECKING:
    from conftest import Live


def test_prompt_becomes_pictures_that_a_bare_get_downloads(live: Live) -> None:
    with live.client() as client:
        created = client.post(
            "/tasks/generation",
            json={"prompt": "a red dress", "num_outputs": 2, "steps": 4, "seed": 5},
        )
    assert created.status_code == 201
    assert created.json()["status"] == "pending"
    task = live.wait_task(created.json()["id"], "completed", "failed")
    assert task["status"] == "completed", task
    assert task["progress"] == 1.0
    assert task["error"] is None
    images = task["output"]["images"]  # type: ignore[index]
    assert [image["seed"] for image in images] == [5, 6]
    for image in images:
        answer = httpx.get(image["url"])
        assert answer.headers["content-type"] == "image/jpeg"
        assert Image.open(io.BytesIO(answer.content)).size == (image["width"], image["height"])
    with live.client() as client:
        (attempt,) = client.get(f"/tasks/{task['id']}/attempts").json()["items"]
    ended, began = (datetime.fromisoformat(attempt[name]) for name in ("ended_at", "started_at"))
    assert 0 < attempt["device_seconds"] < (ended - began).total_seconds()
    assert attempt["device_memory_bytes"] > 100_000_000  # the device's process, with torch in it
    assert attempt["tried_next"] is None


def pictures(live: Live, **changes: object) -> list[bytes]:
    """Run a small task and return the bytes of its pictures."""
    body = {"prompt": "a striped blue shirt", "steps": 4, "width": 64, "height": 64, **changes}
    with live.client() as client:
        task_id = client.post("/tasks/generation", json=body).json()["id"]
    task = live.wait_task(task_id, "completed", "failed")
    images = task["output"]["images"]  # type: ignore[index]
    return [httpx.get(image["url"]).content for image in images]


def test_same_seed_gives_the_same_bytes_and_each_picture_can_be_asked_for_alone(live: Live) -> None:
    together = pictures(live, seed=40, num_outputs=3)
    assert pictures(live, seed=40, num_outputs=3) == together
    assert pictures(live, seed=41) == together[1:2]
    assert len(set(together)) == 3


def test_a_task_without_a_seed_says_which_one_it_drew(live: Live) -> None:
    with live.client() as client:
        body = {"prompt": "a hat", "steps": 1, "width": 64, "height": 64}
        task_id = client.post("/tasks/generation", json=body).json()["id"]
    task = live.wait_task(task_id, "completed", "failed")
    image = task["output"]["images"][0]  # type: ignore[index]
    assert image["seed"] == task["params"]["seed"]  # type: ignore[index]
    again = pictures(live, prompt="a hat", steps=1, seed=image["seed"])
    assert again == [httpx.get(image["url"]).content]


def test_size_follows_the_input_picture_unless_asked_for(live: Live) -> None:
    wide = Image.new("RGB", (300, 150), "red")
    buffer = io.BytesIO()
    wide.save(buffer, "PNG")
    with live.client() as client:
        uploaded = client.post("/files", files={"file": ("a.png", buffer.getvalue(), "image/png")})
    url = uploaded.json()["url"]
    body = {"prompt": "a red shoe", "steps": 2, "input_image_url": url, "output_format": "png"}
    with live.client() as client:
        follows = client.post("/tasks/generation", json=body).json()["id"]
        asked = client.post("/tasks/generation", json={**body, "width": 64, "height": 128}).json()
    sizes = []
    for task_id in (follows, asked["id"]):
        task = live.wait_task(task_id, "completed", "failed")
        image = task["output"]["images"][0]  # type: ignore[index]
        sizes.append((image["width"], image["height"]))
    assert sizes == [(360, 184), (64, 128)]
