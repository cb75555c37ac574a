"""A training whose processes are ended at random steps comes out as one that nothing happened to.

Real processes, all of them killed within one training, and a worker told to end. The steps come
from a number that is printed: put it in the place of SEED to see the same again.
"""

from __future__ import annotations

import json
import os
import random
import re
import signal
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest

from conftest import wait_for
from test_faults import postmaster, quick_serve
from training_pictures import data_set

if TYPE_CHECKING:
    from collections.abc import Iterator

    from conftest import Live

SEED = random.SystemRandom().randrange(1_000_000)
# Eight pictures, of which one is held out: seven steps an epoch.
STEPS = 60 * 7
CONFIG = {
    "epochs": 60,
    "batch_size": 1,
    "checkpoint_every": 72,
    "seed": 7,
    "trigger_word": "sks",
    "sample_prompts": ["a sks dress"],
}


@pytest.fixture(scope="module")
def server() -> Iterator[Live]:
    with quick_serve() as running:
        yield running


@pytest.fixture(scope="module")
def dress(server: Live) -> str:
    # No word of its own: nothing has to be kept, which every attempt would draw anew for seconds.
    pictures = data_set(8, caption="a dress on a white background")
    with server.client() as client:
        answer = client.post("/files", files={"file": ("d.zip", pictures, "application/zip")})
        return str(answer.raise_for_status().json()["url"])


@pytest.fixture(scope="module")
def calm(server: Live, dress: str) -> dict[str, Any]:
    """How the training goes that nothing happens to."""
    return ended(server, begin(server, dress, "calm"))


def test_a_training_survives_a_drain_and_the_death_of_every_process(
    server: Live, dress: str, calm: dict[str, Any]
) -> None:
    print(f"SEED = {SEED}")
    dice = random.Random(SEED)
    # The database last: a device that is left alone while it is away may come to the end.
    faults = [*dice.sample([kill_device, kill_worker, drain], 3), kill_database]
    training = begin(server, dress, "killed")
    for number, fault in enumerate(faults):
        # One in each fifth of the training; what is left is for its end.
        step = round((number + dice.uniform(0.2, 1)) * STEPS / 5)
        wait_for(lambda: reached(server, training) >= step, what=f"step {step}")  # noqa: B023
        print(f"{fault.__name__} at step {step}")
        begun = begun_attempts(server, training)
        fault(server)
        if fault is not kill_database:
            # Until another attempt has begun, the record is that of the one that was ended.
            wait_for(lambda: begun_attempts(server, training) > begun, what="another attempt")  # noqa: B023
    found = ended(server, training)
    assert found == calm
    outcomes = [each["outcome"] for each in events(server, training, "settled")]
    assert sorted(set(outcomes)) == ["completed", "interrupted", "lost"]
    assert outcomes.count("lost") == 2  # the drain and the outage spent no attempt
    assert kept(server, training) == []


def test_a_cancel_keeps_what_was_saved_for_a_drain(server: Live, dress: str) -> None:
    training = begin(server, dress, "cancelled", checkpoint_every=STEPS)
    wait_for(lambda: reached(server, training) >= 5, what="steps")
    begun = reached(server, training)
    drain(server)
    (saved,) = kept(server, training)
    with server.client() as client:
        answer = client.post(f"/training/{training}/cancel", json={"keep": True})
    adapter = answer.raise_for_status().json()["output"]["adapter"]
    assert adapter["step"] == saved >= begun >= 5
    assert httpx.get(adapter["url"]).status_code == 200


# The faults


def kill_device(server: Live) -> None:
    server.kill("imageloom device")


def kill_worker(server: Live) -> None:
    server.kill("imageloom worker")


def kill_database(server: Live) -> None:
    os.kill(postmaster(server), signal.SIGKILL)


def drain(server: Live) -> None:
    worker = psutil.Process(wait_for(lambda: server.pids("imageloom worker"), what="a worker")[0])
    worker.send_signal(signal.SIGTERM)
    wait_for(lambda: not worker.is_running(), what="the worker's end")


# What the tests ask


def begin(server: Live, url: str, name: str, **config: Any) -> str:
    body = {"dataset_url": url, "output_name": name, "config": {**CONFIG, **config}}
    with server.client() as client:
        answer = client.post("/training", json=body)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def ask(server: Live, path: str) -> Any:
    """Return an answer, None while the database is away."""
    with server.client() as client:
        answer = client.get(path)
    assert answer.status_code in (200, 503), answer.text
    return answer.json() if answer.status_code == 200 else None


def reached(server: Live, training: str) -> int:
    """Return the step that the training has come to, 0 while nobody can say."""
    found = ask(server, f"/training/{training}/losses")
    return len(found["items"]) if found else 0


def begun_attempts(server: Live, training: str) -> int:
    return len(events(server, training, "training_begun"))


def events(server: Live, training: str, name: str) -> list[dict[str, Any]]:
    """Return what the log says of a training."""
    log = server.data_dir.parent / f"{server.data_dir.name}.log"
    found = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [each for each in found if (each["event"], each.get("task_id")) == (name, training)]


def ended(server: Live, training: str) -> dict[str, Any]:
    """Return all that came of a training: its losses, samples, and the bytes of its adapter."""

    def over() -> dict[str, Any] | None:
        now: dict[str, Any] | None = ask(server, f"/training/{training}")
        return now if now and now["status"] not in ("pending", "running") else None

    found = wait_for(over, what="the training's end", timeout=300)
    assert found["status"] == "completed", found["error"]
    losses = ask(server, f"/training/{training}/losses")["items"]
    assert [each["step"] for each in losses] == list(range(1, STEPS + 1))
    output = found["output"]
    return {
        "losses": losses,
        "adapter": {name: output["adapter"][name] for name in ("sha256", "step")},
        "samples": [
            (sample["step"], httpx.get(sample["url"]).content) for sample in output["samples"]
        ],
    }


def kept(server: Live, training: str) -> list[int]:
    """Return the steps of the checkpoints in storage."""
    folder = server.data_dir / "storage" / "checkpoints" / training
    return [int(re.sub(r"\D", "", path.stem)) for path in folder.rglob("*.safetensors")]
