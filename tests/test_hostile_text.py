"""Text that somebody wrote is shown as text: it neither steers a terminal nor acts as markup."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import structlog
from rich.console import Console
from typer.testing import CliRunner

from fake_api import BASE, KEY
from imageloom.cli import _display
from imageloom.cli._rows import print_rows
from imageloom.cli.main import app
from imageloom.client import Client, Task
from imageloom.logs import configure_logs

# Markup of rich, an escape sequence in both its forms, a bell, a rubout, a turned direction of
# writing, half a character, and lines of its own.
HOSTILE = "[bold red]x[/bold red]\x1b[31m\x9b2J\x07\x7f\u202e\ud800\r\nend"
WHOLE = HOSTILE.replace("\ud800", "")  # what an address and an argument can be
ANSWER: dict[str, Any] = {
    "id": WHOLE,
    "type": HOSTILE,
    "name": HOSTILE,
    "status": HOSTILE,
    "state": HOSTILE,
    "secret": HOSTILE,
    "url": HOSTILE,
    "resource_id": HOSTILE,
    "progress": 0.5,
    "priority": 0,
    "error": HOSTILE,
    "error_detail": {"code": HOSTILE},
    "created_at": "2024-01-15T10:30:00Z",
    "params": {"prompt": HOSTILE},
    "input": {HOSTILE: HOSTILE},
    "run": {"id": WHOLE, "number": 1},
    "output": {"images": [{"url": HOSTILE, "seed": 7}]},
    "steps": [
        {"name": HOSTILE, "type": HOSTILE, "status": "failed", "error": HOSTILE, "progress": 0}
    ],
    "config": {},
}
COMMANDS = [
    ("tasks", "list"),
    ("tasks", "show", "task_1"),
    ("tasks", "show", "train_1"),
    ("tasks", "cancel", "task_1"),
    ("tasks", "cancel", "train_1"),
    ("tasks", "result", "task_1"),
    ("tasks", "retry", "task_1", "--no-wait"),
    ("tasks", "reproduce", "task_1", "--no-wait"),
    ("generate", WHOLE, "--no-wait"),
    ("process", "upscale", "https://a.test/1", "--no-wait"),
    ("train", "https://a.test/1.zip", "--name", "dress", "--no-wait"),
    ("train", "train_1", "--no-wait"),
    ("workflow", "list"),
    ("workflow", "show", "wf_1"),
    ("workflow", "cancel", "wf_1"),
    ("webhooks", "secret"),
    ("webhooks", "deliveries"),
    ("webhooks", "replay", "msg_1"),
]


@pytest.fixture
def run() -> Callable[..., Any]:
    """Run the command line against a server whose every word is hostile."""

    def answer(request: httpx.Request) -> httpx.Response:
        lists = request.url.path.endswith(("/tasks", "/workflows", "/deliveries"))
        told = ANSWER
        if lists and request.method == "GET":
            told = {"items": [ANSWER, ANSWER], "total": 2, "page": 1, "page_size": 50}
        return httpx.Response(200, content=json.dumps(told))

    def invoke(*args: str) -> Any:
        def connect(**_options: object) -> Client:
            return Client(BASE, api_key=KEY, transport=httpx.MockTransport(answer))

        return CliRunner().invoke(app, list(args), obj=connect, catch_exceptions=False)

    return invoke


def acts(text: str) -> set[str]:
    """Return the characters of a text that a terminal would act on."""
    return {each for each in text if not each.isprintable()} - {"\n", "\t"}


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "json"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: "-".join(command[:2])[:20])
def test_no_command_lets_text_steer_the_terminal(
    run: Callable[..., Any], command: tuple[str, ...], as_json: bool
) -> None:
    done = run(*command, *(["--json"] if as_json else []))
    assert done.exit_code in (0, 1), done.output
    assert not acts(done.stdout)
    assert not acts(done.stderr)
    if as_json:
        assert json.dumps(HOSTILE)[1:-1] in json.dumps(json.loads(done.stdout))  # not lost


def test_table_shows_markup_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    print_rows(("name",), [(HOSTILE,)])
    shown = capsys.readouterr().out
    assert "[bold red]x[/bold red]" in shown
    assert not acts("".join(shown.splitlines()[1:]))  # the heads are bold


def test_bar_shows_markup_as_it_is() -> None:
    console = Console(file=io.StringIO(), width=200)
    client = Client(BASE, transport=httpx.MockTransport(lambda _: httpx.Response(200)))
    with client, _display.bar_on(console) as bar:
        bar.task(Task(client._connection, ANSWER))
        drawn = bar._progress.get_renderable()
        with console.capture() as captured:
            console.print(drawn)
    assert "[bold red]x[/bold red]" in captured.get()
    assert not acts(captured.get())


@pytest.mark.parametrize("form", ["text", "json"])
def test_log_line_is_one_line_whatever_it_tells(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.StringIO()
    monkeypatch.setattr(sys, "stderr", written)
    before = structlog.get_config()
    try:
        configure_logs(form)
        structlog.get_logger("test").info("request_failed", path=HOSTILE, inner=[HOSTILE])
    finally:
        structlog.configure(**before)
    (line,) = written.getvalue().splitlines()
    assert not acts(line)
    assert "[bold red]x[/bold red]" in line
