"""How soon the overview is seen, with 10,000 tasks in the database.

    python bench/dashboard.py [--tasks 10000] [--loads 12]

One `imageloom serve` on the CPU and one headless Chromium on the same machine. Each load is of a
fresh browser context, which has nothing in its cache but is signed in. Nothing here fails: a target
that is missed is printed as FAIL. Takes under a minute.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Final

import psycopg
from playwright.async_api import Browser, async_playwright

from imageloom.store.postgres import EmbeddedPostgres
from serving import load, machine, server, word

TARGET: Final = 1.0  # seconds until the first paint
# All of the tenant that looks, over ten days; those of the last day are in the figures.
_CROWD: Final = """
    insert into task (id, tenant, type, status, params, max_attempts, attempt, job_id, output,
            error, error_detail, created_at, started_at, completed_at)
        select 'task_' || n, 'default', type, status, params, 3, 1, n,
            case status when 'completed' then '{"images": []}'::jsonb end,
            case status when 'failed' then 'CUDA out of memory' end,
            case status when 'failed'
                then '{"code": "out_of_memory", "retryable": true, "attempt": 1}'::jsonb end,
            created, case when status <> 'pending' then created + interval '2 seconds' end,
            case when status <> 'pending' then created + interval '9 seconds' end
        from (select n, now() - n * interval '86 seconds' as created,
            jsonb_build_object('prompt', repeat('a red dress ', 20)) as params,
            case when n % 7 = 0 then 'processing' else 'generation' end as type,
            case when n <= 400 then 'pending' when n % 33 = 0 then 'failed'
                when n % 50 = 0 then 'cancelled' else 'completed' end as status
            from generate_series(1, {tasks}) as n) as made
"""
_WATCH: Final = """
    window.figuresAt = new Promise((resolve) => {
      new MutationObserver((_, observer) => {
        if (!document.querySelector(".figure:not(.is-coming)")) return;
        resolve(performance.now());
        observer.disconnect();
      }).observe(document, { subtree: true, childList: true });
    });
"""
_READ: Final = """async () => ({
    figures: await window.figuresAt,
    paint: performance.getEntriesByName("first-contentful-paint")[0].startTime,
    requests: performance.getEntriesByType("resource").length + 1,
})"""


async def _open(browser: Browser, url: str) -> dict[str, float]:
    """Return what one load took, in milliseconds, and its requests."""
    context = await browser.new_context(viewport={"width": 1440, "height": 900})
    await context.request.post(f"{url}/api/v1/session", data={"key": "bench"})
    page = await context.new_page()
    await page.add_init_script(_WATCH)
    await page.goto(url)
    found: dict[str, float] = await page.evaluate(_READ)
    await context.close()
    return found


async def _measure(url: str, loads: int) -> list[dict[str, float]]:
    names = ("chromium", "chromium-browser", "google-chrome")
    executable = next(filter(None, map(shutil.which, names)), None)
    if executable is None:
        raise SystemExit(f"install Chromium: none of {', '.join(names)} is on the PATH")
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=arguments)
        await _open(browser, url)  # the first starts processes of the browser's own
        found = [await _open(browser, url) for _ in range(loads)]
        await browser.close()
    return found


def main() -> None:
    """Fill the database, open the overview again and again, and print how soon it was seen."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--loads", type=int, default=12)
    options = parser.parse_args()
    print(machine())
    with (
        tempfile.TemporaryDirectory(prefix="il-", ignore_cleanup_errors=True) as folder,
        server(DATA_DIR=f"{folder}/data") as client,
        EmbeddedPostgres(Path(folder) / "data" / "postgres") as postgres,
    ):
        with psycopg.connect(postgres.start(), autocommit=True) as conn:
            conn.execute(_CROWD.replace("{tasks}", str(options.tasks)).encode())
            conn.execute("vacuum analyze task")
        url = str(client.base_url).removesuffix("/").removesuffix("/api/v1")
        found = asyncio.run(_measure(url, options.loads))
    count = f"{found[0]['requests']:.0f} requests"
    print(f"\noverview, {options.tasks:,} tasks, {options.loads} loads, {count}")
    for name, title in (("paint", "first contentful paint"), ("figures", "figures are there")):
        times = sorted(each[name] / 1000 for each in found)
        said = f"  {title:24} median {statistics.median(times):.2f} s, worst {times[-1]:.2f} s"
        goal = f"   target <= {TARGET:g} s: {word(times[-1] <= TARGET)}" if name == "paint" else ""
        print(said + goal)
    print(f"load       {load()} at the end")


if __name__ == "__main__":
    main()
