"""Workflows and processing through the client, against a small server that speaks the contract."""

from __future__ import annotations

import doctest
import inspect
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import imageloom.client._workflows_sync
from fake_api import BASE, JPEG, FakeServer, refusal
from imageloom import client as sdk
from imageloom.client import AsyncWorkflow, AsyncWorkflows, Workflow, Workflows

STEPS: list[dict[str, Any]] = [
    {"name": "base", "type": "generation", "config": {"prompt": "a dress", "num_outputs": 2}},
    {
        "name": "upscale",
        "type": "processing",
        "config": {"operation": "upscale", "scale": 2},
        "depends_on": ["base"],
    },
]
CHOICE: dict[str, Any] = {
    "name": "choose",
    "type": "approval",
    "config": {"message": "Which?"},
    "depends_on": ["base"],
}
WITH_APPROVAL = [STEPS[0], CHOICE, STEPS[1] | {"depends_on": ["choose"]}]


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(JPEG)
    return path


def created(server: FakeServer, steps: list[dict[str, Any]] = STEPS) -> Workflow:
    return server.client().workflows.create(name="product-to-model", steps=steps)


# --- processing


def test_process_sends_the_operation_and_its_parameters(server: FakeServer, photo: Path) -> None:
    client = server.client()
    task = client.process(
        "replace-background",
        image="https://example.com/dress.jpg",
        background_image_url=photo,
        output_format=None,
    )
    assert server.bodies[task.id] == {
        "operation": "replace-background",
        "background_image_url": f"{BASE}/files/file_1?signature=abc",
        "input_image_url": "https://example.com/dress.jpg",
    }
    assert client.process("upscale", image=photo, scale=4).type == "processing"


def test_process_takes_several_pictures_in_their_order(server: FakeServer, photo: Path) -> None:
    task = server.client().process(
        "crop", images=[photo, "data:image/png;base64,xx", b"\x89PNG\r\n\x1a\n"], aspect_ratio="4:5"
    )
    assert server.bodies[task.id]["input_image_urls"] == [
        f"{BASE}/files/file_1?signature=abc",
        "data:image/png;base64,xx",
        f"{BASE}/files/file_2?signature=abc",
    ]
    task.wait()
    assert task.output is not None
    assert len(task.output.images) == 3


def test_process_under_the_same_key_is_the_same_task(server: FakeServer, photo: Path) -> None:
    client = server.client()
    ids = {client.process("upscale", images=[photo], idempotency_key="k").id for _ in range(2)}
    assert (len(ids), len(server.uploads)) == (1, 1)


# --- creating and starting


def test_create_start_wait_and_download_chain(server: FakeServer, tmp_path: Path) -> None:
    paths = (
        server.client()
        .workflows.create(name="product-to-model", steps=STEPS, description="for the shop")
        .start(image_url="https://example.com/dress.jpg")
        .wait()
        .download(tmp_path / "made")
    )
    assert [path.name for path in paths] == ["upscale_0.jpg", "upscale_1.jpg"]
    assert server.workflows.bodies["wf_1"] == {
        "name": "product-to-model",
        "description": "for the shop",
        "steps": STEPS,
    }
    assert server.workflows.runs["wf_1"][0]["asked"] == {
        "input": {"image_url": "https://example.com/dress.jpg"}
    }


def test_local_files_of_the_input_are_uploaded(server: FakeServer, photo: Path) -> None:
    workflow = created(server).start(
        images=[photo, "https://example.com/b.jpg"],
        input={"headline": "photo.jpg", "backdrop": photo},
        cache=False,
    )
    assert workflow.input == {
        "headline": "photo.jpg",
        "backdrop": f"{BASE}/files/file_2?signature=abc",
        "image_urls": [f"{BASE}/files/file_1?signature=abc", "https://example.com/b.jpg"],
    }
    assert server.workflows.runs["wf_1"][0]["asked"]["cache"] is False


def test_local_files_inside_steps_are_uploaded(server: FakeServer, photo: Path) -> None:
    config = {"operation": "replace-background", "background_image_url": photo}
    created(server, [{"name": "a", "type": "processing", "config": config}])
    (step,) = server.workflows.bodies["wf_1"]["steps"]
    assert step["config"]["background_image_url"] == f"{BASE}/files/file_1?signature=abc"


def test_create_under_the_same_key_is_the_same_workflow(server: FakeServer, photo: Path) -> None:
    client = server.client()
    ids = {
        client.workflows.create(
            name="a", steps=STEPS, input={"image_url": photo}, idempotency_key="order-12"
        ).id
        for _ in range(2)
    }
    assert (ids, len(server.uploads)) == ({"wf_1"}, 1)


