"""Tasks over HTTP: create, read, list, cancel, clean up. The real app and database, no worker."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import httpx
import pytest
from procrastinate import JobContext

from api_helpers import (
    GENERATION,
    PROMPT,
    TINY,
    begun,
    completed,
    created,
    failed,
    picture,
    refusal,
)
from imageloom.core.services import Services
from imageloom.store.pool import transaction

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")
NOT_FOUND = (404, "not_found", None)
CONFLICT = (409, "conflict", None)


@pytest.fixture
def services(shared_services: Services) -> Services:
    """Shared, for every test here has a tenant of its own."""
    return shared_services


@pytest.fixture
def api(tenant: httpx.AsyncClient) -> httpx.AsyncClient:
    """The app, called with a key of this test's own tenant."""
    return tenant


# Create


@pytest.mark.parametrize(
    ("path", "extra"),
    [
        (GENERATION, {}),
        (f"{GENERATION}/", {}),
        ("/tasks", {"type": "generation"}),
        ("/tasks/", {"type": "generation"}),
    ],
)
async def test_every_creating_route_answers_with_a_pending_task(
    api: httpx.AsyncClient, path: str, extra: dict[str, str]
) -> None:
    answer = await api.post(path, json={**extra, **PROMPT})
    assert answer.status_code == 201
    task = answer.json()
    assert re.fullmatch("task_[0-9a-z]{36}", task["id"])
    assert TIME.fullmatch(task["created_at"])
    assert {name: task[name] for name in ("type", "status", "progress", "attempt")} == {
        "type": "generation",
        "status": "pending",
        "progress": 0.0,
        "attempt": 0,
    }
    unset = ("started_at", "completed_at", "cleaned_at", "output", "error", "error_detail")
    assert [task[name] for name in unset] == [None] * 6


async def test_task_tells_the_parameters_that_it_will_use(api: httpx.AsyncClient) -> None:
    task = await created(api, num_outputs=2, seed=7)
    assert task["params"] == {
        "prompt": "a red dress",
        "negative_prompt": None,
        "input_image_url": None,
        "strength": None,
        "num_outputs": 2,
        "steps": TINY.steps,
        "guidance_scale": TINY.guidance_scale,
        "width": TINY.default_size,
        "height": TINY.default_size,
        "seed": 7,
        "model": "imageloom-tiny",
        "output_format": "jpeg",
    }


async def test_task_without_a_seed_gets_one_of_its_own(api: httpx.AsyncClient) -> None:
    seeds = {(await created(api))["params"]["seed"] for _ in range(3)}
    assert len(seeds) == 3


async def test_null_means_not_given_where_a_default_depends_on_the_model(
    api: httpx.AsyncClient,
) -> None:
    task = await created(api, steps=None, width=None, seed=None, model=None)
    assert (task["params"]["steps"], task["params"]["width"]) == (TINY.steps, TINY.default_size)


async def test_sides_follow_the_input_where_they_are_not_given(api: httpx.AsyncClient) -> None:
    url = (await api.post("/files", files={"file": picture()})).json()["url"]
    task = await created(api, input_image_url=url)
    assert (task["params"]["width"], task["params"]["height"]) == (None, None)
    assert task["params"]["strength"] == TINY.strength


async def test_data_url_is_not_repeated_in_full(api: httpx.AsyncClient) -> None:
    task = await created(api, input_image_url="DATA:image/png;base64," + "A" * 5000)
    assert len(task["params"]["input_image_url"]) < 300


# Read


@pytest.mark.parametrize("path", ["/tasks/{}", "/tasks/{}/", "/tasks/generation/{}"])
async def test_task_is_read_as_it_was_created(api: httpx.AsyncClient, path: str) -> None:
    task = await created(api)
    answer = await api.get(path.format(task["id"]))
    assert (answer.status_code, answer.json()) == (200, task)


async def test_running_task_has_a_start_and_progress(
    api: httpx.AsyncClient, services: Services
) -> None:
    task = await created(api)
    await begun(services, task)
    read = (await api.get(f"/tasks/{task['id']}")).json()
    assert (read["status"], read["progress"], read["attempt"]) == ("running", 0.0, 1)
    assert TIME.fullmatch(read["started_at"])


