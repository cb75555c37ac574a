"""Inputs through a real installation: what a URL may answer, and that the worker serves the next.

A server of our own on loopback answers badly in every way; the installation may fetch from it
alone, briefly and little.
"""

from __future__ import annotations

import base64
import io
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from api_helpers import GENERATION, picture, refusal
from conftest import Live, serve
from training_pictures import archive, checkered_dress, png

MAX_FETCH = 300_000  # bytes
SMALL = {"prompt": "a red dress", "steps": 2, "width": 64, "height": 64, "seed": 5}
OVER = ("completed", "failed", "cancelled")
SVG = b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>'


def huge_png() -> bytes:
    """Return 12000 x 12000 pixels in few bytes."""
    file = io.BytesIO()
    Image.new("1", (12_000, 12_000)).save(file, "PNG")
    return file.getvalue()


# What each path answers: status, content type, bytes.
ANSWERS = {
    "/dress.jpg": (200, "image/jpeg", picture()),
    "/dress.png": (200, "text/plain", picture("PNG", size=(40, 80))),
    "/html": (200, "image/jpeg", b"<!doctype html><title>Sign in</title>"),
    "/truncated": (200, "image/jpeg", picture(size=(256, 256))[:-200]),
    "/svg": (200, "image/svg+xml", SVG),
    "/huge": (200, "image/png", huge_png()),
    "/empty": (200, "image/jpeg", b""),
    "/large": (200, "image/jpeg", picture().ljust(MAX_FETCH + 1, b"\0")),
    "/error": (500, "text/plain", b"out of order"),
}

# And data sets, which no door can look at: with what `task.error` names.
DATA_SETS: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "/few.zip": (
        archive(
            {
                "cut.png": png(checkered_dress(0))[:90],
                "fine.png": png(checkered_dress(1)),
                "note.png": b"a note",
                "tiny.png": png(checkered_dress(2, side=32)),
            }
        ),
        ("1 usable picture;", "cut.png: it", "note.png: it", "tiny.png: it is 32 x 32"),
    ),
    "/climbing.zip": (
        archive({"../../evil.png": png(checkered_dress(0))}),
        ("../../evil.png, which leads out",),
    ),
    "/page.zip": (b"<!doctype html><title>Sign in</title>", ("is not a zip",)),
    "/nothing.zip": (b"", ("answered 404",)),
}
ANSWERS |= {path: (200, "application/zip", data) for path, (data, _) in DATA_SETS.items() if data}


class Site(ThreadingHTTPServer):
    """A server on loopback; `done` frees whoever still waits for an answer."""

    daemon_threads = True
    done: threading.Event

    @property
    def netloc(self) -> str:
        return f"127.0.0.1:{self.server_port}"


class Answering(BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        if self.path == "/slow":
            self.server.done.wait(30)
        if self.path == "/private":
            self._answer(302, {"Location": "http://169.254.169.254/latest/meta-data/"}, b"")
        elif self.path == "/endless":
            self._answer(200, {"Content-Type": "image/jpeg"}, picture().ljust(2 * MAX_FETCH, b"\0"))
        else:
            status, kind, body = ANSWERS.get(self.path, (404, "text/plain", b"nothing here"))
            headers = {"Content-Type": kind, "Content-Length": str(len(body))}
            self._answer(status, headers, body)

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        try:
            self.wfile.write(body)
        except ConnectionError:
            pass  # the other end had enough, or no patience

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        return


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """The server that answers badly."""
    with Site(("127.0.0.1", 0), Answering) as server:
        server.done = threading.Event()
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.done.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def strict(site: Site) -> Iterator[Live]:
    """An installation that fetches from `site` only, at most 300 kB in two seconds."""
    with (
        tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True) as folder,
        serve(
            Path(folder) / "data",
            IMAGELOOM_FETCH_ALLOW=site.netloc,
            IMAGELOOM_FETCH_TIMEOUT="2",
            IMAGELOOM_MAX_FETCH=str(MAX_FETCH),
        ) as server,
    ):
        server.wait_ready()
        yield server


