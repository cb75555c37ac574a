"""Every process of a running installation is killed in the middle of a task; the task survives.

Real processes. What happened to a task is read from the log, which has one event per settlement.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
import pytest
from PIL import Image

from conftest import serve, wait_for

if TYPE_CHECKING:
    from conftest import Live

# Four seconds on one fast core: long enough to be hit, short enough to be waited for.
SLOW = {"prompt": "a red dress", "num_outputs": 4, "steps": 40, "width": 64, "height": 64}
TINY = {**SLOW, "num_outputs": 1, "steps": 1}
# More than a worker lets end by itself when it is told to end.
LONG = {**SLOW, "num_outputs": 10, "steps": 100}
LEASE = 5.0  # seconds
PROCESSES = ("imageloom api", "imageloom worker", "imageloom device")
STOP_SECONDS = 30.0  # what `serve` promises


@contextmanager
def quick_serve() -> Iterator[Live]:
    """An installation that notices a silent worker quickly."""
    with (
        # A short folder: the path of a Unix socket must stay below 108 bytes.
        tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True) as folder,
        quick_serve_in(Path(folder) / "data") as server,
    ):
        yield server


@contextmanager
def quick_serve_in(data_dir: Path) -> Iterator[Live]:
    """The same on a folder that is kept."""
    with serve(
        data_dir,
        IMAGELOOM_HEARTBEAT_INTERVAL="0.5",
        IMAGELOOM_LEASE_SECONDS=str(LEASE),
        IMAGELOOM_DEVICE_SILENCE="3",
        IMAGELOOM_LOG_FORMAT="json",
    ) as server:
        server.wait_ready()
        yield server


@pytest.fixture(scope="module")
def shared() -> Iterator[Live]:
    """One installation for all tests that leave it running."""
    with quick_serve() as server:
        yield server


@pytest.fixture
def server(shared: Live) -> Live:
    """The shared installation with a worker that waits for work, whatever was killed before."""
    wait_for(lambda: shared.pids("imageloom device"), what="a device process")
    wait_for(lambda: _idle(shared), what="an idle worker")
    return shared


# One process after another


@pytest.mark.parametrize("victim", ["imageloom worker", "imageloom device"])
def test_task_survives_the_death_of_its_worker(server: Live, victim: str) -> None:
    task_id = begun(server)
    server.kill(victim)
    task = finished(server, task_id)
    assert task["attempt"] == 2
    assert history(server, task_id) == ["1 lost pending", "2 completed completed"]


def test_task_survives_the_death_of_the_api(server: Live) -> None:
    task_id = begun(server)
    killed = server.kill("imageloom api")

    def completed() -> bool:
        answer = ask(server, task_id)
        assert answer is None or answer.status_code == 200, answer.text  # never a wrong answer
        return answer is not None and answer.json()["status"] == "completed"

    wait_for(completed, what="the task's completion")
    assert server.pids("imageloom api") != [killed]
    assert finished(server, task_id)["attempt"] == 1
    assert history(server, task_id) == ["1 completed completed"]


@pytest.mark.parametrize("away", [0.0, LEASE + 2], ids=["killed", "away longer than a lease"])
def test_task_survives_the_death_of_the_database(server: Live, away: float) -> None:
    task_id = begun(server)
    with database_held_down(server, seconds=away):
        os.kill(postmaster(server), signal.SIGKILL)

    def completed() -> bool:
        answer = ask(server, task_id)
        assert answer is not None, "the API must answer while its database is away"
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200 and answer.json()["status"] == "completed"

    wait_for(completed, what="the task's completion")
    # Its worker was not to blame for what nobody could hear.
    assert finished(server, task_id)["attempt"] == 1
    assert history(server, task_id) == ["1 completed completed"]


def test_caller_who_waits_for_a_task_outlives_the_database(server: Live) -> None:
    with waiting_caller(server) as answer:
        os.kill(postmaster(server), signal.SIGKILL)
    assert answer.result().status_code == 201
    assert answer.result().json()["status"] == "completed"


def test_a_watcher_outlives_the_database(server: Live) -> None:
    task_id = begun(server)
    with (
        server.client() as client,
        client.stream("GET", f"/tasks/{task_id}/events") as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines).startswith("data: ")
        os.kill(postmaster(server), signal.SIGKILL)
        told = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
    assert told[-1]["status"] == "completed"


def test_task_survives_the_death_of_serve_itself() -> None:
    with tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True) as folder:
        data_dir = Path(folder) / "data"
        with quick_serve_in(data_dir) as first:
            earlier = finished(first, submit(first, TINY))
            task_id = begun(first)
            family = processes(first)
            first.process.kill()
            first.process.wait()
            wait_for(lambda: not living(family), what="its processes to end by themselves")
        with quick_serve_in(data_dir) as second:
            finished(second, task_id)
            assert read(second, str(earlier["id"]))["status"] == "completed"
            url = httpx.URL(earlier["output"]["images"][0]["url"])
            assert httpx.get(url.copy_with(port=second.port)).status_code == 200


def test_worker_whose_device_hangs_says_so_until_it_goes_on(server: Live) -> None:
    task_id = begun(server)
    (device,) = server.pids("imageloom device")
    os.kill(device, signal.SIGSTOP)
    try:
        hung = wait_for(lambda: worker_that_is(server, "unhealthy"), what="an unhealthy worker")
        assert hung["reason"].startswith("the device has not answered for ")
        assert (hung["tasks"], hung["task_count"]) == ([task_id], 1)
        assert httpx.get(f"{server.url}/readyz").status_code == 503
    finally:
        os.kill(device, signal.SIGCONT)
    well = wait_for(lambda: worker_that_is(server, "busy", "idle"), what="a healthy worker")
    assert well["reason"] is None
    assert (well["device_kind"], well["memory_used_bytes"]) == ("cpu", None)
    # Nothing was taken from it meanwhile: it was the device that hung, and the lease was kept.
    finished(server, task_id)
    assert history(server, task_id) == ["1 completed completed"]
    assert server.pids("imageloom device") == [device]


# In order


def test_worker_told_to_end_hands_its_task_back(server: Live) -> None:
    task_id = begun(server, LONG)
    (worker,) = server.pids("imageloom worker")
    os.kill(worker, signal.SIGTERM)
    finished(server, task_id)
    assert history(server, task_id) == ["1 interrupted pending", "2 completed completed"]


def test_api_told_to_end_answers_those_who_wait(server: Live) -> None:
    with waiting_caller(server) as answer:
        (api,) = server.pids("imageloom api")
        os.kill(api, signal.SIGTERM)
        assert answer.result().status_code == 201
    task = answer.result().json()
    assert task["status"] == "running"
    finished(server, task["id"])


def test_serve_ends_everything_within_thirty_seconds() -> None:
    with quick_serve() as server:
        task_id = begun(server, LONG)
        family = processes(server)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(timeout=STOP_SECONDS) == 0
        assert not living(family)
        assert history(server, task_id) == ["1 interrupted pending"]


def test_two_serves_share_one_folder(server: Live) -> None:
    with quick_serve_in(server.data_dir) as other:
        assert postmaster(other) == postmaster(server)
        made = [submit(each, TINY) for each in (server, other) * 3]
        for task_id in made:
            finished(server, task_id)
            assert read(other, task_id)["status"] == "completed"
    finished(server, submit(server, TINY))  # the database did not go with the second


# Poison and cancel


def test_task_that_kills_its_device_fails_and_the_next_is_served(server: Live) -> None:
    task_id = submit(server, SLOW)
    for attempt in (1, 2, 3):
        wait_for(
            lambda: _reached(server, task_id, attempt),  # noqa: B023  # called at once
            what=f"progress in attempt {attempt}",
        )
        server.kill("imageloom device")
    failed = server.wait_task(task_id, "completed", "failed")
    assert failed["status"] == "failed"
    assert failed["error_detail"] == {
        "code": "worker_lost",
        "retryable": True,
        "attempt": 3,
        "param": None,
    }
    assert stored(server, task_id) == []
    finished(server, submit(server, TINY))


def test_cancelled_running_task_frees_the_device_at_once(server: Live) -> None:
    devices = server.pids("imageloom device")
    task_id = begun(server, {**SLOW, "num_outputs": 16, "steps": 100})
    with server.client() as client:
        cancelled = client.post(f"/tasks/{task_id}/cancel").json()
        assert cancelled["status"] == "cancelled"
        assert client.post(f"/tasks/{task_id}/cancel").json() == cancelled
    following = finished(server, submit(server, TINY))
    # It went by the next denoising step, not by killing the device; a minute of work was left.
    assert server.pids("imageloom device") == devices
    assert following["attempt"] == 1
    assert history(server, task_id) == ["1 cancelled cancelled"]
    wait_for(lambda: stored(server, task_id) == [], what="no outputs of the cancelled task")


# What the tests ask


def submit(server: Live, body: dict[str, Any]) -> str:
    with server.client() as client:
        return str(client.post("/tasks/generation", json=body).raise_for_status().json()["id"])


def read(server: Live, task_id: str) -> dict[str, Any]:
    with server.client() as client:
        answer: dict[str, Any] = client.get(f"/tasks/{task_id}").raise_for_status().json()
        return answer


def ask(server: Live, task_id: str) -> httpx.Response | None:
    """Ask on a connection of its own; None where it broke."""
    try:
        with server.client() as client:
            return client.get(f"/tasks/{task_id}")
    except httpx.TransportError:
        return None


def begun(server: Live, body: dict[str, Any] = SLOW) -> str:
    """Submit a task and wait until the device is in the middle of it."""
    task_id = submit(server, body)
    wait_for(lambda: _reached(server, task_id, 1), what="progress")
    return task_id


@contextmanager
def waiting_caller(server: Live) -> Iterator[Future[httpx.Response]]:
    """Have a caller wait for a task, for a minute but no longer than its patience of half of one.

    The device is in the middle of the task when the block begins.
    """
    with server.client() as client, ThreadPoolExecutor(1) as pool:
        headers = {"Prefer": "wait=60"}
        answer = pool.submit(client.post, "/tasks/generation", json=SLOW, headers=headers)

        def progress() -> bool:
            running = client.get("/tasks", params={"status": "running"}).json()["items"]
            return any(task["progress"] > 0 for task in running)

        wait_for(progress, what="progress")
        yield answer


def finished(server: Live, task_id: str) -> dict[str, Any]:
    """Wait for a task's completion; every picture must be there, and nothing else be stored."""
    task: dict[str, Any] = server.wait_task(task_id, "completed", "failed", "cancelled")
    assert task["status"] == "completed", task
    assert (task["progress"], task["error"]) == (1.0, None)
    images = task["output"]["images"]
    asked = task["params"]
    assert [image["seed"] for image in images] == [
        asked["seed"] + index for index in range(asked["num_outputs"])
    ]
    for image in images:
        answer = httpx.get(image["url"])
        assert Image.open(io.BytesIO(answer.content)).size == (64, 64)
    kept = [f"outputs/{task_id}/{task['attempt']}/{index}.jpg" for index in range(len(images))]
    wait_for(lambda: stored(server, task_id) == kept, what=f"nothing but {kept} in storage")
    return task


