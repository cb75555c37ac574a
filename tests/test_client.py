"""The client against a small server that speaks the contract. Both halves share their text, so
most behaviours are tested on the synchronous one and the paths through I/O on both."""

from __future__ import annotations

import doctest
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

import imageloom.client._sync
from fake_api import BASE, JPEG, KEY, FakeServer, refusal
from imageloom import client as sdk
from imageloom.client import Client, ErrorDetail, Eta, Image, Moments, RetryPolicy, Task
from imageloom.client._retry import delay_before_retry


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.jpg"
    path.write_bytes(JPEG)
    return path


# --- creating


def test_generate_sends_only_what_is_given(server: FakeServer) -> None:
    with server.client() as client:
        task = client.generate("a red dress", num_outputs=4, loras={"dress": 0.8, "studio": 1.0})
    loras = [{"name": "dress", "weight": 0.8}, {"name": "studio", "weight": 1.0}]
    assert server.bodies[task.id] == {"prompt": "a red dress", "num_outputs": 4, "loras": loras}
    assert server.requests[0].headers["Authorization"] == f"Bearer {KEY}"


def test_generate_sends_every_parameter_by_its_name_in_the_api(server: FakeServer) -> None:
    given: dict[str, Any] = {
        "negative_prompt": "blurry",
        "strength": 0.5,
        "num_outputs": 2,
        "steps": 30,
        "guidance_scale": 7.5,
        "scheduler": "euler",
        "determinism": "exact",
        "priority": -3,
        "width": 512,
        "height": 768,
        "seed": 0,
        "model": "imageloom-tiny",
        "loras": [{"name": "dress", "weight": 0.5}],
        "output_format": "png",
    }
    task = server.client().generate("a dress", image="https://example.com/dress.jpg", **given)
    sent = {"prompt": "a dress", "input_image_url": "https://example.com/dress.jpg"} | given
    assert server.bodies[task.id] == sent
    assert task.priority == -3


def test_wait_is_a_preference_and_no_parameter(server: FakeServer) -> None:
    client = server.client(timeout=10)
    tasks = [
        client.generate("a dress", wait=30),
        client.process("upscale", image=f"{BASE}/a.jpg", wait=30),
    ]
    for task, request in zip(tasks, server.requests, strict=True):
        assert "wait" not in server.bodies[task.id]
        assert request.headers["Prefer"] == "wait=30"
        assert request.extensions["timeout"]["read"] == 40  # it may take that much longer


def test_local_image_is_uploaded_first(server: FakeServer, photo: Path) -> None:
    for image in (photo, str(photo)):
        task = server.client().generate("a dress", image=image)
        assert server.bodies[task.id]["input_image_url"].startswith(f"{BASE}/files/")
    assert server.uploads == [("photo.jpg", "image/jpeg", JPEG)] * 2


def test_bytes_are_uploaded_under_a_name_that_fits(server: FakeServer) -> None:
    file = server.client().upload(b"\x89PNG\r\n\x1a\n rest")
    assert server.uploads == [("upload.png", "image/png", b"\x89PNG\r\n\x1a\n rest")]
    assert file.expires_at == datetime(2024, 1, 22, 10, 30, tzinfo=UTC)


