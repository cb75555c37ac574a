"""Twelve users at once on one device: each sees progress, may leave, and has its own picture."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import httpx
import pytest

pytest.importorskip("torch", reason="the worker's packages are not installed")

from conftest import wait_for
from imageloom.domain.schedulers import schedulers_of
from imageloom.images import encode_picture
from live_adapters import adapter, publish
from tiny_models import photograph

if TYPE_CHECKING:
    from conftest import Live

LOOK = (
    0.1  # seconds between two looks of each of twelve: looking often slows down what is looked at
)
SIZE = {"width": 64, "height": 64, "output_format": "png"}
# The prompt, the steps, the guidance, the adapters with their weights, and whether from a picture.
ASKED: list[tuple[str, int, float, dict[str, float], bool]] = [
    ("a red dress on a white background", 12, 3.0, {}, False),
    ("a green coat on a grey background", 24, 5.0, {"lines": 0.8}, False),
    ("a blue shoe on a white background", 16, 7.5, {"lines": 0.5, "colours": -0.7}, False),
    ("a man wearing a purple shirt", 20, 1.0, {"colours": 1.0}, False),
    ("a brown handbag on a beige background", 18, 4.0, {}, True),
    ("an orange skirt on a grey background", 30, 2.0, {"folds": 1.2}, True),
    ("a woman wearing a black dress", 14, 0.0, {"lines": 1, "colours": 1, "folds": 1}, False),
    ("a yellow hat on a white background", 22, 6.0, {"folds": 0.0}, False),
    ("a striped blue shirt", 15, 3.5, {"lines": -1.0}, True),
    ("a pink scarf on a black background", 26, 8.0, {}, False),
    ("a red dress on a white background", 17, 3.0, {"colours": 0.3, "folds": 0.3}, False),
]
LEAVER = {"prompt": "a white coat", "steps": 40, "seed": 90, **SIZE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A task as it ended, and every progress that its caller was told before."""

    task: dict[str, Any]
    progress: list[float]

    @property
    def picture(self) -> bytes:
        """The bytes of the picture that it made."""
        (image,) = self.task["output"]["images"]
        return httpx.get(image["url"]).raise_for_status().content


@pytest.fixture(scope="module")
def bodies(live: Live) -> list[dict[str, Any]]:
    """Eleven requests that differ in all that can differ."""
    files = {
        "lines": adapter(r"attn1\.to_[qkv]\.weight", rank=4, seed=1),
        "colours": adapter(r"attn2\.to_[qkv]\.weight", rank=8, seed=2),
        "folds": adapter(r"ff\.net\.2\.weight", rank=3, seed=3),
    }
    publish(live, files)
    start = encode_picture(photograph(64, 64), "png").data
    with live.client() as client:
        uploaded = client.post("/files", files={"file": start}).raise_for_status().json()
    schedulers = itertools.cycle([None, *schedulers_of("sdxl")])
    return [
        {
            "prompt": prompt,
            "steps": steps,
            "guidance_scale": guidance,
            "seed": seed,
            "scheduler": next(schedulers),
            "loras": [{"name": name, "weight": weight} for name, weight in loras.items()],
            **({"input_image_url": uploaded["url"], "strength": 0.8} if from_picture else {}),
            **SIZE,
        }
        for seed, (prompt, steps, guidance, loras, from_picture) in enumerate(ASKED)
    ]


def test_twelve_users_share_the_device_and_each_has_its_own_picture(
    live: Live, bodies: list[dict[str, Any]]
) -> None:
    with ThreadPoolExecutor(12) as users:
        leaver = users.submit(follow, live, LEAVER, at_work=partial(cancel, live))
        others = [users.submit(follow, live, body) for body in bodies]
    gone, seen = leaver.result(), [each.result() for each in others]

    assert gone.task["status"] == "cancelled"
    assert [each.task["status"] for each in seen] == ["completed"] * 11
    assert all(max(each.progress) > 0 for each in seen), "each sees progress before its end"
    assert all(each.progress == sorted(each.progress) for each in seen)
    ended = [each.task["completed_at"] for each in seen]
    assert gone.task["completed_at"] < max(ended), "the others went on"

    pictures = [each.picture for each in seen]
    assert len(set(pictures)) == 11
    for body, picture in zip(bodies, pictures, strict=True):
        assert alone(live, body) == picture, body


def follow(
    live: Live, body: dict[str, Any], *, at_work: Callable[[str], object] | None = None
) -> Seen:
    """Create a task and look at it until it is over; `at_work` is called once it has progress."""
    progress: list[float] = []
    with live.client() as client:
        task_id = client.post("/tasks/generation", json=body).raise_for_status().json()["id"]

        def over() -> dict[str, Any] | None:
            task: dict[str, Any] = client.get(f"/tasks/{task_id}").raise_for_status().json()
            if task["status"] not in ("pending", "running"):
                return task
            if at_work is not None and task["progress"] > max(progress, default=0):
                at_work(task_id)
            progress.append(task["progress"])
            return None

        return Seen(task=wait_for(over, what="the task's end", every=LOOK), progress=progress)


def cancel(live: Live, task_id: str) -> None:
    with live.client() as client:
        client.post(f"/tasks/{task_id}/cancel").raise_for_status()


def alone(live: Live, body: dict[str, Any]) -> bytes:
    """Return the picture of a request that has the device to itself."""
    with live.client() as client:
        answer = client.post("/tasks/generation", json=body, headers={"Prefer": "wait=60"})
    return Seen(task=answer.raise_for_status().json(), progress=[]).picture
