"""What operators see of tasks and workflows: their own tenant's, and with `monitor` everybody's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from api_helpers import begun, completed, created, failed, refusal
from conftest import called_with
from imageloom.core.keys import create_key
from imageloom.core.services import Services
from imageloom.core.settle import settle
from imageloom.domain.tasks import Failed, Interrupted, Preview
from imageloom.store import tasks
from imageloom.store.pool import transaction
from workflow_helpers import play, said, started, step

LIST = "/monitoring/tasks"


@pytest.fixture
def services(shared_services: Services) -> Services:
    return shared_services


@pytest.fixture
async def operator(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """The app, called with a key that has only `monitor`."""
    made = await create_key(services.pool, tenant="operators", scopes=("monitor",))
    async with called_with(services, made.key) as client:
        yield client


async def seen(client: httpx.AsyncClient, path: str, **query: Any) -> dict[str, Any]:
    answer = await client.get(path, params=query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def ids(client: httpx.AsyncClient, path: str = LIST, **query: Any) -> list[str]:
    return [item["id"] for item in (await seen(client, path, **query))["items"]]


# Tasks


async def test_a_task_is_listed_in_brief(tenant: httpx.AsyncClient, services: Services) -> None:
    task = await created(tenant, priority=3)
    await failed(services, task)
    (item,) = (await seen(tenant, LIST))["items"]
    waits, runs = item.pop("wait_seconds"), item.pop("run_seconds")
    assert waits > 0
    assert runs > 0
    for name in ("created_at", "started_at", "completed_at"):
        assert item.pop(name).endswith("Z")
    assert item.pop("tenant").startswith("tenant-")
    assert item == {
        "id": task["id"],
        "type": "generation",
        "status": "failed",
        "priority": 3,
        "progress": 0,
        "attempt": 1,
        "worker": None,
        "model": "imageloom-tiny",
        "error": "Invalid input: input_image_url: no picture",
        "error_code": "invalid_input",
        "workflow": None,
    }


async def test_tasks_are_filtered_paged_and_sorted(
    tenant: httpx.AsyncClient, services: Services
) -> None:
    made = [await created(tenant) for _ in range(3)]
    first, second, third = (task["id"] for task in made)
    await completed(services, made[0])
    await begun(services, made[1])
    at = {item["id"]: item["created_at"] for item in (await seen(tenant, LIST))["items"]}
    assert list(at) == [third, second, first]
    assert await ids(tenant, status="completed") == [first]
    assert await ids(tenant, status=["completed", "running"]) == [second, first]
    assert await ids(tenant, task_type="processing") == []
    assert await ids(tenant, created_after=at[first]) == [third, second]
    assert await ids(tenant, created_before=at[second]) == [first]
    assert await ids(tenant, search=second) == [second]
    assert await ids(tenant, sort_order="asc") == [first, second, third]
    assert await ids(tenant, sort_by="started_at", sort_order="asc") == [first, second, third]
    page = await seen(tenant, LIST, page=2, page_size=2)
    assert [item["id"] for item in page.pop("items")] == [first]
    assert page == {"total": 3, "page": 2, "page_size": 2}


async def test_only_a_key_that_may_sees_what_others_have(
    tenant: httpx.AsyncClient,
    stranger: httpx.AsyncClient,
    operator: httpx.AsyncClient,
    services: Services,
) -> None:
    task = await created(tenant)
    workflow = await started(tenant, step("a"))
    paths = [
        LIST,
        f"{LIST}/{task['id']}",
        f"{LIST}/{task['id']}/media",
        "/monitoring/workflows",
        f"/monitoring/workflows/{workflow['id']}",
        "/monitoring/stats",
        "/monitoring/workflows/stats",
    ]
    for path in paths:
        answer = await tenant.get(path, params={"all_tenants": True})
        assert refusal(answer) == (403, "forbidden", None), path
        assert (await operator.get(path, params={"all_tenants": True})).status_code == 200, path
        theirs = await stranger.get(path)
        if task["id"] in path or workflow["id"] in path:
            assert refusal(theirs) == (404, "not_found", None)
            assert refusal(await operator.get(path)) == (404, "not_found", None)
        else:
            assert theirs.json().get("total", 0) == 0
    assert task["id"] in await ids(operator, all_tenants=True)
    assert workflow["id"] in await ids(operator, "/monitoring/workflows", all_tenants=True)
    assert await ids(operator) == []


async def test_what_happened_to_a_task_is_told_in_order(
    tenant: httpx.AsyncClient, services: Services
) -> None:
    task = await created(tenant)
    mine = await begun(services, task)
    async with transaction(services.pool) as conn:
        await tasks.write_progress(conn, task["id"], attempt=1, progress=0.5)
    out_of_memory = Failed(code="out_of_memory", message="no room", retryable=True)
    await settle(services, task["id"], attempt=mine.attempt, outcome=out_of_memory)
    again = await begun(services, task)
    await settle(services, task["id"], attempt=again.attempt, outcome=Interrupted())
    await tenant.post(f"/tasks/{task['id']}/cancel")
    found = await seen(tenant, f"{LIST}/{task['id']}")
    assert found["params"] == task["params"]
    assert found["error_detail"] is None
    attempts = (await tenant.get(f"/tasks/{task['id']}/attempts")).json()["items"]
    assert found["attempts"] == attempts
    told = [
        (each["status"], each["attempt"], each["progress"], each["note"])
        for each in found["timeline"]
    ]
    assert told == [
        ("pending", 0, 0, None),
        ("running", 1, 0, "attempt 1 by worker-1"),
        ("pending", 1, 0.5, "attempt 1 failed (out_of_memory): no room; it is tried again"),
        ("running", 2, 0, "attempt 2 by worker-1"),
        ("pending", 2, 0, "attempt 2 interrupted; it is tried again"),
        ("cancelled", 2, 0, None),
    ]
    times = [each["at"] for each in found["timeline"]]
    assert times == sorted(times)


async def test_events_that_are_forgotten_leave_the_ledger(
    tenant: httpx.AsyncClient, services: Services
) -> None:
    task = await created(tenant)
    await completed(services, task)
    async with transaction(services.pool) as conn:
        await conn.execute("delete from event where subject = %s", (task["id"],))
    found = await seen(tenant, f"{LIST}/{task['id']}")
    assert [each["status"] for each in found["timeline"]] == ["pending", "running", "completed"]


async def test_pictures_of_a_task_are_shown(tenant: httpx.AsyncClient, services: Services) -> None:
    url = "https://example.com/dress.jpg"
    task = await created(tenant, input_image_url=url)
    path = f"{LIST}/{task['id']}/media"
    await begun(services, task)
    preview = Preview(index=0, step=2, steps=8, key="previews/0.jpg", width=8, height=8)
    async with transaction(services.pool) as conn:
        await tasks.write_previews(conn, task["id"], attempt=1, previews=[preview])
    shown = await seen(tenant, path)
    assert shown["inputs"] == [{"name": "input_image_url", "url": url}]
    assert [each["step"] for each in shown["previews"]] == [2]
    assert shown["outputs"] == []
    done = await created(tenant)
    await completed(services, done)
    shown = await seen(tenant, f"{LIST}/{done['id']}/media")
    (output,) = shown.pop("outputs")
    assert output["seed"] == 5
    assert (await tenant.get(output["url"])).status_code == 200
    assert shown == {"inputs": [], "previews": []}


async def test_markup_is_data(tenant: httpx.AsyncClient) -> None:
    prompt = "<script>alert(1)</script> \u202e % _"
    task = await created(tenant, prompt=prompt)
    found = await seen(tenant, f"{LIST}/{task['id']}")
    assert found["params"]["prompt"] == prompt


# Workflows


async def test_a_workflow_is_listed_in_brief_and_read_with_its_runs(
    tenant: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(tenant, step("a"), step("b", "a"))
    await play(services, workflow)
    await said(tenant, workflow, "runs")
    (item,) = (await seen(tenant, "/monitoring/workflows", status="running"))["items"]
    assert (item["status"], item["steps"], item["current_step"]) == ("running", 2, 0)
    assert item["run"]["number"] == 2
    assert await ids(tenant, "/monitoring/workflows", status="failed") == []
    found = await seen(tenant, f"/monitoring/workflows/{workflow['id']}")
    whole = (await tenant.get(f"/workflows/{workflow['id']}")).json()
    runs = found.pop("runs")
    assert found.pop("tenant") == item["tenant"]
    assert found == whole
    assert [(run["number"], run["status"], run["progress"]) for run in runs] == [
        (2, "running", 0),
        (1, "completed", 1),
    ]
    stats = await seen(tenant, "/monitoring/workflows/stats")
    assert {name: n for name, n in stats["by_status"].items() if n} == {
        "completed": 1,
        "running": 1,
    }
    assert stats["run_seconds"]["p50"] == stats["run_seconds"]["p90"] > 0
    (place,) = {each["workflow"]["id"] for each in (await seen(tenant, LIST))["items"]}
    assert place == workflow["id"]


# Statistics


async def test_statistics_count_what_ended_by_hour(
    tenant: httpx.AsyncClient, services: Services
) -> None:
    made = [await created(tenant) for _ in range(6)]
    for task in made[:2]:
        await completed(services, task)
    await failed(services, made[2])
    await tenant.post(f"/tasks/{made[3]['id']}/cancel")
    await begun(services, made[4])
    async with transaction(services.pool) as conn:
        # One an hour ago, with a wait of 10 s and a run of 30 s; one before all that is asked for.
        for task, hours in ((made[0], 1), (made[1], 5)):
            await conn.execute(
                "update task set completed_at = now() - make_interval(hours => %(hours)s),"
                " started_at = now() - make_interval(hours => %(hours)s, secs => 30),"
                " created_at = now() - make_interval(hours => %(hours)s, secs => 40)"
                " where id = %(id)s",
                {"id": task["id"], "hours": hours},
            )
    found = await seen(tenant, "/monitoring/stats", hours=2)
    counts = {"pending": 1, "running": 1, "completed": 1, "failed": 1, "cancelled": 1}
    assert found["by_status"] == counts
    generation, *others = found["by_type"]
    assert {name: generation[name] for name in counts} == counts
    assert [each["type"] for each in others] == ["processing", "training"]
    assert not any(each[name] for each in others for name in counts)
    assert others[0]["wait_seconds"] == {"p50": None, "p90": None}
    assert generation["run_seconds"] == {"p50": 30, "p90": 30} == found["run_seconds"]
    assert 5 < found["wait_seconds"]["p90"] <= 10
    assert found["failures"] == [{"code": "invalid_input", "count": 1}]
    hours = [hour for hour in found["throughput"] if hour["type"] == "generation"]
    assert len(found["throughput"]) == 3 * len(hours) == 9
    assert [hour["completed"] for hour in hours] == [0, 1, 0]
    assert sum(hour["failed"] + hour["cancelled"] for hour in hours) == 2
    assert hours[0]["hour"] == found["since"]
    wider = await seen(tenant, "/monitoring/stats", hours=168)
    assert wider["by_status"]["completed"] == 2


# Bad input


@pytest.mark.parametrize(
    ("path", "query", "param"),
    [
        (LIST, {"status": "lost"}, "status"),
        (LIST, {"task_type": "<b>"}, "task_type"),
        (LIST, {"sort_by": "params"}, "sort_by"),
        (LIST, {"sort_order": "up"}, "sort_order"),
        (LIST, {"page": 0}, "page"),
        (LIST, {"page_size": 501}, "page_size"),
        (LIST, {"search": "task%"}, "search"),
        (LIST, {"search": "<img>"}, "search"),
        (LIST, {"created_after": "yesterday"}, "created_after"),
        (
            LIST,
            {"created_after": "2026-01-02T00:00:00Z", "created_before": "2026-01-01T00:00:00Z"},
            "created_after",
        ),
        (LIST, {"all_tenants": "maybe"}, "all_tenants"),
        (LIST, {"tenant": "x"}, "tenant"),
        (f"{LIST}/task_0", {"page": 1}, "page"),
        (f"{LIST}/task_0/media", {"all_tenants": "maybe"}, "all_tenants"),
        ("/monitoring/workflows", {"status": "lost"}, "status"),
        ("/monitoring/workflows", {"sort_by": "steps"}, "sort_by"),
        ("/monitoring/workflows", {"page_size": 0}, "page_size"),
        ("/monitoring/workflows/wf_0", {"x": 1}, "x"),
        ("/monitoring/workflows/stats", {"hours": 169}, "hours"),
        ("/monitoring/stats", {"hours": 0}, "hours"),
        ("/monitoring/stats", {"hours": "a day"}, "hours"),
        ("/monitoring/stats", {"status": "failed"}, "status"),
    ],
)
async def test_what_makes_no_sense_is_named(
    shared_api: httpx.AsyncClient, path: str, query: dict[str, Any], param: str
) -> None:
    status, _, named = refusal(await shared_api.get(path, params=query))
    assert (status, named) == (422, param)


async def test_a_key_that_may_not_look_is_refused(services: Services) -> None:
    made = await create_key(services.pool, tenant="writers", scopes=("write", "admin"))
    async with called_with(services, made.key) as client:
        for path in (LIST, "/monitoring/stats", "/monitoring/workflows"):
            assert refusal(await client.get(path)) == (403, "forbidden", None)
