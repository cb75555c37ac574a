"""The step cache of a running installation: what is asked for again is not made again."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from importlib import resources
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from PIL import Image

from conftest import wait_for
from imageloom.core.expansion import cache_base
from imageloom.domain.catalog import BUILTIN
from imageloom.task_types.generation.spec import Generation
from imageloom.worker import cache
from imageloom.worker.cache import code_version, key_of

if TYPE_CHECKING:
    from conftest import Live

PROMPT = {"prompt": "a green dress", "num_outputs": 2, "steps": 2, "width": 64, "height": 64}
STEPS: list[dict[str, Any]] = [
    {"name": "draft", "type": "generation", "config": PROMPT},
    {
        "name": "larger",
        "type": "processing",
        "config": {"operation": "upscale", "scale": 2},
        "depends_on": ["draft"],
    },
    {
        "name": "last",
        "type": "processing",
        "config": {"operation": "adjust", "brightness": 1.1},
        "depends_on": ["larger"],
    },
]


def upload(live: Live, colour: str) -> str:
    """A picture that no other test has, so that no other test's results are found."""
    file = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(file, "PNG")
    with live.client() as client:
        return str(client.post("/files", files={"file": file.getvalue()}).json()["url"])


def completed(live: Live, workflow: dict[str, Any]) -> dict[str, Any]:
    with live.client() as client:

        def over() -> dict[str, Any] | None:
            path = f"/workflows/{workflow['id']}/runs/{workflow['run']['id']}"
            now: dict[str, Any] = client.get(path).json()
            return now if now["status"] not in ("running", "created") else None

        ended = wait_for(over, what="the run's end")
    assert ended["status"] == "completed", ended["error"]
    return ended


def create(live: Live, steps: list[dict[str, Any]], **start: Any) -> dict[str, Any]:
    """Create a workflow, start it, and return it once it is completed."""
    with live.client() as client:
        body = {"name": "cached", "steps": steps}
        made = client.post("/workflows", json=body).raise_for_status().json()
        started = client.post(f"/workflows/{made['id']}/start", json=start)
        return completed(live, started.raise_for_status().json())


def again(live: Live, workflow: dict[str, Any], **start: Any) -> dict[str, Any]:
    with live.client() as client:
        answer = client.post(f"/workflows/{workflow['id']}/runs", json=start)
        return completed(live, answer.raise_for_status().json())


def told(workflow: dict[str, Any]) -> list[str | None]:
    return [step["cache"] for step in workflow["steps"]]


def pictures(workflow: dict[str, Any]) -> list[bytes]:
    images = workflow["steps"][-1]["output"]["images"]
    return [httpx.get(image["url"]).raise_for_status().content for image in images]


def test_running_again_makes_nothing_again_and_says_what_that_saved(live: Live) -> None:
    start = {"input": {"image_url": upload(live, "#102030")}}
    first = create(live, STEPS, **start)
    assert told(first) == ["miss"] * 3
    assert [step["seconds_saved"] for step in first["steps"]] == [None] * 3
    second = again(live, first, **start)
    assert told(second) == ["hit"] * 3
    assert all(step["seconds_saved"] > 0 for step in second["steps"])
    assert pictures(second) == pictures(first)
    with live.client() as client:
        task = client.get(f"/tasks/{second['steps'][0]['tasks'][0]['id']}").json()
    assert task["output"]["cache"] == "hit"
    assert task["output"]["seconds_saved"] > 0


def test_changing_the_last_step_runs_only_that_one(live: Live) -> None:
    start = {"input": {"image_url": upload(live, "#112233")}}
    first = create(live, STEPS, **start)
    changed = copy.deepcopy(STEPS)
    changed[2]["config"]["brightness"] = 1.2
    second = create(live, changed, **start)
    assert told(second) == ["hit", "hit", "miss"]
    assert pictures(second) != pictures(first)