def test_input_that_is_given_twice_is_refused(server: FakeServer) -> None:
    workflow = created(server)
    with pytest.raises(ValueError, match="image_url is given twice"):
        workflow.start(image_url="https://a.test/1", input={"image_url": "https://a.test/2"})
    with pytest.raises(ValueError, match="either image or image_url"):
        workflow.start(image="https://a.test/1", image_url="https://a.test/2")
    with pytest.raises(ValueError, match="either images or image_urls"):
        workflow.start(images=["https://a.test/1"], image_urls=["https://a.test/2"])
    assert len(server.requests) == 1


def test_start_without_arguments_asks_for_nothing(server: FakeServer) -> None:
    created(server).start()
    assert server.workflows.runs["wf_1"][0]["asked"] == {}


def test_refused_step_names_its_field(server: FakeServer) -> None:
    bad = [STEPS[0], STEPS[1] | {"config": {"operation": "upscale", "scale": 3}}]
    with pytest.raises(sdk.InvalidParams) as caught:
        created(server, bad)
    assert (caught.value.param, caught.value.type) == ("steps.1.config.scale", "workflow_invalid")


# --- reading


def test_workflow_is_read_into_values(server: FakeServer) -> None:
    server.workflows.cached = {"base": 8.25}
    workflow = created(server)
    assert (workflow.run_number, workflow.status, workflow.done) == (1, "created", False)
    assert (workflow.current_step, workflow.started_at, workflow.error) == (0, None, None)
    workflow = workflow.start().refresh()
    base, upscale = workflow.steps
    assert (base.cache, base.seconds_saved, len(base.images)) == ("hit", 8.25, 2)
    assert base.images[1].seed == 8
    assert (upscale.status, upscale.progress, upscale.depends_on) == ("running", 0.5, ["base"])
    assert upscale.images == []
    workflow.refresh()
    (task, _) = workflow.step("upscale").tasks
    assert (task.id, task.status, task.progress, task.error) == (
        "task_upscale_0",
        "running",
        0.5,
        None,
    )
    workflow.wait()
    assert workflow.created_at == datetime(2024, 1, 15, 10, 30, tzinfo=UTC)
    assert (workflow.current_step, workflow.progress) == (2, 1.0)
    assert [step.name for step in workflow.last_steps] == ["upscale"]
    assert repr(workflow) == "<Workflow wf_1 'product-to-model' completed 100%>"


def test_unknown_fields_and_missing_ones_are_read_calmly(server: FakeServer) -> None:
    short = {"id": "wf_9", "status": "running", "steps": [{"name": "a", "new": 1}], "new": 2}
    server.next = [httpx.Response(200, json=short)]
    workflow = server.client().workflows.get("wf_9")
    assert (workflow.name, workflow.run_id, workflow.input, workflow.images) == ("", None, {}, [])
    assert (workflow.current_step, workflow.description, workflow.raw["new"]) == (None, None, 2)
    (step,) = workflow.steps
    assert (step.status, step.output, step.tasks, step.raw["new"]) == ("", None, [], 1)


@pytest.mark.parametrize("body", ["[]", "{}", '{"id": "wf_1"}'])
def test_answer_that_is_no_workflow_is_an_error(server: FakeServer, body: str) -> None:
    server.next = [httpx.Response(200, text=body)]
    with pytest.raises(sdk.APIError, match="Imageloom server"):
        server.client().workflows.get("wf_1")


def test_step_that_is_not_there_names_those_that_are(server: FakeServer) -> None:
    with pytest.raises(KeyError, match="no step 'upscal'; it has base, upscale"):
        created(server).step("upscal")


def test_list_is_asked_for_with_its_filters(server: FakeServer) -> None:
    client = server.client()
    started, left = created(server).start(), created(server)
    page = client.workflows.list(
        status="created",
        search="product",
        created_after=datetime(2024, 1, 1, tzinfo=UTC),
        page=1,
        page_size=10,
    )
    assert [each.id for each in page] == [left.id]
    assert dict(server.requests[-1].url.params) == {
        "status": "created",
        "search": "product",
        "created_after": "2024-01-01T00:00:00Z",
        "page": "1",
        "page_size": "10",
    }
    assert [each.id for each in client.workflows.list()] == [left.id, started.id]


@pytest.mark.parametrize("id_", ["", " ", ".", ".."])
def test_id_that_names_another_route_is_refused(server: FakeServer, id_: str) -> None:
    with pytest.raises(ValueError, match="not the id of a workflow or run"):
        server.client().workflows.get(id_)
    with pytest.raises(ValueError, match="not the id of a workflow or run"):
        server.client().workflows.get("wf_1", run=id_)


# --- runs