def test_missing_local_image_sends_nothing(server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        server.client().generate("a dress", image=tmp_path / "none.jpg")
    assert server.requests == []


def test_same_idempotency_key_returns_the_same_task_with_its_upload(
    server: FakeServer, photo: Path
) -> None:
    client = server.client()
    first = client.generate("a dress", image=photo, idempotency_key="order-12")
    second = client.generate("a dress", image=photo, idempotency_key="order-12")
    assert (first.id, len(server.tasks), len(server.uploads)) == (second.id, 1, 1)


def test_each_creation_has_a_key_of_its_own(server: FakeServer) -> None:
    client = server.client()
    client.generate("a dress")
    client.generate("a dress")
    keys = {request.headers["Idempotency-Key"] for request in server.requests}
    assert (len(keys), len(server.tasks)) == (2, 2)


# --- retries


def test_lost_answer_is_asked_for_again_under_the_same_key(server: FakeServer, photo: Path) -> None:
    server.next = [httpx.ReadError("reset"), refusal(503, "unavailable", "away", retry_after=2)]
    server.client().upload(photo)
    keys = {request.headers["Idempotency-Key"] for request in server.requests}
    bodies = {request.content for request in server.requests}
    assert (len(server.requests), len(keys), len(bodies)) == (3, 1, 1)
    assert server.clock.slept == [0.5, 2.5]  # backoff, then Retry-After and its jitter


def test_retries_are_bounded(server: FakeServer) -> None:
    server.next = [httpx.ConnectError("refused") for _ in range(9)]
    with pytest.raises(sdk.ConnectionFailed, match=r"no answer from .*/models: refused"):
        server.client().models()
    assert server.clock.slept == [0.5, 1.0, 2.0]


def test_other_errors_are_not_tried_again(server: FakeServer) -> None:
    server.next = [refusal(500, "internal_error", "it broke")]
    with pytest.raises(sdk.ServerError):
        server.client().queues()
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "retry_after", "tried", "delay"),
    [
        (503, None, 1, 0.25),
        (503, None, 2, 0.5),
        (429, 7.0, 1, 7.25),
        (429, 3600.0, 1, 30.25),
        (503, 1.0, 3, 1.25),
        (503, 1.0, 4, None),
        (500, None, 1, None),
        (422, 1.0, 1, None),
    ],
)
def test_delay_before_retry(
    status: int, retry_after: float | None, tried: int, delay: float | None
) -> None:
    failure = sdk.APIError("no", status=status, retry_after=retry_after)
    found = delay_before_retry(failure, tried=tried, jitter=0.5, policy=RetryPolicy())
    assert found == delay


# --- errors


@pytest.mark.parametrize(
    ("status", "type_", "error"),
    [
        (401, "unauthorized", sdk.Unauthorized),
        (403, "forbidden", sdk.Forbidden),
        (404, "not_found", sdk.NotFound),
        (409, "conflict", sdk.Conflict),
        (410, "gone", sdk.Gone),
        (413, "payload_too_large", sdk.PayloadTooLarge),
        (415, "unsupported_media_type", sdk.UnsupportedMediaType),
        (422, "invalid_params", sdk.InvalidParams),
        (422, "unknown_model", sdk.InvalidParams),
        (422, "unknown_task_type", sdk.InvalidParams),
        (422, "invalid_input", sdk.InvalidParams),
        (422, "idempotency_key_reused", sdk.InvalidParams),
        (400, "invalid_request", sdk.APIError),
        (405, "method_not_allowed", sdk.APIError),
        (429, "rate_limited", sdk.RateLimited),
        (500, "internal_error", sdk.ServerError),
        (502, "", sdk.ServerError),
        (503, "unavailable", sdk.Unavailable),
    ],
)
def test_each_refusal_has_its_error(
    server: FakeServer, status: int, type_: str, error: type[sdk.APIError]
) -> None:
    server.next = [refusal(status, type_, "because", param="steps", retry_after=3)]
    with pytest.raises(sdk.APIError) as caught:
        server.client(retry=RetryPolicy(retries=0)).models()
    found = caught.value
    assert type(found) is error
    assert (found.status, found.type, found.message) == (status, type_, "because")
    assert (found.param, found.request_id, found.retry_after) == ("steps", "req_1", 3.0)


def test_error_says_what_and_where(server: FakeServer) -> None:
    with pytest.raises(sdk.InvalidParams) as caught:
        server.client().generate("a dress", steps=101)
    assert str(caught.value) == "steps 101 is above 100 (422 invalid_params, request req_1)"


def test_answer_of_a_proxy_keeps_its_status(server: FakeServer) -> None:
    server.next = [httpx.Response(404, text="<html>nginx</html>")]
    with pytest.raises(sdk.NotFound, match=r"GET .*/api/v1/models answered 404"):
        server.client().models()


