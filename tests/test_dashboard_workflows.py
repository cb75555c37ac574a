"""Workflows in the browser: their graph as it moves, choices by keyboard, repair of what failed."""

from __future__ import annotations

import re
from typing import Any

from playwright.async_api import Locator, expect

from browser import Visitor
from conftest import Live
from imageloom.core.keys import create_key
from imageloom.core.services import open_services
from imageloom.settings import Settings
from imageloom.store.postgres import EmbeddedPostgres
from training_pictures import checkered_dress, png

SMALL = {"steps": 2, "width": 64, "height": 64, "seed": 7}
BRIGHT = {"operation": "adjust", "brightness": 1.1}
HOSTILE = "<img src=x onerror=alert(1)> \x1b[31mred\x1b[0m \u202egnp.exe"


async def test_a_person_chooses_by_keyboard_and_sees_the_workflow_complete(
    visitor: Visitor,
) -> None:
    page = visitor.page
    workflow = await created(
        visitor,
        drafts(3),
        approval("choose", "drafts", message="Which ones?", timeout_seconds=600, default="first"),
        bright("finish", "choose"),
        bright("sheet", "drafts"),
        name="lookbook",
    )
    await visitor.open(f"/workflows/{workflow['id']}", heading="lookbook")
    await expect(node(visitor, "drafts")).to_have_class(re.compile("is-pending"))
    await page.get_by_role("button", name="Start").click()
    await expect(node(visitor, "choose")).to_have_class(re.compile("is-paused"))
    await expect(node(visitor, "drafts")).to_have_class(re.compile("is-completed"))
    await expect(node(visitor, "sheet")).to_have_class(re.compile("is-completed"))
    await visitor.look("workflow-choice")

    await page.get_by_role("button", name="Choose now").press("Enter")
    await expect(page.get_by_role("button", name="Candidate 1", exact=True)).to_be_focused()
    await page.keyboard.press("3")
    await page.keyboard.press("2")
    await page.keyboard.press("1")
    await page.keyboard.press("2")
    await expect(page.get_by_text("Candidate 2 left out. 2 of 3 chosen")).to_be_visible()

    await page.get_by_role("button", name="Look at candidate 1 in full").press("Enter")
    dialog = page.get_by_role("dialog")
    await page.keyboard.press("ArrowRight")
    await expect(dialog.get_by_role("img", name="candidate 2")).to_be_visible()
    await page.keyboard.press("Escape")
    await expect(dialog).to_have_count(0)

    await page.get_by_role("button", name="Go on with 2 pictures").press("Enter")
    await expect(node(visitor, "finish")).to_have_class(re.compile("is-completed"))
    await expect(page.get_by_role("button", name="Run again")).to_be_visible()
    now = (await visitor.api.get(f"/workflows/{workflow['id']}")).json()
    candidates = now["steps"][0]["output"]["images"]
    chosen = [image["seed"] for image in now["steps"][1]["output"]["images"]]
    assert chosen == [candidates[2]["seed"], candidates[0]["seed"]]

    # The arrow keys go along the edges, and the step that has the focus is the one described.
    await node(visitor, "choose").click()
    await page.keyboard.press("ArrowRight")
    await expect(node(visitor, "finish")).to_be_focused()
    step = page.get_by_role("region", name="finish", exact=True)
    await expect(step.get_by_role("heading", name="2 tasks")).to_be_visible()
    await expect(step.get_by_role("link", name=now["steps"][2]["tasks"][0]["id"])).to_be_visible()

    # Again: every step comes from the cache, but the choice is a person's each time.
    await page.get_by_role("button", name="Run again").click()
    await expect(page.get_by_text("2, shown")).to_be_visible()
    await expect(page.locator(".graph")).to_have_count(1)
    across = await page.locator(".graph svg").bounding_box()
    assert across
    assert across["width"] > 2 * across["height"]
    await expect(node(visitor, "choose")).to_have_class(re.compile("is-paused"))
    await expect(page.get_by_text(re.compile("2 steps, .* saved"))).to_be_visible()
    await page.get_by_role("button", name="Cancel", exact=True).click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel the run").click()
    await expect(node(visitor, "finish")).to_have_class(re.compile("is-cancelled"))
    await page.get_by_role("button", name="Clean up").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete them").click()
    await expect(page.get_by_text("Cleaned up", exact=True)).to_be_visible()
    await visitor.look("workflow")