async def test_completed_task_has_its_output(api: httpx.AsyncClient, services: Services) -> None:
    task = await created(api)
    await completed(services, task)
    read = (await api.get(f"/tasks/{task['id']}")).json()
    assert (read["status"], read["progress"], read["error"]) == ("completed", 1.0, None)
    assert TIME.fullmatch(read["completed_at"])
    (image,) = read["output"]["images"]
    assert {**image, "url": None} == {"url": None, "seed": 5, "width": 64, "height": 64}
    assert image["url"].startswith("http://imageloom.test/api/v1/outputs/")


async def test_failed_task_says_why(api: httpx.AsyncClient, services: Services) -> None:
    task = await created(api)
    await failed(services, task)
    read = (await api.get(f"/tasks/{task['id']}")).json()
    assert read["status"] == "failed"
    assert read["error"] == "Invalid input: input_image_url: no picture"
    assert read["error_detail"] == {
        "code": "invalid_input",
        "retryable": False,
        "attempt": 1,
        "param": "input_image_url",
    }


async def test_task_read_twice_has_the_same_urls(
    api: httpx.AsyncClient, services: Services
) -> None:
    task = await created(api)
    await completed(services, task)
    first, second = [(await api.get(f"/tasks/{task['id']}")).json() for _ in range(2)]
    assert first == second


@pytest.mark.parametrize("suffix", ["", "/"])
async def test_result_is_the_output_alone(
    api: httpx.AsyncClient, services: Services, suffix: str
) -> None:
    task = await created(api)
    await completed(services, task)
    answer = await api.get(f"/tasks/{task['id']}/result{suffix}")
    assert answer.status_code == 200
    assert answer.json() == (await api.get(f"/tasks/{task['id']}")).json()["output"]


async def test_only_a_completed_task_has_a_result(
    api: httpx.AsyncClient, services: Services
) -> None:
    pending, running, broken, stopped = [await created(api) for _ in range(4)]
    await begun(services, running)
    await failed(services, broken)
    await api.post(f"/tasks/{stopped['id']}/cancel")
    for task in (pending, running, broken, stopped):
        assert refusal(await api.get(f"/tasks/{task['id']}/result")) == CONFLICT


# List


@pytest.fixture
async def three(api: httpx.AsyncClient, services: Services) -> list[str]:
    """The ids of a completed, a cancelled and a pending task, oldest first."""
    first, second, third = [await created(api) for _ in range(3)]
    await completed(services, first)
    await api.post(f"/tasks/{second['id']}/cancel")
    return [first["id"], second["id"], third["id"]]


async def listed(api: httpx.AsyncClient, query: str) -> list[str]:
    answer = await api.get(f"/tasks{query}")
    assert answer.status_code == 200, answer.text
    return [task["id"] for task in answer.json()["items"]]


async def test_list_is_newest_first_and_counts_itself(
    api: httpx.AsyncClient, three: list[str]
) -> None:
    for path in ("/tasks", "/tasks/"):
        answer = (await api.get(path)).json()
        assert [task["id"] for task in answer["items"]] == three[::-1]
        assert (answer["total"], answer["page"], answer["page_size"]) == (3, 1, 50)


async def test_listed_task_is_the_task_as_read(api: httpx.AsyncClient, three: list[str]) -> None:
    for item in (await api.get("/tasks")).json()["items"]:
        assert item == (await api.get(f"/tasks/{item['id']}")).json()


async def test_empty_list_is_an_answer(api: httpx.AsyncClient) -> None:
    answer = (await api.get("/tasks")).json()
    assert answer == {"items": [], "total": 0, "page": 1, "page_size": 50}


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        ("?status=completed", [0]),
        ("?status=failed", []),
        ("?status=pending&status=cancelled", [2, 1]),
        ("?task_type=generation", [2, 1, 0]),
        ("?search=task_", [2, 1, 0]),
        ("?search=ask", []),
        ("?created_after=2024-01-15T10:30:00Z", [2, 1, 0]),
        ("?created_before=2024-01-15T10:30:00Z", []),
        ("?created_before=2999-01-15T10:30:00%2B02:00", [2, 1, 0]),
        ("?page_size=2", [2, 1]),
        ("?page_size=2&page=2", [0]),
        ("?page_size=2&page=3", []),
        ("?sort_order=asc", [0, 1, 2]),
        ("?sort_by=status&sort_order=asc", [1, 0, 2]),
        ("?sort_by=completed_at&sort_order=asc", [0, 1, 2]),
        ("?sort_by=started_at", [0, 2, 1]),
        ("?sort_by=progress", [0, 2, 1]),
    ],
)
async def test_list_shows_what_was_asked_for(
    api: httpx.AsyncClient, three: list[str], query: str, wanted: list[int]
) -> None:
    assert await listed(api, query) == [three[index] for index in wanted]


