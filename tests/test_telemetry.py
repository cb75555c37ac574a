"""Traces of a real run, read as protobuf by a collector on loopback; its logs and its counts.

One installation whose logs are text, with a collector that also receives its webhooks.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError
from structlog.testing import capture_logs

from api_helpers import created, picture
from conftest import Live, called_with, serve, wait_for
from imageloom import tracing
from imageloom.core.keys import create_key
from imageloom.core.services import open_services
from imageloom.domain.messages import Spent
from imageloom.settings import Settings
from imageloom.tracing import open_tracing
from imageloom.worker import traces

FORGED = "2026-01-01 00:00:00 [info     ] settled status=completed"
PROMPT = f"a velvet dress\n{FORGED}\r\x1b[31mred\x1b[0m"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@dataclass(kw_only=True)
class Span:
    id: str
    parent: str
    trace: str
    name: str
    service: str
    attributes: dict[str, Any]
    seconds: float


@dataclass
class Collector:
    """Takes OTLP over HTTP, as real collectors do, and whatever else is posted."""

    bodies: list[bytes] = field(default_factory=list)
    posted: list[str] = field(default_factory=list)
    port: int = 0

    def spans(self, trace: str) -> dict[str, Span]:
        """Return the spans of a trace by id."""
        found = {}
        for body in self.bodies.copy():
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                service = named(resource.resource.attributes)["service.name"]
                for scope in resource.scope_spans:
                    for each in scope.spans:
                        if each.trace_id.hex() == trace:
                            found[each.span_id.hex()] = Span(
                                id=each.span_id.hex(),
                                parent=each.parent_span_id.hex(),
                                trace=trace,
                                name=each.name,
                                service=service,
                                attributes=named(each.attributes),
                                seconds=(each.end_time_unix_nano - each.start_time_unix_nano) / 1e9,
                            )
        return found


def named(attributes: Any) -> dict[str, Any]:
    return {
        each.key: getattr(each.value, each.value.WhichOneof("value") or "") for each in attributes
    }


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    collected = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(picture())))
            self.end_headers()
            self.wfile.write(picture())

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/v1/traces":
                collected.bodies.append(body)
            else:
                collected.posted.append(self.path)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        collected.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield collected
        server.shutdown()


@pytest.fixture(scope="module")
def traced(collector: Collector) -> Iterator[Live]:
    """An installation that sends its traces to the collector and logs text."""
    address = f"127.0.0.1:{collector.port}"
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{address}",
        "IMAGELOOM_FETCH_ALLOW": address,
        "IMAGELOOM_LOG_FORMAT": "text",
    }
    with (
        tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True) as folder,
        serve(Path(folder) / "data", **environment) as server,
    ):
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def spans(traced: Live, collector: Collector) -> list[Span]:
    """The spans of one generation from an uploaded picture, whose end a webhook tells."""
    with traced.client() as client:
        file = client.post("/files", files={"file": ("secret\nname.jpg", picture(), "image/jpeg")})
        task = client.post(
            "/tasks/generation",
            json={
                "prompt": PROMPT,
                "input_image_url": file.json()["url"],
                "num_outputs": 2,
                "steps": 4,
                "webhook_url": f"http://127.0.0.1:{collector.port}/hook?token=hidden-token",
                "webhook_events": ["completed"],
            },
            headers={"traceparent": f"00-{TRACE}-{PARENT}-01"},
        )
        assert task.status_code == 201, task.text
    traced.wait_task(task.json()["id"], "completed")

    def all_there() -> dict[str, Span] | None:
        found = collector.spans(TRACE)
        names = {span.name for span in found.values()}
        return found if {"webhook", "attempt", "device", "denoise"} <= names else None

    return list(wait_for(all_there, what="the spans of a task", every=0.2).values())


def test_one_trace_leads_from_the_request_to_the_denoising_steps(spans: list[Span]) -> None:
    by_id = {span.id: span for span in spans}
    paths: defaultdict[str, int] = defaultdict(int)
    for span in spans:
        path = [span.name]
        while span.parent in by_id:
            span = by_id[span.parent]
            path.append(span.name)
        assert span.parent == PARENT  # what the caller was in the middle of
        paths[" > ".join(reversed(path))] += 1
    request = "POST /api/v1/tasks/generation"
    device = f"{request} > submit > attempt > device"
    steps = paths.pop(f"{device} > denoise > denoising step")
    # From a picture at the usual strength not all four steps are taken; both rows share each, but
    # where the second began later.
    assert 2 <= steps <= 8
    loads = paths.pop(f"{device} > load", 0)
    assert loads <= 1
    assert paths.pop(f"{device} > denoise") >= 1
    assert paths.pop(f"{device} > decode") in (1, 2)
    assert paths.pop(f"{device} > open") in (1, 2)
    assert paths == {
        request: 1,
        f"{request} > submit": 1,
        f"{request} > submit > queue wait": 1,
        f"{request} > submit > webhook": 1,
        f"{request} > submit > attempt": 1,
        f"{request} > submit > attempt > claim": 1,
        f"{request} > submit > attempt > fetch inputs": 1,
        f"{request} > submit > attempt > read inputs": 1,
        device: 1,
        f"{device} > begin": 2,
        f"{request} > submit > attempt > encode": 2,
        f"{request} > submit > attempt > upload": 2,
        f"{request} > submit > attempt > settle": 1,
    }


def test_spans_say_what_was_done_where(spans: list[Span]) -> None:
    request, attempt, webhook = (
        next(span for span in spans if span.name.startswith(name))
        for name in ("POST", "attempt", "webhook")
    )
    assert request.service == webhook.service == "imageloom-api"
    assert attempt.service == "imageloom-worker"
    assert request.attributes["http.route"] == "/api/v1/tasks/generation"
    assert request.attributes["http.response.status_code"] == 201
    assert attempt.attributes["imageloom.attempt"] == 1
    assert attempt.attributes["imageloom.task_type"] == "generation"
    assert webhook.attributes["http.response.status_code"] == 200
    steps = [span for span in spans if span.name == "denoising step"]
    assert {span.attributes["imageloom.rows"] for span in steps} <= {1, 2}
    assert all(span.seconds > 0 for span in steps)


def test_no_span_says_what_the_user_wrote(spans: list[Span], collector: Collector) -> None:
    assert spans
    everything = b"".join(collector.bodies)
    for text in (b"velvet", b"hidden-token", b"secret", b"test-key", b"\x1b[31m"):
        assert text not in everything
    assert any("hidden-token" in path for path in collector.posted)


def test_log_lines_name_the_trace_and_nothing_that_the_user_wrote(
    spans: list[Span], traced: Live
) -> None:
    assert spans
    text = (traced.data_dir.parent / f"{traced.data_dir.name}.log").read_bytes().decode()
    assert "\x1b" not in text
    assert "velvet" not in text
    assert FORGED not in text
    lines = [line for line in text.splitlines() if TRACE in line]
    said = [re.sub(r"^\S+ \[\w+ +\] +(\w+) .*", r"\1", line) for line in lines]
    assert sorted(said) == ["claimed", "request", "settled", "submitted", "webhook"]
    statuses = [re.search(r"status=(\S+)", line) for line in lines]
    assert {found[1] for found in statuses if found} == {
        "pending", "running", "completed", "201", "200"
    }  # fmt: skip


# Without a collector, and with one that does not answer


async def test_without_a_collector_no_trace_is_made(settings: Settings, database_url: str) -> None:
    async with open_services(settings, database_url, pool_timeout=5) as services:
        assert not services.tracing.on
        made = await create_key(services.pool, tenant="default")
        async with called_with(services, made.key) as client:
            client.headers["traceparent"] = f"00-{TRACE}-{PARENT}-01"
            with capture_logs(processors=[]) as logs:
                task = await created(client)
        async with services.pool.connection() as conn:
            rows = await conn.execute("select traceparent from task where id = %s", (task["id"],))
            assert await rows.fetchone() == {"traceparent": None}
    assert all("trace_id" not in line for line in logs)


async def test_collector_that_is_away_costs_one_line_and_a_bounded_buffer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}/v1/traces"
        monkeypatch.setattr(tracing, "EXPORT_TIMEOUT", 0.2)
        monkeypatch.setattr(tracing, "DELAY", 20.0)
        with capture_logs() as logs:
            async with open_tracing(endpoint, process="test") as made:
                for _ in range(3 * tracing.MOST_WAITING):
                    with made.span("something"):
                        pass
    assert [(line["event"], line["log_level"]) for line in logs] == [("traces_not_sent", "warning")]


@pytest.mark.parametrize(
    "name", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
)
def test_endpoint_that_is_no_url_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "collector:4317")
    with pytest.raises(ValidationError, match="must begin with http"):
        Settings()


def test_endpoints_are_read_as_opentelemetry_says() -> None:
    assert Settings(otlp_endpoint="http://a:1/").traces_endpoint == "http://a:1/v1/traces"
    both = Settings(otlp_endpoint="http://a:1", otlp_traces_endpoint="http://b:2/x")
    assert both.traces_endpoint == "http://b:2/x"
    assert Settings(otlp_endpoint="").traces_endpoint is None


def test_steps_beyond_the_first_hundreds_are_events_of_a_span(collector: Collector) -> None:
    async def record() -> str:
        endpoint = f"http://127.0.0.1:{collector.port}/v1/traces"
        async with open_tracing(endpoint, process="test") as made:
            with made.span("attempt") as attempt:
                heard = traces._OfDevice(made, attempt)
                for number in range(traces.STEP_SPANS + 150):
                    heard.note(unit(at=float(number)))
                heard.close()
            return f"{attempt.get_span_context().trace_id:032x}"

    found = collector.spans(asyncio.run(record())).values()
    assert sum(span.name == "unit of work" for span in found) == traces.STEP_SPANS
    runs = [span.attributes["imageloom.steps"] for span in found if span.name == "work"]
    assert runs == [100, 100, 100, 50]


def unit(*, at: float) -> Spent:
    return Spent(
        phase="work",
        task_type="training",
        keys=("task_1/1",),
        began=at,
        seconds=0.5,
        device_seconds=0.5,
    )


# Logs as text

SCRIPT = """
import logging, sys
import structlog
from imageloom.logs import configure_logs

