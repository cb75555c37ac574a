"""A small server that speaks the HTTP contract, for tests of the client: no network, no time.

Each time a task is read it goes one state further: pending, running at half, completed.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from email.message import EmailMessage
from email.parser import BytesParser
from email.policy import HTTP
from functools import partial
from typing import Any

import httpx

from imageloom.client import AsyncClient, Client

BASE = "http://imageloom.test"
KEY = "il_test_key"
CDN = "https://cdn.test"
JPEG = b"\xff\xd8\xff\xe0 a picture"
GENERATION = frozenset(
    {
        "prompt",
        "negative_prompt",
        "input_image_url",
        "strength",
        "num_outputs",
        "steps",
        "guidance_scale",
        "width",
        "height",
        "seed",
        "model",
        "loras",
        "output_format",
    }
)


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    async def sleep_async(self, seconds: float) -> None:
        self.sleep(seconds)


class FakeServer:
    """Answers requests; `next` holds answers or errors to give first, one for each request."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.requests: list[httpx.Request] = []
        self.next: list[httpx.Response | Exception] = []
        self.tasks: dict[str, dict[str, Any]] = {}
        self.bodies: dict[str, dict[str, Any]] = {}
        self.uploads: list[tuple[str, str, bytes]] = []
        self.images: dict[str, httpx.Response] = {}
        self.ends: dict[str, Any] = {"status": "completed"}
        self._ids = itertools.count(1)
        self._made: dict[str, tuple[bytes, dict[str, Any]]] = {}

    def client(self, **options: Any) -> Client:
        """Return a client of this server whose sleeps take no time."""
        given = {"base_url": BASE, "api_key": KEY} | options
        return Client(
            **{
                "transport": httpx.MockTransport(self),
                "sleep": self.clock.sleep,
                "clock": self.clock,
                "jitter": lambda: 1.0,
                **given,
            }
        )

    def async_client(self, **options: Any) -> AsyncClient:
        """Return an asynchronous client of this server whose sleeps take no time."""
        given = {"base_url": BASE, "api_key": KEY} | options
        return AsyncClient(
            **{
                "transport": httpx.MockTransport(self),
                "sleep": self.clock.sleep_async,
                "clock": self.clock,
                "jitter": lambda: 1.0,
                **given,
            }
        )

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        if self.next:
            answer = self.next.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer
        if request.url.host == "cdn.test":
            return self._image(request)
        if request.headers.get("Authorization") != f"Bearer {KEY}":
            return refusal(401, "unauthorized", "the API key is missing or not valid")
        return self._route(request)

    def _route(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1")
        match request.method, path.strip("/").split("/"):
            case "POST", ["tasks", "generation"]:
                return self._once(request, partial(self._generate, request))
            case "POST", ["files"]:
                return self._once(request, partial(self._upload, request))
            case "GET", ["tasks"]:
                return self._list(request)
            case "GET", ["tasks" | "training", id_] if id_ in self.tasks:
                self._advance(self.tasks[id_])
                return httpx.Response(200, json=self.tasks[id_])
            case "POST", ["tasks" | "training", id_, "cancel"] if id_ in self.tasks:
                return self._cancel(self.tasks[id_])
            case "GET", ["models"]:
                model = {"name": "imageloom-tiny", "kind": "model"}
                return listing([model])
            case "GET", ["monitoring", "queues"]:
                queue = {"name": "generation", "pending": 12, "running": 8, "workers": 10}
                return httpx.Response(200, json={"queues": [queue]})
            case "GET", ["monitoring", "workers"]:
                worker = {
                    "id": "worker-01",
                    "status": "busy",
                    "gpu_utilization": 0.85,
                    "last_heartbeat": "2024-01-15T10:30:00Z",
                }
                counts = {"healthy": 1, "unhealthy": 0, "total": 1}
                return httpx.Response(200, json=counts | {"workers": [worker]})
            case _:
                return refusal(404, "not_found", f"there is no {path}")

    def _once(self, request: httpx.Request, make: Callable[[], httpx.Response]) -> httpx.Response:
        """Answer a repeated Idempotency-Key with the first answer."""
        key = request.headers["Idempotency-Key"]
        if key in self._made:
            body, answer = self._made[key]
            if body != request.content:
                return refusal(422, "idempotency_key_reused", "the key had another body")
            return httpx.Response(201, json=answer)
        response = make()
        if response.status_code == 201:
            self._made[key] = (request.content, response.json())
        return response

    def _generate(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        for name in body.keys() - GENERATION:
            return refusal(422, "invalid_params", f"unknown field {name}", param=name)
        if body.get("steps", 1) > 100:
            return refusal(422, "invalid_params", "steps 101 is above 100", param="steps")
        id_ = f"task_{next(self._ids)}"
        self.bodies[id_] = body
        self.tasks[id_] = {
            "id": id_,
            "type": "generation",
            "status": "pending",
            "created_at": "2024-01-15T10:30:00Z",
        }
        return httpx.Response(201, json=self.tasks[id_])

    def _upload(self, request: httpx.Request) -> httpx.Response:
        head = b"Content-Type: " + request.headers["Content-Type"].encode() + b"\r\n\r\n"
        message = BytesParser(EmailMessage, policy=HTTP).parsebytes(head + request.content)
        (part,) = message.iter_parts()
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        assert part.get_param("name", header="content-disposition") == "file"
        self.uploads.append((part.get_filename() or "", part.get_content_type(), content))
        file = {
            "id": f"file_{len(self.uploads)}",
            "url": f"{BASE}/files/file_{len(self.uploads)}?signature=abc",
            "size": len(content),
            "media_type": part.get_content_type(),
            "sha256": "0" * 64,
            "expires_at": "2024-01-22T10:30:00Z",
        }
        return httpx.Response(201, json=file)

    def _list(self, request: httpx.Request) -> httpx.Response:
        wanted = request.url.params.get("status")
        found = [task for task in self.tasks.values() if wanted in (None, task["status"])]
        return listing(found[::-1])

    def _advance(self, task: dict[str, Any]) -> None:
        if task["status"] == "pending":
            task |= {"status": "running", "progress": 0.5, "started_at": "2024-01-15T10:30:05Z"}
        elif task["status"] == "running":
            task |= {"completed_at": "2024-01-15T10:31:00Z"} | self.ends
            if task["status"] == "completed":
                count = self.bodies.get(task["id"], {}).get("num_outputs", 1)
                task |= {"progress": 1.0, "error": None, "output": {"images": pictures(count)}}

    def _cancel(self, task: dict[str, Any]) -> httpx.Response:
        if task["status"] in {"completed", "failed"}:
            return refusal(409, "conflict", f"the task is {task['status']}")
        task["status"] = "cancelled"
        return httpx.Response(200, json=task)

    def _image(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.rpartition("/")[2]
        jpeg = httpx.Response(200, content=JPEG, headers={"Content-Type": "image/jpeg"})
        return self.images.get(name, jpeg)


def pictures(count: int) -> list[dict[str, Any]]:
    return [
        {"url": f"{CDN}/img{i}?signature=abc", "seed": 7 + i, "width": 64, "height": 64}
        for i in range(count)
    ]


def listing(items: list[dict[str, Any]]) -> httpx.Response:
    body = {"items": items, "total": len(items), "page": 1, "page_size": 50}
    return httpx.Response(200, json=body)


def refusal(
    status: int,
    type_: str,
    message: str,
    *,
    param: str | None = None,
    retry_after: int | None = None,
) -> httpx.Response:
    error = {"type": type_, "message": message, "param": param, "request_id": "req_1"}
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    return httpx.Response(status, json={"error": error}, headers=headers)
