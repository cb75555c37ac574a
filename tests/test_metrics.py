"""Metrics: what `/metrics` says, to whom, and what Prometheus, its rules and Grafana make of it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from api_helpers import begun, completed, created, failed, refusal
from conftest import PUBLIC_URL, Live, called_with, wait_for
from imageloom.core.keys import SCOPES, create_key
from imageloom.core.maintain import sweep
from imageloom.core.metrics import KEEP_COUNTS, Scraper, keep_counts
from imageloom.core.services import Services
from imageloom.domain import metrics
from imageloom.domain.metrics import METRICS
from imageloom.store import metrics as stored
from imageloom.store import tasks
from imageloom.store.pool import Connection, transaction
from test_api_misc import WORKER, beat

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
URL = f"{PUBLIC_URL}/metrics"
Found = dict[tuple[str, frozenset[tuple[str, str]]], float]


def promtool(*arguments: str | Path, given: bytes = b"") -> str:
    """Run the real promtool and return what it says; it must be content."""
    beside = Path(sys.executable).parent / "promtool"
    found = str(beside) if beside.exists() else shutil.which("promtool")
    assert found, "promtool is missing: run `make test`, or install Prometheus"
    done = subprocess.run([found, *arguments], input=given, capture_output=True, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def parsed(text: str) -> Found:
    """Return every number by its name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Found, name: str, **labels: str) -> float | None:
    return found.get((name, frozenset(labels.items())))


@pytest.fixture
async def monitor(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """The app of `services`, called with a key that sees the installation."""
    made = await create_key(services.pool, tenant="default", scopes=SCOPES)
    async with called_with(services, made.key) as client:
        yield client


# Who may scrape, and what it is


async def test_metrics_need_the_scope_monitor(services: Services, key: str) -> None:
    async with called_with(services, key) as client:
        assert refusal(await client.get(URL)) == (403, "forbidden", None)
        del client.headers["authorization"]
        assert refusal(await client.get(URL)) == (401, "unauthorized", None)
    only = await create_key(services.pool, tenant="default", scopes=("monitor",))
    async with called_with(services, only.key) as client:
        answer = await client.get(URL)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        assert refusal(await client.get(URL, params={"part": "all"}))[:2] == (422, "invalid_params")


async def test_metrics_please_promtool_and_are_those_declared(
    monitor: httpx.AsyncClient, services: Services
) -> None:
    await completed(services, await created(monitor))
    await beat(services, WORKER)
    text = (await monitor.get(URL)).text
    assert promtool("check", "metrics", given=text.encode()) == ""
    told = re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE)
    assert told == [(metric.name, metric.kind) for metric in METRICS]


# What the database knows


async def test_gauges_are_what_is_in_the_database(
    monitor: httpx.AsyncClient, services: Services
) -> None:
    made = [await created(monitor) for _ in range(3)]
    await begun(services, made[0])
    async with transaction(services.pool) as conn:
        await conn.execute(
            "update task set created_at = now() - interval '90 s' where id = %s", (made[1]["id"],)
        )
    await beat(services, replace(WORKER, memory_used_bytes=5_000_000_000))
    found = parsed((await monitor.get(URL)).text)
    assert value(found, "imageloom_queue_pending_tasks", queue="generation") == 2
    assert value(found, "imageloom_queue_running_tasks", queue="generation") == 1
    assert value(found, "imageloom_queue_workers", queue="generation") == 1
    assert value(found, "imageloom_queue_workers", queue="training") == 0
    oldest = value(found, "imageloom_queue_oldest_pending_seconds", queue="generation")
    assert oldest is not None
    assert 90 <= oldest < 1000
    assert value(found, "imageloom_queue_oldest_pending_seconds", queue="training") == 0
    assert value(found, "imageloom_workers", status="busy") == 1
    assert value(found, "imageloom_workers", status="silent") == 0
    of_worker = {"worker": WORKER.id}
    assert value(found, "imageloom_worker_device_memory_bytes", **of_worker) == 80_000_000_000
    assert value(found, "imageloom_worker_device_memory_used_bytes", **of_worker) == 5_000_000_000
    assert value(found, "imageloom_worker_device_utilization_ratio", **of_worker) == 0.85
    assert value(found, "imageloom_worker_running_tasks", **of_worker) == 1
    assert value(found, "imageloom_workflow_runs", status="running") == 0
    assert value(found, "imageloom_database_pool_waiting_requests") == 0


