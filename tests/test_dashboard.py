"""The dashboard as a person uses it: a real browser at a running installation."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from importlib import resources
from typing import Any

import pytest
from playwright.async_api import Locator, Page, expect

from browser import Visitor
from conftest import Live
from live_adapters import adapter, publish

DRESS = resources.files("imageloom.runtime") / "embedded" / "dress.jpg"
# Long enough that somebody can look at it, and stop it.
LONG = {"prompt": "a dress that takes its time", "num_outputs": 16, "steps": 100}
QUICK = {"prompt": "a hat", "steps": 1, "width": 64, "height": 64}
BROKEN = {
    "operation": "upscale",
    "scale": 2,
    "input_image_url": "data:image/png;base64,aGVsbG8=",
}
LOADED = """(image) => image.naturalWidth || new Promise((resolve) => {
    image.addEventListener("load", () => resolve(image.naturalWidth));
})"""
SEED = str(2**53 + 1)  # more than a number of JavaScript holds
SAID = "the input is of an unknown format"
HOSTILE = (
    "<img src=x onerror=\"document.title='run'\"> <b>bold</b> \x1b[31mred\x1b[0m \u202etxet "
    "</title><script>document.title='run'</script>"
)


async def made(visitor: Visitor, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Return a task that is over by now."""
    answer = await visitor.api.post(path, json=body, headers={"Prefer": "wait=60"})
    task: dict[str, Any] = answer.json()
    assert task["status"] in ("completed", "failed"), task
    return task


def picture(page: Page, alt: str) -> Locator:
    return page.get_by_role("img", name=alt, exact=True)


