"""Read the ledgers of an experiment when it is over, as a client and an operator would see it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx

from faults.client import insist
from faults.laboratory import Laboratory
from faults.ledgers import Change, Ending, Ledgers, Named, read_requests, read_runs
from faults.waiting import wait_for

PAGE = 100


def settled(lab: Laboratory, *, timeout: float) -> bool:
    """Wait until every task has ended and every webhook is told; False where some never do."""
    with suppress(AssertionError):
        wait_for(lambda: lab.unfinished() == 0, what="all ends", timeout=timeout, every=0.2)
        query = "select count(*) as n from webhook_event where state = 'pending'"
        wait_for(
            lambda: lab.ask(query)[0]["n"] == 0, what="all webhooks", timeout=timeout, every=0.2
        )
        return True
    return False


def read_ledgers(lab: Laboratory) -> Ledgers:
    """Return everything that was written down, and how everything stands now."""
    return Ledgers(
        requests=read_requests(lab.requests),
        runs=read_runs(lab.device_ledger),
        deliveries=lab.receiver.deliveries(),
        endings=endings(lab),
        stored=stored(lab),
        changes=tuple(
            Change(**row)
            for row in lab.ask(
                "select task, before, after, attempt, at from lab.change order by seq"
            )
        ),
        faults=tuple(lab.faults),
    )


def endings(lab: Laboratory) -> tuple[Ending, ...]:
    """Return how each task stands, read from the API, with what is behind the URLs it names."""
    found: list[dict[str, Any]] = []
    while True:
        page = 1 + len(found) // PAGE
        query = {"page": page, "page_size": PAGE, "sort_by": "created_at", "sort_order": "asc"}
        answer = insist(lab, lambda client: client.get("/tasks", params=query))  # noqa: B023
        items = answer.raise_for_status().json()["items"]
        found += items
        if len(items) < PAGE:
            break
    rows = lab.ask("select id, output -> 'images' as images from task")
    named = {row["id"]: row["images"] or [] for row in rows}
    with ThreadPoolExecutor(8) as pool, httpx.Client(timeout=30) as client:
        return tuple(pool.map(lambda task: _ending(client, task, named[task["id"]]), found))


def stored(lab: Laboratory) -> Mapping[str, str]:
    """Return the digest of every output in storage, by its key."""
    if lab.bucket is not None:
        return lab.bucket.stored()
    root = lab.folder / "storage"
    return {
        path.relative_to(root).as_posix(): digest(path)
        for path in (root / "outputs").rglob("*.*")
        if path.is_file()
    }


def digest(path: Path) -> str:
    """Return the sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _ending(client: httpx.Client, task: dict[str, Any], named: list[dict[str, Any]]) -> Ending:
    params = task["params"]
    seen = (task["output"] or {}).get("images", ())
    return Ending(
        task=task["id"],
        key=str(params.get("negative_prompt")),
        status=task["status"],
        attempt=task["attempt"],
        error=task["error"],
        of_workflow=bool(task.get("workflow")),
        outputs=tuple(
            Named(key=row["key"], told=row["sha256"], served=_served(client, image["url"]))
            for row, image in zip(named, seen, strict=True)
        ),
    )


def _served(client: httpx.Client, url: str) -> str | None:
    """Return the digest of what a URL gives."""
    with suppress(httpx.TransportError):
        answer = client.get(url)
        if answer.status_code == 200:
            return hashlib.sha256(answer.content).hexdigest()
    return None