async def test_silent_worker_shows_as_such_and_nothing_else(
    monitor: httpx.AsyncClient, services: Services
) -> None:
    await beat(services, WORKER, ago="1 minute")
    found = parsed((await monitor.get(URL)).text)
    assert value(found, "imageloom_workers", status="silent") == 1
    assert value(found, "imageloom_workers", status="busy") == 0
    assert value(found, "imageloom_worker_running_tasks", worker=WORKER.id) is None


async def test_webhook_backlog_leaves_out_what_an_endpoint_holds_up(
    monitor: httpx.AsyncClient, services: Services
) -> None:
    for host in ("on", "off"):
        url = {"webhook_url": f"https://{host}.example.com/", "webhook_events": ["cancelled"]}
        task = await created(monitor, **url)
        await monitor.post(f"/tasks/{task['id']}/cancel")
    async with transaction(services.pool) as conn:
        await conn.execute("update webhook_event set due_at = now() - interval '5 minutes'")
        await conn.execute(
            "insert into webhook_endpoint (endpoint, tenant, url) select endpoint, tenant, url"
            " from webhook_event where host = 'off.example.com'"
        )
    found = parsed((await monitor.get(URL)).text)
    assert value(found, "imageloom_webhook_pending_events") == 1
    assert value(found, "imageloom_webhook_held_events") == 1
    assert value(found, "imageloom_webhook_disabled_endpoints") == 1
    late = value(found, "imageloom_webhook_oldest_due_seconds")
    assert late is not None
    assert 300 <= late < 1000


async def test_database_is_asked_once_a_second_however_many_scrape(services: Services) -> None:
    now = 100.0
    scraper = Scraper(services, clock=lambda: now)
    first = await scraper.scrape(["installation"])
    await beat(services, WORKER)
    assert await scraper.scrape(["installation"]) == first
    now += 1
    assert b'imageloom_workers{status="busy"} 1.0' in await scraper.scrape(["installation"])


class Planned(Exception):
    """What a query would do."""