async def test_list_is_bounded_by_the_times_of_its_own_tasks(
    api: httpx.AsyncClient, three: list[str]
) -> None:
    times = [(await api.get(f"/tasks/{task_id}")).json()["created_at"] for task_id in three]
    assert await listed(api, f"?created_after={times[0]}") == three[:0:-1]
    assert await listed(api, f"?created_before={times[2]}") == three[1::-1]


async def test_search_finds_a_task_by_the_beginning_of_its_id(
    api: httpx.AsyncClient, three: list[str]
) -> None:
    assert await listed(api, f"?search={three[1][:-1]}") == [three[1]]


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ("?state=pending", "state"),
        ("?status=flying", "status"),
        ("?status=", "status"),
        ("?status=pending&status=flying", "status"),
        ("?task_type=cooking", "task_type"),
        ("?task_type=%00", "task_type"),
        ("?created_after=yesterday", "created_after"),
        ("?created_after=2024-01-15T10:30:00", "created_after"),
        ("?created_before=2024-13-45T10:30:00Z", "created_before"),
        (
            "?created_after=2025-01-01T00:00:00Z&created_before=2024-01-01T00:00:00Z",
            "created_after",
        ),
        ("?search=%25", "search"),
        ("?search=%00", "search"),
        ("?search=" + "a" * 65, "search"),
        ("?page=0", "page"),
        ("?page=one", "page"),
        ("?page=1.5", "page"),
        ("?page=99999999999999999999", "page"),
        ("?page_size=0", "page_size"),
        ("?page_size=501", "page_size"),
        ("?sort_by=prompt", "sort_by"),
        ("?sort_by=created_at;drop", "sort_by"),
        ("?sort_order=up", "sort_order"),
    ],
)
async def test_senseless_filter_is_refused_by_name(
    shared_api: httpx.AsyncClient, query: str, param: str
) -> None:
    assert refusal(await shared_api.get(f"/tasks{query}")) == (422, "invalid_params", param)


# Cancel


@pytest.mark.parametrize(
    "path", ["/tasks/{}/cancel", "/tasks/{}/cancel/", "/tasks/generation/{}/cancel"]
)
async def test_cancelled_pending_task_stays_cancelled(api: httpx.AsyncClient, path: str) -> None:
    task = await created(api)
    first = await api.post(path.format(task["id"]))
    assert (first.status_code, first.json()["status"]) == (200, "cancelled")
    assert TIME.fullmatch(first.json()["completed_at"])
    again = await api.post(path.format(task["id"]))
    assert (again.status_code, again.json()) == (200, first.json())


async def test_running_task_is_cancelled_at_once(
    api: httpx.AsyncClient, services: Services
) -> None:
    task = await created(api)
    await begun(services, task)
    answer = await api.post(f"/tasks/{task['id']}/cancel")
    assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")


@pytest.mark.parametrize("finish", [completed, failed])
async def test_task_that_is_over_cannot_be_cancelled(
    api: httpx.AsyncClient, services: Services, finish: Any
) -> None:
    task = await created(api)
    await finish(services, task)
    before = (await api.get(f"/tasks/{task['id']}")).json()
    for path in ("/tasks/{}/cancel", "/tasks/generation/{}/cancel"):
        assert refusal(await api.post(path.format(task["id"]))) == CONFLICT
    assert (await api.get(f"/tasks/{task['id']}")).json() == before


async def test_cancelled_task_is_never_run(api: httpx.AsyncClient, services: Services) -> None:
    cancelled, wanted = await created(api), await created(api)
    ran: list[str] = []

    async def handle(_context: JobContext, task_id: str) -> None:
        ran.append(task_id)

    services.queue.handle(handle)
    await api.post(f"/tasks/{cancelled['id']}/cancel")
    await services.queue.app.run_worker_async(
        wait=False, install_signal_handlers=False, listen_notify=False
    )
    assert wanted["id"] in ran
    assert cancelled["id"] not in ran


# Clean up