@pytest.mark.parametrize("body", ["hello", "[]", "{}", "null", '{"items": [1]}'])
def test_answer_that_is_not_the_api_is_an_error(server: FakeServer, body: str) -> None:
    server.next = [httpx.Response(200, text=body)]
    with pytest.raises(sdk.APIError, match="Imageloom server"):
        server.client().models()


def test_wrong_key_is_unauthorized(server: FakeServer) -> None:
    with pytest.raises(sdk.Unauthorized):
        server.client(api_key="il_wrong").models()


# --- constructing


@pytest.mark.parametrize("url", [BASE, f"{BASE}/", f"{BASE}/api/v1", f"{BASE}/api/v1/"])
def test_base_path_is_added_when_it_is_missing(url: str) -> None:
    assert Client(url).base_url == f"{BASE}/api/v1"


def test_senseless_settings_are_refused_without_showing_the_key() -> None:
    for url in ("localhost:9000", "http://a\nb", "http://"):
        with pytest.raises(ValueError, match="base URL"):
            Client(url)
    for key in ("", "il secret\n", "il_sécret"):
        with pytest.raises(ValueError, match="API key") as caught:
            Client(BASE, key)
        assert "cret" not in str(caught.value)
    assert "il_" not in repr(Client(BASE, "il_secret"))


def test_environment_is_read_only_when_asked() -> None:
    environment = {"IMAGELOOM_URL": "http://gpu-box:9000", "IMAGELOOM_API_KEY": " "}
    client = Client.from_env(environment=environment)
    assert client.base_url == "http://gpu-box:9000/api/v1"
    assert Client().base_url == "http://127.0.0.1:9000/api/v1"


def test_key_of_the_environment_is_used(server: FakeServer) -> None:
    environment = {"IMAGELOOM_URL": BASE, "IMAGELOOM_API_KEY": KEY}
    client = Client.from_env(environment=environment, transport=httpx.MockTransport(server))
    assert len(client.models()) == 1


def test_given_http_client_is_used_and_left_open(server: FakeServer) -> None:
    http = httpx.Client(transport=httpx.MockTransport(server))
    with Client(BASE, KEY, http_client=http) as client:
        client.models()
    assert not http.is_closed
    http.close()
    with pytest.raises(ValueError, match="not both"):
        Client(http_client=http, transport=httpx.MockTransport(server))


# --- waiting


def test_wait_returns_the_completed_task(server: FakeServer) -> None:
    task = server.client().generate("a dress", num_outputs=2)
    seen: list[tuple[str, float]] = []
    assert task.wait(progress=lambda task: seen.append((task.status, task.progress))) is task
    assert seen == [("pending", 0.0), ("running", 0.5), ("completed", 1.0)]
    assert task.output is not None
    assert task.output.images[1] == Image(
        url="https://cdn.test/img1?signature=abc", seed=8, width=64, height=64
    )
    assert task.started_at == datetime(2024, 1, 15, 10, 30, 5, tzinfo=UTC)
    assert (task.error, task.error_detail, task.done) == (None, None, True)
    assert server.clock.slept == [0.25, 0.3]


def test_polls_grow_gently_to_two_seconds(server: FakeServer) -> None:
    task = server.client().generate("a dress")
    server.next = [httpx.Response(200, json={"id": task.id, "status": "pending"})] * 20
    task.wait()
    assert server.clock.slept[:3] == pytest.approx([0.25, 0.3, 0.36])
    assert max(server.clock.slept) == 2.0


def test_failed_task_raises_with_its_reason(server: FakeServer) -> None:
    detail = {"code": "out_of_memory", "retryable": True, "attempt": 3}
    message = "CUDA out of memory: 2 GB asked for"
    server.ends = {"status": "failed", "error": message, "error_detail": detail}
    with pytest.raises(sdk.TaskFailed, match="CUDA out of memory") as caught:
        server.client().generate("a dress").wait()
    found = caught.value.task
    assert found.error == message
    assert found.error_detail == ErrorDetail(code="out_of_memory", retryable=True, attempt=3)