BAD = {
    "not there": ("http://{site}/nothing", "answered 404"),
    "an error": ("http://{site}/error", "answered 500"),
    "HTML": ("http://{site}/html", "HTML"),
    "slow": ("http://{site}/slow", "longer than 2 s"),
    "announced as too large": ("http://{site}/large", "larger than 0.3 MB"),
    "too large without a word": ("http://{site}/endless", "larger than 0.3 MB"),
    "truncated": ("http://{site}/truncated", "damaged or truncated"),
    "SVG": ("http://{site}/svg", "SVG"),
    "12000 x 12000": ("http://{site}/huge", "12000 x 12000"),
    "empty": ("http://{site}/empty", "empty"),
    "sent on to a private address": ("http://{site}/private", "private or reserved"),
    "a name of a private address": ("http://localhost:{port}/dress.jpg", "private or reserved"),
    "another port": ("http://localhost:1/dress.jpg", "private or reserved"),
    "data that is no picture": ("data:image/png;base64,AAAA", "unknown format"),
    "data that is not base64": ("data:image/png;base64,?!", "base64"),
    "data without a comma": ("data:image/png", "comma"),
    "data that is SVG": ("data:image/svg+xml;base64,{svg}", "SVG"),
}


@dataclass(frozen=True)
class Trial:
    """The tasks with bad inputs, a good one that came after them, and who worked on them."""

    bad: dict[str, dict[str, Any]]
    good: dict[str, Any]
    devices: tuple[list[int], list[int]]


def submit(server: Live, **changes: object) -> str:
    with server.client() as client:
        answer = client.post(GENERATION, json={**SMALL, **changes})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


@pytest.fixture(scope="module")
def trial(strict: Live, site: Site) -> Trial:
    """Submit every bad input and then a good one; wait until all are over."""
    values = {
        "site": site.netloc,
        "port": site.server_port,
        "svg": base64.b64encode(SVG).decode(),
    }
    before = strict.pids("imageloom device")
    ids = {
        name: submit(strict, input_image_url=url.format(**values)) for name, (url, _) in BAD.items()
    }
    last = submit(strict, input_image_url=f"http://{site.netloc}/dress.jpg")
    good = strict.wait_task(last, *OVER)
    return Trial(
        bad={name: strict.wait_task(task_id, *OVER) for name, task_id in ids.items()},
        good=good,
        devices=(before, strict.pids("imageloom device")),
    )


@pytest.mark.parametrize("name", BAD)
def test_bad_input_fails_once_and_says_why(trial: Trial, name: str) -> None:
    task = trial.bad[name]
    assert (task["status"], task["attempt"], task["output"]) == ("failed", 1, None)
    assert task["error"].startswith("Invalid input: input_image_url: ")
    assert BAD[name][1] in task["error"]
    assert task["error_detail"] == {
        "code": "invalid_input",
        "retryable": False,
        "attempt": 1,
        "param": "input_image_url",
    }


def test_worker_serves_the_next_task_after_bad_inputs(trial: Trial) -> None:
    assert trial.good["status"] == "completed", trial.good
    assert trial.devices[0] == trial.devices[1]


def test_address_that_is_not_allowed_is_refused_at_the_door(strict: Live) -> None:
    url = f"http://127.0.0.1:{strict.port}/healthz"
    with strict.client() as client:
        answer = client.post(GENERATION, json={**SMALL, "input_image_url": url})
    assert refusal(answer) == (422, "invalid_input", "input_image_url")


@pytest.mark.parametrize("path", DATA_SETS)
def test_fetched_data_set_of_no_use_fails_by_name_and_leaves_nothing(
    strict: Live, site: Site, path: str
) -> None:
    url = f"http://{site.netloc}{path}"
    body = {"dataset_url": url, "output_name": f"x{path[1:]}", "config": {"trigger_word": "sks"}}
    with strict.client() as client:
        made = client.post("/training", json=body)
        assert made.status_code == 201, made.text
        strict.wait_task(made.json()["id"], *OVER)
        task = client.get(f"/training/{made.json()['id']}").json()
    assert (task["status"], task["attempt"]) == ("failed", 1)
    assert task["error"].startswith("Invalid input: dataset_url: ")
    for text in DATA_SETS[path][1]:
        assert text in task["error"]
    assert (task["error_detail"]["code"], task["error_detail"]["param"]) == (
        "invalid_input",
        "dataset_url",
    )
    assert task["output"]["metrics"]["step"] == 0
    assert list((strict.data_dir / "scratch").iterdir()) == []
    assert not list(strict.data_dir.parent.rglob("*evil*"))


