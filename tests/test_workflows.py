"""Workflows through the real API, on a real database, with a worker that is played by hand."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from api_helpers import picture, refusal
from imageloom.core import advance, control, settle
from imageloom.core.control import expire_approvals
from imageloom.core.recover import recover_orphans
from imageloom.core.services import Services
from imageloom.core.workflows import RunInput, run_again
from imageloom.domain.tasks import Completed, Failed, Interrupted, Status
from imageloom.store.pool import transaction
from workflow_helpers import (
    BAD,
    IMAGE_URL,
    STEPS,
    begin,
    by_name,
    end,
    fails_at,
    finish,
    keys,
    made,
    output_of,
    play,
    read,
    said,
    started,
    statuses,
    step,
    tasks_of,
)

DIAMOND = [step("a"), step("b", "a"), step("c", "a"), step("d", "b", "c")]


async def test_the_user_s_workflow_goes_through_the_states_of_the_document(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await made(api, *STEPS)
    assert workflow["id"].startswith("wf_")
    assert (workflow["status"], workflow["current_step"]) == ("created", 0)
    assert statuses(workflow) == ["pending"] * 3

    running = await said(api, workflow, "start", {"input": {"image_url": IMAGE_URL}})
    assert (running["status"], running["current_step"]) == ("running", 0)
    assert statuses(running) == ["running", "pending", "pending"]
    (generation,) = await tasks_of(services, running)
    assert generation.params["input_image_url"] == IMAGE_URL
    await finish(services, generation)

    upscaling = await read(api, workflow)
    assert (upscaling["status"], upscaling["current_step"]) == ("running", 1)
    assert len(upscaling["steps"][0]["output"]["images"]) == 4
    upscales = await tasks_of(services, running, "upscale")
    assert [task.item for task in upscales] == [0, 1, 2, 3]
    await finish(services, upscales[2])
    await finish(services, upscales[0])
    half = by_name(await read(api, workflow), "upscale")
    assert (half["status"], half["progress"], half["output"]) == ("running", 0.5, None)

    await play(services, running)
    done = await read(api, workflow)
    assert (done["status"], done["current_step"], done["progress"]) == ("completed", 3, 1.0)
    assert statuses(done) == ["completed"] * 3
    images = done["steps"][2]["output"]["images"]
    assert len(images) == 4
    assert all(set(image) == {"url", "width", "height"} for image in images)
    assert done["completed_at"] is not None
    assert done["error"] is None


async def test_pictures_keep_their_order_through_a_fan_out(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, *STEPS)
    (generation,) = await tasks_of(services, workflow)
    await finish(services, generation)
    upscales = await tasks_of(services, workflow, "upscale")
    assert keys(upscales) == [image.key for image in output_of(generation).images]
    for task in reversed(upscales):
        await finish(services, task)
    removals = await tasks_of(services, workflow, "background-removal")
    assert keys(removals) == [output_of(task).images[0].key for task in upscales]


async def test_a_step_receives_the_pictures_of_its_parents_in_the_order_of_depends_on(
    api: httpx.AsyncClient, services: Services
) -> None:
    both = step("both", "second", "first")
    workflow = await started(api, step("first"), step("second"), both)
    first, second = await tasks_of(services, workflow)
    await finish(services, first)
    assert await tasks_of(services, workflow, "both") == []
    await finish(services, second)
    found = keys(await tasks_of(services, workflow, "both"))
    assert found == [output_of(second).images[0].key, output_of(first).images[0].key]


async def test_a_task_shows_its_workflow_and_a_url_of_the_picture_that_it_starts_from(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, *STEPS)
    await finish(services, (await tasks_of(services, workflow))[0])
    listed = (await api.get(f"/tasks?workflow_id={workflow['id']}&task_type=processing")).json()
    assert listed["total"] == 4
    place = {"id": workflow["id"], "run_id": workflow["run"]["id"], "step": "upscale"}
    assert [task["workflow"] for task in reversed(listed["items"])] != []
    for task in listed["items"]:
        item = task["workflow"].pop("item")
        assert task["workflow"] == place
        assert task["params"]["input_image_url"].endswith(f"/output_{item}.png")
    by_run = await api.get(f"/tasks?workflow_id={workflow['run']['id']}")
    assert by_run.json()["total"] == 5
    brief = by_name(await read(api, workflow), "upscale")["tasks"]
    assert {each["id"] for each in brief} == {task["id"] for task in listed["items"]}


async def test_resume_redoes_the_one_picture_that_failed_and_nothing_else(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, *STEPS, input={"image_url": IMAGE_URL})
    await play(services, workflow, outcome=fails_at(("upscale", 1)))
    failed = await read(api, workflow)
    assert failed["status"] == "failed"
    assert failed["error"] == "upscale: Invalid input: no picture"
    assert statuses(failed) == ["completed", "failed", "skipped"]
    assert failed["current_step"] == 1
    before = {task.item: task.id for task in await tasks_of(services, workflow, "upscale")}

    resumed = await said(api, workflow, "resume")
    assert resumed["status"] == "running"
    assert statuses(resumed) == ["completed", "running", "pending"]
    after = {task.item: task.id for task in await tasks_of(services, workflow, "upscale")}
    assert {item for item in before if before[item] != after[item]} == {1}
    pending = [t for t in await tasks_of(services, workflow) if t.status is Status.PENDING]
    assert [(task.step_name, task.item) for task in pending] == [("upscale", 1)]

    await play(services, workflow)
    done = await read(api, workflow)
    assert done["status"] == "completed"
    assert (await api.get(f"/tasks/{before[1]}")).json()["status"] == "failed"
    # 1 generation, 4 upscales, the failed one on record, 4 removals.
    assert (await api.get(f"/tasks?workflow_id={workflow['id']}")).json()["total"] == 10


async def test_a_failed_step_that_is_edited_is_made_again_as_a_whole(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, *STEPS)
    await play(services, workflow, outcome=fails_at(("upscale", 1)))
    await said(api, workflow, "resume", {"edits": {"upscale": {"scale": 4}}})
    again = await tasks_of(services, workflow, "upscale")
    assert [(task.status, task.params["scale"]) for task in again] == [(Status.PENDING, 4)] * 4
    await play(services, workflow)
    assert (await read(api, workflow))["status"] == "completed"


async def test_a_failed_step_lets_independent_branches_finish(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, *DIAMOND, step("e", "c"))
    await play(services, workflow, outcome=fails_at(("b", 0)))
    ended = await read(api, workflow)
    assert statuses(ended) == ["completed", "failed", "completed", "skipped", "completed"]
    assert ended["status"] == "failed"
    await said(api, workflow, "resume")
    await play(services, workflow)
    assert statuses(await read(api, workflow)) == ["completed"] * 5


async def test_a_task_cancelled_by_itself_fails_the_workflow_and_can_be_resumed(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, *DIAMOND)
    (task,) = await tasks_of(services, workflow)
    assert (await api.post(f"/tasks/{task.id}/cancel")).status_code == 200
    ended = await read(api, workflow)
    assert statuses(ended) == ["cancelled", "skipped", "skipped", "skipped"]
    assert ended["status"] == "failed"
    await said(api, workflow, "resume")
    await play(services, workflow)
    assert (await read(api, workflow))["status"] == "completed"


async def test_a_thousand_diamonds_start_their_last_step_exactly_once(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await made(api, *DIAMOND)
    gate = asyncio.Semaphore(4)  # each ends two tasks at once, on a pool of twelve connections

    async def one() -> None:
        async with gate:
            state = await run_again(
                services,
                workflow["id"],
                tenant="default",
                start_with=RunInput(values={}, inputs={}),
            )
            run = {"run": {"id": state.run.id}}
            await finish(services, (await tasks_of(services, run))[0])
            claims = [await begin(services, task) for task in (await tasks_of(services, run))[1:]]
            assert len(claims) == 2
            await asyncio.gather(*(end(services, claimed) for claimed in claims))

    await asyncio.gather(*(one() for _ in range(1000)))
    async with transaction(services.pool) as conn:
        rows = await conn.execute(
            "select step_name, count(*) as n, count(distinct (run_id, item)) as places,"
            " count(distinct job_id) as jobs from task group by step_name order by step_name"
        )
        counted = [tuple(row.values()) for row in await rows.fetchall()]
        jobs = await conn.execute(
            "select count(*) as n from procrastinate_jobs where status = 'todo'"
            " and args ->> 'task_id' in (select id from task where step_name = 'd')"
        )
        queued = (await jobs.fetchone() or {})["n"]
    assert [row[:3] for row in counted] == [
        ("a", 1000, 1000),
        ("b", 1000, 1000),
        ("c", 1000, 1000),
        ("d", 2000, 2000),  # one for each of the two pictures that it receives
    ]
    assert queued == 2000


async def test_what_a_settlement_starts_is_undone_with_it_and_never_told(
    api: httpx.AsyncClient,
    services: Services,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workflow = await started(api, *STEPS)
    (task,) = await tasks_of(services, workflow)
    claimed = await begin(services, task)

    async def dies(*_args: object, **_options: object) -> None:
        raise ConnectionError("the process died here")

    with monkeypatch.context() as patched:
        patched.setattr(advance.runs, "write_step", dies)
        with pytest.raises(ConnectionError):
            await end(services, claimed)
    assert [each.status for each in await tasks_of(services, workflow)] == [Status.RUNNING]
    assert "settled" not in capsys.readouterr().out
    await end(services, claimed)
    assert capsys.readouterr().out.count("settled") == 1
    assert len(await tasks_of(services, workflow)) == 5


async def test_cancel_while_a_step_ends_leaves_nothing_that_would_run(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await made(api, *DIAMOND)

    async def one() -> None:
        start_with = RunInput(values={}, inputs={})
        state = await run_again(services, workflow["id"], tenant="default", start_with=start_with)
        claimed = await begin(
            services, (await tasks_of(services, {"run": {"id": state.run.id}}))[0]
        )
        done = Completed(output=output_of(claimed.task))
        await asyncio.gather(
            settle.settle(services, claimed.task.id, attempt=claimed.attempt, outcome=done),
            control.cancel(services, workflow["id"], tenant="default", run_id=state.run.id),
        )

    for _ in range(100):
        await one()
    async with transaction(services.pool) as conn:
        live = await conn.execute(
            "select status, count(*) as n from task where status in ('pending', 'running')"
            " group by status"
        )
        assert await live.fetchall() == []
        ended = await conn.execute("select status, count(*) as n from run group by status")
        assert await ended.fetchall() == [{"status": "cancelled", "n": 100}]
        # That of `a` is its worker's to delete, and no worker runs here.
        jobs = await conn.execute(
            "select 1 from procrastinate_jobs where status = 'todo' and args ->> 'task_id' in"
            " (select id from task where step_name <> 'a')"
        )
        assert await jobs.fetchall() == []


async def test_starting_twice_starts_one_run(api: httpx.AsyncClient, services: Services) -> None:
    workflow = await made(api, *STEPS)
    body = {"input": {"image_url": IMAGE_URL}}
    both = await asyncio.gather(*(said(api, workflow, "start", body) for _ in range(8)))
    assert len({each["run"]["id"] for each in both}) == 1
    assert len(await tasks_of(services, both[0])) == 1
    other = {"input": {"image_url": "https://example.com/other.jpg"}}
    answer = await api.post(f"/workflows/{workflow['id']}/start", json=other)
    assert refusal(answer)[:2] == (409, "conflict")
    assert "/runs" in answer.json()["error"]["message"]


async def test_a_workflow_can_be_run_again_with_another_input(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, *STEPS, input={"image_url": IMAGE_URL})
    other = "https://example.com/other.jpg"
    again = await said(api, workflow, "runs", {"input": {"image_url": other}})
    assert (again["run"]["number"], again["input"]) == (2, {"image_url": other})
    await play(services, again)
    assert (await read(api, workflow))["run"] == again["run"]
    first = await api.get(f"/workflows/{workflow['id']}/runs/{workflow['run']['id']}")
    assert (first.json()["status"], first.json()["input"]) == ("running", {"image_url": IMAGE_URL})
    page = (await api.get(f"/workflows/{workflow['id']}/runs?page_size=1")).json()
    assert (page["total"], [run["status"] for run in page["items"]]) == (2, ["completed"])


async def test_a_workflow_s_own_input_is_what_a_run_starts_with(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await made(api, *STEPS, input={"image_url": IMAGE_URL})
    running = await said(api, workflow, "start")
    assert running["input"] == {"image_url": IMAGE_URL}
    (task,) = await tasks_of(services, running)
    assert task.params["input_image_url"] == IMAGE_URL


async def test_an_upload_goes_into_a_workflow(api: httpx.AsyncClient, services: Services) -> None:
    files = [(await api.post("/files", files={"file": picture()})).json()["url"] for _ in range(2)]
    only = {"name": "resize", "type": "processing", "config": {"operation": "resize", "width": 8}}
    workflow = await started(api, only, input={"image_urls": files})
    found = await tasks_of(services, workflow)
    assert [task.params["input_image_url"] for task in found] == files
    assert all(key.startswith("uploads/default/") for key in keys(found))


async def test_the_other_dialect_is_understood(api: httpx.AsyncClient, services: Services) -> None:
    body = {
        "name": "theirs",
        "origin_instance": "studio-1",
        "steps": [
            {"id": "draft", "task_type": "GENERATION", "config": {"prompt": "a dress"}},
            {
                "id": "final",
                "task_type": "GENERATION",
                "config": {"prompt": "a photograph"},
                "depends_on": ["draft"],
                "input_mappings": [
                    {"from_step": "draft", "from_field": "images[0].url", "to_field": "image_url"},
                    {"from_step": "draft", "from_field": "images[0].seed", "to_field": "seed"},
                ],
            },
        ],
    }
    answer = await api.post("/workflows?start=true", json=body)
    assert answer.status_code == 201, answer.text
    workflow = answer.json()
    assert (workflow["status"], workflow["origin_instance"]) == ("running", "studio-1")
    assert [each["type"] for each in workflow["steps"]] == ["generation", "generation"]
    (draft,) = await tasks_of(services, workflow)
    await finish(services, draft)
    (final,) = await tasks_of(services, workflow, "final")
    assert keys([final]) == [output_of(draft).images[0].key]
    assert final.params["seed"] == 100


async def test_mappings_take_values_from_the_input_and_from_any_step_before(
    api: httpx.AsyncClient, services: Services
) -> None:
    poster = {
        "name": "poster",
        "type": "generation",
        "config": {},
        "depends_on": ["bright"],
        "input_mappings": {
            "prompt": "input.headline",
            "input_image_url": "steps.draft.images[1]",
            "width": "steps.bright.images[0].width",
        },
    }
    draft = {"name": "draft", "type": "generation", "config": {"prompt": "x", "num_outputs": 2}}
    headline = {"headline": "Summer sale"}
    workflow = await started(api, draft, step("bright", "draft"), poster, input=headline)
    (first,) = await tasks_of(services, workflow)
    await finish(services, first)
    for task in await tasks_of(services, workflow, "bright"):
        await finish(services, task)
    (last,) = await tasks_of(services, workflow, "poster")
    assert last.params["prompt"] == "Summer sale"
    assert last.params["width"] == 64
    assert keys([last]) == [output_of(first).images[1].key]


async def test_a_mapped_value_that_does_not_fit_fails_its_step_and_is_named(
    api: httpx.AsyncClient, services: Services
) -> None:
    crop = {
        "name": "crop",
        "type": "generation",
        "config": {"prompt": "x"},
        "depends_on": ["draft"],
        "input_mappings": {"height": "steps.draft.images[0].height"},  # 48: below 64
    }
    workflow = await started(api, step("draft"), crop)
    await play(services, workflow)
    ended = await read(api, workflow)
    assert ended["status"] == "failed"
    assert by_name(ended, "crop")["error"].startswith("Invalid input: height: ")


async def test_pause_lets_what_runs_finish_and_starts_nothing(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, *STEPS)
    (generation,) = await tasks_of(services, workflow)
    claimed = await begin(services, generation)
    assert (await said(api, workflow, "pause"))["status"] == "paused"
    assert (await said(api, workflow, "pause"))["status"] == "paused"
    await end(services, claimed)
    held = await read(api, workflow)
    assert (held["status"], statuses(held)) == ("paused", ["completed", "pending", "pending"])

    resumed = await said(api, workflow, "resume")
    assert (resumed["status"], statuses(resumed)[1]) == ("running", "running")
    await finish(services, (await tasks_of(services, workflow, "upscale"))[0])
    await said(api, workflow, "pause")
    waiting = [task for task in await tasks_of(services, workflow) if task.status is Status.PENDING]
    assert [task.job_id for task in waiting] == [None] * 3
    assert await recover_orphans(services) == 0
    await said(api, workflow, "resume")
    await play(services, workflow)
    assert (await read(api, workflow))["status"] == "completed"


async def test_an_attempt_that_is_handed_back_while_paused_waits_for_resume(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, *DIAMOND)
    claimed = await begin(services, (await tasks_of(services, workflow))[0])
    await said(api, workflow, "pause")
    await end(services, claimed, Interrupted())
    (task,) = await tasks_of(services, workflow)
    assert (task.status, task.job_id) == (Status.PENDING, None)
    await said(api, workflow, "resume")
    await play(services, workflow)
    assert (await read(api, workflow))["status"] == "completed"


async def test_cancel_is_final_and_ends_every_task(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, *STEPS)
    (generation,) = await tasks_of(services, workflow)
    await finish(services, generation)
    claimed = await begin(services, (await tasks_of(services, workflow, "upscale"))[0])
    ended = await said(api, workflow, "cancel")
    assert (ended["status"], statuses(ended)) == ("cancelled", ["completed"] + ["cancelled"] * 2)
    assert await said(api, workflow, "cancel") == ended
    done = Completed(output=output_of(claimed.task))
    late = await settle.settle(services, claimed.task.id, attempt=claimed.attempt, outcome=done)
    assert late is None
    assert {task.status for task in await tasks_of(services, workflow, "upscale")} == {
        Status.CANCELLED
    }
    for verb in ("start", "resume", "pause"):
        answer = await api.post(f"/workflows/{workflow['id']}/{verb}", json={})
        assert refusal(answer)[:2] == (409, "conflict"), verb


async def test_a_created_workflow_can_be_cancelled_and_then_not_started(
    api: httpx.AsyncClient,
) -> None:
    workflow = await made(api, *STEPS)
    assert (await said(api, workflow, "cancel"))["status"] == "cancelled"
    answer = await api.post(f"/workflows/{workflow['id']}/start", json={"input": {}})
    assert refusal(answer)[:2] == (409, "conflict")


async def test_a_completed_workflow_cannot_be_resumed_paused_or_cancelled(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, *DIAMOND)
    await play(services, workflow)
    for verb in ("resume", "pause", "cancel"):
        answer = await api.post(f"/workflows/{workflow['id']}/{verb}")
        assert refusal(answer)[:2] == (409, "conflict"), verb


async def test_cleanup_deletes_what_the_runs_made_and_keeps_the_record(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, *DIAMOND)
    answer = await api.post(f"/workflows/{workflow['id']}/cleanup")
    assert refusal(answer)[:2] == (409, "conflict")
    await play(services, workflow)
    (task, *_) = await tasks_of(services, workflow)
    key = output_of(task).images[0].key
    await services.storage.put(key, picture(), media_type="image/png")
    url = (await read(api, workflow))["steps"][0]["output"]["images"][0]["url"]
    assert (await api.get(url)).status_code == 200
    cleaned = await said(api, workflow, "cleanup")
    assert cleaned["cleaned_at"] is not None
    assert [each["output"] for each in cleaned["steps"]] == [{"images": []}] * 4
    assert (await api.get(url)).status_code == 410
    assert await said(api, workflow, "cleanup") == cleaned


CHOOSE = {
    "name": "choose",
    "type": "approval",
    "depends_on": ["generate-base"],
    "config": {"message": "Which two?"},
}
WITH_APPROVAL = [STEPS[0], CHOOSE, {**STEPS[1], "depends_on": ["choose"]}]


async def waiting(api: httpx.AsyncClient, services: Services, *steps: Any) -> dict[str, Any]:
    """Return a workflow whose approvals wait."""
    workflow = await started(api, *(steps or WITH_APPROVAL))
    await play(services, workflow)
    return await read(api, workflow)


async def test_an_approval_pauses_lists_candidates_and_goes_on_with_the_selection(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await waiting(api, services)
    assert (workflow["status"], workflow["current_step"]) == ("paused", 1)
    choice = workflow["steps"][1]
    assert (choice["status"], choice["message"]) == ("paused", "Which two?")
    assert [each["index"] for each in choice["candidates"]] == [0, 1, 2, 3]
    made_urls = [image["url"] for image in workflow["steps"][0]["output"]["images"]]
    assert [each["url"] for each in choice["candidates"]] == made_urls
    assert await recover_orphans(services) == 0

    edits = {"upscale": {"scale": 4}}
    running = await said(api, workflow, "resume", {"select": [2, 0], "edits": edits})
    assert running["status"] == "running"
    assert running["steps"][1]["candidates"] is None
    found = await tasks_of(services, workflow, "upscale")
    (generation,) = await tasks_of(services, workflow, "generate-base")
    images = output_of(generation).images
    assert keys(found) == [images[2].key, images[0].key]
    assert {task.params["scale"] for task in found} == {4}
    assert by_name(running, "upscale")["config"]["scale"] == 4
    await play(services, workflow)
    assert (await read(api, workflow))["status"] == "completed"
    # What was edited in one run stays there.
    again = await said(api, workflow, "runs", {})
    assert by_name(again, "upscale")["config"]["scale"] == 2


SELECTIONS = [
    ({}, "select"),
    ({"select": []}, "select"),
    ({"select": [4]}, "select"),
    ({"select": [-1]}, "select"),
    ({"select": [1, 1]}, "select"),
    ({"select": ["1"]}, "select.0"),
    ({"select": [True]}, "select.0"),
    ({"select": [1], "step": "upscale"}, "step"),
    ({"step": "choose"}, "select"),
    ({"select": [1], "edits": {"upscale": {"scale": 3}}}, "edits"),
    ({"select": [1], "edits": {"upscale": {"scall": 2}}}, "edits"),
    ({"select": [1], "edits": {"nobody": {}}}, "edits"),
    ({"selekt": [1]}, "selekt"),
]


async def test_a_choice_that_does_not_fit_is_refused_and_changes_nothing(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await waiting(api, services)
    for body, param in SELECTIONS:
        answer = await api.post(f"/workflows/{workflow['id']}/resume", json=body)
        assert refusal(answer)[0] == 422, body
        assert refusal(answer)[2] == param, body
    answer = await api.post(
        f"/workflows/{workflow['id']}/resume",
        json={"select": [1], "edits": {"generate-base": {"num_outputs": 2}}},
    )
    assert refusal(answer)[:2] == (409, "conflict")
    assert await read(api, workflow) == workflow


async def test_two_approvals_wait_at_once_and_each_gets_its_own_choice(
    api: httpx.AsyncClient, services: Services
) -> None:
    other = {**CHOOSE, "name": "other"}
    workflow = await waiting(api, services, STEPS[0], CHOOSE, other, step("x", "other", "choose"))
    answer = await api.post(f"/workflows/{workflow['id']}/resume", json={"select": [0]})
    assert refusal(answer)[::2] == (422, "step")
    half = await said(api, workflow, "resume", {"select": [3], "step": "other"})
    assert half["status"] == "paused"
    # Sent again, as when the answer was lost; and another choice, which comes too late.
    assert await said(api, workflow, "resume", {"select": [3], "step": "other"}) == half
    late = {"select": [2], "step": "other"}
    answer = await api.post(f"/workflows/{workflow['id']}/resume", json=late)
    assert refusal(answer)[::2] == (422, "step")
    assert statuses(half) == ["completed", "paused", "completed", "pending"]
    await said(api, workflow, "resume", {"select": [1]})
    (generation,) = await tasks_of(services, workflow, "generate-base")
    images = output_of(generation).images
    assert keys(await tasks_of(services, workflow, "x")) == [images[3].key, images[1].key]


async def test_a_choice_where_none_waits_is_a_conflict(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, *WITH_APPROVAL)
    answer = await api.post(f"/workflows/{workflow['id']}/resume", json={"select": [0]})
    assert refusal(answer)[:2] == (409, "conflict")


@pytest.mark.parametrize(
    ("default", "chosen"),
    [("all", [0, 1, 2, 3]), ("first", [0]), ([3, 1], [3, 1]), ([9, 2], [2])],
)
async def test_an_approval_that_waited_too_long_takes_its_default(
    api: httpx.AsyncClient, services: Services, default: Any, chosen: list[int]
) -> None:
    config = {"timeout_seconds": 60, "default": default}
    workflow = await waiting(
        api, services, STEPS[0], {**CHOOSE, "config": config}, WITH_APPROVAL[2]
    )
    assert workflow["steps"][1]["expires_at"] is not None
    assert await expire_approvals(services) == 0
    await pass_deadlines(services)
    assert await expire_approvals(services) == 1
    (generation,) = await tasks_of(services, workflow, "generate-base")
    images = output_of(generation).images
    found = keys(await tasks_of(services, workflow, "upscale"))
    assert found == [images[index].key for index in chosen]
    assert (await read(api, workflow))["status"] == "running"


async def test_the_default_of_an_approval_may_be_to_cancel(
    api: httpx.AsyncClient, services: Services
) -> None:
    config = {"timeout_seconds": 60, "default": "cancel"}
    workflow = await waiting(
        api, services, STEPS[0], {**CHOOSE, "config": config}, WITH_APPROVAL[2]
    )
    await pass_deadlines(services)
    assert await expire_approvals(services) == 1
    ended = await read(api, workflow)
    assert (ended["status"], statuses(ended)[1:]) == ("cancelled", ["cancelled", "cancelled"])


async def pass_deadlines(services: Services) -> None:
    async with transaction(services.pool) as conn:
        await conn.execute("update step set deadline = deadline - %s", (timedelta(hours=1),))


async def test_a_step_says_how_often_and_when_it_is_tried_again(
    api: httpx.AsyncClient, services: Services
) -> None:
    retry = {"max_attempts": 2, "backoff_seconds": 120}
    workflow = await started(api, step("a", retry=retry))
    (task,) = await tasks_of(services, workflow)
    fault = Failed(code="device_fault", message="the device failed", retryable=True)
    await finish(services, task, fault)
    (waits,) = await tasks_of(services, workflow)
    assert (waits.status, waits.attempt) == (Status.PENDING, 1)
    async with transaction(services.pool) as conn:
        row = await conn.execute(
            "select extract(epoch from scheduled_at - now())::int as due"
            " from procrastinate_jobs where id = %s",
            (waits.job_id,),
        )
        due = (await row.fetchone() or {})["due"]
    assert 60 < due <= 120
    await finish(services, waits, fault)
    assert (await read(api, workflow))["status"] == "failed"


async def test_a_failure_that_cannot_succeed_later_is_not_retried(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, step("a", retry={"max_attempts": 20}))
    (task,) = await tasks_of(services, workflow)
    await finish(services, task, BAD)
    (ended,) = await tasks_of(services, workflow)
    assert (ended.status, ended.attempt) == (Status.FAILED, 1)
    assert (await read(api, workflow))["status"] == "failed"


async def test_workflows_are_listed_filtered_and_paged(
    api: httpx.AsyncClient, services: Services
) -> None:
    first = await made(api, *STEPS)
    second = await started(api, *DIAMOND)
    await play(services, second)
    listed = (await api.get("/workflows")).json()
    assert [each["id"] for each in listed["items"]] == [second["id"], first["id"]]
    assert (listed["total"], listed["items"][0]["status"]) == (2, "completed")
    assert listed["items"][0]["steps"][0]["tasks"] is None
    created = (await api.get("/workflows/?status=created&sort_by=name")).json()
    assert [each["id"] for each in created["items"]] == [first["id"]]
    page = (await api.get("/workflows?page_size=1&page=2")).json()
    assert [each["id"] for each in page["items"]] == [first["id"]]
    found = (await api.get(f"/workflows?search={second['id'][:14]}")).json()
    assert found["total"] >= 1
    for query in ("status=done", "page_size=501", "sort_by=steps", "nonsense=1"):
        assert refusal(await api.get(f"/workflows?{query}"))[0] == 422, query


async def test_an_idempotency_key_makes_one_workflow_and_one_run(
    api: httpx.AsyncClient, services: Services
) -> None:
    body = {"name": "once", "steps": DIAMOND}
    header = {"Idempotency-Key": "k1"}
    both = [
        (await api.post("/workflows?start=true", json=body, headers=header)).json()
        for _ in range(2)
    ]
    assert both[0] == both[1]
    assert len(await tasks_of(services, both[0])) == 1
    other = await api.post("/workflows", json=body, headers=header)
    assert refusal(other)[0] == 422
    runs = [
        (await api.post(f"/workflows/{both[0]['id']}/runs", json={}, headers=header)).json()
        for _ in range(2)
    ]
    assert [run["run"]["number"] for run in runs] == [2, 2]


async def test_workflows_of_others_are_not_there(
    tenant: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    workflow = await started(tenant, *DIAMOND)
    path = f"/workflows/{workflow['id']}"
    run = f"{path}/runs/{workflow['run']['id']}"
    for target in (path, f"{path}/runs", run):
        assert refusal(await stranger.get(target))[0] == 404, target
    for verb in ("start", "runs", "pause", "resume", "cancel", "cleanup"):
        assert refusal(await stranger.post(f"{path}/{verb}", json={}))[0] == 404, verb
    for verb in ("pause", "resume", "cancel", "cleanup"):
        assert refusal(await stranger.post(f"{run}/{verb}", json={}))[0] == 404, verb
    assert (await stranger.get("/workflows")).json()["total"] == 0
    listed = await stranger.get(f"/tasks?workflow_id={workflow['id']}")
    assert listed.json()["total"] == 0
    own = await made(stranger, *DIAMOND)
    mixed = await stranger.get(f"/workflows/{own['id']}/runs/{workflow['run']['id']}")
    assert refusal(mixed)[0] == 404