def test_cancelled_task_raises(server: FakeServer) -> None:
    task = server.client().generate("a dress").cancel()
    assert task.cancel().status == "cancelled"  # repeating it is harmless
    with pytest.raises(sdk.TaskCancelled):
        task.wait()


def test_wait_ends_at_its_timeout_and_the_task_goes_on(server: FakeServer) -> None:
    task = server.client().generate("a dress")
    server.next = [httpx.Response(200, json={"id": task.id, "status": "pending"})] * 2
    with pytest.raises(sdk.WaitTimeout, match=r"still pending after 0\.4 s"):
        task.wait(timeout=0.4, poll=0.25)
    assert server.clock.slept == pytest.approx([0.25, 0.15])
    assert task.wait().status == "completed"


def test_wait_outlives_a_restart_of_the_server(server: FakeServer) -> None:
    task = server.client().generate("a dress")
    server.next = [httpx.ConnectError("refused") for _ in range(12)]
    assert task.wait().status == "completed"


def test_wait_gives_up_on_a_server_that_stays_away(server: FakeServer) -> None:
    task = server.client().generate("a dress")
    server.next = [httpx.ConnectError("refused") for _ in range(999)]
    with pytest.raises(sdk.ConnectionFailed):
        task.wait()
    assert 60 < server.clock.now < 70


def test_wait_needs_a_poll_above_zero(server: FakeServer) -> None:
    with pytest.raises(ValueError, match="poll is 0"):
        server.client().generate("a dress").wait(poll=0)


def test_short_answer_keeps_what_was_known(server: FakeServer) -> None:
    task = server.client().generate("a dress")
    server.next = [httpx.Response(200, json={"id": task.id, "status": "running"})]
    task.refresh()
    assert (task.type, task.created_at) == (
        "generation",
        datetime(2024, 1, 15, 10, 30, tzinfo=UTC),
    )


def test_unknown_fields_and_missing_ones_are_read_calmly(server: FakeServer) -> None:
    server.next = [httpx.Response(200, json={"id": "task_9", "status": "pending", "new": 1})]
    task = server.client().task("task_9")
    assert (task.created_at, task.output, task.progress, task.raw["new"]) == (None, None, 0.0, 1)


# --- downloading


def test_download_names_files_by_what_they_are(server: FakeServer, tmp_path: Path) -> None:
    server.images = {
        "img1": httpx.Response(200, content=b"png", headers={"Content-Type": "image/png"}),
        "img2": httpx.Response(200, content=b"RIFF\0\0\0\0WEBP"),
        "img3": httpx.Response(200, content=b"?"),
    }
    task = server.client().generate("a dress", num_outputs=4).wait()
    seen: list[tuple[int, int]] = []
    paths = task.download(tmp_path / "new" / "folder", progress=lambda *n: seen.append(n))
    names = ["output_0.jpg", "output_1.png", "output_2.webp", "output_3.bin"]
    assert [path.name for path in paths] == names
    assert paths[0].read_bytes() == JPEG
    assert sorted(path.name for path in paths[0].parent.iterdir()) == names
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_download_does_not_send_the_key(server: FakeServer, tmp_path: Path) -> None:
    http = httpx.Client(
        transport=httpx.MockTransport(server), headers={"Authorization": "Bearer from-the-user"}
    )
    for client in (server.client(), Client(BASE, KEY, http_client=http, sleep=server.clock.sleep)):
        client.generate("a dress").wait().download(tmp_path)
    sent = [request.headers for request in server.requests if request.url.host == "cdn.test"]
    assert (len(sent), [each for each in sent if "Authorization" in each]) == (2, [])


def test_download_follows_a_redirect_to_the_storage(server: FakeServer, tmp_path: Path) -> None:
    task = server.client().generate("a dress").wait()
    server.next = [httpx.Response(307, headers={"Location": "https://cdn.test/elsewhere"})]
    (path,) = task.download(tmp_path)
    assert path.read_bytes() == JPEG