# Good inputs


def drawn(server: Live, **changes: object) -> list[dict[str, Any]]:
    """Run a task and return its images."""
    task = server.wait_task(submit(server, **changes), *OVER)
    assert task["status"] == "completed", task
    images: list[dict[str, Any]] = task["output"]["images"]  # type: ignore[index]
    return images


def test_picture_is_the_same_whichever_way_its_input_came(strict: Live, site: Site) -> None:
    data = picture("PNG")
    encoded = base64.b64encode(data).decode()
    with strict.client() as client:
        upload = client.post("/files", files={"file": ("dress.png", data)}).json()
    fetched = httpx.get(upload["url"])
    assert (fetched.content, fetched.headers["content-type"]) == (data, "image/png")
    pictures = [
        httpx.get(drawn(strict, input_image_url=url, strength=0.5)[0]["url"]).content
        for url in (upload["url"], f"data:image/png;base64,{encoded}")
    ]
    assert pictures[0] == pictures[1]
    assert pictures[0] != httpx.get(drawn(strict)[0]["url"]).content


def test_output_of_one_task_is_the_input_of_the_next(strict: Live) -> None:
    (first,) = drawn(strict)
    (second,) = drawn(strict, input_image_url=first["url"], strength=0.5)
    assert httpx.get(second["url"]).content != httpx.get(first["url"]).content


def test_sides_follow_the_input_and_its_type_is_what_its_bytes_say(
    strict: Live, site: Site
) -> None:
    url = f"http://{site.netloc}/dress.png"
    (image,) = drawn(strict, input_image_url=url, width=None, height=None)
    assert image["height"] == pytest.approx(2 * image["width"], abs=16)
    assert image["width"] * image["height"] == pytest.approx(256 * 256, rel=0.1)


def test_archive_is_no_picture(strict: Live) -> None:
    with strict.client() as client:
        upload = client.post("/files", files={"file": b"PK\x03\x04" + bytes(100)}).json()
    task = strict.wait_task(submit(strict, input_image_url=upload["url"]), *OVER)
    assert task["status"] == "failed"
    assert str(task["error"]).startswith("Invalid input: input_image_url: the input is a ZIP")


# Outputs


@pytest.mark.parametrize(
    ("output_format", "media_type", "suffix"),
    [
        ("jpeg", "image/jpeg", "jpg"),
        ("png", "image/png", "png"),
        ("webp", "image/webp", "webp"),
    ],
)
def test_output_has_the_format_that_was_asked_for(
    strict: Live, output_format: str, media_type: str, suffix: str
) -> None:
    images = drawn(strict, output_format=output_format, num_outputs=2)
    for index, image in enumerate(images):
        assert image["url"].startswith(f"{strict.base_url}/outputs/")
        assert image["url"].endswith(f"/output_{index}.{suffix}")
        answer = httpx.get(image["url"])
        assert answer.headers["content-type"] == media_type
        assert answer.headers["content-length"] == str(len(answer.content))
        assert answer.headers["x-content-type-options"] == "nosniff"
        decoded = Image.open(io.BytesIO(answer.content))
        assert (decoded.format, decoded.size) == (output_format.upper(), (64, 64))
        head = httpx.head(image["url"])
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == str(len(answer.content))


def test_outputs_are_gone_after_cleanup(strict: Live) -> None:
    task_id = submit(strict)
    task = strict.wait_task(task_id, *OVER)
    url = task["output"]["images"][0]["url"]  # type: ignore[index]
    assert httpx.get(url).status_code == 200
    with strict.client() as client:
        assert client.post(f"/tasks/{task_id}/cleanup").status_code == 200
    assert httpx.get(url).status_code == 410


def test_model_that_is_not_installed_says_what_to_do(strict: Live) -> None:
    task = strict.wait_task(submit(strict, model="sd-1.5"), *OVER)
    assert (task["status"], task["attempt"]) == ("failed", 1)
    assert "sd-1.5" in str(task["error"])
    assert "imageloom models pull sd-1.5" in str(task["error"])
