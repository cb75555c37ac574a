"""A client that does what a careful one does: a key for each request, and the same again on errors.

What it was answered is in the book before it goes on.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any
from zlib import crc32

import httpx

from faults.laboratory import Laboratory, Process
from faults.nemesis import Firing

# Answers after which a client may ask again; anything else is an answer.
_AGAIN = frozenset({409, 429, 503})


def wanted(
    key: str, *, steps: int = 10, prompt: str | None = None, seed: int = 1
) -> dict[str, Any]:
    """Return the body of a small generation; its negative prompt is the key, to know it by."""
    return {
        "prompt": prompt or "a dress",
        "negative_prompt": key,
        "steps": steps,
        "num_outputs": 1,
        "width": 64,
        "height": 64,
        "seed": seed,
        "output_format": "png",
    }


@dataclass(frozen=True, kw_only=True)
class Client:
    """Sends requests to the API processes in turn, from several threads."""

    lab: Laboratory
    apis: Sequence[Process] = ()  # all without
    threads: int = 4
    patience: float = 60.0

    def submit(self, bodies: Sequence[tuple[str, dict[str, Any]]]) -> dict[str, str]:
        """Submit each body under its key until it is answered; return the tasks by key."""
        with ThreadPoolExecutor(self.threads) as pool, self._session() as session:
            return dict(pool.map(lambda each: (each[0], self._insist(session, *each)), bodies))

    def spread(self, bodies: Sequence[tuple[str, dict[str, Any]]], firing: Firing) -> set[str]:
        """Submit them over all the time that it is fired, and return their tasks."""
        return {task for some in firing.spread(bodies) for task in self.submit(some).values()}

    def _session(self) -> httpx.Client:
        return httpx.Client(
            headers={"Authorization": f"Bearer {self.lab.key}"},
            timeout=15,
            limits=httpx.Limits(max_connections=self.threads),
        )

    def _insist(self, session: httpx.Client, key: str, body: dict[str, Any]) -> str:
        sent = {**body, "webhook_url": self.lab.receiver.url}
        book = self.lab.requests
        for attempt in range(round(self.patience / 0.2)):
            # Another process every time: any of them must know the key.
            apis = self.apis or self.lab.apis
            api = apis[(crc32(key.encode()) + attempt) % len(apis)]
            try:
                answer = session.post(
                    f"{api.url}/tasks/generation", json=sent, headers={"Idempotency-Key": key}
                )
            except httpx.TransportError:
                book.note(key=key, task=None, status=0)
            else:
                if answer.is_success:
                    task = str(answer.json()["id"])
                    book.note(key=key, task=task, status=answer.status_code)
                    return task
                book.note(key=key, task=None, status=answer.status_code)
                assert answer.status_code in _AGAIN, answer.text
            threading.Event().wait(0.2)
        raise AssertionError(f"no answer to {key} within {self.patience:.0f} s")


def insist(lab: Laboratory, ask: Callable[[httpx.Client], httpx.Response]) -> httpx.Response:
    """Return the answer to a request that may be repeated, asked until there is one."""
    with httpx.Client(
        base_url=lab.apis[0].url, headers={"Authorization": f"Bearer {lab.key}"}, timeout=15
    ) as client:
        for _ in range(300):
            try:
                answer = ask(client)
                if answer.status_code not in (429, 503):
                    return answer
            except httpx.TransportError:
                pass
            threading.Event().wait(0.2)
    raise AssertionError("no answer within 60 s")
