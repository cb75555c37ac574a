"""Trainings and adapters in the browser."""

from __future__ import annotations

import json
import re

from playwright.async_api import expect

from browser import Visitor
from training_pictures import data_set

PROMPT = "a <b>dress</b> \x1b[31mred"


async def test_a_training_is_begun_seen_and_its_adapter_retired(visitor: Visitor) -> None:
    page = visitor.page
    await visitor.open("/training", heading="Training")
    await page.get_by_text("Train an adapter").click()
    pictures = data_set(8, caption="a dress on a white background")
    await page.get_by_label("Data set").set_input_files(
        {"name": "dress.zip", "mimeType": "application/zip", "buffer": pictures}
    )
    await expect(page.get_by_text(re.compile(r"dress\.zip, .* KiB"))).to_be_visible()
    await page.get_by_label("Name of the adapter").fill("seen")
    await page.get_by_label("Trigger word").fill(PROMPT)
    await page.get_by_label("Sample prompts").fill(PROMPT)
    await page.get_by_label("Epochs").fill("20001")
    assert await page.get_by_label("Epochs").evaluate("(field) => !field.validity.valid")
    await page.get_by_label("Epochs").fill("6")
    await page.get_by_label("Checkpoint every").fill("5")
    await page.get_by_role("button", name="Look at the data set").click()
    await expect(page.get_by_text("Usable pictures")).to_be_visible()
    await visitor.look("trainings")
    await page.get_by_role("button", name="Begin the training").click()

    await expect(page.get_by_role("heading", name="seen", level=1)).to_be_visible()
    # The page is not loaded again: what follows comes by itself.
    curve = page.get_by_role("slider", name="Loss by step")
    await expect(curve).to_be_visible()
    await expect(page.get_by_role("button", name=re.compile(r"^Look at step 5: "))).to_be_visible()
    await expect(page.get_by_role("heading", name="Adapter", exact=True)).to_be_visible()
    await expect(curve).to_have_attribute("aria-valuemax", "12")
    await expect(page.get_by_role("rowheader")).to_contain_text("a <b>dress</b>")
    assert await page.locator("main b").count() == 0

    await curve.focus()
    await page.keyboard.press("Home")
    await expect(curve).to_have_attribute("aria-valuenow", "1")
    await page.keyboard.press("ArrowRight")
    await expect(curve).to_have_attribute("aria-valuetext", re.compile("^step 2, loss "))
    await page.get_by_role("button", name="Look into it").click()
    await expect(page.get_by_text("Usable pictures")).to_be_visible()
    await page.get_by_role("button", name="Copy the request").click()
    copied = json.loads(await page.evaluate("navigator.clipboard.readText()"))
    assert copied["loras"] == [{"name": "seen", "weight": 0.8}]
    await visitor.look("training")

    await visitor.open("/adapters", heading="Adapters")
    row = page.get_by_role("row", name="seen")
    await expect(row).to_contain_text("a <b>dress</b>")
    await expect(row.get_by_role("link", name="its training")).to_be_visible()
    await expect(row.get_by_role("link", name="Use seen in the playground")).to_have_attribute(
        "href", "#/playground?lora=seen"
    )
    await visitor.look("adapters")
    await row.get_by_role("button", name="Retire seen").click()
    await page.get_by_role("dialog").get_by_role("button", name="Retire it").click()
    await expect(row).to_have_count(0)


async def test_a_training_is_cancelled_and_its_checkpoint_kept(visitor: Visitor) -> None:
    page = visitor.page
    pictures = data_set(8, caption="a dress on a white background")
    answer = await visitor.api.post("/files", files={"file": ("dress.zip", pictures)})
    body = {
        "dataset_url": answer.json()["url"],
        "output_name": "kept-here",
        "config": {"epochs": 5000, "checkpoint_every": 5},
    }
    training = (await visitor.api.post("/training", json=body)).json()["id"]
    await visitor.open(f"/training/{training}", heading="kept-here")
    curve = page.get_by_role("slider", name="Loss by step")
    await expect(curve).to_have_attribute("aria-valuemax", re.compile(r"^([6-9]|\d\d+)$"))
    await page.get_by_role("button", name="Cancel").click()
    await page.get_by_role("button", name="Cancel, keep the checkpoint").click()
    await expect(page.locator(".status")).to_contain_text("cancelled")
    await expect(page.get_by_role("link", name="Download")).to_have_attribute(
        "download", "kept-here.safetensors"
    )
    await expect(page.get_by_role("button", name="Cancel")).to_have_count(0)


async def test_a_curve_of_ten_thousand_points_is_drawn_from_as_many_as_can_be_seen(
    guest: Visitor,
) -> None:
    await guest.page.goto(guest.url)
    found = await guest.page.evaluate("""async () => {
      const { thinned, smoothed, ticks } = await import("/dashboard/js/lines.js");
      const points = Array.from({ length: 10000 }, (_, x) => ({ x, y: Math.sin(x) }));
      points[7777].y = 9;
      const kept = thinned(points, 800);
      return [kept.length, Math.max(...kept.map((each) => each.y)), smoothed(points).length,
        thinned(points.slice(0, 10), 800).length, ticks(0, 0.82, 5), ticks(0, 160, 4)];
    }""")
    assert found == [
        800,
        9,
        10000,
        10,
        [0, 0.2, 0.4, 0.6, 0.8],
        [0, 50, 100, 150],
    ]