def test_the_same_bytes_under_another_url_are_the_same_input(live: Live) -> None:
    first = create(live, STEPS, input={"image_url": upload(live, "#223344")})
    again_uploaded = upload(live, "#223344")
    assert told(again(live, first, input={"image_url": again_uploaded})) == ["hit"] * 3
    other = upload(live, "#223345")
    assert told(again(live, first, input={"image_url": other})) == ["miss"] * 3


def test_a_step_or_a_run_can_ask_for_new_pictures(live: Live) -> None:
    start = {"input": {"image_url": upload(live, "#334455")}}
    first = create(live, STEPS, **start)
    fresh = again(live, first, **start, cache=False)
    assert told(fresh) == [None] * 3
    assert pictures(fresh) != pictures(first)  # another seed was drawn
    steps = copy.deepcopy(STEPS)
    steps[1]["cache"] = False
    assert told(create(live, steps, **start)) == ["hit", None, "hit"]


def test_what_was_cleaned_up_is_made_again(live: Live) -> None:
    start = {"input": {"image_url": upload(live, "#445566")}}
    first = create(live, STEPS, **start)
    with live.client() as client:
        client.post(f"/workflows/{first['id']}/cleanup").raise_for_status()
    assert told(again(live, first, **start)) == ["miss"] * 3


def test_another_tenant_shares_nothing(live: Live) -> None:
    url = upload(live, "#556677")
    first = create(live, STEPS, input={"image_url": url})
    options = ["--tenant", "neighbour", "--data-dir", str(live.data_dir)]
    made = subprocess.run(
        [sys.executable, "-m", "imageloom.cli.main", "keys", "create", *options],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
    )
    theirs = copy.copy(live)
    theirs.key = made.stdout.split()[-1]
    second = create(theirs, STEPS, input={"image_url": upload(theirs, "#556677")})
    assert told(second) == ["miss"] * 3
    assert first["id"] != second["id"]


# What a key is made of


async def test_a_key_is_of_everything_that_pictures_depend_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tiny = next(model for model in BUILTIN if model.name == "imageloom-tiny")
    base = cache_base(Generation(), {"prompt": "x"}, {"prompt": "x", "seed": 4})
    keys = [
        await key_of(base, {"input_image_url": "a"}, tiny),
        await key_of(base, {"input_image_url": "b"}, tiny),
        await key_of(base, {}, tiny),
        await key_of(base, {"input_image_url": "a"}, None),
        await key_of(base, {"input_image_url": "a"}, msgspec.structs.replace(tiny, native_size=32)),
        await key_of("other", {"input_image_url": "a"}, tiny),
    ]
    monkeypatch.setattr(cache, "weights_digest", lambda _model: "retrained")
    keys.append(await key_of(base, {"input_image_url": "a"}, tiny))
    monkeypatch.undo()
    monkeypatch.setattr(cache, "code_version", lambda: "another version")
    keys.append(await key_of(base, {"input_image_url": "a"}, tiny))
    monkeypatch.undo()
    assert len(set(keys)) == len(keys)
    assert await key_of(base, {"input_image_url": "a"}, tiny) == keys[0]


def test_a_task_without_a_seed_asks_for_the_same_pictures_again() -> None:
    kind = Generation()
    drawn = [cache_base(kind, {}, {"prompt": "x", "seed": seed}) for seed in (1, 2)]
    asked = [cache_base(kind, {"seed": s}, {"prompt": "x", "seed": s}) for s in (1, 2)]
    assert drawn[0] == drawn[1]
    assert len({drawn[0], *asked}) == 3
    assert cache_base(kind, {}, {"prompt": "x", "seed": 1, "preview_every": 5}) == drawn[0]


def test_the_code_that_makes_pictures_has_a_version_of_its_own() -> None:
    assert len(code_version()) == 64
    sources = cache._sources(resources.files("imageloom") / "images")
    assert "fitting.py" in dict(sources)