async def test_a_guest_signs_in_and_out_by_the_form(guest: Visitor) -> None:
    page = guest.page
    await page.goto(guest.url)
    await page.get_by_label("API key").fill("il_wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("This key is not known here")).to_be_visible()
    await expect(page.get_by_label("API key")).to_be_focused()
    await guest.look("signin")
    await page.get_by_label("API key").fill(guest.key)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    cookies = {cookie["name"]: cookie for cookie in await page.context.cookies()}
    assert cookies["imageloom_session"]["httpOnly"]
    assert cookies["imageloom_session"]["sameSite"] == "Strict"
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in", level=1)).to_be_visible()
    assert not await page.context.cookies()


async def test_a_picture_from_the_playground_to_the_gallery(visitor: Visitor) -> None:
    page = visitor.page
    await visitor.open("/playground")
    with resources.as_file(DRESS) as path:
        await page.get_by_label("Photograph (may be left out)").set_input_files(path)
    await expect(picture(page, "The photograph that the picture begins from")).to_be_visible()
    prompt = f"a blue dress, {os.urandom(3).hex()}"
    await page.get_by_label("Prompt").fill(prompt)
    await page.get_by_label("Steps").fill("100")
    await page.get_by_label("Seed").fill(SEED)
    await page.get_by_role("button", name="Draw", exact=True).click()
    assert await page.get_by_role("img", name="Picture 1 as it forms").evaluate(LOADED)
    await expect(picture(page, prompt)).to_be_visible()
    await expect(page.get_by_text(f"Seed {SEED}")).to_be_visible()
    await page.get_by_text("As an API call").click()
    await visitor.look("playground")
    call = await page.locator("[data-call=curl]").inner_text()
    again = await shell(call, visitor.key)
    called, drawn = (await tasks_of(visitor))[:2]
    assert called["id"] in again
    assert called["params"] == drawn["params"]

    await page.get_by_role("link", name="Gallery").click()
    shot = page.locator("figure").filter(has=page.get_by_role("link", name=drawn["id"]))
    await expect(shot).to_contain_text(prompt)
    await expect(shot).to_contain_text(SEED)
    assert await shot.get_by_role("img").evaluate(LOADED)
    await shot.get_by_text("Receipt").click()
    await expect(shot.get_by_text("imageloom-tiny").last).to_be_visible()
    await visitor.look("gallery")
    await shot.get_by_role("link", name="Again with this seed").click()
    await expect(page.get_by_label("Seed")).to_have_value(SEED)
    await expect(page.get_by_label("Prompt")).to_have_value(prompt)
    await page.go_back()
    await expect(shot).to_be_visible()
    await shot.get_by_role("button", name="Delete").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(shot).to_be_hidden()


async def shell(call: str, key: str) -> str:
    """Run a call as it stands, in a shell that has the key by its name."""
    process = await asyncio.create_subprocess_exec(
        "sh",
        "-c",
        call,
        env={**os.environ, "IMAGELOOM_API_KEY": key},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    output, _ = await process.communicate()
    return output.decode()


async def tasks_of(visitor: Visitor) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = (await visitor.api.get("/tasks")).json()["items"]
    return items


async def test_an_error_stands_at_its_field(visitor: Visitor) -> None:
    page = visitor.page
    visitor.expect_answer(422, "/tasks/generation")
    await visitor.open("/playground")
    await page.get_by_label("Prompt").fill("a hat")
    await page.get_by_label("Width").fill("65")
    await page.get_by_role("button", name="Draw", exact=True).click()
    width = page.get_by_label("Width")
    await expect(width).to_be_focused()
    await expect(width).to_have_accessible_description(re.compile("multiple of 8"))
    await page.reload()  # what was typed is still there
    await expect(page.get_by_label("Width")).to_have_value("65")


async def test_adapters_are_chosen_with_their_weights(visitor: Visitor, live: Live) -> None:
    files = {name: adapter("attn1.to_q", rank=4, seed=1) for name in ("stripes", "dots")}
    await asyncio.to_thread(publish, live, files)
    page = visitor.page
    await visitor.open("/playground")
    await page.get_by_label("Prompt").fill("a hat with both")
    for name in files:
        await page.get_by_label("Add an adapter").select_option(name)
        await page.get_by_label(f"Weight of {name}").fill("0.5")
    await page.get_by_role("button", name="Remove stripes").click()
    await page.get_by_label("Add an adapter").select_option("stripes")
    await page.get_by_label("Steps").fill("1")
    await page.keyboard.press("Enter")
    await expect(picture(page, "a hat with both")).to_be_visible()
    used = (await tasks_of(visitor))[0]["params"]["loras"]
    assert [(each["name"], each["weight"]) for each in used] == [("dots", 0.5), ("stripes", 1.0)]
    await page.get_by_role("link", name="Vary").first.click()
    await expect(picture(page, "The photograph that the picture begins from")).to_be_visible()
    await expect(page.get_by_label("Weight of dots")).to_have_value("0.5")
    await expect(page.get_by_label("Prompt")).to_be_focused()


async def test_who_monitors_sees_another_tenants_task_and_cannot_touch_it(
    visitor: Visitor, live: Live
) -> None:
    other = await key_of("somebody-else", live)
    answer = await visitor.api.post(
        "/tasks/processing",
        json=BROKEN,
        headers={"Authorization": f"Bearer {other}", "Prefer": "wait=60"},
    )
    page = visitor.page
    await visitor.open("/tasks")
    theirs = page.get_by_role("link", name=answer.json()["id"])
    await expect(page.get_by_role("heading", name=re.compile(r"\d+ tasks?$"))).to_be_visible()
    await expect(theirs).to_be_hidden()
    await page.get_by_label("All tenants").check()
    await theirs.click()
    await expect(page.locator(".why-card")).to_contain_text(SAID)
    await expect(page.get_by_text("somebody-else")).to_be_visible()
    await expect(page.locator(".page-head button")).to_have_count(0)


async def key_of(tenant: str, live: Live) -> str:
    """Return a new key of the tenant."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "imageloom.cli.main", "keys", "create", "--tenant", tenant),
        *("--data-dir", str(live.data_dir)),
        stdout=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return output.decode().split()[-1]


async def test_a_running_task_is_cancelled_and_a_cancelled_one_retried(visitor: Visitor) -> None:
    page = visitor.page
    task = (await visitor.api.post("/tasks/generation", json=LONG)).json()
    await visitor.open(f"/tasks/{task['id']}")
    await expect(page.get_by_label("Progress of this task")).to_be_visible()
    await visitor.look("task-running")
    await page.get_by_role("button", name="Cancel").click()
    dialog = page.get_by_role("dialog")
    await expect(dialog.get_by_role("button", name="Keep it")).to_be_focused()
    await dialog.get_by_role("button", name="Cancel it").click()
    await expect(page.locator(".timeline")).to_contain_text("cancelled")
    assert (await visitor.api.get(f"/tasks/{task['id']}")).json()["status"] == "cancelled"
    await page.get_by_role("button", name="Retry").click()
    await expect(page.get_by_text("Does over")).to_be_visible()
    again = page.url.rpartition("/")[2]
    assert again != task["id"]
    answer = await visitor.api.post(f"/tasks/{again}/cancel")
    assert answer.json()["retries"] == {"task_id": task["id"]}
    await expect(page.locator(".timeline")).to_contain_text("cancelled")


async def test_why_a_task_failed_is_three_clicks_away_at_most(visitor: Visitor) -> None:
    page = visitor.page
    task = await made(visitor, "/tasks/processing", BROKEN)
    await page.add_init_script(
        "window.clicks = 0; addEventListener('click', () => { clicks += 1 });"
    )
    await visitor.open("/")
    await page.get_by_role("link", name=task["id"]).click()
    await expect(page.get_by_role("heading", name="Why it failed")).to_be_visible()
    await expect(page.locator(".why-card")).to_contain_text(SAID)
    await expect(page.locator(".why-card")).to_contain_text("input_image_url")
    assert 1 <= await page.evaluate("clicks") <= 3
    await visitor.look("task-failed")
    await page.get_by_role("button", name="Retry").click()
    await expect(page.get_by_text("Does over")).to_be_visible()
    await expect(page.locator(".why-card")).to_contain_text(SAID)


async def test_the_overview_moves_as_things_happen_and_says_when_it_cannot(
    visitor: Visitor,
) -> None:
    page = visitor.page
    await made(visitor, "/tasks/processing", BROKEN)
    await visitor.open("/")
    completed = page.locator(".figure").filter(has_text="completed").locator("a")
    before = int((await completed.inner_text()).replace(",", ""))
    await made(visitor, "/tasks/generation", QUICK)
    await expect(completed).to_have_text(f"{before + 1:,}")
    await expect(page.get_by_role("img", name=re.compile("Tasks that ended"))).to_be_visible()
    await expect(page.get_by_role("region", name="Workers")).to_contain_text("CPU")
    running = (await visitor.api.post("/tasks/generation", json=LONG)).json()["id"]
    await expect(page.get_by_label(f"Progress of {running}")).to_be_visible()
    await page.get_by_label("All tenants").check()
    await expect(page.locator(".page-head p")).to_have_text("All tenants")
    await expect(page).to_have_url(re.compile("all=1"))
    await visitor.look("overview")
    await visitor.set_offline(True)
    await expect(page.get_by_text("The server does not answer")).to_be_visible()
    await visitor.set_offline(False)
    await expect(page.get_by_text("Connected again")).to_be_visible()
    await expect(page.get_by_text("The server does not answer")).to_be_hidden()
    await page.get_by_role("button", name=f"Cancel {running}").click()
    await page.get_by_role("button", name="Cancel it").click()
    await expect(page.get_by_label(f"Progress of {running}")).to_be_hidden()


async def test_the_list_of_tasks_is_filtered_by_its_address(visitor: Visitor) -> None:
    page = visitor.page
    failed = await made(visitor, "/tasks/processing", BROKEN)
    done = await made(visitor, "/tasks/generation", QUICK)
    await visitor.open("/tasks")
    await expect(page.get_by_role("link", name=done["id"])).to_be_visible()
    await page.get_by_label("Status").focus()
    await page.get_by_label("Status").select_option("failed")
    await expect(page.get_by_role("link", name=done["id"])).to_be_hidden()
    await expect(page.get_by_role("link", name=failed["id"])).to_be_visible()
    await expect(page).to_have_url(re.compile(r"status=failed"))
    await expect(page.get_by_label("Status")).to_be_focused()
    await page.get_by_label("Id begins with").fill(failed["id"])
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="1 task found")).to_be_visible()
    await page.reload()
    await expect(page.get_by_role("heading", name="1 task found")).to_be_visible()
    await expect(page.get_by_label("Status")).to_have_value("failed")
    await page.get_by_label("Created after").fill("2999-01-01T00:00")
    await expect(page.get_by_text("No task is like that.")).to_be_visible()
    await page.get_by_role("link", name="Clear").click()
    await expect(page.get_by_label("Status")).to_have_value("")
    await expect(page.get_by_label("Created after")).to_have_value("")
    await expect(page.get_by_role("link", name=done["id"])).to_be_visible()
    await visitor.look("tasks")


async def test_what_users_write_is_text_on_every_page(visitor: Visitor) -> None:
    page = visitor.page
    task = await made(visitor, "/tasks/generation", {**QUICK, "prompt": HOSTILE})
    failed = await made(
        visitor,
        "/tasks/generation",
        {**QUICK, "prompt": HOSTILE, "input_image_url": "data:image/png;base64,aGVsbG8="},
    )
    for path in (
        f"/tasks/{task['id']}",
        f"/tasks/{failed['id']}",
        "/gallery",
        f"/playground?again={task['id']}&output=0",
    ):
        await visitor.open(path)
        if path.startswith("/playground"):
            await expect(page.get_by_label("Prompt")).to_have_value(HOSTILE)
        else:
            shown = page.locator(".prompt").filter(has_text="<img src=x onerror").first
            await expect(shown).to_contain_text("<b>bold</b> ␛[31mred␛[0m ⟨U+202E⟩txet")
        assert await page.locator("main script, main b, img[src=x]").count() == 0
        assert await page.title() != "run"
    await page.get_by_role("button", name="Draw", exact=True).click()
    await page.get_by_text("As an API call").click()
    shown = page.locator("[data-call=Python]")
    await expect(shown).to_contain_text(r"\u001b[31mred\u001b[0m \u202etxet")


async def test_keys_alone_sign_in_and_draw(guest: Visitor) -> None:
    page = guest.page
    await page.goto(guest.url)
    await expect(page.get_by_label("API key")).to_be_focused()
    await page.keyboard.type(guest.key)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    await tab_to(page, page.get_by_role("link", name="Playground"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Playground", level=1)).to_be_visible()
    await tab_to(page, page.get_by_label("Prompt"))
    await page.keyboard.type("a yellow hat")
    await tab_to(page, page.get_by_label("Steps"))
    await page.keyboard.type("2")
    await tab_to(page, page.get_by_role("button", name="Draw", exact=True))
    await page.keyboard.press("Enter")
    await expect(picture(page, "a yellow hat")).to_be_visible()
    await expect(page.get_by_role("button", name="Draw", exact=True)).to_be_focused()


async def tab_to(page: Page, wanted: Locator) -> None:
    """Press the tabulator until the element has the focus, which must be seen."""
    for _ in range(60):
        await page.keyboard.press("Tab")
        if await wanted.evaluate("(element) => element === document.activeElement"):
            outline = await wanted.evaluate("(element) => getComputedStyle(element).outlineStyle")
            assert outline != "none"
            return
    pytest.fail(f"the tabulator does not lead to {wanted}")