def fails(text):
    raise ValueError(text)

configure_logs("text")
prompt = sys.argv[1]
log = structlog.get_logger("test")
title, turned = "a\\x1b]0;t\\x07b", "a\\u202eb\\u2028c\\x85d"
log.info("said", prompt=prompt, listed=[prompt], title=title, turned=turned)
try:
    fails(prompt)
except ValueError:
    log.exception("raised", path=prompt)
logging.getLogger("library").warning("about %s", prompt)
"""


def test_no_text_of_a_user_can_pass_for_an_event() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT, PROMPT], capture_output=True, check=True)
    said, raised, *traceback, library, rest = lines_of(done.stderr.decode())
    assert "said" in said
    assert r"a\x1b]0;t\x07b" in said
    assert r"a\u202eb\u2028c\x85d" in said
    assert "raised" in raised
    assert traceback
    assert all(line.startswith("    | ") for line in [*traceback, rest])
    assert library == "WARNING library about a velvet dress"


def test_hostile_requests_leave_a_line_each(traced: Live) -> None:
    log = traced.data_dir.parent / f"{traced.data_dir.name}.log"
    before = log.stat().st_size
    with traced.client() as client:
        assert client.get("/tasks/a%0A%1B%5B31mb").status_code == 404
        assert client.get("/models", headers={"X-Request-Id": "a b"}).status_code == 200
        wrong = {"prompt": PROMPT, "model": PROMPT}
        assert client.post("/tasks/generation", json=wrong).status_code == 422
        missing = {"prompt": PROMPT, "input_image_url": "http://127.0.0.1:9/%0Asettled%1B"}
        task = client.post("/tasks/generation", json=missing)
        if task.status_code == 201:
            traced.wait_task(task.json()["id"], "failed")
        else:
            assert task.status_code == 422

    def written() -> list[str] | None:
        # The line of a request is written when it has been answered.
        found = lines_of(log.read_bytes()[before:].decode())
        return found if len(found) >= 4 else None

    lines = wait_for(written, what="a line of each request")
    for line in lines:
        assert re.match(r"\S+ \[\w+ +\] \w+ +\w+=", line), line
        assert "velvet" not in line


# Counts, whatever becomes of the worker


def counts(live: Live, name: str, **labels: str) -> dict[str, float]:
    """Return the numbers of a metric by the worker that tells them."""
    answer = httpx.get(
        f"{live.url}/metrics",
        params={"part": "installation"},
        headers={"Authorization": f"Bearer {live.key}"},
        timeout=30,
    )
    assert answer.status_code == 200, answer.text
    return {
        sample.labels["worker"]: sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    }


def test_counts_of_a_worker_that_stops_in_order_are_complete(
    traced: Live, collector: Collector
) -> None:
    ended = {"name": "imageloom_tasks_ended_total", "type": "generation", "status": "completed"}
    (worker,) = counts(traced, **ended)
    done = 0
    with traced.client() as client:
        for each in client.get("/tasks", params={"page_size": 50}).json()["items"]:
            done += each["status"] == "completed"
        body = {
            "prompt": "a red dress",
            "input_image_url": f"http://127.0.0.1:{collector.port}/dress.jpg",
            "steps": 2,
        }
        task = client.post("/tasks/generation", json=body).json()
    traced.wait_task(task["id"], "completed")
    (pid,) = traced.pids("imageloom worker")
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not psutil.pid_exists(pid), what="the end of the worker")
    # Read more than a second after the last time: the database is asked once in it.
    wait_for(
        lambda: counts(traced, **ended).get(worker) == done + 1, what="its last counts", every=0.2
    )
    fetched = counts(traced, "imageloom_fetched_bytes_total")
    assert fetched[worker] == len(picture())
    assert counts(traced, "imageloom_fetches_total", outcome="fetched")[worker] == 1


def test_device_that_dies_is_counted(traced: Live) -> None:
    traced.wait_ready()
    traced.kill("imageloom device")

    def counted() -> bool:
        return 1 in counts(traced, "imageloom_device_restarts_total").values()

    wait_for(counted, what="a restart", every=0.2)


def lines_of(text: str) -> list[str]:
    assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202e]", text), ascii(text)
    return text.rstrip("\n").split("\n")