def test_download_is_tried_again(server: FakeServer, tmp_path: Path) -> None:
    task = server.client().generate("a dress").wait()
    server.next = [httpx.RemoteProtocolError("cut off"), refusal(503, "unavailable", "away")]
    assert [path.name for path in task.download(tmp_path)] == ["output_0.jpg"]


def test_expired_download_is_gone(server: FakeServer, tmp_path: Path) -> None:
    task = server.client().generate("a dress").wait()
    server.next = [refusal(410, "gone", "the URL has expired")]
    with pytest.raises(sdk.Gone):
        task.download(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://cdn.test/1", "http://a\nb/"])
def test_download_of_an_unusable_url_fails(server: FakeServer, tmp_path: Path, url: str) -> None:
    output = {"images": [{"url": url}]}
    done = {"id": "task_1", "status": "completed", "output": output}
    server.next = [httpx.Response(200, json=done)]
    with pytest.raises(sdk.ImageloomError, match="output URL"):
        server.client().task("task_1").download(tmp_path)


def test_download_needs_a_completed_task(server: FakeServer, tmp_path: Path) -> None:
    task = server.client().generate("a dress")
    with pytest.raises(sdk.ImageloomError, match="is pending: wait for it first"):
        task.download(tmp_path)


# --- reading


def test_list_is_asked_for_with_its_filters(server: FakeServer) -> None:
    client = server.client()
    made = [client.generate("a dress") for _ in range(2)]
    client.cancel(made[0].id)
    page = client.tasks(
        status="pending",
        task_type="generation",
        created_after=datetime(2024, 1, 1, tzinfo=UTC),
        page=1,
        page_size=10,
    )
    assert [task.id for task in page] == [made[1].id]
    assert (len(page), page.total, page.has_next) == (1, 1, False)
    assert dict(server.requests[-1].url.params) == {
        "status": "pending",
        "task_type": "generation",
        "created_after": "2024-01-01T00:00:00Z",
        "page": "1",
        "page_size": "10",
    }


def test_time_without_zone_is_refused(server: FakeServer) -> None:
    with pytest.raises(ValueError, match="created_before has no time zone"):
        server.client().tasks(created_before=datetime(2024, 1, 1))  # noqa: DTZ001 - the point


def test_models_of_every_page_are_returned(server: FakeServer) -> None:
    pages = [{"items": [{"name": f"m{n}"}], "total": 2, "page": n, "page_size": 1} for n in (1, 2)]
    server.next = [httpx.Response(200, json=page) for page in pages]
    assert [model.name for model in server.client().models()] == ["m1", "m2"]


def test_training_is_asked_for_on_its_own_route(server: FakeServer) -> None:
    server.tasks["train_1"] = {"id": "train_1", "status": "pending"}
    assert server.client().task("train_1").cancel().status == "cancelled"
    paths = [request.url.path for request in server.requests]
    assert paths == ["/api/v1/training/train_1", "/api/v1/training/train_1/cancel"]


@pytest.mark.parametrize("task_id", ["", " ", ".", ".."])
def test_id_that_names_another_route_is_refused(server: FakeServer, task_id: str) -> None:
    with pytest.raises(ValueError, match="not a task id"):
        server.client().task(task_id)


def test_id_is_one_segment_of_the_path(server: FakeServer) -> None:
    with pytest.raises(sdk.NotFound):
        server.client().task("../models?x=1")
    assert server.requests[0].url.raw_path == b"/api/v1/tasks/..%2Fmodels%3Fx%3D1"


# --- the asynchronous half


async def test_async_generate_wait_and_download(
    server: FakeServer, photo: Path, tmp_path: Path
) -> None:
    async with server.async_client() as client:
        task = await client.generate("a dress", image=photo, num_outputs=2)
        server.next = [refusal(503, "unavailable", "away", retry_after=1)]
        await task.wait()
        paths = await task.download(tmp_path / "outputs")
    assert [path.name for path in paths] == ["output_0.jpg", "output_1.jpg"]
    assert server.uploads == [("photo.jpg", "image/jpeg", JPEG)]


def test_events_go_on_where_a_stream_broke(server: FakeServer) -> None:
    task = server.client().generate("a dress")
    server.breaks = 2
    server.next = [refusal(503, "unavailable", "the database is away")]
    task.raw["queue_position"] = 3
    seen = [(each.status, each.progress, each.queue_position) for each in task.events()]
    assert seen == [("pending", 0.0, 3), ("running", 0.5, None), ("completed", 1.0, None)]
    assert task.output is not None
    assert task.output.images[0].seed == 7
    asked = [r.headers.get("Last-Event-ID") for r in server.requests if "events" in r.url.path]
    assert asked == [None, None, "2"]


def test_a_task_that_waits_says_what_lies_before_it(server: FakeServer) -> None:
    task = server.client().generate("a dress")
    assert (task.eta, task.runnable, task.runnable_change) == (None, None, None)
    start = {"p50": "2024-01-15T10:30:00Z", "p90": "2024-01-15T10:31:00Z"}
    task.raw |= {"eta": {"start": start, "finish": None}, "runnable": False}
    task.raw |= {"runnable_reason": "no worker is alive", "runnable_change": "start one"}
    moments = Moments(
        p50=datetime(2024, 1, 15, 10, 30, tzinfo=UTC), p90=datetime(2024, 1, 15, 10, 31, tzinfo=UTC)
    )
    assert (task.eta, task.runnable) == (Eta(start=moments), False)
    assert (task.runnable_reason, task.runnable_change) == ("no worker is alive", "start one")


def test_events_of_no_task_are_an_error(server: FakeServer) -> None:
    task = server.client().generate("a dress")
    server.tasks.clear()
    with pytest.raises(sdk.NotFound):
        next(task.events())


async def test_async_events(server: FakeServer) -> None:
    async with server.async_client() as client:
        task = await client.generate("a dress")
        assert [each.status async for each in task.events()] == ["pending", "running", "completed"]


async def test_async_reads_and_cancels(server: FakeServer) -> None:
    async with server.async_client() as client:
        task = await client.generate("a dress")
        assert (await client.cancel(task.id)).status == "cancelled"
        assert [each.id for each in await client.tasks()] == [task.id]
        (queue,) = await client.queues()
        assert (queue.running, queue.oldest_age) == (8, 75.5)
        (worker,) = await client.workers()
        assert (worker.gpu_utilization, worker.memory_used_bytes) == (0.85, 8_000_000_000)
        assert (worker.device_kind, worker.tasks, worker.task_count) == ("cuda", ["task_1"], 3)
        with pytest.raises(sdk.NotFound):
            await client.task("task_none")


# --- the examples


def examples() -> list[doctest.DocTest]:
    finder = doctest.DocTestFinder()
    found = finder.find(imageloom.client._sync, "client")
    found += finder.find(imageloom.client._webhooks_sync, "webhooks")
    found += finder.find(imageloom.client._monitoring_sync, "monitoring")
    return [each for each in found if each.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_example_of_the_documentation_runs(
    server: FakeServer, tmp_path: Path, example: doctest.DocTest
) -> None:
    connected = partial(
        Client, transport=httpx.MockTransport(connect_any(server)), sleep=server.clock.sleep
    )
    if "from_env" not in example.name:
        example.globs["Client"] = connected
    example.globs |= {"client": server.client(), "folder": tmp_path, "Task": Task}
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert result.failed == 0, "".join(report)


def connect_any(server: FakeServer) -> Any:
    """Return the server behind a door that accepts the key of the examples."""

    def handle(request: httpx.Request) -> httpx.Response:
        if "Authorization" in request.headers:
            request.headers["Authorization"] = f"Bearer {KEY}"
        return server(request)

    return handle