def test_object_stays_with_its_own_run(server: FakeServer) -> None:
    client = server.client()
    first = created(server).start()
    second = client.workflows.run(first.id, cache=False)
    assert (first.run_id, second.run_id, second.run_number) == ("run_1", "run_2", 2)
    first.wait()
    assert [run["status"] for run in server.workflows.runs["wf_1"]] == ["completed", "running"]
    assert [run.run_number for run in first.runs()] == [2, 1]
    assert client.workflows.get("wf_1").run_id == "run_2"
    assert client.workflows.get("wf_1", run="run_1").status == "completed"
    second.cancel()
    assert [run["status"] for run in server.workflows.runs["wf_1"]] == ["completed", "cancelled"]


def test_run_under_the_same_key_is_one_run(server: FakeServer) -> None:
    client = server.client()
    created(server).start()
    runs = [
        client.workflows.run("wf_1", input={"headline": "new"}, idempotency_key="k")
        for _ in range(2)
    ]
    assert [run.run_id for run in runs] == ["run_2", "run_2"]


# --- waiting


def test_wait_calls_back_at_each_change_only(server: FakeServer) -> None:
    workflow = created(server).start()
    same = httpx.Response(200, json=workflow.raw)
    server.next = [same, same]
    seen: list[tuple[str, ...]] = []

    def note(now: Workflow) -> None:
        seen.append((now.status, *(step.status for step in now.steps)))

    assert workflow.wait(on_change=note) is workflow
    assert seen == [
        ("running", "pending", "pending"),
        ("running", "running", "pending"),
        ("running", "completed", "running"),
        ("completed", "completed", "completed"),
    ]
    assert server.clock.slept[:2] == [0.25, 0.3]


def test_failed_run_names_the_failed_steps(server: FakeServer) -> None:
    server.workflows.ends = {"base": {"status": "failed", "error": "CUDA out of memory"}}
    workflow = created(server).start()
    with pytest.raises(sdk.WorkflowFailed) as caught:
        workflow.wait()
    assert str(caught.value) == "workflow wf_1 failed: step 'base': CUDA out of memory"
    assert [step.name for step in caught.value.steps] == ["base"]
    assert [step.status for step in caught.value.workflow.steps] == ["failed", "skipped"]
    assert workflow.resume().wait().status == "completed"


def test_failed_run_without_a_failed_step_tells_its_own_error(server: FakeServer) -> None:
    answer = {"id": "wf_1", "status": "failed", "error": "a step was cancelled", "steps": []}
    server.next = [httpx.Response(200, json=answer)]
    with pytest.raises(sdk.WorkflowFailed, match="wf_1 failed: a step was cancelled"):
        server.client().workflows.get("wf_1").wait()


def test_cancelled_run_raises(server: FakeServer) -> None:
    workflow = created(server).start().cancel()
    assert workflow.cancel().status == "cancelled"  # repeating it is harmless
    with pytest.raises(sdk.WorkflowCancelled, match="wf_1 was cancelled"):
        workflow.wait()


def test_wait_ends_at_its_timeout_and_the_run_goes_on(server: FakeServer) -> None:
    workflow = created(server).start()
    with pytest.raises(sdk.WorkflowTimeout, match=r"wf_1 is still running after 0\.4 s"):
        workflow.wait(timeout=0.4)
    assert workflow.wait().status == "completed"


def test_wait_outlives_a_restart_of_the_server(server: FakeServer) -> None:
    workflow = created(server).start()
    server.next = [httpx.ConnectError("refused") for _ in range(12)]
    assert workflow.wait().status == "completed"


# --- approval and pause


def test_waiting_approval_ends_the_wait_with_its_candidates(server: FakeServer) -> None:
    workflow = created(server, WITH_APPROVAL).start()
    with pytest.raises(sdk.WorkflowPaused, match="waits for a choice at 'choose'") as caught:
        workflow.wait()
    (step,) = caught.value.steps
    assert (step.name, step.message, step.expires_at) == ("choose", "Which?", None)
    assert step.candidates[1] == sdk.Candidate(
        index=1, url="https://cdn.test/img1?signature=abc", seed=8, width=64, height=64
    )
    workflow.resume(select=[1], edits={"upscale": {"scale": 4}}).wait()
    assert len(workflow.images) == 1
    assert workflow.step("upscale").config["scale"] == 4
    assert workflow.waiting == []


def test_choice_names_the_approval_so_that_it_cannot_meet_another(server: FakeServer) -> None:
    workflow = created(server, WITH_APPROVAL).start()
    with pytest.raises(sdk.WorkflowPaused):
        workflow.wait()
    workflow.resume(select=[0])
    assert server.workflows.runs["wf_1"][0]["resumed"] == {"select": [0], "step": "choose"}


