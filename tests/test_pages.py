"""The dashboard's files as a browser gets them."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from api_helpers import refusal
from conftest import PUBLIC_URL, called_with
from imageloom.core.services import Services

FOLDER = Path(__file__).parent.parent / "src" / "imageloom" / "dashboard"
FILES = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*") if path.is_file())


@pytest.fixture
async def browser(shared_services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """The app, called without a key, at its root."""
    async with called_with(shared_services, "") as client:
        del client.headers["authorization"]
        client.base_url = httpx.URL(PUBLIC_URL)
        yield client


async def test_dashboard_is_at_the_root(browser: httpx.AsyncClient) -> None:
    answer = await browser.get("/")
    assert answer.content == (FOLDER / "index.html").read_bytes()
    kept = {
        name: answer.headers[name]
        for name in (
            "content-type",
            "cache-control",
            "x-content-type-options",
            "referrer-policy",
            "x-frame-options",
            "content-security-policy",
        )
    }
    assert kept == {
        "content-type": "text/html; charset=utf-8",
        "cache-control": "no-cache",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "x-frame-options": "DENY",
        "content-security-policy": (
            "default-src 'none'; script-src 'self'; style-src 'self'; "
            f"img-src 'self' {PUBLIC_URL} data: blob:; connect-src 'self' {PUBLIC_URL}; "
            "font-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
        ),
    }


@pytest.mark.parametrize("name", FILES)
async def test_every_file_is_served_as_what_it_is(browser: httpx.AsyncClient, name: str) -> None:
    answer = await browser.get(f"/dashboard/{name}")
    assert answer.status_code == 200
    assert answer.content == (FOLDER / name).read_bytes()
    types = {
        "js": "text/javascript",
        "css": "text/css",
        "html": "text/html",
        "svg": "image/svg+xml",
    }
    assert answer.headers["content-type"].partition(";")[0] == types[name.rpartition(".")[2]]
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    head = await browser.head(f"/dashboard/{name}")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(len(answer.content))


async def test_copy_that_is_still_good_is_not_sent_again(browser: httpx.AsyncClient) -> None:
    tag = (await browser.get("/")).headers["etag"]
    for known in (tag, f'"other", {tag}', "*"):
        answer = await browser.get("/", headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b"")
        assert answer.headers["etag"] == tag
    assert (await browser.get("/", headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/dashboard",
        "/dashboard/",
        "/dashboard/nothing.js",
        "/dashboard/js",
        "/dashboard/../settings.py",
        "/dashboard/..%2fsettings.py",
        "/dashboard/%2e%2e/settings.py",
        "/dashboard/js/..%2findex.html",
        "/dashboard//etc/passwd",
        "/dashboard/%00",
        "/index.html",
        "/nothing",
        "/api/v1/nothing",
    ],
)
async def test_no_other_path_leads_to_a_file(browser: httpx.AsyncClient, path: str) -> None:
    request = browser.build_request("GET", PUBLIC_URL)
    request.url = request.url.copy_with(raw_path=path.encode())
    assert refusal(await browser.send(request)) == (404, "not_found", None)


async def test_pages_are_only_read(browser: httpx.AsyncClient) -> None:
    assert refusal(await browser.post("/")) == (405, "method_not_allowed", None)


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_manual_runs_only_what_its_digest_names(
    browser: httpx.AsyncClient, path: str
) -> None:
    answer = await browser.get(path)
    assert answer.headers["x-frame-options"] == "DENY"
    foreign = re.findall(r"<(?:script|link)[^>]*https?://[^>]*>", answer.text)
    assert foreign
    for tag in foreign:
        assert re.search(r'integrity="sha384-[A-Za-z0-9+/]{64}" crossorigin="anonymous"', tag), tag
        assert re.search(r"@\d+\.\d+\.\d+/", tag), tag
    assert "openapi.json" in answer.text
