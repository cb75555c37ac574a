"""A small server that speaks the HTTP contract, for tests of the client: no network, no time.

Each time a task is read it goes one state further: pending, running at half, completed. Each
time a run is read its running steps complete and the next ones begin. A training is read as
pending, running without a loss, running with one, completed.
"""

from __future__ import annotations

import hashlib
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
ADAPTER = b"the bytes of an adapter"
GENERATION = frozenset(
    {
        "prompt",
        "negative_prompt",
        "input_image_url",
        "strength",
        "num_outputs",
        "steps",
        "guidance_scale",
        "scheduler",
        "determinism",
        "preview_every",
        "priority",
        "webhook_url",
        "webhook_events",
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
        self.compared = {"result": "identical", "largest_difference": 0, "changed": []}
        self.breaks = 0
        self.workflows = FakeWorkflows()
        self.trainings = FakeTrainings()
        self.webhooks = FakeWebhooks()
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
            case "POST", ["tasks", name] if request.url.params.get("dry_run") == "true":
                return httpx.Response(200, json=_rehearsed(name, json.loads(request.content)))
            case "POST", ["tasks", "generation"]:
                return self._once(request, partial(self._create, request, "generation"))
            case "POST", ["tasks", "processing"]:
                return self._once(request, partial(self._create, request, "processing"))
            case "POST", ["workflows"] | ["workflows", _, "runs"]:
                return self._once(request, partial(self.workflows, request))
            case _, ["workflows", *_]:
                return self.workflows(request)
            case "POST", ["training"]:
                return self._once(request, partial(self.trainings, request))
            case _, ["training", *rest] if rest[0] not in self.tasks:
                return self.trainings(request)
            case "DELETE", ["models", name]:
                return self.trainings.retire(name)
            case "POST", ["files"]:
                return self._once(request, partial(self._upload, request))
            case "GET", ["tasks"]:
                return self._list(request)
            case "GET", ["tasks" | "training", id_] if id_ in self.tasks:
                self._advance(self.tasks[id_])
                return httpx.Response(200, json=self.tasks[id_])
            case "GET", ["tasks" | "training", id_, "events"] if id_ in self.tasks:
                return self._events(request, self.tasks[id_])
            case "POST", ["tasks" | "training", id_, "cancel"] if id_ in self.tasks:
                return self._cancel(self.tasks[id_])
            case "POST", ["tasks", id_, "reproduce"] if id_ in self.tasks:
                return self._once(request, partial(self._reproduce, request, self.tasks[id_]))
            case "POST", ["tasks", id_, "retry"] if id_ in self.tasks:
                return self._once(request, partial(self._retry, self.tasks[id_]))
            case _, ["webhooks", *rest]:
                return self.webhooks(request.method, rest)
            case "GET", ["models"]:
                model = {"name": "imageloom-tiny", "kind": "model"}
                adapters = self.trainings.adapters.values()
                return listing([model, *({"kind": "adapter", **each} for each in adapters)])
            case "GET", ["monitoring", "queues"]:
                counts = {"pending": 12, "running": 8, "workers": 10}
                queue = {"name": "generation", **counts, "oldest_age": 75.5}
                return httpx.Response(200, json={"queues": [queue]})
            case "GET", ["monitoring", "tasks"]:
                task = {"id": "task_1", "type": "generation", "status": "failed", "attempt": 3}
                return listing([{**task, "error_code": "out_of_memory", "run_seconds": 9.5}])
            case "GET", ["monitoring", "stats"]:
                stats = {
                    "since": "2024-01-15T09:00:00Z",
                    "by_status": {"completed": 7, "failed": 1},
                    "run_seconds": {"p50": 4.5, "p90": 9.5},
                    "failures": [{"code": "out_of_memory", "count": 1}],
                }
                return httpx.Response(200, json=stats)
            case "GET", ["monitoring", "workers"]:
                worker = {
                    "id": "worker-01",
                    "status": "busy",
                    "device_kind": "cuda",
                    "device": "NVIDIA H100",
                    "memory_bytes": 80_000_000_000,
                    "memory_used_bytes": 8_000_000_000,
                    "gpu_utilization": 0.85,
                    "models": ["imageloom-tiny"],
                    "tasks": ["task_1"],
                    "task_count": 3,
                    "version": "0.1.0",
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

    def _create(self, request: httpx.Request, type_: str) -> httpx.Response:
        body = json.loads(request.content)
        for name in body.keys() - GENERATION if type_ == "generation" else ():
            return refusal(422, "invalid_params", f"unknown field {name}", param=name)
        if body.get("steps", 1) > 100:
            return refusal(422, "invalid_params", "steps 101 is above 100", param="steps")
        id_ = f"task_{next(self._ids)}"
        self.bodies[id_] = body
        self.tasks[id_] = {
            "id": id_,
            "type": type_,
            "status": "pending",
            "priority": body.get("priority", 0),
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
                body = self.bodies.get(task["id"], {})
                count = body.get("num_outputs", len(body.get("input_image_urls", "1")))
                output: dict[str, Any] = {"images": pictures(count)}
                if "reproduces" in task:
                    output["reproduction"] = self.compared
                task |= {"progress": 1.0, "error": None, "output": output}

    def _events(self, request: httpx.Request, task: dict[str, Any]) -> httpx.Response:
        """Tell how a task goes to its end; a stream breaks after `breaks` events."""
        lines, told = "", int(request.headers.get("Last-Event-ID", "0"))
        for seq in range(told + 1, 4):
            if seq > 1:
                self._advance(task)
            lines += f"data: {json.dumps(task)}\nid: {seq}\n\n: here\n\n"
            if seq == self.breaks:
                break
        return httpx.Response(200, text=lines, headers={"Content-Type": "text/event-stream"})

    def _reproduce(self, request: httpx.Request, first: dict[str, Any]) -> httpx.Response:
        if first["status"] != "completed":
            return refusal(409, "conflict", f"the task is {first['status']}")
        id_, body = f"task_{next(self._ids)}", json.loads(request.content)
        reproduces = {"task_id": first["id"], "output": body["output"]}
        self.tasks[id_] = first | {"id": id_, "status": "pending", "reproduces": reproduces}
        return httpx.Response(201, json=self.tasks[id_])

    def _retry(self, first: dict[str, Any]) -> httpx.Response:
        if first["status"] not in {"failed", "cancelled"}:
            return refusal(409, "conflict", f"the task is {first['status']}")
        id_ = f"task_{next(self._ids)}"
        self.tasks[id_] = first | {
            "id": id_,
            "status": "pending",
            "progress": 0.0,
            "error": None,
            "retries": {"task_id": first["id"]},
        }
        return httpx.Response(201, json=self.tasks[id_])

    def _cancel(self, task: dict[str, Any]) -> httpx.Response:
        if task["status"] in {"completed", "failed"}:
            return refusal(409, "conflict", f"the task is {task['status']}")
        task["status"] = "cancelled"
        return httpx.Response(200, json=task)

    def _image(self, request: httpx.Request) -> httpx.Response:
        name = request.url.path.rpartition("/")[2]
        jpeg = httpx.Response(200, content=JPEG, headers={"Content-Type": "image/jpeg"})
        if name == "adapter":
            jpeg = httpx.Response(200, content=ADAPTER)
        return self.images.get(name, jpeg)


def _rehearsed(name: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return what a dry run says: three are ahead, and of large models there is no worker."""
    runs = body.get("model") != "sd-xl-base"
    moments = {"p50": "2024-01-15T10:30:00Z", "p90": "2024-01-15T10:31:00Z"}
    return {
        "dry_run": True,
        "type": name,
        "runnable": runs,
        "runnable_reason": None if runs else "no live worker has the weights",
        "runnable_change": None if runs else "imageloom models pull sd-xl-base",
        "queue_position": 3,
        "eta": {"start": moments, "finish": None} if runs else None,
        "units": 0.5,
        "estimate": None,
        "params": body,
    }


class FakeWebhooks:
    """The routes below `/webhooks`: one endpoint that is off, one delivery that failed."""

    def __init__(self) -> None:
        self.secrets = 1
        attempt = {"at": "2024-01-15T10:31:00Z", "status": 503, "error": None}
        self.delivery: dict[str, Any] = {
            "id": "msg_1",
            "type": "task.completed",
            "state": "failed",
            "resource_id": "task_1",
            "url": "https://example.com/hooks",
            "attempt_count": 2,
            "last_attempt": attempt,
            "attempts": [attempt, attempt],
            "created_at": "2024-01-15T10:31:00Z",
        }
        self.endpoint = {"url": "https://example.com/hooks", "disabled_at": "2024-01-15T10:32:00Z"}

    def __call__(self, method: str, path: list[str]) -> httpx.Response:
        match method, path:
            case "POST", ["secret", "rotate"]:
                self.secrets += 1
                return httpx.Response(200, json={"secret": f"whsec_{self.secrets}"})
            case "GET", ["secret"]:
                return httpx.Response(200, json={"secret": f"whsec_{self.secrets}"})
            case "GET", ["deliveries"]:
                return listing([self.delivery])
            case "GET", ["deliveries", "msg_1"]:
                return httpx.Response(200, json=self.delivery)
            case "POST", ["deliveries", "msg_1", "replay"]:
                return httpx.Response(200, json=self.delivery | {"state": "pending"})
            case "GET", ["endpoints"]:
                return listing([self.endpoint])
            case "POST", ["endpoints", "enable"]:
                return httpx.Response(200, json=self.endpoint | {"disabled_at": None})
            case _:
                return refusal(404, "not_found", "there is no such delivery")


class FakeWorkflows:
    """The routes below `/workflows`, over runs that live in memory.

    `ends` holds how a step ends that does not complete, for one try; `cached` the seconds that
    the step cache saves at a step.
    """

    def __init__(self) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        self.runs: dict[str, list[dict[str, Any]]] = {}
        self.ends: dict[str, dict[str, Any]] = {}
        self.cached: dict[str, float] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1/workflows").strip("/")
        body = json.loads(request.content) if request.content else {}
        match request.method, path.split("/"):
            case "POST", [""]:
                return self._create(body)
            case "GET", [""]:
                wanted = request.url.params.get("status")
                latest = [runs[-1] for runs in self.runs.values()]
                found = [run for run in latest if wanted in (None, run["status"])]
                return listing([_without_tasks(run) for run in found[::-1]])
            case method, [id_, *rest] if id_ in self.runs:
                return self._of(id_, method, rest, body)
            case _:
                return refusal(404, "not_found", f"there is no workflow {path}")

    def _of(self, id_: str, method: str, rest: list[str], body: dict[str, Any]) -> httpx.Response:
        runs = self.runs[id_]
        match method, rest:
            case "GET", ["runs"]:
                return listing([_without_tasks(run) for run in runs[::-1]])
            case "POST", ["runs"]:
                if runs[-1]["status"] != "created":
                    runs.append(self._new_run(id_))
                return self._start(runs[-1], body, status=201)
            case "POST", ["start"]:
                return self._start(runs[0], body, status=200)
            case _, ["runs", run_id, *verb]:
                found = [run for run in runs if run["run"]["id"] == run_id]
                if not found:
                    return refusal(404, "not_found", f"there is no run {run_id}")
                return self._act(found[0], method, verb, body)
            case _:
                return self._act(runs[-1], method, rest, body)

    def _act(
        self, run: dict[str, Any], method: str, verb: list[str], body: dict[str, Any]
    ) -> httpx.Response:
        over = run["status"] in {"completed", "failed", "cancelled"}
        match method, verb:
            case "GET", []:
                self._advance(run)
            case "POST", ["resume"]:
                return self._resume(run, body)
            case "POST", ["pause"] if not over:
                run["status"] = "paused"
            case "POST", ["cancel"] if run["status"] != "completed":
                run["status"] = "cancelled"
            case "POST", ["cleanup"] if over:
                run["cleaned_at"] = "2024-01-16T10:30:00Z"
            case "POST", _:
                return refusal(409, "conflict", f"the run is {run['status']}")
        return httpx.Response(200, json=run)

    def _create(self, body: dict[str, Any]) -> httpx.Response:
        known = {"name", "description", "steps", "input", "webhook_url", "webhook_events"}
        for name in body.keys() - known:
            return refusal(422, "invalid_params", f"unknown field {name}", param=name)
        for position, step in enumerate(body["steps"]):
            if step.get("config", {}).get("scale", 2) not in (2, 4):
                param = f"steps.{position}.config.scale"
                return refusal(
                    422, "workflow_invalid", f"{param}: 3 is neither 2 nor 4", param=param
                )
        id_ = f"wf_{len(self.runs) + 1}"
        self.bodies[id_] = body
        self.runs[id_] = [self._new_run(id_)]
        return httpx.Response(201, json=self.runs[id_][0])

    def _new_run(self, id_: str) -> dict[str, Any]:
        number = len(self.runs.get(id_, ())) + 1
        body = self.bodies[id_]
        return {
            "id": id_,
            "name": body["name"],
            "description": body.get("description"),
            "status": "created",
            "progress": 0.0,
            "current_step": 0,
            "run": {"id": f"run_{number}", "number": number},
            "input": body.get("input"),
            "steps": [_new_step(step) for step in body["steps"]],
            "error": None,
            "created_at": "2024-01-15T10:30:00Z",
            "started_at": None,
            "completed_at": None,
            "cleaned_at": None,
        }

    def _start(self, run: dict[str, Any], body: dict[str, Any], *, status: int) -> httpx.Response:
        for name in body.keys() - {"input", "cache"}:
            return refusal(422, "invalid_params", f"unknown field {name}", param=name)
        given = body.get("input", run["input"] or {})
        if run["status"] == "created":
            run |= {"status": "running", "input": given, "started_at": "2024-01-15T10:30:05Z"}
            run["asked"] = body
        elif given != run["input"]:
            return refusal(409, "conflict", "it was started with another input")
        return httpx.Response(status, json=run)

    def _resume(self, run: dict[str, Any], body: dict[str, Any]) -> httpx.Response:
        waiting = [step for step in run["steps"] if step["status"] == "paused"]
        if body.get("step"):
            waiting = [step for step in waiting if step["name"] == body["step"]]
        if run["status"] not in {"paused", "failed"} or ("select" in body and not waiting):
            return refusal(409, "conflict", "nothing waits")
        if "select" in body and max(body["select"], default=0) >= len(waiting[0]["candidates"]):
            return refusal(
                422, "invalid_params", "select: there is no such candidate", param="select"
            )
        run["resumed"] = body
        if "select" in body:
            chosen = [waiting[0]["candidates"][index] for index in body["select"]]
            images = [{name: each[name] for name in each if name != "index"} for each in chosen]
            _complete(waiting[0], images)
        for step in run["steps"]:
            step["config"] = step["config"] | body.get("edits", {}).get(step["name"], {})
            if step["status"] in {"failed", "skipped"}:
                step |= {"status": "pending", "error": None}
        self._settle(run)
        return httpx.Response(200, json=run)

    def _advance(self, run: dict[str, Any]) -> None:
        if run["status"] != "running":
            return
        for step in run["steps"]:
            if step["status"] == "running":
                self._end(run, step)
        by_name = {step["name"]: step for step in run["steps"]}
        for step in run["steps"]:
            before = [by_name[name]["status"] for name in step["depends_on"]]
            if step["status"] == "pending" and {*before} <= {"completed"}:
                self._begin(run, step)
            elif step["status"] == "pending" and {*before} & {"failed", "skipped"}:
                step["status"] = "skipped"
        self._settle(run)

    def _begin(self, run: dict[str, Any], step: dict[str, Any]) -> None:
        received = _received(run, step)
        if step["type"] == "approval":
            candidates = [{"index": index, **each} for index, each in enumerate(received)]
            message = step["config"].get("message")
            step |= {"status": "paused", "candidates": candidates, "message": message}
            return
        name = step["name"]
        if name in self.cached:
            step["seconds_saved"] = self.cached[name]
            _complete(step, pictures(_made(step, received)), cache="hit")
            return
        step |= {"status": "running", "progress": 0.5}
        step["tasks"] = [
            {"id": f"task_{name}_{index}", "status": "running", "progress": 0.5, "error": None}
            for index in range(max(1, len(received)))
        ]

    def _end(self, run: dict[str, Any], step: dict[str, Any]) -> None:
        if step["name"] in self.ends:
            step |= self.ends.pop(step["name"])
        else:
            _complete(step, pictures(_made(step, _received(run, step))), cache="miss")

    def _settle(self, run: dict[str, Any]) -> None:
        """Derive the run's own fields from its steps."""
        statuses = [step["status"] for step in run["steps"]]
        undone = [index for index, each in enumerate(statuses) if each != "completed"]
        run["current_step"] = undone[0] if undone else len(statuses)
        run["progress"] = sum(step["progress"] for step in run["steps"]) / len(statuses)
        if not undone:
            run |= {"status": "completed", "completed_at": "2024-01-15T10:31:00Z"}
        elif {*statuses} <= {"completed", "failed", "skipped"}:
            run |= {"status": "failed", "error": "a step failed"}
        else:
            run["status"] = "paused" if "paused" in statuses else "running"


class FakeTrainings:
    """The routes below `/training`: each has `STEPS` steps and is at its end when read thrice.

    `ends` is how it ends; `report` what preflight answers; `failing` makes the losses fail.
    """

    STEPS = 8

    def __init__(self) -> None:
        self.bodies: dict[str, dict[str, Any]] = {}
        self.trainings: dict[str, dict[str, Any]] = {}
        self.adapters: dict[str, dict[str, Any]] = {}
        self.ends: dict[str, Any] = {"status": "completed", "progress": 1.0}
        self.report: dict[str, Any] = {
            "usable": 4,
            "pictures": [
                {"name": f"{index}.jpg", "caption": "sks", "width": 64, "height": 64}
                for index in range(4)
            ],
            "problems": [{"name": "tiny.png", "kind": "tiny", "message": "is 8 x 8 pixels"}],
            "buckets": {"64x64": 3, "48x80": 1},
            "warnings": ["smaller than 64 pixels: 1 picture; enlarged, without fine detail"],
            "estimate": {
                "steps": 240,
                "minutes": 1.6,
                "memory_bytes": 1_200_000_000,
                "based_on": "time measured by 1 training of imageloom-tiny on x86_64",
            },
        }
        self.preflights: list[dict[str, Any]] = []
        self.failing: list[httpx.Response] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        path = request.url.path.removeprefix("/api/v1/training").strip("/")
        body = json.loads(request.content) if request.content else {}
        match request.method, path.split("/"):
            case "POST", [""]:
                return self._create(body)
            case "POST", ["preflight"]:
                self.preflights.append(body)
                return httpx.Response(200, json=self.report)
            case "GET", [id_] if id_ in self.trainings:
                self._advance(self.trainings[id_])
                return httpx.Response(200, json=self.trainings[id_])
            case "GET", [id_, "losses"] if id_ in self.trainings:
                return self.failing.pop(0) if self.failing else self._losses(id_)
            case "POST", [id_, "cancel"] if id_ in self.trainings:
                return self._cancel(self.trainings[id_], body)
            case _:
                return refusal(404, "not_found", f"there is no training {path}")

    def retire(self, name: str) -> httpx.Response:
        if self.adapters.pop(name, None) is None:
            return refusal(404, "not_found", f"there is no adapter {name}")
        return httpx.Response(200, json={"name": name, "retired": True})

    def _create(self, body: dict[str, Any]) -> httpx.Response:
        config = body.get("config", {})
        for name in body.keys() - {
            "dataset_url",
            "webhook_url",
            "webhook_events",
            "base_model",
            "output_name",
            "priority",
            "config",
        }:
            return refusal(422, "invalid_params", f"unknown field {name}", param=name)
        if body["output_name"] in self.adapters and not config.get("version"):
            return refusal(409, "conflict", "the name is taken", param="output_name")
        id_ = f"train_{len(self.trainings) + 1}"
        self.bodies[id_] = body
        metrics = {"current_epoch": 0, "epochs": 2, "step": 0, "steps": None, "loss": None}
        self.trainings[id_] = {
            "id": id_,
            "type": "training",
            "status": "pending",
            "progress": 0.0,
            "created_at": "2024-01-15T10:30:00Z",
            "params": body,
            "output": {"metrics": metrics, "samples": [], "adapter": None},
        }
        return httpx.Response(201, json=self.trainings[id_])

    def _advance(self, training: dict[str, Any]) -> None:
        output = training["output"]
        if training["status"] == "pending":
            training |= {"status": "running", "started_at": "2024-01-15T10:30:05Z"}
        elif training["status"] == "running" and output["metrics"]["step"] == 0:
            training["progress"] = 1 / self.STEPS
            output["metrics"] |= self._metrics(step=1)
        elif training["status"] == "running":
            output["metrics"] |= self._metrics(step=self.STEPS)
            training |= {"completed_at": "2024-01-15T10:31:00Z"} | self.ends
            sample = pictures(1)[0] | {"step": self.STEPS, "prompt": "a photo of sks"}
            output["samples"] = [sample]
            if training["status"] == "completed":
                output["adapter"] = self._publish(training)

    def _metrics(self, *, step: int) -> dict[str, Any]:
        return {
            "current_epoch": 1 if step < self.STEPS else 2,
            "step": step,
            "steps": self.STEPS,
            "loss": loss_at(step),
            "learning_rate": 0.002,
            "images_per_second": 3.25,
            "eta_seconds": float(self.STEPS - step) * 12,
            "held_out_loss": 0.25 if step == self.STEPS else None,
        }

    def _losses(self, id_: str) -> httpx.Response:
        last = self.trainings[id_]["output"]["metrics"]["step"]
        items = [
            {"step": step, "loss": loss_at(step), "learning_rate": 0.002}
            for step in range(1, last + 1)
        ]
        return httpx.Response(200, json={"items": items})

    def _publish(self, training: dict[str, Any]) -> dict[str, Any]:
        name = training["params"]["output_name"]
        adapter = {
            "name": name,
            "version": self.adapters.get(name, {"version": 0})["version"] + 1,
            "base_model": training["params"].get("base_model", "imageloom-tiny"),
            "url": f"{CDN}/adapter?signature=abc",
            "sha256": hashlib.sha256(ADAPTER).hexdigest(),
        }
        self.adapters[name] = adapter
        return adapter

    def _cancel(self, training: dict[str, Any], body: dict[str, Any]) -> httpx.Response:
        if training["status"] in {"completed", "failed"}:
            return refusal(409, "conflict", f"the training is {training['status']}")
        training["status"] = "cancelled"
        if body.get("keep") and training["output"]["metrics"]["step"]:
            training["output"]["adapter"] = self._publish(training)
        return httpx.Response(200, json=training)


def _new_step(written: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": written["name"],
        "type": written["type"],
        "depends_on": written.get("depends_on", []),
        "config": written.get("config", {}),
        "status": "pending",
        "progress": 0.0,
        "output": None,
        "error": None,
        "cache": None,
        "seconds_saved": None,
        "tasks": [],
    }


def _received(run: dict[str, Any], step: dict[str, Any]) -> list[dict[str, Any]]:
    by_name = {each["name"]: each for each in run["steps"]}
    given = run["input"] or {}
    if not step["depends_on"]:
        urls = given.get("image_urls", [given["image_url"]] if "image_url" in given else [])
        return [{"url": url} for url in urls]
    return [each for name in step["depends_on"] for each in by_name[name]["output"]["images"]]


def _made(step: dict[str, Any], received: list[dict[str, Any]]) -> int:
    return max(1, len(received)) * int(step["config"].get("num_outputs", 1))


def _complete(
    step: dict[str, Any], images: list[dict[str, Any]], *, cache: str | None = None
) -> None:
    step |= {"status": "completed", "progress": 1.0, "output": {"images": images}, "cache": cache}
    for name in ("candidates", "message"):
        step.pop(name, None)


def _without_tasks(run: dict[str, Any]) -> dict[str, Any]:
    steps = [{name: step[name] for name in step if name != "tasks"} for step in run["steps"]]
    return run | {"steps": steps}


def loss_at(step: int) -> float:
    return round(1 / step, 4)


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
