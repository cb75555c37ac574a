"""A failed or cancelled task is done over as a new one."""

from __future__ import annotations

import httpx
import pytest

from api_helpers import begun, completed, created, failed, picture, refusal
from imageloom.core.services import Services
from imageloom.store.pool import transaction
from training_pictures import data_set
from workflow_helpers import started, step

HOOK = {"webhook_url": "https://example.com/hook", "webhook_events": ["failed"]}


async def upload(api: httpx.AsyncClient, data: bytes) -> str:
    answer = await api.post("/files", files={"file": data})
    return str(answer.json()["url"])


async def stored(services: Services, task_id: str) -> dict[str, object]:
    """Return what a worker goes by."""
    async with transaction(services.pool) as conn:
        row = await conn.execute(
            "select type, params, inputs, priority, webhook, reproduces from task where id = %s",
            (task_id,),
        )
        return dict(await row.fetchone() or {})


@pytest.mark.parametrize("slash", ["", "/"])
async def test_retry_asks_for_the_same_as_a_new_task(
    api: httpx.AsyncClient, services: Services, slash: str
) -> None:
    url = await upload(api, picture())
    first = await created(api, input_image_url=url, num_outputs=2, seed=5, priority=3, **HOOK)
    await failed(services, first)
    answer = await api.post(f"/tasks/{first['id']}/retry{slash}")
    assert answer.status_code == 201
    again = answer.json()
    assert again["id"] != first["id"]
    assert (again["status"], again["attempt"]) == ("pending", 0)
    assert again["retries"] == {"task_id": first["id"]}
    assert await stored(services, again["id"]) == await stored(services, first["id"])
    before = (await api.get(f"/tasks/{first['id']}")).json()
    assert (before["status"], before["retries"]) == ("failed", None)
    await completed(services, again)
    assert (await api.get(f"/tasks/{again['id']}")).json()["status"] == "completed"


async def test_cancelled_task_is_retried_and_so_is_a_retry(api: httpx.AsyncClient) -> None:
    ids = [(await created(api))["id"]]
    for _ in range(2):
        await api.post(f"/tasks/{ids[-1]}/cancel")
        again = (await api.post(f"/tasks/{ids[-1]}/retry", json={})).json()
        assert again["retries"] == {"task_id": ids[-1]}
        ids.append(again["id"])
    assert len(set(ids)) == 3


async def test_retry_that_is_sent_again_makes_one_task(api: httpx.AsyncClient) -> None:
    first, other = await created(api), await created(api)
    for task in (first, other):
        await api.post(f"/tasks/{task['id']}/cancel")
    headers = {"Idempotency-Key": "one"}
    made = [await api.post(f"/tasks/{first['id']}/retry", headers=headers) for _ in range(2)]
    assert made[0].json()["id"] == made[1].json()["id"]
    third = await api.post(f"/tasks/{other['id']}/retry", headers=headers)
    assert third.json()["retries"] == {"task_id": other["id"]}
    assert (await api.get("/tasks")).json()["total"] == 4


async def test_retry_waits_where_that_is_preferred(api: httpx.AsyncClient) -> None:
    task = await created(api)
    await api.post(f"/tasks/{task['id']}/cancel")
    answer = await api.post(f"/tasks/{task['id']}/retry", headers={"Prefer": "wait=0"})
    assert answer.headers["preference-applied"] == "wait=0"


async def test_only_what_ended_badly_is_retried(api: httpx.AsyncClient, services: Services) -> None:
    pending, running, done = [await created(api) for _ in range(3)]
    await begun(services, running)
    await completed(services, done)
    for task in (pending, running, done):
        answer = await api.post(f"/tasks/{task['id']}/retry")
        assert refusal(answer) == (409, "conflict", None)


async def test_retry_of_what_is_not_there_or_not_ours(
    tenant: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    task = await created(tenant)
    await tenant.post(f"/tasks/{task['id']}/cancel")
    for path in (f"/tasks/{task['id']}/retry", "/tasks/task_0/retry"):
        assert refusal(await stranger.post(path)) == (404, "not_found", None)
    answer = await tenant.post(f"/tasks/{task['id']}/retry", json={"seed": 1})
    assert refusal(answer) == (422, "invalid_params", "seed")
    answer = await tenant.post(f"/tasks/{task['id']}/retry?dry=1")
    assert refusal(answer) == (422, "invalid_params", "dry")


async def test_retry_without_its_input_says_that_it_is_gone(
    api: httpx.AsyncClient, services: Services
) -> None:
    drawn = await created(api)
    await completed(services, drawn)
    picture_of = (await api.get(f"/tasks/{drawn['id']}")).json()["output"]["images"][0]["url"]
    from_upload = await created(api, input_image_url=await upload(api, picture()))
    from_output = await created(api, input_image_url=picture_of)
    for task in (from_upload, from_output):
        await api.post(f"/tasks/{task['id']}/cancel")
    assert (await api.post(f"/tasks/{from_output['id']}/retry")).status_code == 201
    async with transaction(services.pool) as conn:
        await conn.execute("update file set expires_at = now()")
    await api.post(f"/tasks/{drawn['id']}/cleanup")
    for task in (from_upload, from_output):
        answer = await api.post(f"/tasks/{task['id']}/retry")
        assert refusal(answer) == (410, "gone", "input_image_url")


async def test_task_of_a_workflow_is_redone_by_its_run(api: httpx.AsyncClient) -> None:
    workflow = await started(api, step("draw"))
    (task,) = (await api.get("/tasks", params={"workflow_id": workflow["id"]})).json()["items"]
    await api.post(f"/tasks/{task['id']}/cancel")
    answer = await api.post(f"/tasks/{task['id']}/retry")
    assert refusal(answer) == (409, "conflict", None)
    run = f"/workflows/{workflow['id']}/runs/{workflow['run']['id']}/resume"
    assert run in answer.json()["error"]["message"]


async def test_training_is_retried_while_its_name_is_free(api: httpx.AsyncClient) -> None:
    body = {"dataset_url": await upload(api, data_set()), "output_name": "dress", **HOOK}
    first = (await api.post("/training", json=body)).json()
    await api.post(f"/training/{first['id']}/cancel")
    again = (await api.post(f"/tasks/{first['id']}/retry")).json()
    assert again["id"].startswith("train_")
    assert again["retries"] == {"task_id": first["id"]}
    params = (await api.get(f"/training/{again['id']}")).json()["params"]
    assert params == first["params"]
    assert refusal(await api.post(f"/tasks/{first['id']}/retry")) == (
        409,
        "conflict",
        "output_name",
    )
