"""Keys over HTTP: a tenant's own, made once, shown once, never all of them revoked."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from structlog.testing import capture_logs

from api_helpers import refusal
from conftest import called_with
from imageloom.core.keys import SCOPES, create_key
from imageloom.core.services import Services
from imageloom.store.pool import transaction


async def made(api: httpx.AsyncClient, *scopes: str) -> dict[str, object]:
    answer = await api.post("/keys", json={"scopes": scopes})
    assert answer.status_code == 201, answer.text
    key: dict[str, object] = answer.json()
    return key


async def test_key_is_shown_once_and_works(api: httpx.AsyncClient, services: Services) -> None:
    with capture_logs() as logs:
        new = await made(api, "write", "read")
    text = new.pop("key")
    assert isinstance(text, str)
    assert text.startswith("il_")
    assert text not in str(logs)
    assert (new["scopes"], new["revoked_at"], new["current"]) == (["read", "write"], None, False)
    listed = (await api.get("/keys/")).json()
    assert (listed["total"], listed["items"][0]) == (2, new)
    assert [key["current"] for key in listed["items"]] == [False, True]
    assert all("key" not in key for key in listed["items"])
    async with called_with(services, text) as caller:
        assert (await caller.get("/session")).json()["key_id"] == new["id"]
        assert refusal(await caller.get("/keys")) == (403, "forbidden", None)
    async with transaction(services.pool) as conn:
        rows = await (await conn.execute("select * from api_key, idempotency")).fetchall()
    assert text not in str(rows)


async def test_no_key_gives_what_it_lacks(api: httpx.AsyncClient, services: Services) -> None:
    answer = await api.post("/keys", json={"scopes": ["read", "monitor"]})
    assert refusal(answer) == (403, "forbidden", "scopes")
    whole = await create_key(services.pool, tenant="default", scopes=SCOPES)
    async with called_with(services, whole.key) as caller:
        assert (await made(caller, "monitor"))["scopes"] == ["monitor"]


async def test_repeated_request_makes_one_key_and_does_not_show_it_again(
    api: httpx.AsyncClient,
) -> None:
    headers = {"Idempotency-Key": "one"}
    sent = {"json": {"scopes": ["read"]}, "headers": headers}
    first, again = [(await api.post("/keys", **sent)).json() for _ in range(2)]  # type: ignore[arg-type]
    assert again == {**first, "key": None}
    assert (await api.get("/keys")).json()["total"] == 2
    other = await api.post("/keys", json={"scopes": ["write"]}, headers=headers)
    assert refusal(other) == (422, "idempotency_key_reused", "Idempotency-Key")


async def test_revoked_key_is_out_at_once(api: httpx.AsyncClient, services: Services) -> None:
    new = await made(api, "read")
    async with called_with(services, str(new["key"])) as caller:
        first, again = [(await api.delete(f"/keys/{new['id']}")).json() for _ in range(2)]
        assert first["revoked_at"]
        assert again == first
        assert refusal(await caller.get("/tasks")) == (401, "unauthorized", None)


async def test_last_administrator_stays(api: httpx.AsyncClient, services: Services) -> None:
    mine = (await api.get("/keys")).json()["items"][0]["id"]
    reader = await made(api, "read", "write")
    assert refusal(await api.delete(f"/keys/{mine}")) == (409, "conflict", None)
    assert (await api.delete(f"/keys/{reader['id']}")).status_code == 200
    other = await made(api, "admin")
    async with called_with(services, str(other["key"])) as second:
        answers = await asyncio.gather(
            api.delete(f"/keys/{other['id']}"), second.delete(f"/keys/{mine}")
        )
    # One of them came first; the other was then the last, or had no key any more.
    assert sorted(answer.status_code for answer in answers) in ([200, 401], [200, 409])


async def test_own_key_may_be_revoked_and_the_answer_says_so(
    api: httpx.AsyncClient, services: Services
) -> None:
    mine = (await api.get("/keys")).json()["items"][0]["id"]
    await create_key(services.pool, tenant="default")
    answer = (await api.delete(f"/keys/{mine}/")).json()
    assert (answer["id"], answer["current"]) == (mine, True)
    assert (await api.get("/keys")).status_code == 401


async def test_keys_of_others_are_not_there(
    tenant: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    key = (await tenant.get("/keys")).json()["items"][0]
    assert refusal(await stranger.delete(f"/keys/{key['id']}")) == (404, "not_found", None)
    listed = (await stranger.get("/keys")).json()["items"]
    assert key["id"] not in [each["id"] for each in listed]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "scopes"),
        ({"scopes": []}, "scopes"),
        ({"scopes": "read"}, "scopes"),
        ({"scopes": ["root"]}, "scopes.0"),
        ({"scopes": ["read", 7]}, "scopes.1"),
        ({"scopes": ["read"], "tenant": "other"}, "tenant"),
    ],
)
async def test_wrong_request_for_a_key_names_the_field(
    shared_api: httpx.AsyncClient, body: object, param: str
) -> None:
    assert refusal(await shared_api.post("/keys", json=body)) == (422, "invalid_params", param)


async def test_list_of_keys_refuses_what_makes_no_sense(shared_api: httpx.AsyncClient) -> None:
    for query, param in (("page=0", "page"), ("page_size=x", "page_size"), ("of=me", "of")):
        assert refusal(await shared_api.get(f"/keys?{query}")) == (422, "invalid_params", param)
