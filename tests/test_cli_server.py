"""The server's commands, as an operator types them, beside a running installation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

if TYPE_CHECKING:
    from conftest import Live


def imageloom(*arguments: str, check: bool = True, **environment: str) -> str:
    """Run a command in a clean environment and return what it printed, errors included."""
    clean = {name: value for name, value in os.environ.items() if "IMAGELOOM" not in name}
    clean.pop("DATABASE_URL", None)
    done = subprocess.run(
        [sys.executable, "-m", "imageloom.cli.main", *arguments],
        env={**clean, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert not check or done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def status_with(live: Live, key: str) -> int:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.get(f"{live.base_url}/models", headers=headers).status_code


def test_key_is_created_beside_a_running_server_listed_and_revoked(live: Live) -> None:
    data = ("--data-dir", str(live.data_dir))
    created = imageloom("keys", "create", "--tenant", "shop", *data)
    key = created.split()[-1]
    assert status_with(live, key) == 200
    listed = next(line for line in imageloom("keys", "list", *data).splitlines() if "shop" in line)
    key_id, tenant = listed.split()[:2]
    assert tenant == "shop"
    assert key not in listed
    imageloom("keys", "revoke", key_id, *data)
    assert status_with(live, key) == 401


def test_key_has_the_scopes_that_were_named(live: Live) -> None:
    data = ("--data-dir", str(live.data_dir), "--json")
    made = json.loads(imageloom("keys", "create", "--tenant", "shop", "--scopes", "read", *data))
    assert made["scopes"] == ["read"]
    headers = {"Authorization": f"Bearer {made['key']}"}
    answer = httpx.post(f"{live.base_url}/tasks/generation", headers=headers, json={"prompt": "x"})
    assert answer.status_code == 403


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("keys", "create", "--tenant", "a b"), "tenant"),
        (("keys", "create", "--tenant", "a", "--scopes", "root"), "root"),
        (("keys", "revoke", "key_none"), "key_none"),
        (("models", "add", "mine", "--path", "/nowhere"), "/nowhere"),
    ],
)
def test_wrong_use_is_one_line_and_a_failure(
    live: Live, arguments: tuple[str, ...], complaint: str
) -> None:
    output = imageloom(*arguments, "--data-dir", str(live.data_dir), check=False)
    assert complaint in output
    assert "Traceback" not in output
    assert len(output.strip().splitlines()) == 1


def test_local_folder_becomes_a_model_that_tasks_name(live: Live) -> None:
    folder = Path(str(resources.files("imageloom.runtime") / "embedded" / "imageloom-tiny"))
    data = ("--data-dir", str(live.data_dir))
    imageloom("models", "add", "my-model", "--path", str(folder), *data)
    assert "my-model" in imageloom("models", "list", *data)
    with live.client() as client:
        created = client.post(
            "/tasks/generation",
            json={"prompt": "x", "model": "my-model", "steps": 1, "width": 64, "height": 64},
        )
    task = live.wait_task(created.json()["id"], "completed", "failed")
    assert task["status"] == "completed", task["error"]


def test_model_without_weights_fails_with_the_command_that_gets_them(live: Live) -> None:
    with live.client() as client:
        created = client.post("/tasks/generation", json={"prompt": "x", "model": "sd-1.5"})
    task = live.wait_task(created.json()["id"], "completed", "failed")
    assert task["status"] == "failed"
    assert "sd-1.5" in str(task["error"])
    assert "imageloom models pull sd-1.5" in str(task["error"])
    assert task["attempt"] == 1


def test_generate_writes_pictures_from_a_photograph(live: Live, tmp_path: Path) -> None:
    photo = resources.files("imageloom.runtime") / "embedded" / "dress.jpg"
    imageloom(
        "generate",
        "a blue dress",
        *("--image", str(photo), "-n", "2", "--steps", "4", "--out", str(tmp_path)),
        IMAGELOOM_URL=live.url,
        IMAGELOOM_API_KEY=live.key,
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["output_0.jpg", "output_1.jpg"]


def test_demo_makes_four_pictures_on_its_own_server(tmp_path: Path) -> None:
    output = imageloom("demo", "--out", str(tmp_path / "pictures"))
    assert len(list((tmp_path / "pictures").glob("*.jpg"))) == 4
    assert "100%" in output
