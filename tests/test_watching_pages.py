"""What watches the dashboard's tests sees faults: a test without one proves something."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from browser import Visitor, visiting
from conftest import Live


async def test_a_guest_signs_in_and_out_by_the_form(guest: Visitor) -> None:
    page = guest.page
    await page.goto(guest.url)
    guest.expect_answer(401, "/session")
    await page.get_by_label("API key").fill("il_wrong")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("This key is not known here")).to_be_visible()
    await expect(page.get_by_label("API key")).to_be_focused()
    await page.get_by_label("API key").fill(guest.key)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("heading", name="Overview", level=1)).to_be_visible()
    cookies = {cookie["name"]: cookie for cookie in await page.context.cookies()}
    assert cookies["imageloom_session"]["httpOnly"]
    assert cookies["imageloom_session"]["sameSite"] == "Strict"
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.get_by_role("heading", name="Sign in", level=1)).to_be_visible()
    assert not await page.context.cookies()
    await guest.look("signin")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("console.error('out of order')", "console error: out of order"),
        ("setTimeout(() => { throw new Error('loose') })", "uncaught: loose"),
        ("fetch('api/v1/nothing-here')", "404"),
        ("document.body.setAttribute('style', 'color: red')", "Content Security Policy"),
    ],
)
async def test_a_fault_on_a_page_fails_its_test(
    browser: Browser, live: Live, fault: str, said: str
) -> None:
    with pytest.raises(AssertionError, match=said):  # noqa: PT012  # it is the end that raises
        async with visiting(browser, live.url, live.key) as visitor:
            await visitor.page.goto(visitor.url)
            await visitor.page.evaluate(f"() => {{ {fault} }}")
            await visitor.page.wait_for_load_state("networkidle")


async def test_axe_finds_what_is_grave(guest: Visitor) -> None:
    await guest.page.goto(guest.url)
    await expect(guest.page.get_by_role("heading", name="Sign in", level=1)).to_be_visible()
    await guest.page.evaluate("() => document.body.append(document.createElement('button'))")
    with pytest.raises(AssertionError, match="button-name"):
        await guest.check_accessibility("a button without a name")
