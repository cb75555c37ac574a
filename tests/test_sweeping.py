"""What dead attempts left in storage goes; what tasks name stays."""

from __future__ import annotations

from imageloom.core.claim import claim
from imageloom.core.maintain import sweep_attempts
from imageloom.core.services import Services
from imageloom.core.settle import settle
from imageloom.core.submit import submit
from imageloom.domain.tasks import Completed, Lost, Outcome, Output, OutputImage
from imageloom.storage.keys import output_key
from imageloom.store.pool import transaction

LOST = Lost(reason="its worker went silent")


async def attempted(services: Services, outcome: Outcome | None = None) -> str:
    """Make a task whose first attempt stores a picture and ends so; return the picture's key."""
    task = await submit(services, tenant="default", task_type="generation", params={}, inputs={})
    assert task.job_id is not None
    made = await claim(services, task.id, job_id=task.job_id, worker="w")
    assert made is not None
    key = output_key(task.id, 1, 0, "png")
    await services.storage.put(key, b"bytes", media_type="image/png")
    image = OutputImage(
        key=key, seed=1, width=1, height=1, media_type="image/png", size=5, sha256="sha"
    )
    outcome = outcome or Completed(output=Output(images=(image,)))
    assert await settle(services, task.id, attempt=1, outcome=outcome) is not None
    return key


async def later(services: Services) -> None:
    async with transaction(services.pool) as conn:
        await conn.execute("update attempt set ended_at = ended_at - interval '1 hour'")


async def test_what_a_lost_attempt_left_is_deleted_and_what_is_named_stays(
    services: Services,
) -> None:
    named = await attempted(services)
    await attempted(services, LOST)
    await later(services)
    fresh = await attempted(services, LOST)
    await sweep_attempts(services)
    assert sorted(await services.storage.list("outputs")) == sorted([named, fresh])


async def test_each_attempt_is_swept_once(services: Services) -> None:
    left = await attempted(services, LOST)
    await later(services)
    await sweep_attempts(services)
    await services.storage.put(left, b"bytes", media_type="image/png")
    await sweep_attempts(services)
    assert await services.storage.exists(left)
