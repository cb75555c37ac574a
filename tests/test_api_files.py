"""Uploads and outputs over HTTP: who may read them, by which URL, and what the answer says."""

from __future__ import annotations

import hashlib
import re
import time

import httpx
import pytest

from api_helpers import GENERATION, PROMPT, completed, created, picture, refusal
from conftest import PUBLIC_URL, called_with
from imageloom.core.maintain import sweep
from imageloom.core.services import Services
from imageloom.store.pool import one, transaction

DAY = 24 * 3600


@pytest.fixture
def services(shared_services: Services) -> Services:
    """Shared, for every test here has a tenant of its own."""
    return shared_services


@pytest.fixture
def api(tenant: httpx.AsyncClient) -> httpx.AsyncClient:
    """The app, called with a key of this test's own tenant."""
    return tenant


async def uploaded(api: httpx.AsyncClient, data: bytes) -> dict[str, str]:
    answer = await api.post("/files", files={"file": ("dress", data)})
    assert answer.status_code == 201, answer.text
    file: dict[str, str] = answer.json()
    return file


async def output_url(api: httpx.AsyncClient, services: Services) -> tuple[str, str]:
    """Complete a task and return its output's URL and storage key."""
    task = await created(api)
    key = await completed(services, task)
    images = (await api.get(f"/tasks/{task['id']}/result")).json()["images"]
    return images[0]["url"], key


def token_of(url: str) -> str:
    return url.rpartition("token=")[2] if "token=" in url else url.split("/")[-2]


# Uploads


@pytest.mark.parametrize(
    ("data", "media_type"),
    [
        (picture("JPEG"), "image/jpeg"),
        (picture("PNG"), "image/png"),
        (picture("WEBP"), "image/webp"),
        (b"PK\x03\x04 and the rest of an archive", "application/zip"),
    ],
    ids=["JPEG", "PNG", "WebP", "zip"],
)
async def test_upload_is_known_by_its_bytes(
    api: httpx.AsyncClient, data: bytes, media_type: str
) -> None:
    file = await uploaded(api, data)
    assert set(file) == {"id", "url", "size", "media_type", "sha256", "expires_at"}
    assert re.fullmatch("file_[0-9a-z]{36}", file["id"])
    assert (file["size"], file["media_type"]) == (len(data), media_type)
    assert file["sha256"] == hashlib.sha256(data).hexdigest()
    assert file["expires_at"].endswith("Z")
    assert file["url"].startswith(f"{PUBLIC_URL}/api/v1/files/{file['id']}?token=")


@pytest.mark.parametrize("path", ["/files", "/files/"])
async def test_upload_works_in_both_slash_forms(api: httpx.AsyncClient, path: str) -> None:
    assert (await api.post(path, files={"file": picture()})).status_code == 201


async def test_upload_is_read_by_its_url_alone(api: httpx.AsyncClient, services: Services) -> None:
    data = picture("PNG")
    file = await uploaded(api, data)
    async with called_with(services, "none") as anybody:
        answer = await anybody.get(file["url"])
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(len(data))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"].startswith("attachment")


async def test_upload_is_read_by_the_key_of_its_tenant_only(
    api: httpx.AsyncClient, stranger: httpx.AsyncClient, services: Services
) -> None:
    file = await uploaded(api, picture())
    assert (await api.get(f"/files/{file['id']}")).status_code == 200
    assert refusal(await stranger.get(f"/files/{file['id']}")) == (404, "not_found", None)
    async with called_with(services, "none") as anybody:
        answer = await anybody.get(f"/files/{file['id']}")
    assert refusal(answer) == (401, "unauthorized", None)


async def test_token_of_one_upload_opens_no_other(api: httpx.AsyncClient) -> None:
    first, second = await uploaded(api, picture()), await uploaded(api, picture("PNG"))
    answer = await api.get(f"/files/{first['id']}?token={token_of(second['url'])}")
    assert refusal(answer) == (404, "not_found", None)


async def test_expired_upload_is_gone_for_everybody(
    api: httpx.AsyncClient, services: Services
) -> None:
    file = await uploaded(api, picture())
    async with transaction(services.pool) as conn:
        row = await conn.execute(
            "update file set expires_at = now() - interval '1 s' where id = %s returning key",
            (file["id"],),
        )
        key = one(await row.fetchone())["key"]
    assert refusal(await api.get(f"/files/{file['id']}")) == (404, "not_found", None)
    refused = await api.post(GENERATION, json={**PROMPT, "input_image_url": file["url"]})
    assert refusal(refused) == (422, "invalid_input", "input_image_url")
    assert await services.storage.exists(key)
    await sweep(services)
    assert not await services.storage.exists(key)


# Uploads and outputs as inputs


async def test_own_upload_and_own_output_are_inputs(
    api: httpx.AsyncClient, services: Services
) -> None:
    file = await uploaded(api, picture())
    url, key = await output_url(api, services)
    first = await created(api, input_image_url=file["url"])
    second = await created(api, input_image_url=url)
    async with transaction(services.pool) as conn:
        rows = await conn.execute(
            "select inputs from task where id = any(%s) order by id", ([first["id"], second["id"]],)
        )
        inputs = [row["inputs"]["input_image_url"] for row in await rows.fetchall()]
    assert inputs[0].endswith(f"/{file['id']}")
    assert inputs[1] == key


async def test_upload_is_an_input_without_its_token(api: httpx.AsyncClient) -> None:
    file = await uploaded(api, picture())
    await created(api, input_image_url=file["url"].partition("?")[0])


