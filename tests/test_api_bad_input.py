"""Bad requests over HTTP: each is refused by name, in the one envelope; nothing of it is kept."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from api_helpers import GENERATION, PROMPT, completed, created, picture, refusal
from conftest import called_with
from imageloom.core.keys import create_key, list_keys, revoke_key
from imageloom.core.services import Services
from imageloom.domain.errors import StorageUnavailable
from imageloom.settings import Limits
from imageloom.storage.base import Storage, StoredStream
from imageloom.storage.local import LocalStorage

JSON = {"Content-Type": "application/json"}
INPUT = "https://storage.example.org/dress.jpg"
MAX_SEED = 2**63 - 1
ADAPTER = {"name": "red", "weight": 1.0}


# Fields of a generation task

MISSING = object()  # stands for a field that is left out


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("prompt", MISSING),
        ("prompt", None),
        ("prompt", ""),
        ("prompt", " \t\n\u00a0"),
        ("prompt", 5),
        ("prompt", ["a red dress"]),
        ("prompt", {"text": "a red dress"}),
        ("prompt", "x" * 4001),
        ("negative_prompt", 5),
        ("negative_prompt", "x" * 4001),
        ("steps", "30"),
        ("steps", True),
        ("steps", 30.0),
        ("steps", 30.5),
        ("steps", [30]),
        ("steps", 0),
        ("steps", -1),
        ("steps", 101),
        ("steps", 10**30),
        ("num_outputs", "4"),
        ("num_outputs", False),
        ("num_outputs", None),
        ("num_outputs", 0),
        ("num_outputs", 17),
        ("width", "256"),
        ("width", 56),
        ("width", 63),
        ("width", 65),
        ("width", 100),
        ("width", 2056),
        ("width", -64),
        ("height", 256.0),
        ("height", 56),
        ("height", 2047),
        ("height", 2056),
        ("guidance_scale", "7.5"),
        ("guidance_scale", True),
        ("guidance_scale", -0.1),
        ("guidance_scale", 30.1),
        ("guidance_scale", 10**400),
        ("strength", "0.5"),
        ("strength", 0),
        ("strength", -0.5),
        ("strength", 1.01),
        ("seed", "5"),
        ("seed", -1),
        ("seed", 1.5),
        ("seed", MAX_SEED + 1),
        ("seed", 2**64),
        ("scheduler", "magic"),
        ("scheduler", "flow-euler"),  # for models that predict a flow
        ("scheduler", 1),
        ("preview_every", 0),
        ("preview_every", 101),
        ("preview_every", True),
        ("determinism", "always"),
        ("priority", True),
        ("priority", "3"),
        ("priority", 1.0),
        ("priority", 11),
        ("priority", -11),
        ("priority", None),
        ("output_format", "gif"),
        ("output_format", "JPEG"),
        ("output_format", None),
        ("model", ""),
        ("model", 5),
        ("model", "x" * 201),
        ("input_image_url", ""),
        ("input_image_url", 5),
        ("input_image_url", [INPUT]),
        ("loras", None),
        ("loras", "red"),
        ("loras", ADAPTER),
        ("loras", [ADAPTER] * 17),
        ("loras.0", ["red"]),
        ("loras.0.name", [{"weight": 1.0}]),
        ("loras.0.name", [{"name": ""}]),
        ("loras.0.weight", [{"name": "red", "weight": "1"}]),
        ("loras.0.weight", [{"name": "red", "weight": -4.1}]),
        ("loras.0.weight", [{"name": "red", "weight": 4.1}]),
        ("loras.0.wait", [{"name": "red", "wait": 1}]),
        ("num_output", 4),
        ("type", "generation"),
        ("Prompt", "a red dress"),
    ],
)
async def test_bad_field_is_refused_by_name(
    shared_api: httpx.AsyncClient, field: str, value: Any
) -> None:
    body = {**PROMPT, field.partition(".")[0]: value}
    if field == "strength":
        body["input_image_url"] = INPUT
    if value is MISSING:
        del body[field]
    # The standard library writes numbers of any size, as an attacker would.
    answer = await shared_api.post(GENERATION, content=json.dumps(body), headers=JSON)
    assert refusal(answer) == (422, "invalid_params", field)


@pytest.mark.parametrize(
    "extra",
    [
        {"prompt": "x" * 4000, "negative_prompt": "x" * 4000},
        {"prompt": "👗" * 4000},
        {"negative_prompt": ""},
        {"steps": 1, "num_outputs": 1, "guidance_scale": 0, "seed": 0, "width": 64, "height": 64},
        {"steps": 100, "num_outputs": 16, "guidance_scale": 30, "seed": MAX_SEED},
        {"steps": 1, "width": 2048, "height": 2048},
        {"input_image_url": INPUT, "strength": 0.01, "steps": 100},
        {"input_image_url": INPUT, "steps": 1},  # the model's own strength gives way
        {"input_image_url": INPUT, "strength": 1},
        {"guidance_scale": 7},
        {"loras": []},
    ],
)
async def test_both_ends_of_every_range_are_accepted(
    shared_api: httpx.AsyncClient, extra: dict[str, Any]
) -> None:
    await created(shared_api, **extra)


async def test_a_query_parameter_is_refused_and_creates_nothing(
    tenant: httpx.AsyncClient,
) -> None:
    answer = await tenant.post(f"{GENERATION}?dryrun=true", json=PROMPT)
    assert refusal(answer) == (422, "invalid_params", "dryrun")
    assert (await tenant.get("/tasks")).json()["total"] == 0


async def test_unknown_field_is_refused_with_a_suggestion(shared_api: httpx.AsyncClient) -> None:
    answer = await shared_api.post(GENERATION, json={**PROMPT, "num_output": 4})
    assert "did you mean num_outputs?" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("extra", "kind", "param"),
    [
        (
            {"steps": 100, "width": 2048, "height": 2048, "num_outputs": 16},
            "invalid_params",
            "num_outputs",
        ),
        ({"strength": 0.5}, "invalid_params", "strength"),
        ({"preview_every": 5, "model": "z-image-turbo"}, "invalid_params", "preview_every"),
        ({"input_image_url": INPUT, "strength": 0.001}, "invalid_params", "strength"),
        ({"input_image_url": INPUT, "strength": 0.5, "steps": 1}, "invalid_params", "strength"),
        ({"model": "no-such-model"}, "unknown_model", "model"),
        ({"loras": [ADAPTER]}, "unknown_model", "loras.0.name"),
        ({"loras": [{"name": "../../etc/passwd"}]}, "unknown_model", "loras.0.name"),
    ],
)
async def test_senseless_combination_is_refused(
    shared_api: httpx.AsyncClient, extra: dict[str, Any], kind: str, param: str
) -> None:
    answer = await shared_api.post(GENERATION, json={**PROMPT, **extra})
    assert refusal(answer) == (422, kind, param)


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ({**PROMPT}, "invalid_params"),
        ({"type": None, **PROMPT}, "invalid_params"),
        ({"type": ["generation"], **PROMPT}, "invalid_params"),
        ({"type": "cooking", **PROMPT}, "unknown_task_type"),
        ({"type": "Generation", **PROMPT}, "unknown_task_type"),
        ({"type": "x" * 100_000, **PROMPT}, "unknown_task_type"),
    ],
)
async def test_task_of_no_known_type_is_refused(
    shared_api: httpx.AsyncClient, body: dict[str, Any], kind: str
) -> None:
    assert refusal(await shared_api.post("/tasks", json=body)) == (422, kind, "type")


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://example.org/dress.jpg",
        "gopher://example.org/",
        "javascript:alert(1)",
        "//example.org/dress.jpg",
        "dress.jpg",
        "http:dress.jpg",
        "http://",
        "http://[",
        "http://[::1",
        "http://[abc]/",
        "http://\u2100.example.org/",
        "http://example.org:99999/",
        "http://user:password@example.org/",
        "http://example.org/a b",
        "http://127.0.0.1/",
        "http://127.1:8000/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://0.0.0.0/",
        "http://10.0.0.1/",
        "http://172.16.0.1/",
        "http://192.168.1.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00::1]/",
        "https://example.org/" + "x" * 9000,
        "http://imageloom.test/api/v1/files/file_0",
        "http://imageloom.test/api/v1/outputs/forged/output_0.jpg",
    ],
)
async def test_url_that_can_never_be_read_is_refused_at_the_door(
    shared_api: httpx.AsyncClient, url: str
) -> None:
    answer = await shared_api.post(GENERATION, json={**PROMPT, "input_image_url": url})
    assert refusal(answer) == (422, "invalid_input", "input_image_url")


# The operator's limits


@pytest.fixture
async def limited(shared_services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """The app of an operator who allows little."""
    limits = Limits(
        steps=10, outputs=2, side=200, guidance=3, prompt=20, work=500_000, body=2000, upload=2000
    )
    settings = shared_services.settings.model_copy(update={"limits": limits})
    made = await create_key(shared_services.pool, tenant="default")
    async with called_with(replace(shared_services, settings=settings), made.key) as client:
        yield client


@pytest.mark.parametrize(
    ("param", "extra"),
    [
        ("steps", {"steps": 11}),
        ("num_outputs", {"num_outputs": 3}),
        ("width", {"width": 208}),
        ("height", {"height": 208}),
        ("guidance_scale", {"guidance_scale": 3.5}),
        ("prompt", {"prompt": "x" * 21}),
        ("negative_prompt", {"negative_prompt": "x" * 21}),
        ("num_outputs", {"num_outputs": 2}),
    ],
)
async def test_lowered_limit_holds(
    limited: httpx.AsyncClient, param: str, extra: dict[str, Any]
) -> None:
    answer = await limited.post(GENERATION, json={**PROMPT, **extra})
    assert refusal(answer) == (422, "invalid_params", param)


async def test_bare_prompt_works_whatever_the_operator_allows(limited: httpx.AsyncClient) -> None:
    params = (await created(limited))["params"]
    assert [params[name] for name in ("steps", "width", "height", "guidance_scale")] == [
        10,
        200,
        200,
        3,
    ]


async def test_upload_of_exactly_the_limit_is_accepted(limited: httpx.AsyncClient) -> None:
    data = picture().ljust(2000, b"\0")
    assert (await limited.post("/files", files={"file": data})).status_code == 201
    answer = await limited.post("/files", files={"file": data + b"\0"})
    assert refusal(answer) == (413, "payload_too_large", "file")


# Bodies


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"a red dress",
        b"{",
        b'{"prompt": "a red dress"',
        b'{"prompt": "a red dress"}}',
        b"{'prompt': 'a red dress'}",
        b'{"prompt": "a red dress",}',
        b"prompt=a+red+dress",
        b"[]",
        b'[{"prompt": "a red dress"}]',
        b"null",
        b'"a red dress"',
        b"5",
        b'{"prompt": "a red dress", "guidance_scale": NaN}',
        b'{"prompt": "a red dress", "guidance_scale": Infinity}',
        b'{"prompt": "a red dress", "guidance_scale": -Infinity}',
        b'{"prompt": "a red dress", "guidance_scale": 1e999}',
        b'{"prompt": "a red dress", "seed": ' + b"9" * 5000 + b"}",
        b'{"prompt": "a red dress\xff"}',
        b'{"prompt": "a red dress \\ud800"}',
        b'{"prompt": "a red \\u0000dress"}',
        b'{"prompt": "a red dress", "input_image_url": "data:\\u0000"}',
        b'{"prompt": "a red dress\x00"}',
        b'\xef\xbb\xbf{"prompt": "a red dress"}',
        '{"prompt": "a red dress"}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"prompt":' * 100_000,
        b'{"prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
@pytest.mark.parametrize("path", [GENERATION, "/tasks"])
async def test_body_that_is_no_json_object_is_refused(
    shared_api: httpx.AsyncClient, path: str, body: bytes
) -> None:
    answer = await shared_api.post(path, content=body, headers=JSON)
    assert refusal(answer) == (422, "invalid_params", None)


async def test_backslash_before_u0000_is_text_like_any_other(api: httpx.AsyncClient) -> None:
    task = await created(api, prompt="a red dress \\u0000")
    assert task["params"]["prompt"] == "a red dress \\u0000"


@pytest.mark.parametrize("depth", range(10, 1010, 50))
async def test_nesting_of_any_depth_is_refused(shared_api: httpx.AsyncClient, depth: int) -> None:
    for opening, closing in ((b"[", b"]"), (b'{"a":', b"}")):
        body = b'{"prompt": ' + opening * depth + b"1" + closing * depth + b"}"
        answer = await shared_api.post(GENERATION, content=body, headers=JSON)
        assert refusal(answer)[:2] == (422, "invalid_params")
        # Refused before anything walks it: how deep that may go depends on who calls.
        assert ("nests too deep" in answer.json()["error"]["message"]) == (depth > 63)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=a",
    ],
)
@pytest.mark.parametrize("path", [GENERATION, "/tasks"])
async def test_body_of_another_type_is_refused(
    shared_api: httpx.AsyncClient, path: str, content_type: str | None
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    answer = await shared_api.post(path, content=b'{"prompt": "a red dress"}', headers=headers)
    assert refusal(answer) == (415, "unsupported_media_type", None)


@pytest.mark.parametrize(
    "content_type", ["application/json; charset=utf-8", "Application/JSON", " application/json "]
)
async def test_json_may_name_its_charset(api: httpx.AsyncClient, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    answer = await api.post(GENERATION, content=b'{"prompt": "a red dress"}', headers=headers)
    assert answer.status_code == 201


@pytest.mark.parametrize("announced", [True, False])
async def test_body_over_the_limit_is_refused(limited: httpx.AsyncClient, announced: bool) -> None:
    body = json.dumps({"prompt": "x" * 3000}).encode()

    async def chunks() -> AsyncIterator[bytes]:
        for start in range(0, len(body), 500):
            yield body[start : start + 500]

    content = body if announced else chunks()
    answer = await limited.post(GENERATION, content=content, headers=JSON)
    assert refusal(answer) == (413, "payload_too_large", None)


async def test_announced_length_over_the_limit_is_refused_unread(
    shared_api: httpx.AsyncClient,
) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was read")
        yield b""

    headers = {**JSON, "Content-Length": str(10**15)}
    answer = await shared_api.post(GENERATION, content=never(), headers=headers)
    assert refusal(answer) == (413, "payload_too_large", None)


# Uploads


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ({"files": {"picture": b"x"}}, "invalid_params"),
        ({"files": [("file", picture()), ("file", picture())]}, "invalid_params"),
        ({"files": {"file": picture()}, "data": {"name": "dress"}}, "invalid_params"),
        ({"files": {"file": picture()}, "data": {"a": "1", "b": "2"}}, "invalid_params"),
        ({"files": {"file": b""}}, "invalid_input"),
        ({"files": {"file": b"<svg xmlns='http://www.w3.org/2000/svg'/>"}}, "invalid_input"),
        ({"files": {"file": b"<!doctype html><script>alert(1)</script>"}}, "invalid_input"),
        ({"files": {"file": ("dress.jpg", b"GIF89a", "image/jpeg")}}, "invalid_input"),
    ],
)
async def test_bad_upload_is_refused(
    shared_api: httpx.AsyncClient, content: dict[str, Any], kind: str
) -> None:
    assert refusal(await shared_api.post("/files", **content)) == (422, kind, "file")


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        ("multipart/form-data", b""),
        ("multipart/form-data; boundary=cut", b"no boundary here"),
        ("multipart/form-data; boundary=cut", b"--cut\r\nContent-Disposition: form-data"),
        (
            "multipart/form-data; boundary=cut",
            b'--cut\r\nContent-Disposition: form-data; name="file"\r\n\r\ntext\r\n--cut--\r\n',
        ),
    ],
)
async def test_malformed_form_is_refused(
    shared_api: httpx.AsyncClient, content_type: str, body: bytes
) -> None:
    headers = {"Content-Type": content_type}
    answer = await shared_api.post("/files", content=body, headers=headers)
    assert refusal(answer) == (422, "invalid_params", "file")


async def test_refused_upload_leaves_no_bytes(api: httpx.AsyncClient, services: Services) -> None:
    await api.post("/files", files={"file": b"<svg xmlns='http://www.w3.org/2000/svg'/>"})
    await api.post("/files", files={"file": picture()}, headers={"Idempotency-Key": "k"})
    await api.post("/files", files={"file": picture("PNG")}, headers={"Idempotency-Key": "k"})
    assert len(await services.storage.list()) == 1


@pytest.mark.parametrize("content_type", ["image/jpeg", "application/json", "text/multipart"])
async def test_upload_that_is_no_form_is_refused(
    shared_api: httpx.AsyncClient, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    answer = await shared_api.post("/files", content=picture(), headers=headers)
    assert refusal(answer) == (415, "unsupported_media_type", None)


# Keys


@pytest.mark.parametrize(
    "authorization",
    ["", "Bearer", "Bearer ", "Bearer  ", "Bearer nope", "Basic bm9wZTpub3Bl", "nope", "Bearer é"],
)
@pytest.mark.parametrize(("method", "path"), [("GET", "/tasks"), ("POST", GENERATION)])
async def test_bad_key_is_refused(
    shared_api: httpx.AsyncClient, method: str, path: str, authorization: str
) -> None:
    headers = {"Authorization": authorization.encode()}
    answer = await shared_api.request(method, path, headers=headers)
    assert refusal(answer) == (401, "unauthorized", None)
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "nope" not in answer.text


async def test_request_without_a_key_is_refused(shared_api: httpx.AsyncClient) -> None:
    del (request := shared_api.build_request("GET", "/tasks")).headers["authorization"]
    answer = await shared_api.send(request)
    assert refusal(answer) == (401, "unauthorized", None)
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_revoked_key_is_refused_from_the_next_request_on(
    api: httpx.AsyncClient, services: Services
) -> None:
    assert (await api.get("/tasks")).status_code == 200
    (key,) = await list_keys(services.pool)
    await revoke_key(services.pool, key.id)
    assert refusal(await api.get("/tasks")) == (401, "unauthorized", None)


@pytest.mark.parametrize(
    ("scopes", "allowed", "forbidden"),
    [
        (("read",), ("GET", "/tasks"), ("POST", GENERATION)),
        (("read",), ("GET", "/models"), ("POST", "/files")),
        (("read",), ("GET", "/monitoring/queues"), ("POST", "/tasks/task_0/cancel")),
        (("write",), ("POST", GENERATION), ("GET", "/tasks")),
        (("monitor",), ("GET", "/monitoring/queues"), ("GET", "/tasks")),
        (("write", "admin"), ("POST", GENERATION), ("GET", "/monitoring/workers")),
    ],
)
async def test_key_does_what_its_scopes_allow(
    shared_services: Services,
    scopes: tuple[str, ...],
    allowed: tuple[str, str],
    forbidden: tuple[str, str],
) -> None:
    made = await create_key(shared_services.pool, tenant="default", scopes=scopes)
    async with called_with(shared_services, made.key) as client:
        assert (await client.request(*allowed, json=PROMPT)).status_code in (200, 201)
        answer = await client.request(*forbidden, json=PROMPT)
    assert refusal(answer) == (403, "forbidden", None)


async def test_key_is_judged_before_the_body(shared_api: httpx.AsyncClient) -> None:
    headers = {"Authorization": "Bearer nope", **JSON}
    answer = await shared_api.post(GENERATION, content=b"{" * 2_000_000, headers=headers)
    assert refusal(answer) == (401, "unauthorized", None)


# Routes and request ids


@pytest.mark.parametrize(
    "path", ["/nope", "/tasks/a/b/c/d", "//tasks", "http://imageloom.test/api", "/%00"]
)
async def test_unknown_route_is_not_found(shared_api: httpx.AsyncClient, path: str) -> None:
    assert refusal(await shared_api.get(path)) == (404, "not_found", None)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("DELETE", "/tasks"),
        ("PUT", GENERATION),
        ("PATCH", "/tasks/task_0"),
        ("GET", "/files"),
        ("GET", "/tasks/task_0/cancel"),
        ("POST", "/models"),
        ("POST", "http://imageloom.test/healthz"),
    ],
)
async def test_wrong_method_is_refused(
    shared_api: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await shared_api.request(method, path)
    assert refusal(answer) == (405, "method_not_allowed", None)
    assert answer.headers["allow"]


async def test_request_id_of_the_caller_is_kept(shared_api: httpx.AsyncClient) -> None:
    for path in ("/tasks", "/nope"):
        answer = await shared_api.get(path, headers={"X-Request-Id": "order-7.retry_2"})
        assert answer.headers["x-request-id"] == "order-7.retry_2"


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "<script>", "é"])
async def test_odd_request_id_is_replaced(shared_api: httpx.AsyncClient, given: str) -> None:
    answer = await shared_api.get("/nope", headers={"X-Request-Id": given.encode()})
    assert re.fullmatch("req_[0-9a-f]{24}", answer.headers["x-request-id"])
    assert refusal(answer) == (404, "not_found", None)


# Faults of ours


class BrokenStorage(LocalStorage):
    """A storage that raises what it is told to."""

    error: Exception = RuntimeError("secret details")

    async def open(self, key: str) -> StoredStream:
        raise self.error


@pytest.fixture
async def broken(api: httpx.AsyncClient, services: Services) -> AsyncIterator[BrokenStorage]:
    """A storage in whose place nothing works; its `url` is that of an output."""
    storage = BrokenStorage(services.settings.data_dir / "storage")
    yield storage
    await storage.aclose()


async def get_output(
    services: Services, api: httpx.AsyncClient, storage: Storage
) -> httpx.Response:
    task = await created(api)
    await completed(services, task)
    url = (await api.get(f"/tasks/{task['id']}/result")).json()["images"][0]["url"]
    with capture_logs() as logs:
        async with called_with(replace(services, storage=storage), "none") as client:
            answer = await client.get(url)
    assert [log["event"] for log in logs if log["log_level"] == "error"] in ([], ["request_failed"])
    return answer


async def test_unexpected_error_shows_nothing_of_its_inside(
    api: httpx.AsyncClient, services: Services, broken: BrokenStorage
) -> None:
    answer = await get_output(services, api, broken)
    assert refusal(answer) == (500, "internal_error", None)
    assert "secret" not in answer.text
    assert "RuntimeError" not in answer.text


async def test_storage_that_is_away_is_503(
    api: httpx.AsyncClient, services: Services, broken: BrokenStorage
) -> None:
    broken.error = StorageUnavailable("the storage failed; try again later")
    answer = await get_output(services, api, broken)
    assert refusal(answer) == (503, "storage_unavailable", None)
    assert answer.headers["retry-after"].isdecimal()
