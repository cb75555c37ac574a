"""Receipts, and making an output again: what is compared, and what is said of it."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from PIL import Image

from imageloom.core.services import Services
from imageloom.domain.catalog import BUILTIN, Model
from imageloom.domain.receipts import AdapterReceipt, Receipt, changed_fields, judge
from imageloom.store.pool import transaction
from imageloom.worker.digests import LOOK_SERVES, WeightDigests

if TYPE_CHECKING:
    from conftest import Live

RECEIPT = Receipt(
    seed=7,
    model="tiny",
    weights="w",
    adapters=(AdapterReceipt(name="dress", sha256="d", weight=0.5),),
    input=None,
    scheduler={"class": "EulerDiscreteScheduler", "sigmas": [1, 2]},
    device={"kind": "cpu"},
    versions={"torch": "2.13.0"},
)


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ()),
        ({"weights": "v"}, ("weights",)),
        ({"adapters": (replace(RECEIPT.adapters[0], weight=1.0),)}, ("adapters.0.weight",)),
        ({"adapters": ()}, ("adapters", "adapters.0.name", "adapters.0.sha256")),
        ({"scheduler": {"class": "DDIMScheduler", "sigmas": [1, 2]}}, ("scheduler.class",)),
        ({"device": {"kind": "cuda", "cuda": "13"}}, ("device.cuda", "device.kind")),
        ({"input": "i", "versions": {"torch": "2.14.0"}}, ("input", "versions.torch")),
    ],
)
def test_changed_fields_are_named(changes: dict[str, Any], names: tuple[str, ...]) -> None:
    assert set(names) <= set(changed_fields(RECEIPT, replace(RECEIPT, **changes)))
    assert bool(names) == bool(changed_fields(RECEIPT, replace(RECEIPT, **changes)))


@pytest.mark.parametrize(
    ("media_type", "difference", "result"),
    [
        ("image/png", 2, "near"),
        ("image/png", 3, "different"),
        ("image/jpeg", 24, "near"),
        ("image/webp", 25, "different"),
        ("image/png", None, "different"),
    ],
)
def test_near_depends_on_what_the_encoder_makes_of_one_level(
    media_type: str, difference: int | None, result: str
) -> None:
    said = judge(
        same_bytes=False,
        largest_difference=difference,
        media_type=media_type,
        before=RECEIPT,
        now=RECEIPT,
    )
    assert (said.result, said.largest_difference, said.changed) == (result, difference, ())


def draw(live: Live, **changes: Any) -> dict[str, Any]:
    body = {"prompt": "a red hat", "steps": 3, "width": 64, "height": 64, "seed": 5, **changes}
    with live.client() as client:
        created = client.post("/tasks/generation", json=body).raise_for_status().json()
    return live.wait_task(created["id"], "completed", "failed")


def reproduce(live: Live, task_id: str, output: int) -> dict[str, Any]:
    with live.client() as client:
        answer = client.post(f"/tasks/{task_id}/reproduce", json={"output": output})
        assert answer.status_code == 201, answer.text
    assert answer.json()["reproduces"] == {"task_id": task_id, "output": output}
    return live.wait_task(answer.json()["id"], "completed", "failed")


def test_an_output_has_a_receipt_and_is_made_again_bit_for_bit(live: Live) -> None:
    task = draw(live, num_outputs=2, scheduler="dpmpp-2m", output_format="png")
    assert task["error"] is None
    second = task["output"]["images"][1]
    receipt = second["receipt"]
    assert receipt["sha256"] == hashlib.sha256(httpx.get(second["url"]).content).hexdigest()
    assert (receipt["seed"], receipt["model"], receipt["input"]) == (6, "imageloom-tiny", None)
    assert receipt["scheduler"]["class"] == "DPMSolverMultistepScheduler"
    assert receipt["device"]["dtype"] == "float32"
    assert len(receipt["weights"]) == 64
    assert {"torch", "diffusers", "imageloom", "code"} <= receipt["versions"].keys()

    again = reproduce(live, task["id"], 1)
    assert again["output"]["reproduction"] == {
        "result": "identical",
        "largest_difference": 0,
        "changed": [],
    }
    (image,) = again["output"]["images"]
    assert image["receipt"] == receipt
    assert again["params"]["seed"] == 6

    with live.client() as client:
        listed = client.get("/tasks", params={"search": task["id"]}).json()["items"][0]
        assert "receipt" not in listed["output"]["images"][0]
        result = client.get(f"/tasks/{task['id']}/result").json()
        assert result["images"][1]["receipt"] == receipt


def test_what_changed_since_is_named(live: Live) -> None:
    pictures = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    files = [io.BytesIO() for _ in pictures]
    for picture, file in zip(pictures, files, strict=True):
        picture.save(file, "PNG")
    with live.client() as client:
        urls = [
            client.post("/files", files={"file": ("a.png", file.getvalue(), "image/png")}).json()
            for file in files
        ]
    task = draw(live, input_image_url=urls[0]["url"], strength=0.4, output_format="png")
    stored = [
        live.data_dir / "storage" / "uploads" / "default" / uploaded["id"] for uploaded in urls
    ]
    stored[0].write_bytes(stored[1].read_bytes())  # as if the picture behind a URL had changed
    said = reproduce(live, task["id"], 0)["output"]["reproduction"]
    assert (said["result"], said["changed"]) == ("different", ["input"])
    assert said["largest_difference"] > 24


async def test_what_cannot_be_made_again_is_refused(
    tenant: httpx.AsyncClient, stranger: httpx.AsyncClient, shared_services: Services
) -> None:
    created = (await tenant.post("/tasks/generation", json={"prompt": "a hat"})).json()
    path = f"/tasks/{created['id']}/reproduce"
    pending = await tenant.post(path, json={"output": 0})
    assert (pending.status_code, "completed" in pending.text) == (409, True)
    assert (await stranger.post(path, json={"output": 0})).status_code == 404
    for body in ({"output": -1}, {"output": "0"}, {"output": True}, {}, {"output": 0, "x": 1}):
        refused = await tenant.post(path, json=body)
        assert refused.status_code == 422, body
        assert refused.json()["error"]["param"] in ("output", "x")
    assert (await tenant.post(path, content=b"{}")).status_code == 415
    resize = {
        "operation": "resize",
        "width": 64,
        "height": 64,
        "input_image_url": "https://example.com/a.png",
    }
    processing = (await tenant.post("/tasks/processing", json=resize)).json()
    other = await tenant.post(f"/tasks/{processing['id']}/reproduce", json={"output": 0})
    assert (other.status_code, "only generations" in other.text) == (409, True)
    async with transaction(shared_services.pool) as conn:
        await conn.execute(
            "update task set status = 'completed', completed_at = now(), output = %s where id = %s",
            ('{"images": []}', created["id"]),
        )
    beyond = await tenant.post(path, json={"output": 3})
    assert (beyond.status_code, beyond.json()["error"]["param"]) == (422, "output")


async def test_tasks_of_a_second_look_at_the_weights_once() -> None:
    now, looks = [0.0], []

    def look(model: Model) -> str:
        looks.append(model.name)
        return f"{model.name} {len(looks)}"

    digests = WeightDigests(look=look, clock=lambda: now[0])
    tiny, swinir = BUILTIN[0], BUILTIN[1]
    assert await digests.of(tiny) == await digests.of(tiny) == f"{tiny.name} 1"
    assert await digests.of(swinir) == f"{swinir.name} 2"
    changed = msgspec.structs.replace(tiny, source="folder:/elsewhere")
    assert await digests.of(changed) == f"{tiny.name} 3"
    now[0] = LOOK_SERVES
    assert await digests.of(changed) == f"{tiny.name} 4"