async def test_cleanup_deletes_the_outputs_and_keeps_the_record(
    api: httpx.AsyncClient, services: Services
) -> None:
    task = await created(api)
    key = await completed(services, task)
    url = (await api.get(f"/tasks/{task['id']}/result")).json()["images"][0]["url"]
    assert (await api.get(url)).status_code == 200
    cleaned = await api.post(f"/tasks/{task['id']}/cleanup")
    assert cleaned.status_code == 200
    assert (cleaned.json()["status"], cleaned.json()["output"]) == ("completed", {"images": []})
    assert TIME.fullmatch(cleaned.json()["cleaned_at"])
    assert not await services.storage.exists(key)
    assert refusal(await api.get(url)) == (410, "gone", None)
    assert refusal(await api.get(f"/tasks/{task['id']}/result")) == (410, "gone", None)
    again = await api.post(f"/tasks/{task['id']}/cleanup/")
    assert (again.status_code, again.json()) == (200, cleaned.json())


async def test_live_task_cannot_be_cleaned_up(api: httpx.AsyncClient, services: Services) -> None:
    pending, running = await created(api), await created(api)
    await begun(services, running)
    for task in (pending, running):
        assert refusal(await api.post(f"/tasks/{task['id']}/cleanup")) == CONFLICT


async def test_cancelled_task_can_be_cleaned_up(api: httpx.AsyncClient) -> None:
    task = await created(api)
    await api.post(f"/tasks/{task['id']}/cancel")
    answer = await api.post(f"/tasks/{task['id']}/cleanup")
    assert (answer.status_code, answer.json()["output"]) == (200, None)


# Tenants

EVERYWHERE = [
    ("GET", "/tasks/{}"),
    ("GET", "/tasks/generation/{}"),
    ("GET", "/tasks/{}/result"),
    ("POST", "/tasks/{}/cancel"),
    ("POST", "/tasks/generation/{}/cancel"),
    ("POST", "/tasks/{}/cleanup"),
]


async def test_task_of_another_tenant_is_as_if_it_were_not(
    api: httpx.AsyncClient, stranger: httpx.AsyncClient, services: Services
) -> None:
    task = await created(api)
    await completed(services, task)
    unknown = task["id"][:-1] + ("0" if task["id"][-1] != "0" else "1")
    for method, path in EVERYWHERE:
        theirs = await stranger.request(method, path.format(task["id"]))
        nobodys = await stranger.request(method, path.format(unknown))
        assert refusal(theirs) == refusal(nobodys) == NOT_FOUND
        said = [answer.json()["error"]["message"] for answer in (theirs, nobodys)]
        assert said[0].replace(task["id"], "ID") == said[1].replace(unknown, "ID")
    assert (await api.get(f"/tasks/{task['id']}")).json()["status"] == "completed"


async def test_list_shows_the_callers_tasks_only(
    api: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    ours, theirs = await created(api), await created(stranger)
    assert await listed(api, "") == [ours["id"]]
    assert await listed(stranger, "") == [theirs["id"]]
    assert await listed(stranger, f"?search={ours['id']}") == []


@pytest.mark.parametrize("path", [path for _, path in EVERYWHERE])
@pytest.mark.parametrize("task_id", ["task_nope", "%00", "%ff", "..%2f..", "x" * 3000])
async def test_odd_id_is_not_found(shared_api: httpx.AsyncClient, path: str, task_id: str) -> None:
    method = "POST" if path.endswith(("cancel", "cleanup")) else "GET"
    assert refusal(await shared_api.request(method, path.format(task_id))) == NOT_FOUND


# Idempotency-Key


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


async def test_fifty_requests_with_one_key_make_one_task(api: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(api.post(GENERATION, json=PROMPT, headers=keyed("order-1")) for _ in range(50))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    assert (await api.get("/tasks")).json()["total"] == 1


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": "a red dress", "seed": 5}',
        b'{"seed":5,"prompt":"a red dress"}',
        b'{"seed": 5, "prompt": "a \\u0072ed dress"}',
    ],
)
async def test_same_body_in_other_words_is_the_same_request(
    api: httpx.AsyncClient, body: bytes
) -> None:
    first = await api.post(GENERATION, json={**PROMPT, "seed": 5}, headers=keyed("k"))
    again = await api.post(
        f"{GENERATION}/", content=body, headers={**keyed("k"), "Content-Type": "application/json"}
    )
    assert (again.status_code, again.json()) == (201, first.json())


