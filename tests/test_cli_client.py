"""The client's commands against a small server; the connection comes in as the context's object."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image as PillowImage
from rich.console import Console
from typer.testing import CliRunner

from fake_api import BASE, JPEG, KEY, FakeServer, refusal
from imageloom import __version__
from imageloom.cli import _display, _server
from imageloom.cli.main import app
from imageloom.client import Client, Task

Run = Callable[..., Any]


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def run(server: FakeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command line against the fake server, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def invoke(*args: str, **options: Any) -> Any:
        def connect(*, base_url: str | None, api_key: str | None) -> Client:
            return Client.from_env(
                base_url=base_url,
                api_key=api_key,
                environment={"IMAGELOOM_URL": BASE, "IMAGELOOM_API_KEY": KEY},
                transport=httpx.MockTransport(server),
                jitter=lambda: 1.0,
                **{"sleep": server.clock.sleep, "clock": server.clock} | options,
            )

        return CliRunner().invoke(app, list(args), obj=connect, catch_exceptions=False)

    return invoke


# --- generate


def test_generate_writes_the_images_and_prints_them(run: Run, tmp_path: Path) -> None:
    done = run("generate", "a red dress", "-n", "2", "--out", "made/")
    assert done.stdout == "made/output_0.jpg  seed 7\nmade/output_1.jpg  seed 8\n"
    assert done.stderr == "task_1 pending\ntask_1 running\ntask_1 completed\n"
    assert done.exit_code == 0
    assert (tmp_path / "made" / "output_1.jpg").read_bytes() == JPEG


def test_generate_passes_every_option_on(run: Run, server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(JPEG)
    options = (
        "--image photo.jpg -n 4 --negative-prompt blurry --strength 0.5 --steps 30 --guidance 7.5 "
        "--scheduler euler --exact --priority -3 --width 512 --height 768 --seed 0 "
        "--model sd-xl-base --lora dress:0.8 --lora a:b:-1 --lora studio --format png"
    )
    assert run("generate", "a dress", *options.split()).exit_code == 0
    (body,) = server.bodies.values()
    assert body.pop("input_image_url").startswith(BASE)
    assert body == {
        "prompt": "a dress",
        "negative_prompt": "blurry",
        "strength": 0.5,
        "num_outputs": 4,
        "steps": 30,
        "guidance_scale": 7.5,
        "scheduler": "euler",
        "determinism": "exact",
        "priority": -3,
        "width": 512,
        "height": 768,
        "seed": 0,
        "model": "sd-xl-base",
        "loras": [
            {"name": "dress", "weight": 0.8},
            {"name": "a:b", "weight": -1.0},
            {"name": "studio", "weight": 1.0},
        ],
        "output_format": "png",
    }


def test_dry_run_says_whether_it_can_run_and_when(run: Run, server: FakeServer) -> None:
    done = run("generate", "a dress", "--dry-run")
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert (lines["runnable"], lines["ahead"]) == ("yes", "3")
    assert lines["starts"] == "in about 0.0 s, 9 of 10 within 0.0 s"  # long ago
    done = run("generate", "a dress", "--dry-run", "--model", "sd-xl-base")
    assert done.stdout == (
        "runnable  no\n"
        "because   no live worker has the weights\n"
        "change    imageloom models pull sd-xl-base\n"
        "ahead     3\n"
    )
    assert json.loads(run("generate", "a dress", "--dry-run", "--json").stdout)["dry_run"] is True
    assert server.tasks == {}
    assert run("generate", "a dress", "--dry-run", "--image", "photo.jpg").exit_code == 2


def test_generate_json_is_one_object(run: Run) -> None:
    done = run("generate", "a dress", "--json")
    answer = json.loads(done.stdout)
    assert (answer["id"], answer["status"], done.stderr) == ("task_1", "completed", "")
    assert answer["files"] == [
        {
            "path": "outputs/output_0.jpg",
            "url": "https://cdn.test/img0?signature=abc",
            "seed": 7,
            "width": 64,
            "height": 64,
        }
    ]


def test_no_wait_prints_the_id_alone(run: Run, server: FakeServer) -> None:
    assert run("generate", "a dress", "--no-wait").stdout == "task_1\n"
    assert json.loads(run("generate", "a dress", "--no-wait", "--json").stdout)["id"] == "task_2"
    assert [task["status"] for task in server.tasks.values()] == ["pending", "pending"]


def test_interrupt_cancels_the_task_and_exits_130(run: Run, server: FakeServer) -> None:
    def interrupt(seconds: float) -> None:
        raise KeyboardInterrupt

    done = run("generate", "a dress", sleep=interrupt)
    assert (done.exit_code, done.stdout) == (130, "")
    assert done.stderr.endswith("task_1 cancelled\n")
    assert server.tasks["task_1"]["status"] == "cancelled"
    done = run("generate", "a dress", "--json", sleep=interrupt)
    assert (done.exit_code, json.loads(done.stdout)["status"]) == (130, "cancelled")


def test_interrupt_while_the_server_cannot_cancel_still_exits_130(
    run: Run, server: FakeServer
) -> None:
    def interrupt(seconds: float) -> None:
        server.next = [refusal(409, "conflict", "the task is completed")]
        raise KeyboardInterrupt

    done = run("generate", "a dress", sleep=interrupt)
    assert done.exit_code == 130
    assert "task_1 could not be cancelled: the task is completed" in done.stderr


def test_timeout_says_how_to_fetch_the_result_later(run: Run) -> None:
    done = run("generate", "a dress", "--timeout", "0.1")
    assert done.exit_code == 1
    assert done.stderr.endswith(
        "error: task task_1 is still running after 0.1 s; it goes on: imageloom tasks result"
        " task_1\n"
    )


def test_failed_task_is_one_line_and_in_json_the_task(run: Run, server: FakeServer) -> None:
    server.ends = {"status": "failed", "error": "CUDA out of memory\n\x1b[31mTried 2 GB"}
    done = run("generate", "a dress")
    assert done.exit_code == 1
    assert done.stderr.splitlines()[-1] == (
        "error: task task_1 failed: CUDA out of memory  [31mTried 2 GB"
    )
    done = run("generate", "a dress", "--json")
    assert (done.exit_code, json.loads(done.stdout)["status"]) == (1, "failed")


# --- failures


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        (["--steps", "101"], 1, "error: steps 101 is above 100 (422 invalid_params, request"),
        (["--image", "none.jpg"], 1, "error: none.jpg: No such file or directory"),
        (["--url", "localhost:9000"], 2, "error: base URL 'localhost:9000' must begin with http"),
        (["--api-key", "wrong"], 1, "give --api-key or set IMAGELOOM_API_KEY"),
        (["--strength", "nan"], 2, "error: "),
    ],
)
def test_failure_is_one_line_on_stderr(run: Run, args: list[str], code: int, message: str) -> None:
    done = run("generate", "a dress", *args)
    assert (done.exit_code, done.stdout, done.stderr.count("\n")) == (code, "", 1)
    assert message in done.stderr
    done = run("generate", "a dress", "--json", *args)
    assert (done.exit_code, list(json.loads(done.stdout))) == (code, ["error"])


@pytest.mark.parametrize(
    "args",
    [[], ["a", "--lora", "dress:heavy"], ["a", "--lora", "x:1", "--lora", "x:2"], ["a", "-n", "x"]],
)
def test_wrong_usage_exits_2(run: Run, server: FakeServer, args: list[str]) -> None:
    assert run("generate", *args).exit_code == 2
    assert server.requests == []


def test_server_that_is_away_is_one_line(run: Run, server: FakeServer) -> None:
    server.next = [httpx.ConnectError("Connection refused") for _ in range(4)]
    done = run("tasks", "list")
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "Connection refused; is the server running?" in done.stderr


# --- tasks


def test_tasks_list_prints_a_line_for_each(run: Run) -> None:
    run("generate", "a dress", "--no-wait")
    run("generate", "a dress", "--no-wait")
    done = run("tasks", "list", "--status", "pending", "--type", "generation", "--page-size", "5")
    row = "generation\tpending\t0%\t2024-01-15 10:30:00Z"
    assert done.stdout == f"task_2\t{row}\ntask_1\t{row}\n"
    answer = json.loads(run("tasks", "list", "--json").stdout)
    assert (len(answer["items"]), answer["total"]) == (2, 2)


def test_tasks_show_cancel_and_result(run: Run, server: FakeServer, tmp_path: Path) -> None:
    run("generate", "a dress", "--no-wait")
    assert "running" in run("tasks", "show", "task_1").stdout
    early = run("tasks", "result", "task_1")  # this read completes it on the fake server
    assert early.stdout == "https://cdn.test/img0?signature=abc  seed 7\n"
    assert list(json.loads(run("tasks", "result", "task_1", "--json").stdout)) == ["images"]
    assert run("tasks", "result", "task_1", "--out", "x").stdout == "x/output_0.jpg  seed 7\n"
    assert "seed 7" in run("tasks", "show", "task_1").stdout
    assert json.loads(run("tasks", "show", "task_1", "--json").stdout)["id"] == "task_1"
    refused = run("tasks", "cancel", "task_1")
    assert (refused.exit_code, "the task is completed" in refused.stderr) == (1, True)
    run("generate", "a dress", "--no-wait")
    assert run("tasks", "cancel", "task_2").stdout == "task_2 cancelled\n"
    assert json.loads(run("tasks", "cancel", "task_2", "--json").stdout)["status"] == "cancelled"


def test_tasks_reproduce_says_how_the_two_compare(run: Run, server: FakeServer) -> None:
    run("generate", "a dress")
    assert run("tasks", "reproduce", "task_1").stdout == "identical\n"
    server.compared = {
        "result": "near",
        "largest_difference": 1,
        "changed": ["device.name", "versions.torch"],
    }
    assert run("tasks", "reproduce", "task_1", "--output", "0").stdout == (
        "near, at most 1 of 255 apart; changed since: device.name, versions.torch\n"
    )
    assert run("tasks", "reproduce", "task_1", "--no-wait").stdout == "task_4\n"
    answer = json.loads(run("tasks", "reproduce", "task_1", "--json").stdout)
    assert answer["output"]["reproduction"]["result"] == "near"
    refused = run("tasks", "reproduce", "task_4")
    assert (refused.exit_code, "the task is pending" in refused.stderr) == (1, True)


def test_tasks_retry_does_a_cancelled_task_over(run: Run) -> None:
    run("generate", "a dress", "--no-wait")
    run("tasks", "cancel", "task_1")
    assert run("tasks", "retry", "task_1", "--no-wait").stdout == "task_2 pending\n"
    told = run("tasks", "retry", "task_1").stdout
    assert told == "task_3 completed\nhttps://cdn.test/img0?signature=abc  seed 7\n"
    answer = json.loads(run("tasks", "retry", "task_1", "--json").stdout)
    assert (answer["status"], answer["retries"]) == ("completed", {"task_id": "task_1"})
    refused = run("tasks", "retry", "task_3")
    assert (refused.exit_code, "the task is completed" in refused.stderr) == (1, True)


def test_result_of_a_task_that_is_not_completed_exits_1(run: Run, server: FakeServer) -> None:
    run("generate", "a dress", "--no-wait")
    done = run("tasks", "result", "task_1")
    assert (done.exit_code, done.stderr) == (1, "error: task task_1 is running, at 50%\n")
    done = run("tasks", "show", "task_none")
    assert (done.exit_code, "404 not_found" in done.stderr) == (1, True)
    assert run("tasks", "show", "..").exit_code == 2


# --- the display


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_shows_queue_progress_and_downloads(server: FakeServer, tmp_path: Path) -> None:
    console = Console(file=Terminal(), force_terminal=True, width=80)
    seen: list[str] = []
    with _display.bar_on(console) as bar:
        (shown,) = bar._progress.tasks

        def remember() -> None:
            seen.append(f"{shown.description} {shown.percentage:.0f}")

        def watch(task: Task) -> None:
            bar.task(task)
            remember()

        task = server.client().generate("a dress")
        task.raw["queue_position"] = 3
        task.wait(progress=watch)
        task.download(tmp_path, progress=bar.downloaded)
        remember()
    assert seen == ["queued, 3 ahead 0", "running 50% 50", "completed 100", "downloaded 1 of 1 100"]


def test_bar_draws_the_newest_preview_where_colours_allow(
    server: FakeServer,
) -> None:
    asked: list[str] = []
    picture = io.BytesIO()
    PillowImage.new("RGB", (16, 16), "red").save(picture, "JPEG")

    def fetch(url: str) -> bytes:
        asked.append(url)
        return picture.getvalue()

    task = server.client().generate("a dress", preview_every=5)
    task.raw["previews"] = [
        {"index": index, "step": 5 * (index + 1), "steps": 20, "url": f"https://cdn.test/{index}"}
        for index in range(2)
    ]
    task.raw["status"] = "running"
    for colours, drawn in (("256", []), ("truecolor", ["https://cdn.test/1"])):
        console = Console(
            file=Terminal(), force_terminal=True, width=80, height=40, color_system=colours
        )
        with _display._Progress(console=console) as progress:
            bar = _display.Bar(progress, fetch=fetch)
            bar.task(task)
            bar.task(task)  # the same preview again is not fetched again
            assert asked == drawn
            assert (progress.picture is not None) == bool(drawn)


def test_display_fits_where_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = []
    for stream in (io.StringIO(), Terminal()):
        monkeypatch.setattr("sys.stdout", stream)
        monkeypatch.setattr("sys.stderr", stream)
        for as_json in (False, True):
            with _display.shown(as_json=as_json) as display:
                kinds.append(type(display).__name__)
    assert kinds == ["Lines", "Silence", "Bar", "Silence"]


# --- the rest


def test_version(run: Run) -> None:
    assert run("--version").stdout == f"imageloom {__version__}\n"


COMMANDS: list[tuple[str, str, dict[str, Any]]] = [
    ("serve", "serve", dict.fromkeys(("host", "port", "data_dir", "workers", "device"))),
    (
        "serve --host 0.0.0.0 --port 0 --data-dir d --workers 2 --device cpu",
        "serve",
        {"host": "0.0.0.0", "port": 0, "data_dir": Path("d"), "workers": 2, "device": "cpu"},
    ),
    ("api", "api", dict.fromkeys(("host", "port", "data_dir"))),
    ("worker", "worker", dict.fromkeys(("data_dir", "device", "queues"))),
    (
        "worker --queues training,generation --device cuda:1",
        "worker",
        {"data_dir": None, "device": "cuda:1", "queues": ("training", "generation")},
    ),
    (
        "keys create --tenant acme --scopes a,b --json",
        "keys_create",
        {"tenant": "acme", "scopes": ("a", "b"), "data_dir": None, "json": True},
    ),
    ("keys list --data-dir d", "keys_list", {"data_dir": Path("d"), "json": False}),
    ("keys revoke k1", "keys_revoke", {"key_id": "k1", "data_dir": None, "json": False}),
    ("models list", "models_list", {"data_dir": None, "json": False}),
    ("models pull sdxl", "models_pull", {"name": "sdxl", "data_dir": None, "json": False}),
    (
        "models add sd-xl-base --path p --data-dir d --json",
        "models_add",
        {"name": "sd-xl-base", "path": Path("p"), "data_dir": Path("d"), "json": True},
    ),
]


@pytest.mark.parametrize(("line", "function", "expected"), COMMANDS, ids=[c[0] for c in COMMANDS])
def test_server_command_hands_its_options_over(
    run: Run, monkeypatch: pytest.MonkeyPatch, line: str, function: str, expected: dict[str, Any]
) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(_server, function, lambda **given: calls.append(given))
    assert run(*line.split()).exit_code == 0
    assert calls == [expected]


@pytest.mark.parametrize(
    ("command", "missing", "extra"),
    [("api", "fastapi", "api"), ("api", "torch.nn", "worker"), ("worker", "uvicorn", "worker")],
)
def test_missing_package_names_the_extra(
    run: Run, monkeypatch: pytest.MonkeyPatch, command: str, missing: str, extra: str
) -> None:
    def lack(**given: Any) -> None:
        raise ModuleNotFoundError(f"No module named {missing!r}", name=missing)

    monkeypatch.setattr(_server, command, lack)
    done = run(command)
    name = missing.partition(".")[0]
    assert done.exit_code == 1
    assert done.stderr == f"error: {name} is not installed here: pip install 'imageloom[{extra}]'\n"


def test_our_own_import_error_stays_a_bug(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def lack(**given: Any) -> None:
        raise ImportError("cannot import name 'x'", name="imageloom.core")

    monkeypatch.setattr(_server, "api", lack)
    with pytest.raises(ImportError, match="cannot import name"):
        run("api")


# --- webhooks

HOOK = ("--webhook-url", "https://hook.test/in", "--webhook-events", "started, task.failed")
TOLD = {"webhook_url": "https://hook.test/in", "webhook_events": ["started", "task.failed"]}


@pytest.mark.parametrize(
    "command",
    [
        ("generate", "a dress", "--no-wait"),
        ("process", "upscale", "https://a.test/1", "--no-wait"),
        ("train", "https://a.test/1.zip", "--name", "dress", "--no-wait"),
        ("workflow", "run", "file.yaml", "--no-wait"),
    ],
    ids=lambda command: command[0],
)
def test_what_is_created_may_be_told_of(
    run: Run, server: FakeServer, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "file.yaml").write_text(
        "name: one\nsteps:\n  - {name: draw, type: generation, config: {prompt: a dress}}\n"
    )
    assert run(*command, *HOOK).exit_code == 0
    body = json.loads(server.requests[0].content)
    assert {name: body.get(name) for name in TOLD} == TOLD
    before = len(server.requests)
    run(*command)
    assert not TOLD.keys() & json.loads(server.requests[before].content).keys()


def test_webhook_of_a_workflow_is_the_workflows_own(run: Run) -> None:
    refused = run("workflow", "run", "wf_1", *HOOK)
    assert (refused.exit_code, "--webhook-url" in refused.stderr) == (2, True)


def test_status_shows_queues_and_workers(run: Run) -> None:
    done = run("status")
    assert done.stdout == (
        "generation\t12\t8\t10\t76 s\n"
        "worker-01\tbusy\tNVIDIA H100\t85%\t8.0 GB of 80.0 GB\t3\timageloom-tiny"
        "\t2024-01-15 10:30:00Z\t\n"
    )
    told = json.loads(run("status", "--json").stdout)
    assert [queue["name"] for queue in told["queues"]] == ["generation"]
    assert [worker["id"] for worker in told["workers"]] == ["worker-01"]


def test_webhooks_shows_and_changes_the_secret(run: Run) -> None:
    assert run("webhooks", "secret").stdout == "whsec_1\n"
    assert run("webhooks", "rotate").stdout == "whsec_2\n"
    assert json.loads(run("webhooks", "secret", "--json").stdout) == {"secret": "whsec_2"}


def test_webhooks_lists_deliveries_and_sends_one_again(run: Run, server: FakeServer) -> None:
    options = ("--resource", "task_1", "--type", "task.completed", "--state", "failed")
    (row,) = run("webhooks", "deliveries", *options).stdout.splitlines()
    assert row.split("\t")[:6] == ["msg_1", "task.completed", "task_1", "failed", "2", "503"]
    asked = dict(server.requests[-1].url.params)
    assert asked == {"resource_id": "task_1", "type": "task.completed", "state": "failed"}
    assert run("webhooks", "replay", "msg_1").stdout == "msg_1 pending\n"
    missing = run("webhooks", "replay", "msg_2")
    assert (missing.exit_code, missing.stdout) == (1, "")
