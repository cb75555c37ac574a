"""What watches the dashboard's tests sees faults: a test without one proves something."""

from __future__ import annotations

import pytest
from playwright.async_api import Browser, expect

from browser import Visitor, visiting
from conftest import Live

FAULTS = {
    "console.error('out of order')": "console error: out of order",
    "setTimeout(() => { throw new Error('loose') })": "uncaught: loose",
    "fetch('api/v1/nothing-here')": "nothing-here: 404",
    "document.body.setAttribute('style', 'color: red')": "Content Security Policy",
}


async def test_a_fault_on_a_page_fails_its_test(browser: Browser, live: Live) -> None:
    async def visit() -> None:
        async with visiting(browser, live.url, live.key) as visitor:
            await visitor.page.goto(visitor.url)
            for fault in FAULTS:
                await visitor.page.evaluate(f"() => {{ {fault} }}")
            await visitor.page.wait_for_load_state("networkidle")

    with pytest.raises(AssertionError) as raised:
        await visit()
    for said in FAULTS.values():
        assert said in str(raised.value)


async def test_axe_finds_what_is_grave(guest: Visitor) -> None:
    await guest.page.goto(guest.url)
    await expect(guest.page.get_by_role("heading", name="Sign in", level=1)).to_be_visible()
    await guest.page.evaluate("() => document.body.append(document.createElement('button'))")
    with pytest.raises(AssertionError, match="button-name"):
        await guest.check_accessibility("a button without a name")
