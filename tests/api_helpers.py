"""What tests of the HTTP API share: tasks brought to a state without a worker, and one envelope."""

from __future__ import annotations

import io
from typing import Any

import httpx
from PIL import Image

from imageloom.core.claim import claim
from imageloom.core.services import Services
from imageloom.core.settle import settle
from imageloom.domain.catalog import BUILTIN
from imageloom.domain.tasks import Claim, Completed, Failed, Outcome, Output, OutputImage
from imageloom.storage.keys import output_key
from imageloom.store import tasks
from imageloom.store.pool import transaction

GENERATION = "/tasks/generation"
PROMPT = {"prompt": "a red dress"}
TINY = next(model for model in BUILTIN if model.name == "imageloom-tiny")  # the default model


def picture(format: str = "JPEG", *, size: tuple[int, int] = (64, 64)) -> bytes:  # noqa: A002
    """Return the bytes of a small picture."""
    file = io.BytesIO()
    Image.new("RGB", size, (200, 30, 40)).save(file, format)
    return file.getvalue()


async def created(api: httpx.AsyncClient, **body: Any) -> dict[str, Any]:
    """Create a generation task and return it."""
    answer = await api.post(GENERATION, json={**PROMPT, **body})
    assert answer.status_code == 201, answer.text
    task: dict[str, Any] = answer.json()
    return task


async def begun(services: Services, task: dict[str, Any]) -> Claim:
    """Claim the task as a worker does."""
    async with transaction(services.pool) as conn:
        found = await tasks.lock(conn, task["id"])
    assert found is not None
    assert found.job_id is not None
    claimed = await claim(services, found.id, job_id=found.job_id, worker="worker-1")
    assert claimed is not None
    return claimed


async def completed(services: Services, task: dict[str, Any]) -> str:
    """Complete the task with one stored picture and return its storage key."""
    claimed = await begun(services, task)
    key = output_key(task["id"], claimed.attempt, 0, "jpg")
    data = picture()
    await services.storage.put(key, data, media_type="image/jpeg")
    image = OutputImage(
        key=key,
        seed=5,
        width=64,
        height=64,
        media_type="image/jpeg",
        size=len(data),
        sha256="00",
    )
    await _settled(services, claimed, Completed(output=Output(images=(image,))))
    return key


async def failed(services: Services, task: dict[str, Any]) -> None:
    """Fail the task for good."""
    outcome = Failed(
        code="invalid_input",
        message="Invalid input: input_image_url: no picture",
        retryable=False,
        param="input_image_url",
    )
    await _settled(services, await begun(services, task), outcome)


async def _settled(services: Services, claimed: Claim, outcome: Outcome) -> None:
    settled = await settle(services, claimed.task.id, attempt=claimed.attempt, outcome=outcome)
    assert settled is not None


def refusal(answer: httpx.Response) -> tuple[int, str, str | None]:
    """Return status, type and param of an error, after checking what every error has."""
    assert answer.headers["content-type"] == "application/json", answer.text
    body = answer.json()
    assert set(body) == {"error"}
    error = body["error"]
    assert set(error) == {"type", "message", "param", "request_id"}
    assert error["message"]
    assert len(error["message"]) < 500
    assert "Traceback" not in answer.text
    assert answer.headers["x-request-id"] == error["request_id"]
    return answer.status_code, error["type"], error["param"]
