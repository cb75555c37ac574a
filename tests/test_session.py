"""Browsers signed in by a key: the cookie, what it allows, and who may not ride on it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from http.cookies import SimpleCookie

import httpx
import pytest
from structlog.testing import capture_logs

from api_helpers import GENERATION, PROMPT, created, failed, refusal
from conftest import PUBLIC_URL, called_with
from imageloom.api.app import create_app
from imageloom.api.sign_ins import ADDRESSES, AT_ONCE, SECONDS_EACH, SignIns
from imageloom.core.keys import create_key, revoke_key
from imageloom.core.maintain import sweep
from imageloom.core.services import Services
from imageloom.domain.errors import TooManySignIns
from imageloom.store.pool import transaction

COOKIE = "imageloom_session"
SAME = {"Sec-Fetch-Site": "same-origin"}


@pytest.fixture
async def browser(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """The app as a browser calls it: no key, cookies that are kept, and what it says of pages."""
    async with called_with(services, "") as client:
        del client.headers["authorization"]
        client.headers.update(SAME)
        yield client


async def signed_in(browser: httpx.AsyncClient, key: str) -> dict[str, object]:
    answer = await browser.post("/session", json={"key": key})
    assert answer.status_code == 201, answer.text
    view: dict[str, object] = answer.json()
    return view


async def test_cookie_stands_for_the_key(browser: httpx.AsyncClient, services: Services) -> None:
    made = await create_key(services.pool, tenant="shop", scopes=("read", "write"))
    with capture_logs() as logs:
        answer = await browser.post("/session", json={"key": made.key})
    assert answer.status_code == 201
    expires_at = answer.json()["expires_at"]
    view = {"tenant": "shop", "scopes": ["read", "write"], "key_id": made.id}
    assert answer.json() == {**view, "expires_at": expires_at}
    assert answer.headers["cache-control"] == "no-store"
    cookie = SimpleCookie(answer.headers["set-cookie"])[COOKIE]
    kept = {name: cookie[name] for name in ("httponly", "samesite", "path", "max-age", "secure")}
    assert kept == {
        "httponly": True,
        "samesite": "strict",
        "path": "/",
        "max-age": "43200",
        "secure": "",
    }
    assert len(cookie.value) == 43
    assert made.key not in f"{answer.text}{answer.headers}{logs}"
    assert (await browser.get("/session/")).json() == {**view, "expires_at": expires_at}
    task = await created(browser)
    assert (await browser.get(f"/tasks/{task['id']}")).json() == task
    refused = await browser.get("/webhooks/secret")
    assert refusal(refused) == (403, "forbidden", None)


async def test_only_hashes_of_sessions_are_stored(
    browser: httpx.AsyncClient, services: Services, key: str
) -> None:
    await signed_in(browser, key)
    async with transaction(services.pool) as conn:
        row = await (await conn.execute("select * from session")).fetchone()
    assert row is not None
    assert browser.cookies[COOKIE] not in str(row)
    assert (row["expires_at"] - row["created_at"]).total_seconds() == 12 * 3600


async def test_key_itself_is_told_who_it_is(
    api: httpx.AsyncClient, browser: httpx.AsyncClient
) -> None:
    answer = (await api.get("/session")).json()
    assert (answer["tenant"], answer["expires_at"]) == ("default", None)
    assert refusal(await browser.get("/session")) == (401, "unauthorized", None)


async def test_signed_out_is_out_for_good(browser: httpx.AsyncClient, key: str) -> None:
    await signed_in(browser, key)
    token = browser.cookies[COOKIE]
    answer = await browser.delete("/session")
    assert (answer.status_code, answer.content) == (204, b"")
    assert COOKIE not in browser.cookies
    browser.cookies.set(COOKIE, token)
    assert refusal(await browser.get("/tasks")) == (401, "unauthorized", None)
    for _ in range(2):
        assert (await browser.delete("/session/")).status_code == 204


async def test_revoked_key_and_expired_session_are_out_at_once(
    browser: httpx.AsyncClient, services: Services
) -> None:
    made = await create_key(services.pool, tenant="shop")
    await signed_in(browser, made.key)
    assert (await browser.get("/tasks")).status_code == 200
    async with transaction(services.pool) as conn:
        await conn.execute("update session set expires_at = now()")
    assert refusal(await browser.get("/tasks")) == (401, "unauthorized", None)
    await sweep(services)
    async with transaction(services.pool) as conn:
        assert await (await conn.execute("select 1 from session")).fetchone() is None
    await signed_in(browser, made.key)
    await revoke_key(services.pool, made.id)
    assert refusal(await browser.get("/tasks")) == (401, "unauthorized", None)


async def test_key_that_is_sent_counts_before_the_cookie(
    browser: httpx.AsyncClient, services: Services, key: str
) -> None:
    await signed_in(browser, key)
    other = await create_key(services.pool, tenant="other")
    for sent, found in ((other.key, "other"), ("wrong", None)):
        answer = await browser.get("/session", headers={"Authorization": f"Bearer {sent}"})
        assert answer.json().get("tenant") == found
    assert answer.status_code == 401


async def test_events_are_watched_by_cookie(
    browser: httpx.AsyncClient, services: Services, key: str
) -> None:
    await signed_in(browser, key)
    task = await created(browser)
    await failed(services, task)
    answer = await browser.get(f"/tasks/{task['id']}/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert '"status": "failed"' in answer.text


ELSEWHERE = "https://evil.example"


@pytest.mark.parametrize(
    ("headers", "reads", "changes"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, 200, 201),
        ({"Sec-Fetch-Site": "none"}, 200, 201),
        ({"Sec-Fetch-Site": "same-site"}, 200, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": PUBLIC_URL}, 403, 403),
        ({"Sec-Fetch-Site": "what"}, 403, 403),
        ({"Origin": PUBLIC_URL}, 200, 201),
        ({"Origin": "https://behind.proxy:8443", "Host": "behind.proxy:8443"}, 200, 201),
        ({"Origin": PUBLIC_URL, "Host": "10.0.0.7:9000"}, 200, 201),
        ({"Origin": ELSEWHERE}, 200, 403),
        ({"Origin": f"{PUBLIC_URL}:81"}, 200, 403),
        ({"Origin": "null"}, 200, 403),
        ({"Origin": "http://[x"}, 200, 403),
        ({}, 200, 403),
    ],
)
async def test_other_sites_do_not_ride_on_the_cookie(
    browser: httpx.AsyncClient, key: str, headers: dict[str, str], reads: int, changes: int
) -> None:
    await signed_in(browser, key)
    del browser.headers["sec-fetch-site"]
    cookie = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}
    read = await browser.get("/tasks", headers=headers | cookie)
    changed = await browser.post(GENERATION, json=PROMPT, headers=headers | cookie)
    ended = await browser.delete("/session", headers=headers | cookie)
    assert (read.status_code, changed.status_code) == (reads, changes)
    assert ended.status_code == (204 if changes == 201 else 403)
    for answer in (read, changed, ended):
        if answer.status_code == 403:
            assert refusal(answer) == (403, "csrf", None)


async def test_key_may_be_sent_from_anywhere(api: httpx.AsyncClient) -> None:
    answer = await api.post(GENERATION, json=PROMPT, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("url", "asked", "secure"),
    [
        ("https://img.example", "http", True),
        ("http://img.example", "https", True),
        ("http://img.example", "http", False),
    ],
)
async def test_cookie_is_secure_where_there_is_tls(
    services: Services, key: str, url: str, asked: str, secure: bool
) -> None:
    app = create_app(services, public_url=url)
    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url=f"{asked}://img.example") as client:
        answer = await client.post("/api/v1/session", json={"key": key})
    assert ("; secure" in answer.headers["set-cookie"].lower()) == secure


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, (422, "invalid_params", "key")),
        ({"key": 7}, (422, "invalid_params", "key")),
        ({"key": ["il_secret"]}, (422, "invalid_params", "key")),
        ({"key": ""}, (422, "invalid_params", "key")),
        ({"key": "il_secret" * 200}, (422, "invalid_params", "key")),
        ({"key": "il_secret", "il_secret": 1}, (422, "invalid_params", "key")),
        ({"kye": "il_secret"}, (422, "invalid_params", "key")),
        (["il_secret"], (422, "invalid_params", None)),
        ({"key": "il_secret"}, (401, "unauthorized", "key")),
    ],
)
async def test_wrong_sign_in_repeats_nothing(
    shared_services: Services, body: object, expected: tuple[int, str, str | None]
) -> None:
    async with called_with(shared_services, "") as client:
        del client.headers["authorization"]
        answer = await client.post("/session", json=body)
    assert refusal(answer) == expected
    assert "il_secret" not in answer.text
    assert "set-cookie" not in answer.headers


async def test_form_cannot_sign_in(shared_services: Services) -> None:
    async with called_with(shared_services, "") as client:
        for sent in ({"data": {"key": "x"}}, {"content": b'{"key": "x"}'}):
            answer = await client.post("/session", **sent)  # type: ignore[arg-type]
            assert refusal(answer) == (415, "unsupported_media_type", None)


async def test_who_sends_many_wrong_keys_waits(browser: httpx.AsyncClient, key: str) -> None:
    for _ in range(AT_ONCE):
        answer = await browser.post("/session", json={"key": "il_wrong"})
        assert answer.status_code == 401
    answer = await browser.post("/session", json={"key": key})
    assert refusal(answer) == (429, "too_many_requests", None)
    assert 1 <= int(answer.headers["retry-after"]) <= SECONDS_EACH
    answer = await browser.get("/tasks", headers={"Authorization": f"Bearer {key}"})
    assert answer.status_code == 200


def test_wrong_keys_are_forgiven_and_counted_by_network() -> None:
    now = 1000.0
    sign_ins = SignIns(lambda: now)
    for _ in range(AT_ONCE):
        sign_ins.check("2001:db8::1")
        sign_ins.failed("2001:db8::1")
    with pytest.raises(TooManySignIns):
        sign_ins.check("2001:db8::ffff")
    sign_ins.check("2001:db8:0:1::1")
    sign_ins.check("192.0.2.1")
    now += SECONDS_EACH
    sign_ins.check("2001:db8::1")
    sign_ins.failed("2001:db8::1")
    with pytest.raises(TooManySignIns) as caught:
        sign_ins.check("2001:db8::1")
    assert caught.value.retry_after == SECONDS_EACH


def test_counting_wrong_keys_takes_bounded_memory() -> None:
    sign_ins = SignIns(lambda: 0.0)
    for number in range(ADDRESSES + 100):
        sign_ins.failed(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(sign_ins._even_at) == ADDRESSES
