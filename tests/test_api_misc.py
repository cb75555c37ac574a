"""Health, models, monitoring, the OpenAPI document, and the API while PostgreSQL is away."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import httpx
import psycopg
import pytest
from procrastinate.exceptions import ConnectorException
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from starlette.types import Message
from structlog.testing import capture_logs

from api_helpers import GENERATION, PROMPT, TINY, begun, created, picture, refusal
from conftest import PUBLIC_URL, called_with
from imageloom.api.app import create_app, describe_api
from imageloom.core.keys import create_key
from imageloom.core.models import add_model
from imageloom.core.services import Services, open_services
from imageloom.domain.catalog import BUILTIN, Model
from imageloom.domain.errors import StoreUnavailable
from imageloom.settings import Settings
from imageloom.store import workers
from imageloom.store.pool import transaction
from imageloom.store.workers import WorkerReport
from workflow_helpers import said, started, step

if TYPE_CHECKING:
    from conftest import Live

WORKER = WorkerReport(
    id="worker-01",
    host="gpu-1",
    pid=7,
    version="0.1.0",
    status="busy",
    queues=("generation",),
    device="NVIDIA H100",
    memory_bytes=80_000_000_000,
    gpu_utilization=0.85,
    models=("imageloom-tiny",),
    tasks=("task_0",),
    device_kind="cuda",
    memory_used_bytes=8_000_000_000,
    serves=("imageloom-tiny", "sd-1.5"),
    lacking=("sd-1.5",),
    too_large=("flux-schnell",),
)
HEALTHZ, READYZ = f"{PUBLIC_URL}/healthz", f"{PUBLIC_URL}/readyz"


async def beat(services: Services, report: WorkerReport, *, ago: str = "0 s") -> None:
    """Let a worker report itself, some time ago."""
    async with transaction(services.pool) as conn:
        await workers.heartbeat(conn, report)
        await conn.execute(
            "update worker set last_heartbeat = now() - %s::interval where id = %s",
            (ago, report.id),
        )


async def made_ago(services: Services, task_id: str, ago: str) -> None:
    """Let a task have been created some time ago."""
    async with transaction(services.pool) as conn:
        await conn.execute(
            "update task set created_at = now() - %s::interval where id = %s", (ago, task_id)
        )


# Health


async def test_process_is_well_without_a_worker_but_not_ready(
    api: httpx.AsyncClient, services: Services
) -> None:
    async with called_with(services, "none") as anybody:
        well = await anybody.get(HEALTHZ)
        ready = await anybody.get(READYZ)
    assert (well.status_code, well.json()) == (200, {"status": "ok"})
    assert refusal(ready) == (503, "no_worker", None)
    assert ready.headers["retry-after"].isdecimal()


@pytest.mark.parametrize(
    ("status", "ago", "answer"),
    [
        ("idle", "0 s", 200),
        ("busy", "0 s", 200),
        ("draining", "0 s", 200),
        ("unhealthy", "0 s", 503),
        ("idle", "1 minute", 503),
    ],
)
async def test_ready_means_that_a_worker_can_work(
    api: httpx.AsyncClient, services: Services, status: str, ago: str, answer: int
) -> None:
    await beat(services, replace(WORKER, status=status), ago=ago)
    assert (await api.get(READYZ)).status_code == answer


# Models and monitoring


@pytest.mark.parametrize("path", ["/models", "/models/"])
async def test_models_are_those_that_a_task_may_name(
    shared_api: httpx.AsyncClient, path: str
) -> None:
    answer = (await shared_api.get(path)).json()
    assert (answer["total"], answer["page"]) == (len(answer["items"]), 1)
    assert {model["name"] for model in answer["items"]} == {model.name for model in BUILTIN}
    default, *others = [model for model in answer["items"] if model["default"]]
    assert [(model["name"], model["kind"]) for model in others] == [
        ("grabcut", "segmenter"),
        ("lanczos", "upscaler"),
    ]
    assert {**default, "description": ""} == {
        "name": "imageloom-tiny",
        "kind": "base",
        "base_model": None,
        "version": None,
        "trigger_word": None,
        "family": "sdxl",
        "source": "builtin:imageloom-tiny",
        "revision": None,
        "licence": "Apache-2.0",
        "description": "",
        "scale": None,
        "default_size": TINY.default_size,
        "native_size": TINY.native_size,
        "steps": TINY.steps,
        "guidance_scale": TINY.guidance_scale,
        "default": True,
    }


async def test_added_model_can_be_named_and_hides_its_folder(
    api: httpx.AsyncClient, services: Services
) -> None:
    ours = Model(
        name="sd-xl-base", source="folder:/srv/secret/sdxl", family="sdxl", licence="?", steps=3
    )
    await add_model(services.pool, ours)
    models = {model["name"]: model for model in (await api.get("/models")).json()["items"]}
    assert models["sd-xl-base"]["source"] == "folder"
    assert len(models) == len(BUILTIN)
    assert (await created(api, model="sd-xl-base"))["params"]["steps"] == 3


@pytest.mark.parametrize("path", ["/monitoring/queues", "/monitoring/queues/"])
async def test_queue_counts_its_tasks_and_workers(
    api: httpx.AsyncClient, services: Services, path: str
) -> None:
    tasks = [await created(api) for _ in range(4)]
    await begun(services, tasks[0])
    await api.post(f"/tasks/{tasks[1]['id']}/cancel")
    await beat(services, WORKER)
    await beat(services, replace(WORKER, id="worker-02", queues=("training",)))
    await beat(services, replace(WORKER, id="worker-03"), ago="1 minute")
    await made_ago(services, tasks[2]["id"], "1 hour")
    queues = (await api.get(path)).json()["queues"]
    assert 3600 <= queues[0].pop("oldest_age") < 3700
    assert queues == [
        {"name": "generation", "pending": 2, "running": 1, "workers": 1},
        {"name": "processing", "pending": 0, "running": 0, "workers": 0, "oldest_age": None},
        {"name": "training", "pending": 0, "running": 0, "workers": 1, "oldest_age": None},
    ]


async def test_what_a_pause_took_out_of_the_queue_does_not_wait(
    api: httpx.AsyncClient, services: Services
) -> None:
    workflow = await started(api, step("a"))
    await said(api, workflow, "pause")
    (queue, *_) = (await api.get("/monitoring/queues")).json()["queues"]
    assert (queue["pending"], queue["oldest_age"]) == (1, None)


@pytest.mark.parametrize(
    "path",
    [
        "/monitoring/workers",
        "/monitoring/workers/",
        "/monitoring/workers/health",
        "/monitoring/workers/health/",
    ],
)
async def test_workers_say_how_they_are(
    api: httpx.AsyncClient, services: Services, path: str
) -> None:
    await beat(services, WORKER)
    await beat(services, replace(WORKER, id="worker-02", status="idle", gpu_utilization=None))
    await beat(services, replace(WORKER, id="worker-03", status="idle"), ago="1 minute")
    await beat(services, replace(WORKER, id="worker-04"), ago="2 hours")
    answer = (await api.get(path)).json()
    assert {name: answer[name] for name in ("healthy", "unhealthy", "total")} == {
        "healthy": 2,
        "unhealthy": 1,
        "total": 3,
    }
    shown = [(each["id"], each["status"], each["gpu_utilization"]) for each in answer["workers"]]
    assert shown == [
        ("worker-01", "busy", 0.85),
        ("worker-02", "idle", None),
        ("worker-03", "unhealthy", 0.85),
    ]
    assert all(each["last_heartbeat"].endswith("Z") for each in answer["workers"])
    busy, _, silent = answer["workers"]
    assert busy["reason"] is None
    assert re.fullmatch(r"no heartbeat for \d+ s", silent["reason"])
    told = (
        "device_kind",
        "device",
        "memory_bytes",
        "memory_used_bytes",
        "models",
        "version",
        "serves",
        "lacking",
        "too_large",
    )
    assert {name: busy[name] for name in told} == {
        "device_kind": "cuda",
        "device": "NVIDIA H100",
        "memory_bytes": 80_000_000_000,
        "memory_used_bytes": 8_000_000_000,
        "models": ["imageloom-tiny"],
        "serves": ["imageloom-tiny", "sd-1.5"],
        "lacking": ["sd-1.5"],
        "too_large": ["flux-schnell"],
        "version": "0.1.0",
    }


async def test_a_worker_that_is_silent_for_longer_than_a_lease_is_unhealthy(
    api: httpx.AsyncClient, services: Services
) -> None:
    await beat(services, WORKER, ago=f"{services.settings.lease_seconds + 1} s")
    await beat(services, replace(WORKER, id="worker-02", status="unhealthy", reason="it hangs"))
    answer = (await api.get("/monitoring/workers")).json()
    assert (answer["healthy"], answer["unhealthy"]) == (0, 2)
    silent, hanging = answer["workers"]
    assert silent["reason"].startswith("no heartbeat for ")
    assert hanging["reason"] == "it hangs"


async def test_who_sees_not_everything_is_shown_only_its_own_tasks_of_a_worker(
    api: httpx.AsyncClient, services: Services
) -> None:
    mine = (await created(api))["id"]
    await beat(services, replace(WORKER, tasks=(mine, "task_of_another")))
    made = await create_key(services.pool, tenant="ops", scopes=("monitor",))
    async with called_with(services, made.key) as operator:
        for client, tasks in ((api, [mine]), (operator, [mine, "task_of_another"])):
            (worker,) = (await client.get("/monitoring/workers")).json()["workers"]
            assert (worker["tasks"], worker["task_count"]) == (tasks, 2)


def test_live_installation_shows_itself(live: Live) -> None:
    with live.client() as client:
        assert client.get(f"{live.url}/healthz").status_code == 200
        assert client.get(f"{live.url}/readyz").status_code == 200
        queues = client.get("/monitoring/queues").json()["queues"]
        health = client.get("/monitoring/workers/health").json()
        document = client.get(f"{live.url}/openapi.json").json()
    assert [queue["name"] for queue in queues] == ["generation", "processing", "training"]
    assert {queue["workers"] for queue in queues} == {health["healthy"]}
    assert health["healthy"] + health["unhealthy"] == health["total"] == len(health["workers"])
    worker = next(each for each in health["workers"] if each["status"] in ("idle", "busy"))
    assert worker["gpu_utilization"] is None
    assert worker["queues"] == ["generation", "processing", "training"]
    assert document["servers"] == [{"url": live.url}]


# The OpenAPI document

Operation = tuple[str, str, dict[str, Any]]
SIGN = {"create_session", "end_session"}  # in and out: the key is the body, or there is no more
OPEN = {"get_file", "get_output", "healthz", "readyz", *SIGN}


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    return describe_api()


def operations(document: dict[str, Any]) -> list[Operation]:
    return [
        (method.upper(), path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def nodes(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        yield node
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for child in children:
        yield from nodes(child)


async def test_document_is_served_as_it_is_described(
    shared_api: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    served = (await shared_api.get(f"{PUBLIC_URL}/openapi.json")).json()
    assert served == {**document, "servers": [{"url": PUBLIC_URL}]}


def test_document_is_valid(document: dict[str, Any]) -> None:
    if find_spec("openapi_spec_validator"):
        from openapi_spec_validator import validate

        validate(document)
    assert document["openapi"].startswith("3.1")
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)
    for _, path, operation in operations(document):
        declared = {p["name"] for p in operation.get("parameters", []) if p["in"] == "path"}
        assert declared == set(re.findall(r"\{(\w+)\}", path))
        assert operation["summary"]
        assert all(answer["description"] for answer in operation["responses"].values())
    for node in nodes(document):
        if "$ref" in node:
            target: Any = document
            for part in node["$ref"].removeprefix("#/").split("/"):
                target = target[part]


def test_every_error_in_the_document_is_the_envelope(document: dict[str, Any]) -> None:
    for _, _, operation in operations(document):
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                schema = answer["content"]["application/json"]["schema"]
                assert schema == {"$ref": "#/components/schemas/ErrorView"}
    assert "HTTPValidationError" not in document["components"]["schemas"]


def test_every_operation_but_the_open_ones_declares_its_key(document: dict[str, Any]) -> None:
    for _, _, operation in operations(document):
        secured = operation.get("security") == [{"HTTPBearer": []}, {"APIKeyCookie": []}]
        assert secured == (operation["operationId"] not in OPEN), operation["operationId"]


async def test_examples_of_the_document_work(
    api: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    examples = {
        path: operation["requestBody"]["content"]["application/json"]["example"]
        for method, path, operation in operations(document)
        if "application/json" in operation.get("requestBody", {}).get("content", {})
    }
    training = {"/api/v1/training", "/api/v1/training/preflight"}
    creating = {
        "/api/v1/tasks",
        "/api/v1/tasks/generation",
        "/api/v1/tasks/processing",
        "/api/v1/workflows",
        "/api/v1/workflows/{workflow_id}/runs",
    }
    acting = {
        f"/api/v1/workflows/{{workflow_id}}/{verb}"
        for verb in ("start", "resume", "runs/{run_id}/resume")
    }
    # These need a picture and an event: see test_receipts and test_webhooks.
    drawn = {"/api/v1/tasks/{task_id}/reproduce", "/api/v1/webhooks/endpoints/enable"}
    access = {"/api/v1/session", "/api/v1/keys"}  # see test_session and test_keys
    assert set(examples) == creating | acting | training | drawn | access
    made = await api.post("/workflows", json=examples["/api/v1/workflows"])
    for path in sorted(creating):
        sent = path.format(workflow_id=made.json()["id"])
        answer = await api.post(f"{PUBLIC_URL}{sent}", json=examples[path])
        assert answer.status_code == 201, answer.text


@pytest.mark.parametrize(
    ("name", "links"),
    [
        ("create_task", ["get_task", "cancel_task"]),
        ("create_generation_task", ["get_task", "cancel_task"]),
        ("get_task", ["cancel_task"]),
    ],
)
async def test_links_lead_from_create_to_get_to_cancel(
    api: httpx.AsyncClient, document: dict[str, Any], name: str, links: list[str]
) -> None:
    known = {op["operationId"]: (method, path, op) for method, path, op in operations(document)}
    (answer,) = [
        answer
        for status, answer in known[name][2]["responses"].items()
        if status.startswith("2") and "links" in answer
    ]
    task = await created(api)
    followed = []
    for link in answer["links"].values():
        method, path, operation = known[link["operationId"]]
        assert link["parameters"] == {"task_id": "$response.body#/id"}
        address = PUBLIC_URL + path.format(task_id=task["id"])
        assert (await api.request(method, address)).status_code == 200
        followed.append(operation["operationId"])
    assert followed == links


@pytest.mark.parametrize("suffix", ["", "/"])
async def test_no_route_works_without_a_key_but_the_open_ones(
    shared_services: Services, document: dict[str, Any], suffix: str
) -> None:
    asked = 0
    async with called_with(shared_services, "") as client:
        del client.headers["authorization"]
        for method, path, operation in operations(document):
            if operation["operationId"] in OPEN - {"get_file"}:
                continue
            address = PUBLIC_URL + re.sub(r"\{\w+\}", "x", path) + suffix
            answer = await client.request(method, address)
            assert refusal(answer) == (401, "unauthorized", None), address
            assert answer.headers["www-authenticate"] == "Bearer"
            asked += 1
        for page in ("openapi.json", "docs", "redoc", "healthz"):
            assert (await client.get(f"{PUBLIC_URL}/{page}")).status_code == 200
        assert (await client.get("/outputs/x/y")).status_code == 404
    assert asked == len(operations(document)) - len(OPEN) + 1


LISTS = {
    "list_attempts",
    "list_keys",
    "list_runs",
    "list_tasks",
    "list_webhook_deliveries",
    "list_webhook_endpoints",
    "list_workflows",
}
SENSELESS = [
    ("page=0", "page"),
    ("page=x", "page"),
    ("page=1000001", "page"),
    ("page=", "page"),
    ("page_size=501", "page_size"),
    ("page_size=-1", "page_size"),
    ("page_size=1.5", "page_size"),
    ("cursor=abc", "cursor"),
    ("offset=7", "offset"),
]


async def test_every_list_refuses_a_place_that_makes_no_sense(
    shared_api: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    asked = set()
    for _, path, operation in operations(document):
        if "page" not in {each["name"] for each in operation.get("parameters", [])}:
            continue
        asked.add(operation["operationId"])
        address = PUBLIC_URL + re.sub(r"\{\w+\}", "x", path)
        for query, param in SENSELESS:
            answer = await shared_api.get(f"{address}?{query}")
            assert refusal(answer) == (422, "invalid_params", param), f"{address}?{query}"
    assert asked >= LISTS


# A caller who leaves


async def test_caller_who_leaves_is_no_fault_of_ours(
    api: httpx.AsyncClient, services: Services
) -> None:
    app = create_app(services, public_url=PUBLIC_URL)
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "path": f"/api/v1{GENERATION}",
        "raw_path": b"",
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": [
            (b"authorization", api.headers["authorization"].encode()),
            (b"content-type", b"application/json"),
        ],
        "client": None,
        "server": ("imageloom.test", 80),
    }

    async def left() -> Message:
        return {"type": "http.disconnect"}

    async def nobody_listens(_message: Message) -> None:
        return

    with capture_logs() as logs:
        await app(scope, left, nobody_listens)
    assert [(log["event"], log["log_level"], log["status"]) for log in logs] == [
        ("request", "info", 499)
    ]


# PostgreSQL is away


class Proxy:
    """Stands between the API and PostgreSQL: it can be cut, fall silent, and be mended."""

    def __init__(self, database_url: str) -> None:
        self._real = conninfo_to_dict(database_url)
        self._passes = asyncio.Event()
        self._handlers: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._port = 0

    async def open(self) -> str:
        """Begin to pass on, and return the URL of the database behind."""
        self._server = await asyncio.start_server(self._handle, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]
        self._passes.set()
        return make_conninfo(**{**self._real, "host": "127.0.0.1", "port": self._port})

    async def cut(self) -> None:
        """Drop every connection and refuse new ones."""
        if self._server is not None:
            self._server.close()
        for handler in self._handlers:
            handler.cancel()
        if self._handlers:
            await asyncio.wait(self._handlers)

    def fall_silent(self) -> None:
        """Keep every connection, accept new ones, and pass nothing on."""
        self._passes.clear()

    def speak(self) -> None:
        """Pass on what was said meanwhile, and all that follows."""
        self._passes.set()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handler = asyncio.current_task()
        assert handler is not None
        self._handlers.add(handler)
        try:
            host, port = str(self._real["host"]), self._real["port"]
            there = await (
                asyncio.open_unix_connection(f"{host}/.s.PGSQL.{port}")
                if host.startswith("/")
                else asyncio.open_connection(host, int(str(port)))
            )
            with suppress(ConnectionError, asyncio.CancelledError):
                await asyncio.gather(self._pass(reader, there[1]), self._pass(there[0], writer))
            there[1].transport.abort()
        finally:
            writer.transport.abort()
            self._handlers.discard(handler)

    async def _pass(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            await self._passes.wait()
            sink.write(data)
            await sink.drain()
        sink.close()


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    """A proxy before the database of this test."""
    made = Proxy(database_url)
    yield made
    await made.cut()


@pytest.fixture
async def distant(proxy: Proxy, settings: Settings) -> AsyncIterator[Services]:
    """Services that reach their database through the proxy."""
    async with open_services(settings, await proxy.open(), pool_timeout=1) as opened:
        yield opened


async def check_unavailable(client: httpx.AsyncClient) -> None:
    """Ask for different things at once; each must be refused with 503 within ten seconds."""
    began = time.monotonic()
    answers = await asyncio.gather(
        client.get("/tasks"),
        client.get("/tasks/task_0"),
        client.post(GENERATION, json=PROMPT),
        client.post("/files", files={"file": picture()}),
        client.get(HEALTHZ),
        client.get(READYZ),
    )
    assert time.monotonic() - began < 10
    for answer in answers:
        assert refusal(answer) == (503, "database_unavailable", None)
        assert answer.headers["retry-after"].isdecimal()


async def check_recovered(client: httpx.AsyncClient) -> None:
    """Ask until the answer is there; each refusal takes a second."""
    for _ in range(30):
        if (await client.get("/tasks")).status_code == 200:
            return
    raise AssertionError("the API did not find its database again")


async def test_database_that_refuses_is_503_until_it_is_back(
    proxy: Proxy, distant: Services
) -> None:
    made = await create_key(distant.pool, tenant="default")
    async with called_with(distant, made.key) as client:
        await created(client)
        await proxy.cut()
        await check_unavailable(client)
        await proxy.open()
        await check_recovered(client)
        await created(client)


async def test_database_that_says_nothing_is_503_until_it_speaks(
    proxy: Proxy, distant: Services
) -> None:
    made = await create_key(distant.pool, tenant="default")
    async with called_with(distant, made.key) as client:
        await created(client)
        proxy.fall_silent()
        await check_unavailable(client)
        proxy.speak()
        await check_recovered(client)


async def test_connection_lost_while_a_job_is_cancelled_is_the_databases_fault(
    services: Services,
) -> None:
    async def cancel_on_a_lost_connection() -> None:
        async with transaction(services.pool) as conn:
            async with transaction(services.pool) as other:
                await other.execute("select pg_terminate_backend(%s)", (conn.info.backend_pid,))
            await services.queue.cancel(conn, 1)

    with pytest.raises(StoreUnavailable):
        await cancel_on_a_lost_connection()


async def test_fault_of_ours_in_the_queue_is_not_the_databases(services: Services) -> None:
    async def cancel_where_there_is_no_queue() -> None:
        async with transaction(services.pool) as conn:
            await conn.execute("select set_config('search_path', 'nowhere', true)")
            await services.queue.cancel(conn, 1)

    with pytest.raises(ConnectorException) as caught:
        await cancel_where_there_is_no_queue()
    assert isinstance(caught.value.__cause__, psycopg.ProgrammingError)