def stored(server: Live, task_id: str) -> list[str]:
    root = server.data_dir / "storage"
    return sorted(
        path.relative_to(root).as_posix()
        for path in (root / "outputs" / task_id).rglob("*")
        if path.is_file()
    )


def history(server: Live, task_id: str) -> list[str]:
    """Return the task's settlements in order, each as `attempt outcome status`."""
    log = server.data_dir.parent / f"{server.data_dir.name}.log"
    events = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    return [
        f"{event['attempt']} {event['outcome']} {event['status']}"
        for event in events
        if event["event"] == "settled" and event["task_id"] == task_id
    ]


def postmaster(server: Live) -> int:
    lines = (server.data_dir / "postgres" / "data" / "postmaster.pid").read_text().splitlines()
    return int(lines[0])


@contextmanager
def database_held_down(server: Live, *, seconds: float) -> Iterator[None]:
    """After the block, let nobody start the database before the time is up."""
    with (server.data_dir / "postgres" / "start.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
        until = time.monotonic() + seconds
        wait_for(lambda: time.monotonic() >= until, what="the end of the outage")


def processes(server: Live) -> list[psutil.Process]:
    """Return `serve`, all that it started, and the database."""
    family = [psutil.Process(pid) for title in PROCESSES for pid in server.pids(title)]
    assert len(family) == len(PROCESSES)
    database = psutil.Process(postmaster(server))
    return [psutil.Process(server.process.pid), *family, database, *database.children()]


def living(family: list[psutil.Process]) -> list[psutil.Process]:
    return [each for each in family if _lives(each)]


def _lives(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def workers(server: Live) -> dict[str, Any]:
    with server.client() as client:
        answer: dict[str, Any] = client.get("/monitoring/workers").raise_for_status().json()
        return answer


def worker_that_is(server: Live, *statuses: str) -> dict[str, Any] | None:
    """Return the worker whose device lives, once it has one of the statuses."""
    (pid,) = server.pids("imageloom worker")
    (found,) = [worker for worker in workers(server)["workers"] if f"-{pid}-" in worker["id"]]
    return found if found["status"] in statuses else None


def _idle(server: Live) -> bool:
    answer = ask(server, "")
    if answer is None or answer.status_code != 200:
        return False
    alive = [worker for worker in workers(server)["workers"] if worker["status"] != "unhealthy"]
    return [worker["status"] for worker in alive] == ["idle"]


def _reached(server: Live, task_id: str, attempt: int) -> bool:
    answer = ask(server, task_id)
    if answer is None or answer.status_code != 200:
        return False
    task = answer.json()
    assert task["status"] in ("pending", "running"), task
    return bool(task["attempt"] == attempt and task["progress"] > 0)