async def test_repeated_request_answers_with_the_task_as_it_is_now(
    api: httpx.AsyncClient, services: Services
) -> None:
    first = await api.post(GENERATION, json=PROMPT, headers=keyed("k"))
    await completed(services, first.json())
    again = await api.post(GENERATION, json=PROMPT, headers=keyed("k"))
    assert (again.json()["id"], again.json()["status"]) == (first.json()["id"], "completed")


@pytest.mark.parametrize("path", [GENERATION, "/tasks"])
async def test_key_with_another_body_is_refused(api: httpx.AsyncClient, path: str) -> None:
    body = {"type": "generation", **PROMPT} if path == "/tasks" else PROMPT
    await api.post(path, json=body, headers=keyed("k"))
    other = await api.post(path, json={**body, "seed": 5}, headers=keyed("k"))
    assert refusal(other) == (422, "idempotency_key_reused", "Idempotency-Key")
    assert (await api.get("/tasks")).json()["total"] == 1


async def test_refused_request_does_not_use_up_its_key(api: httpx.AsyncClient) -> None:
    await api.post(GENERATION, json={"prompt": ""}, headers=keyed("k"))
    assert (await api.post(GENERATION, json=PROMPT, headers=keyed("k"))).status_code == 201


@pytest.mark.parametrize("key", ["", "k" * 256])
@pytest.mark.parametrize("path", [GENERATION, "/tasks", "/files"])
async def test_key_of_no_or_too_many_characters_is_refused(
    shared_api: httpx.AsyncClient, path: str, key: str
) -> None:
    content: dict[str, Any] = {"json": {"type": "generation", **PROMPT}}
    if path == GENERATION:
        content = {"json": PROMPT}
    if path == "/files":
        content = {"files": {"file": picture()}}
    answer = await shared_api.post(path, headers=keyed(key), **content)
    assert refusal(answer) == (422, "invalid_params", "Idempotency-Key")


async def test_key_of_255_characters_is_accepted(api: httpx.AsyncClient) -> None:
    ids = {
        (await api.post(GENERATION, json=PROMPT, headers=keyed("k" * 255))).json()["id"]
        for _ in range(2)
    }
    assert len(ids) == 1


async def test_key_belongs_to_its_tenant_and_route(
    api: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    answers = [
        await api.post(GENERATION, json=PROMPT, headers=keyed("k")),
        await stranger.post(GENERATION, json=PROMPT, headers=keyed("k")),
        await api.post("/tasks", json={"type": "generation", **PROMPT}, headers=keyed("k")),
        await api.post("/files", files={"file": picture()}, headers=keyed("k")),
    ]
    assert [answer.status_code for answer in answers] == [201] * 4
    assert len({answer.json()["id"] for answer in answers}) == 4


async def test_key_is_forgotten_after_a_day(api: httpx.AsyncClient, services: Services) -> None:
    first = await api.post(GENERATION, json=PROMPT, headers=keyed("k"))
    async with transaction(services.pool) as conn:
        await conn.execute(
            "update idempotency set created_at = now() - interval '24 hours 1 s'"
            " where resource_id = %s",
            (first.json()["id"],),
        )
    later = await api.post(GENERATION, json=PROMPT, headers=keyed("k"))
    assert later.status_code == 201
    assert later.json()["id"] != first.json()["id"]


async def test_uploads_with_one_key_are_one_file(api: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(
        *(api.post("/files", files={"file": picture()}, headers=keyed("k")) for _ in range(10))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["id"] for answer in answers}) == 1
    other = await api.post("/files", files={"file": picture("PNG")}, headers=keyed("k"))
    assert refusal(other) == (422, "idempotency_key_reused", "Idempotency-Key")


async def test_attempts_are_a_list_of_the_tasks_tenant(
    tenant: httpx.AsyncClient, stranger: httpx.AsyncClient, shared_services: Services
) -> None:
    task = await created(tenant)
    path = f"/tasks/{task['id']}/attempts"
    assert (await tenant.get(path)).json() == {"items": [], "total": 0, "page": 1, "page_size": 50}
    await failed(shared_services, task)
    (attempt,) = (await tenant.get(path)).json()["items"]
    assert attempt["attempt"] == 1
    assert (attempt["outcome"], attempt["error_code"]) == ("failed", "invalid_input")
    assert (attempt["next"], attempt["next_at"]) == ("failed", None)
    assert attempt["ended_at"].endswith("Z")
    assert (await stranger.get(path)).status_code == 404
    assert (await tenant.get(path, params={"page": 0})).status_code == 422