async def test_upload_is_known_by_the_name_that_the_caller_uses(api: httpx.AsyncClient) -> None:
    file = await uploaded(api, picture())
    url = file["url"].replace(PUBLIC_URL, "http://10.0.0.7:9000")
    body = {**PROMPT, "input_image_url": url}
    answer = await api.post(GENERATION, json=body, headers={"Host": "10.0.0.7:9000"})
    assert answer.status_code == 201


async def test_files_of_another_tenant_are_no_inputs(
    api: httpx.AsyncClient, stranger: httpx.AsyncClient, services: Services
) -> None:
    file = await uploaded(api, picture())
    url, _ = await output_url(api, services)
    for theirs in (file["url"], url):
        answer = await stranger.post(GENERATION, json={**PROMPT, "input_image_url": theirs})
        assert refusal(answer) == (422, "invalid_input", "input_image_url")


async def test_cleaned_up_output_is_no_input(api: httpx.AsyncClient, services: Services) -> None:
    task = await created(api)
    await completed(services, task)
    url = (await api.get(f"/tasks/{task['id']}/result")).json()["images"][0]["url"]
    await api.post(f"/tasks/{task['id']}/cleanup")
    answer = await api.post(GENERATION, json={**PROMPT, "input_image_url": url})
    assert refusal(answer) == (422, "invalid_input", "input_image_url")


async def test_upload_larger_than_an_input_may_be_is_refused(
    api: httpx.AsyncClient, services: Services
) -> None:
    file = await uploaded(api, picture())
    async with transaction(services.pool) as conn:
        await conn.execute(
            "update file set size = %s where id = %s",
            (services.settings.limits.fetch + 1, file["id"]),
        )
    answer = await api.post(GENERATION, json={**PROMPT, "input_image_url": file["url"]})
    assert refusal(answer) == (422, "invalid_input", "input_image_url")


# Outputs


async def test_output_is_read_by_its_url_alone(api: httpx.AsyncClient, services: Services) -> None:
    url, _ = await output_url(api, services)
    async with called_with(services, "none") as anybody:
        answer = await anybody.get(url)
    assert (answer.status_code, answer.content) == (200, picture())
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-length"] == str(len(picture()))
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-disposition"] == "inline"


async def test_output_answers_a_head_request(api: httpx.AsyncClient, services: Services) -> None:
    url, _ = await output_url(api, services)
    answer = await api.head(url)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/jpeg")


async def test_url_ends_with_a_name_that_shows_the_format(
    api: httpx.AsyncClient, services: Services
) -> None:
    url, _ = await output_url(api, services)
    assert url.endswith("/output_0.jpg")


async def test_tampered_token_opens_nothing(api: httpx.AsyncClient, services: Services) -> None:
    url, _ = await output_url(api, services)
    token = token_of(url)
    for index in (0, len(token) // 2, -1):
        changed = list(token)
        changed[index] = "A" if changed[index] != "A" else "B"
        answer = await api.get(url.replace(token, "".join(changed)))
        assert refusal(answer) == (404, "not_found", None)


@pytest.mark.parametrize("token", ["forged", "a.b", "%00", "%ff", ".", "x" * 3000])
async def test_odd_token_opens_nothing(shared_api: httpx.AsyncClient, token: str) -> None:
    assert refusal(await shared_api.get(f"/outputs/{token}/output_0.jpg")) == (
        404,
        "not_found",
        None,
    )


async def test_expired_url_is_gone(api: httpx.AsyncClient, services: Services) -> None:
    url, key = await output_url(api, services)
    expired = services.signer.sign("output", key, int(time.time()) - 1)
    answer = await api.get(url.replace(token_of(url), expired))
    assert refusal(answer) == (410, "gone", None)
    file = await uploaded(api, picture())
    expired = services.signer.sign("file", file["id"], int(time.time()) - 1)
    answer = await api.get(f"/files/{file['id']}?token={expired}")
    assert refusal(answer) == (410, "gone", None)


async def test_output_url_lasts_as_long_as_the_settings_say(
    api: httpx.AsyncClient, services: Services
) -> None:
    url, key = await output_url(api, services)
    life = services.settings.url_ttl
    lasting = {
        services.signer.sign("output", key, expires)
        for expires in range(int(time.time()) + life - DAY, int(time.time()) + life + DAY)
        if expires % 3600 == 0
    }
    assert token_of(url) in lasting


async def test_token_of_one_kind_is_worthless_for_another(
    api: httpx.AsyncClient, services: Services
) -> None:
    url, key = await output_url(api, services)
    file = await uploaded(api, picture())
    later = int(time.time()) + DAY
    wrong = [
        url.replace(token_of(url), token_of(file["url"])),
        url.replace(token_of(url), services.signer.sign("file", key, later)),
        f"/files/{file['id']}?token={services.signer.sign('output', file['id'], later)}",
    ]
    for address in wrong:
        assert refusal(await api.get(address)) == (404, "not_found", None)


async def test_signature_opens_pictures_only(api: httpx.AsyncClient, services: Services) -> None:
    later = int(time.time()) + DAY
    for key in ("uploads/default/file_0", "outputs/task_0/1/0.html", "../secret.jpg", ""):
        token = services.signer.sign("output", key, later)
        status, kind, _ = refusal(await api.get(f"/outputs/{token}/output_0.jpg"))
        assert (status, kind) in ((404, "not_found"), (410, "gone"))