def test_pause_ends_the_wait_and_resume_goes_on(server: FakeServer) -> None:
    workflow = created(server).start().pause()
    with pytest.raises(sdk.WorkflowPaused, match="wf_1 is paused: resume it") as caught:
        workflow.wait()
    assert caught.value.steps == []
    assert workflow.resume().wait().status == "completed"


def test_choice_that_is_not_there_is_refused(server: FakeServer) -> None:
    workflow = created(server, WITH_APPROVAL).start()
    with pytest.raises(sdk.WorkflowPaused):
        workflow.wait()
    with pytest.raises(sdk.InvalidParams):
        workflow.resume(select=[9])
    assert workflow.status == "paused"


def test_cleanup_needs_a_run_that_is_over(server: FakeServer) -> None:
    workflow = created(server).start()
    with pytest.raises(sdk.Conflict):
        workflow.cleanup()
    assert workflow.wait().cleanup().cleaned_at == datetime(2024, 1, 16, 10, 30, tzinfo=UTC)


# --- downloading


def test_download_names_files_by_step(server: FakeServer, tmp_path: Path) -> None:
    branches = [
        STEPS[0] | {"name": "a/b"},
        STEPS[1] | {"name": "jpeg (web)", "depends_on": ["a/b"]},
        STEPS[1] | {"name": "jpeg/web", "depends_on": ["a/b"]},
        STEPS[1] | {"name": "..", "depends_on": ["a/b"]},
    ]
    workflow = created(server, branches).start().wait()
    seen: list[tuple[int, int]] = []
    paths = workflow.download(tmp_path / "x", progress=lambda *n: seen.append(n))
    names = ["jpeg-web_0.jpg", "jpeg-web_1.jpg", "jpeg-web-_0.jpg", "jpeg-web-_1.jpg"]
    names += ["step_0.jpg", "step_1.jpg"]
    assert [path.name for path in paths] == names
    assert {path.name for path in (tmp_path / "x").iterdir()} == {*names}
    assert seen == [(n, 6) for n in range(1, 7)]
    paths = workflow.download(tmp_path / "y", step="a/b")
    assert [path.name for path in paths] == ["a-b_0.jpg", "a-b_1.jpg"]


def test_download_does_not_send_the_key(server: FakeServer, tmp_path: Path) -> None:
    created(server).start().wait().download(tmp_path)
    sent = [request.headers for request in server.requests if request.url.host == "cdn.test"]
    assert (len(sent), [each for each in sent if "Authorization" in each]) == (2, [])


# --- the asynchronous half


async def test_async_life_of_a_workflow(server: FakeServer, photo: Path, tmp_path: Path) -> None:
    async with server.async_client() as client:
        workflow = await client.workflows.create(name="chosen", steps=WITH_APPROVAL)
        await workflow.start(image=photo)
        with pytest.raises(sdk.WorkflowPaused) as caught:
            await workflow.wait()
        assert len(caught.value.steps[0].candidates) == 2
        await workflow.resume(select=[0])
        server.next = [refusal(503, "unavailable", "away", retry_after=1)]
        await workflow.wait()
        paths = await workflow.download(tmp_path)
        again = await client.workflows.run(workflow.id)
        await again.pause()
        assert (await again.cancel()).status == "cancelled"
        assert [run.run_number for run in await workflow.runs()] == [2, 1]
        assert [each.status for each in await client.workflows.list()] == ["cancelled"]
        task = await client.process("upscale", image=photo, scale=2)
        assert (await task.wait()).status == "completed"
    assert [path.name for path in paths] == ["upscale_0.jpg"]
    assert server.uploads == [("photo.jpg", "image/jpeg", JPEG)] * 2


# --- the public face


@pytest.mark.parametrize("kind", [Workflow, AsyncWorkflow, Workflows, AsyncWorkflows])
def test_every_public_method_has_an_example(kind: type) -> None:
    lacking = [
        name
        for name, value in vars(kind).items()
        if not name.startswith("_") and inspect.isfunction(value) and ">>>" not in value.__doc__
    ]
    assert lacking == []


def test_both_halves_have_the_same_methods() -> None:
    def names(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert names(Workflow) == names(AsyncWorkflow)
    assert names(Workflows) == names(AsyncWorkflows)


def examples() -> list[doctest.DocTest]:
    found = doctest.DocTestFinder().find(imageloom.client._workflows_sync, "workflows")
    return [each for each in found if each.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_example_of_the_documentation_runs(
    server: FakeServer, tmp_path: Path, example: doctest.DocTest
) -> None:
    example.globs |= {
        "client": server.client(),
        "folder": tmp_path,
        "steps": STEPS,
        "with_approval": WITH_APPROVAL,
        "WorkflowPaused": sdk.WorkflowPaused,
    }
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert result.failed == 0, "".join(report)
