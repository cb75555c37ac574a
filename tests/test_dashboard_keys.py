"""Keys and webhooks in the browser."""

from __future__ import annotations

import httpx
from playwright.async_api import Browser, expect

from browser import Visitor, visiting


async def test_a_key_is_made_shown_once_used_and_revoked(
    visitor: Visitor, browser: Browser
) -> None:
    page = visitor.page
    await visitor.open("/keys", heading="Keys")
    await page.get_by_role("checkbox", name="write").uncheck()
    await page.get_by_role("button", name="Make a key").click()
    await expect(page.get_by_role("heading", name="Your new key")).to_be_focused()
    shown = page.get_by_role("region", name="The key", exact=True)
    await page.get_by_role("button", name="Copy the key").click()
    key = await page.evaluate("navigator.clipboard.readText()")
    await expect(shown).to_have_text(key)
    await visitor.look("keys")
    await page.get_by_role("button", name="I have it").click()
    await expect(shown).to_have_count(0)

    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=f"{visitor.url}/api/v1", headers=headers) as client:
        made = (await client.get("/session")).json()
        assert made["scopes"] == ["read"]
        async with visiting(browser, visitor.url, key) as reader:
            await reader.sign_in()
            await reader.open("/keys", heading="Keys")
            await expect(reader.page.get_by_text("Yours has: read.")).to_be_visible()
        await page.get_by_role("button", name=f"Revoke {made['key_id']}").click()
        await page.get_by_role("dialog").get_by_role("button", name="Revoke it").click()
        await expect(page.get_by_role("row", name=made["key_id"])).to_contain_text("revoked")
        assert (await client.get("/session")).status_code == 401
    mine = page.get_by_role("row").filter(has_text="in use here")
    await mine.get_by_role("button", name="Revoke").click()
    await expect(page.get_by_text("you will be signed out")).to_be_visible()
    await page.get_by_role("button", name="Keep it").click()


async def test_deliveries_of_webhooks_are_seen_with_their_tries(visitor: Visitor) -> None:
    page = visitor.page
    body = {"prompt": "a hat", "steps": 1, "width": 64, "height": 64}
    hook = "https://hooks.invalid/<b>told</b>"
    answer = await visitor.api.post("/tasks/generation", json={**body, "webhook_url": hook})
    assert answer.status_code == 201, answer.text
    task = answer.json()["id"]
    await visitor.open("/webhooks", heading="Webhooks")
    row = page.get_by_role("row").filter(has_text="task.completed")
    await expect(row.get_by_role("link", name=task)).to_be_visible()
    await row.locator("summary").filter(has_text="unknown host").click()
    await expect(row.get_by_role("listitem")).to_contain_text("unknown host in")
    await row.get_by_role("button", name="Deliver task.completed").click()
    await expect(page.get_by_text("It is delivered again")).to_be_visible()
    await page.get_by_label("State").select_option("delivered")
    await expect(page.get_by_text("None is delivered.")).to_be_visible()
    await page.get_by_label("State").select_option("")
    await page.get_by_role("button", name="Show the secret").click()
    secret = page.get_by_role("region", name="The secret")
    before = await secret.inner_text()
    await page.get_by_role("button", name="Change it").click()
    await page.get_by_role("dialog").get_by_role("button", name="Change it").click()
    await expect(secret).not_to_have_text(before)
    assert await secret.inner_text() == (await visitor.api.get("/webhooks/secret")).json()["secret"]
    await page.get_by_role("button", name="Hide").click()
    await visitor.look("webhooks")