async def test_a_step_that_failed_is_repaired_and_done_again(visitor: Visitor) -> None:
    page = visitor.page
    no_picture = await uploaded(visitor, "notes.zip", b"PK\x05\x06" + bytes(18))
    picture = await uploaded(visitor, "dress.png", png(checkered_dress(1)))
    broken = {**bright("broken"), "config": {**BRIGHT, "input_image_url": no_picture}}
    workflow = await created(
        visitor, drafts(1), broken, bright("join", "drafts", "broken"), name="mended"
    )
    await visitor.api.post(f"/workflows/{workflow['id']}/start")
    await visitor.open(f"/workflows/{workflow['id']}", heading="mended")
    await expect(node(visitor, "broken")).to_have_class(re.compile("is-failed"))
    await expect(node(visitor, "join")).to_have_class(re.compile("is-skipped"))
    await expect(page.get_by_role("alert")).to_contain_text("Why it failed: broken:")
    await node(visitor, "broken").click()
    await page.get_by_text("Change its config and redo").click()
    await visitor.look("workflow-failed")
    config = page.get_by_label("Config as JSON")
    await config.fill(str(broken["config"]))
    await page.get_by_role("button", name="Redo with this").click()
    assert await config.evaluate("(area) => area.validationMessage.startsWith('This is not JSON')")
    await config.fill(f'{{"input_image_url": "{picture}"}}')
    # A run may be over before its stream is open, which then says nothing.
    await page.route("**/events", lambda route: route.fulfill(status=204), times=1)
    await page.get_by_role("button", name="Redo with this").click()
    await expect(node(visitor, "join")).to_have_class(re.compile("is-completed"))
    await expect(page.get_by_role("alert")).to_have_count(0)


async def test_approvals_show_what_waits_and_what_was_written_stays_text(
    visitor: Visitor,
) -> None:
    page = visitor.page
    step = "<b>ask</b> & 'wait'"
    for name in (HOSTILE, "wanted"):
        workflow = await created(
            visitor,
            drafts(2, prompt=HOSTILE),
            approval(step, "drafts", message=f"<script>alert(1)</script>{HOSTILE}"),
            name=name,
            description=HOSTILE,
        )
        await visitor.api.post(f"/workflows/{workflow['id']}/start")
    await visitor.open("/approvals", heading="Approvals")
    choices = page.get_by_role("region", name=f"Choose: {step}")
    await expect(choices).to_have_count(2)
    await expect(choices.first).to_contain_text("<script>alert(1)</script><img src=x")
    await visitor.look("approvals")
    await holds_text(visitor)

    await choices.first.get_by_role("button", name="Candidate 1", exact=True).focus()
    await page.keyboard.press("2")
    await choices.first.get_by_role("button", name="Go on with 1 picture").click()
    await expect(choices).to_have_count(1)
    # The only one that is left hears the keys wherever the focus is.
    await page.locator("#content").focus()
    await page.keyboard.press("1")
    await expect(choices.get_by_text("Candidate 1 chosen. 1 of 2 chosen")).to_be_visible()
    await choices.get_by_role("button", name="Cancel the run").click()
    await page.get_by_role("dialog").get_by_role("button", name="Cancel the run").click()
    await expect(page.get_by_text("Nothing waits for you")).to_be_visible()

    await visitor.open("/workflows?status=failed", heading="Workflows")
    # The same page at another address: its filters are those of the new one.
    await visitor.open("/workflows", heading="Workflows")
    await expect(page.get_by_label("Status")).to_have_value("")
    await page.get_by_label("Search").fill("onerror")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="1 workflow", exact=True)).to_be_visible()
    await expect(page.get_by_label("Search")).to_be_focused()
    assert "search=onerror" in page.url
    await holds_text(visitor)
    await page.get_by_label("Search").fill("")
    await page.get_by_label("Status").select_option("cancelled")
    await expect(page.get_by_role("link", name="wanted", exact=True)).to_be_visible()
    await expect(page.get_by_text("onerror")).to_have_count(0)
    await page.get_by_label("All tenants").check()
    await expect(page.get_by_role("columnheader", name="Tenant")).to_be_visible()
    await page.get_by_label("Status").select_option("")
    await visitor.look("workflows")

    await page.get_by_role("link", name=re.compile("onerror")).click()
    await expect(page.get_by_role("heading", level=1)).to_contain_text("<img src=x")
    await node(visitor, step).click()
    await expect(page.get_by_role("region", name=step, exact=True)).to_be_visible()
    await holds_text(visitor)