class Planner:
    """A connection that asks for the plan of a query instead of running it."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def execute(self, query: str, values: object = None) -> None:
        await self._conn.execute("set local enable_seqscan = off")  # the tables are empty
        rows = await self._conn.execute(f"explain {query}", values)  # type: ignore[arg-type]
        raise Planned("\n".join(row["QUERY PLAN"] for row in await rows.fetchall()))


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (tasks.count_live, "task_live"),
        (stored.live_runs, "run_live"),
        (stored.waiting_approvals, "step_deadline"),
        (stored.webhook_backlog, "webhook_due"),
    ],
)
async def test_queries_of_a_scrape_use_indexes(
    services: Services, query: Callable[[Any], Awaitable[object]], index: str
) -> None:
    async with transaction(services.pool) as conn:
        with pytest.raises(Planned, match=rf"Index.* (using|on) {index}"):
            await query(Planner(conn))


# What processes count


async def test_ends_of_tasks_are_counted_by_type_and_status(
    monitor: httpx.AsyncClient, services: Services
) -> None:
    await completed(services, await created(monitor))
    await failed(services, await created(monitor))
    task = await created(monitor)
    await monitor.post(f"/tasks/{task['id']}/cancel")
    found = parsed((await monitor.get(URL)).text)
    ended = "imageloom_tasks_ended_total"
    for status in ("completed", "failed", "cancelled"):
        assert value(found, ended, type="generation", status=status) == 1
    attempts = "imageloom_attempts_ended_total"
    assert value(found, attempts, type="generation", outcome="completed", code="") == 1
    code = {"outcome": "failed", "code": "invalid_input"}
    assert value(found, attempts, type="generation", **code) == 1
    assert value(found, attempts, type="generation", outcome="cancelled", code="") is None
    assert value(found, "imageloom_pictures_total", type="generation") == 1
    assert value(found, "imageloom_task_wait_seconds_count", type="generation") == 2
    run = "imageloom_task_run_seconds_count"
    assert value(found, run, type="generation", status="completed") == 1
    assert value(found, "imageloom_submit_seconds_count", type="generation") == 3


async def test_requests_are_counted_by_route_and_never_by_path(monitor: httpx.AsyncClient) -> None:
    for path in ("/tasks/task_secret1", "/tasks/task_secret2/", "/nothing/secret3"):
        await monitor.get(path)
    await monitor.request("BREW", "/tasks")
    text = (await monitor.get(URL)).text
    assert "secret" not in text
    assert "BREW" not in text
    found = parsed(text)
    route = {"method": "GET", "route": "/api/v1/tasks/{task_id}"}
    assert value(found, "imageloom_http_requests_total", **route, status="404") == 2
    assert value(found, "imageloom_http_request_seconds_count", **route) == 2
    other = {"method": "GET", "route": "other", "status": "404"}
    assert value(found, "imageloom_http_requests_total", **other) == 1


async def test_parts_together_are_all_and_share_nothing_but_ends_of_tasks(
    monitor: httpx.AsyncClient, services: Services
) -> None:
    await beat(services, WORKER)
    parts = [
        {
            name
            for name, _ in parsed((await monitor.get(URL, params={"part": part})).text)
            if not name.startswith("imageloom_http")
        }
        for part in ("installation", "process")
    ]
    assert not parts[0] & parts[1]
    assert "imageloom_workers" in parts[0]
    assert "imageloom_build_info" in parts[1]


async def test_counts_of_a_worker_outlive_it_until_they_were_scraped(
    monitor: httpx.AsyncClient, services: Services
) -> None:
    services.meters.count(metrics.FETCHED, 7)
    await keep_counts(services, "worker-gone")
    name, labels = "imageloom_fetched_bytes_total", {"worker": "worker-gone"}
    of_workers = {"part": "installation"}
    assert value(parsed((await monitor.get(URL, params=of_workers)).text), name, **labels) == 7
    async with transaction(services.pool) as conn:
        late = KEEP_COUNTS + timedelta(seconds=1)
        await conn.execute("update worker_metrics set at = now() - %s", (late,))
    text = await Scraper(services).scrape(["installation"])
    assert value(parsed(text.decode()), name, **labels) is None
    await sweep(services)
    async with transaction(services.pool) as conn:
        rows = await conn.execute("select count(*) as n from worker_metrics")
        assert await rows.fetchone() == {"n": 0}


async def test_counts_that_this_version_does_not_know_are_left_out(services: Services) -> None:
    async with transaction(services.pool) as conn:
        await conn.execute(
            "insert into worker_metrics (worker, samples) values"
            """ ('new', '[["imageloom_new_total", "imageloom_new_total", {}, 1]]')"""
        )
    text = await Scraper(services).scrape()
    assert b"imageloom_new_total" not in text


# A real worker


def scraped(live: Live) -> Found:
    answer = httpx.get(
        f"{live.url}/metrics", headers={"Authorization": f"Bearer {live.key}"}, timeout=30
    )
    assert answer.status_code == 200, answer.text
    promtool("check", "metrics", given=answer.content)
    return parsed(answer.text)


def total(found: Found, name: str, **labels: str) -> float:
    """Sum over what has these labels, as a query of Prometheus does."""
    wanted = set(labels.items())
    return sum(number for (its, has), number in found.items() if its == name and wanted <= has)


def test_worker_counts_what_its_device_did(live: Live) -> None:
    before = scraped(live)
    with live.client() as client:
        body = {"prompt": "a red dress", "num_outputs": 2, "steps": 5}
        task = client.post("/tasks/generation", json=body, headers={"Prefer": "wait=60"}).json()
    live.wait_task(task["id"], "completed")

    def counted() -> Found | None:
        now = scraped(live)
        name = "imageloom_pictures_total"
        return now if total(now, name) >= total(before, name) + 2 else None

    now = wait_for(counted, what="the worker's counts", every=0.2)
    steps = "imageloom_denoising_step_rows"
    more = {
        name: total(now, name) - total(before, name) for name in (f"{steps}_count", f"{steps}_sum")
    }
    assert more[f"{steps}_count"] >= 5
    assert more[f"{steps}_sum"] == 10  # two rows of five steps, in whatever company
    device = "imageloom_device_seconds_total"
    assert total(now, device, type="generation") > total(before, device, type="generation")
    assert {dict(has).keys() >= {"worker"} for (name, has) in now if name.startswith(device)} == {
        True
    }


# What lies in deploy/


def expressions(node: Any) -> list[str]:
    """Return every query in a dashboard or a file of rules."""
    if isinstance(node, dict):
        own = [text for name, text in node.items() if name in ("expr", "query", "definition")]
        return [text for text in own if isinstance(text, str)] + [
            text for each in node.values() for text in expressions(each)
        ]
    if isinstance(node, list):
        return [text for each in node for text in expressions(each)]
    return []


def named(text: str) -> set[str]:
    """Return the metrics that a query names, without what a histogram adds to its name."""
    names = set(re.findall(r"\bimageloom_\w+", text))
    declared = {metric.name for metric in METRICS}
    return {
        name if name in declared else re.sub(r"_(bucket|count|sum)$", "", name) for name in names
    }


DASHBOARD = DEPLOY / "grafana-dashboard.json"
ALERTS = DEPLOY / "alerts.yml"


async def test_dashboard_and_alerts_name_only_metrics_that_are_there(
    monitor: httpx.AsyncClient,
) -> None:
    shown = set(re.findall(r"^# TYPE (\S+)", (await monitor.get(URL)).text, re.MULTILINE))
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    alerts = yaml.safe_load(ALERTS.read_text("utf-8"))
    queries = {"dashboard": expressions(dashboard), "alerts": expressions(alerts)}
    for where, texts in queries.items():
        found = {name for text in texts for name in named(text)}
        assert len(found) > 5, where
        assert found <= shown, where


def test_dashboard_queries_are_valid_and_ask_a_datasource_of_choice(tmp_path: Path) -> None:
    dashboard = json.loads(DASHBOARD.read_text("utf-8"))
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    rules = []
    for panel in panels:
        assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        assert panel["description"]
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "5m")
            rules.append({"record": f"panel:{len(rules)}", "expr": expr})
    assert len({panel["id"] for panel in panels}) == len(panels)
    file = tmp_path / "rules.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", file)


def test_rules_and_config_please_promtool(tmp_path: Path) -> None:
    assert "SUCCESS" in promtool("check", "rules", ALERTS)
    for name in ("prometheus.yml", "alerts.yml"):
        shutil.copy(DEPLOY / name, tmp_path)
    key = tmp_path / "imageloom-key"
    key.write_text("il_key")
    config = tmp_path / "prometheus.yml"
    text = config.read_text()
    named_file = "/etc/prometheus/imageloom-key"
    assert named_file in text
    config.write_text(text.replace(named_file, str(key)))
    assert "SUCCESS" in promtool("check", "config", config)


def test_each_alert_says_what_to_do() -> None:
    groups = yaml.safe_load(ALERTS.read_text("utf-8"))["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 7
    for rule in rules:
        assert rule["labels"]["severity"] in ("critical", "warning")
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook"}
        page, _, anchor = notes["runbook"].partition("#")
        headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text("utf-8"), re.MULTILINE)
        assert anchor in [heading.lower().replace(" ", "-") for heading in headings]


def test_alerts_fire_when_they_should_and_only_then() -> None:
    assert "SUCCESS" in promtool("test", "rules", Path(__file__).parent / "alerts_test.yml")


# The page


def test_page_lists_every_metric_as_it_is_declared() -> None:
    page = (ROOT / "docs" / "metrics.md").read_text("utf-8")
    listed = re.findall(r"^\| `(imageloom_\w+)` \| (\w+) \| (.*?) \| (.*?) \|$", page, re.MULTILINE)
    assert listed == [
        (
            metric.name,
            metric.kind,
            ", ".join(f"`{label}`" for label in labels_of(metric)) or "–",
            metric.help,
        )
        for metric in METRICS
    ]


def labels_of(metric: metrics.Metric) -> tuple[str, ...]:
    also = ("worker",) if metric.source in ("worker", "each") else ()
    return (*metric.labels, *also)
