"""A person at the dashboard: a real Chromium, driven through Playwright, that notes every fault.

One browser per test process, a fresh context per test. The fixtures are `guest`, who has not signed
in, and `visitor`, who has; both look at the installation of `live`.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import (
    Browser,
    ConsoleMessage,
    Page,
    Request,
    Response,
    async_playwright,
    expect,
)

EXECUTABLES: Final = ("chromium", "chromium-browser", "google-chrome")
SCREENS: Final = Path(__file__).parent.parent / "build" / "screens"
WIDTHS: Final = {"phone": (390, 844), "desktop": (1440, 900)}
SCHEMES: Final = ("light", "dark")
NARROWEST: Final = 360  # pixels: nothing may scroll sideways from here on
TIMEOUT: Final = 60_000.0  # milliseconds that a state is waited for; it decides nothing
_PICTURES_THERE: Final = """() => Promise.all(
    [...document.images].filter((each) => each.loading !== "lazy")
        .map((each) => each.decode().catch(() => {})))"""
_GRAVE: Final = ("serious", "critical")
# Chromium writes these beside a response that we judge by itself.
_TOLD_TWICE: Final = "Failed to load resource: the server responded"
_OFFLINE: Final = "net::ERR_INTERNET_DISCONNECTED"
_LEFT: Final = "net::ERR_ABORTED"  # the page was left, or a stream closed, while it was under way


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    """Run the Chromium of this machine. Playwright downloads nothing."""
    found = next(filter(None, map(shutil.which, EXECUTABLES)), None)
    assert found, f"install Chromium: none of {', '.join(EXECUTABLES)} is on the PATH"
    # Its sandbox refuses to run as root, which containers are.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    expect.set_options(timeout=TIMEOUT)
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=found, args=arguments)
        try:
            yield browser
        finally:
            await browser.close()


@dataclass(kw_only=True)
class Visitor:
    """A tab of a browser, and what went wrong in it. `api` calls the same API with the key."""

    page: Page
    url: str
    key: str
    api: httpx.AsyncClient
    faults: list[str] = field(default_factory=list)
    # Who has not signed in is told so by this answer.
    expected: set[tuple[int, str]] = field(default_factory=lambda: {(401, "/api/v1/session")})
    offline: bool = False

    def expect_answer(self, status: int, path: str) -> None:
        """Let the API answer so once below its base path, without that being a fault."""
        self.expected.add((status, f"/api/v1{path}"))

    async def sign_in(self) -> None:
        """Get the session's cookie, as the form does."""
        answer = await self.page.context.request.post(
            f"{self.url}/api/v1/session", data={"key": self.key}
        )
        assert answer.status == 201, await answer.text()

    async def open(self, path: str = "/", *, heading: str | None = None) -> None:
        """Go to a page of the dashboard, and wait for its heading."""
        await self.page.goto(f"{self.url}/#{path}")
        await expect(self.page.get_by_role("heading", level=1, name=heading)).to_be_visible()

    async def set_offline(self, offline: bool) -> None:
        """Cut the browser off, or let it back; what fails meanwhile is no fault."""
        self.offline = offline
        await self.page.context.set_offline(offline)

    async def look(self, name: str) -> None:
        """Keep pictures of the page at two widths in both colour schemes, and judge each scheme."""
        await self.shoot(name)
        await self.check_width()
        for scheme in SCHEMES:
            await self._wear(scheme, "desktop")
            await self.check_accessibility(f"{name}, {scheme}")
        await self._wear("light", "phone")
        await self.check_accessibility(f"{name}, on a phone")
        await self._wear("light", "desktop")

    async def shoot(self, name: str) -> None:
        """Keep four pictures of the whole page in `build/screens`."""
        SCREENS.mkdir(parents=True, exist_ok=True)
        for width in WIDTHS:
            for scheme in SCHEMES:
                await self._wear(scheme, width)
                path = SCREENS / f"{name}-{width}-{scheme}.png"
                await self.page.screenshot(path=path, full_page=True, animations="disabled")
        await self._wear("light", "desktop")

    async def check_width(self) -> None:
        """Make sure that the narrowest page does not scroll sideways."""
        await self.page.set_viewport_size({"width": NARROWEST, "height": 740})
        wide = await self.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= NARROWEST, f"{wide} pixels wide on a screen of {NARROWEST}"

    async def check_accessibility(self, what: str) -> None:
        """Let axe-core judge the page as it is now."""
        results = await Axe().run(self.page)
        grave = [
            f"{found['id']}: {found['help']}: {[node['html'] for node in found['nodes'][:3]]}"
            for found in results.response["violations"]
            if found["impact"] in _GRAVE
        ]
        assert not grave, f"{what}: " + "\n".join(grave)

    async def _wear(self, scheme: str, width: str) -> None:
        wide, high = WIDTHS[width]
        await self.page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
        await self.page.set_viewport_size({"width": wide, "height": high})
        await self.page.evaluate("scrollTo(0, 0)")
        # Not by waiting for a function: that is evaluated in the page, whose policy forbids it.
        await self.page.evaluate(_PICTURES_THERE)

    def listen(self) -> None:
        """Note console errors, uncaught errors, failed requests and breaches of the policy."""
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.faults.append(f"uncaught: {error}"))
        self.page.on("requestfailed", self._failed)
        self.page.on("response", self._answered)

    def _heard(self, message: ConsoleMessage) -> None:
        # A breach of the content security policy is a console error too.
        told_twice = message.text.startswith(_TOLD_TWICE) or _OFFLINE in message.text
        if message.type in ("error", "warning") and not told_twice:
            self.faults.append(f"console {message.type}: {message.text}")

    def _failed(self, request: Request) -> None:
        if request.failure not in (_LEFT, _OFFLINE if self.offline else None):
            self.faults.append(f"{request.method} {request.url}: {request.failure}")

    def _answered(self, response: Response) -> None:
        path = urlsplit(response.url).path
        # A preview is gone once a newer one is there, which may be before it is asked for.
        replaced = response.status == 410 and "/output_preview-" in path
        known = replaced or (response.status, path) in self.expected
        if response.status >= 400 and not known:
            self.faults.append(f"{response.request.method} {response.url}: {response.status}")


@asynccontextmanager
async def visiting(browser: Browser, url: str, key: str) -> AsyncIterator[Visitor]:
    """Open a browser's tab that knows nothing yet. It must come to its end without a fault."""
    context = await browser.new_context(
        viewport={"width": 1440, "height": 900},
        locale="en-GB",
        timezone_id="UTC",
        reduced_motion="reduce",
        permissions=["clipboard-read", "clipboard-write"],
    )
    context.set_default_timeout(TIMEOUT)
    headers = {"Authorization": f"Bearer {key}"}
    try:
        async with httpx.AsyncClient(
            base_url=f"{url}/api/v1", headers=headers, timeout=60
        ) as client:
            page = await context.new_page()
            visitor = Visitor(page=page, url=url, key=key, api=client)
            visitor.listen()
            yield visitor
        assert not visitor.faults, "\n".join(visitor.faults)
    finally:
        await context.close()