async def test_a_graph_of_fifty_steps_scrolls_in_its_own_box(visitor: Visitor) -> None:
    steps = [drafts(1)]
    for index in range(1, 50):
        parents = {max(0, index - 1 - index % 4)} | ({index // 2} if index % 8 == 0 else set())
        steps.append(bright(f"step-{index}", *(steps[each]["name"] for each in sorted(parents))))
    workflow = await created(visitor, *steps, name="fifty")
    await visitor.open(f"/workflows/{workflow['id']}", heading="fifty")
    await expect(visitor.page.locator(".node")).to_have_count(50)
    await visitor.look("workflow-fifty")
    box = visitor.page.locator(".graph")
    assert await box.evaluate("(box) => box.scrollHeight > box.clientHeight")
    # One stop for the tab key, however many steps there are.
    assert await visitor.page.locator(".node[tabindex='0']").count() == 1
    await visitor.page.locator(".node[tabindex='0']").press("End")
    await expect(node(visitor, "step-49")).to_be_in_viewport()
    await visitor.page.get_by_text("The same as a list").click()
    await expect(visitor.page.get_by_role("row")).to_have_count(51)


async def test_an_operator_looks_at_another_tenant_s_workflow_and_changes_nothing(
    visitor: Visitor, live: Live
) -> None:
    headers = {"Authorization": f"Bearer {await key_of(live, 'other')}"}
    body = {"name": "theirs", "steps": [drafts(1), approval("ask", "drafts")]}
    answer = await visitor.api.post("/workflows?start=true", json=body, headers=headers)
    assert answer.status_code == 201, answer.text
    page = visitor.page
    await visitor.open("/workflows", heading="Workflows")
    await expect(page.get_by_role("link", name="theirs", exact=True)).to_have_count(0)
    await page.get_by_label("All tenants").check()
    await page.get_by_role("link", name="theirs", exact=True).click()
    await expect(node(visitor, "ask")).to_have_class(re.compile("is-paused"))
    await expect(page.get_by_role("button", name="Candidate 1", exact=True)).to_be_disabled()
    await expect(page.get_by_role("button", name="Cancel")).to_have_count(0)
    answer = await visitor.api.post(f"/workflows/{answer.json()['id']}/cancel", headers=headers)
    await expect(node(visitor, "ask")).to_have_class(re.compile("is-cancelled"))


async def key_of(live: Live, tenant: str) -> str:
    """Make a key of another tenant, as the command line does."""
    settings = Settings(data_dir=live.data_dir, device="cpu")
    with EmbeddedPostgres(live.data_dir / "postgres") as shared:
        async with open_services(settings, shared.start(), pool_timeout=5) as services:
            return (await create_key(services.pool, tenant=tenant)).key


def node(visitor: Visitor, name: str) -> Locator:
    """Return a step of the graph."""
    return visitor.page.locator(".node").filter(
        has=visitor.page.locator("title", has_text=re.compile(f"^{re.escape(name)}$"))
    )


def drafts(count: int, *, prompt: str = "a dress") -> dict[str, Any]:
    config = {"prompt": prompt, "num_outputs": count, **SMALL}
    return {"name": "drafts", "type": "generation", "config": config}


def bright(name: str, *parents: str) -> dict[str, Any]:
    return {"name": name, "type": "processing", "config": BRIGHT, "depends_on": list(parents)}


def approval(name: str, *parents: str, **config: Any) -> dict[str, Any]:
    return {"name": name, "type": "approval", "config": config, "depends_on": list(parents)}


async def created(visitor: Visitor, *steps: dict[str, Any], **fields: Any) -> dict[str, Any]:
    answer = await visitor.api.post("/workflows", json={"steps": steps, **fields})
    assert answer.status_code == 201, answer.text
    workflow: dict[str, Any] = answer.json()
    return workflow


async def uploaded(visitor: Visitor, name: str, data: bytes) -> str:
    answer = await visitor.api.post("/files", files={"file": (name, data)})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["url"])


async def holds_text(visitor: Visitor) -> None:
    """Make sure that nothing which was written as text has become an element."""
    made = visitor.page.locator("main :is(b, script, i, img[src='x'])")
    assert await made.count() == 0
