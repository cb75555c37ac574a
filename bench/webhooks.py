"""Send a thousand webhooks to a receiver that is down, slow and lying in turn.

Starts its own `imageloom serve`. Every event must arrive, under one id and with one body, with a
signature that the reference library verifies, and none for what did not commit; the API process
dies by kill -9 several times meanwhile. Then: how long after the receiver is well until it has
everything, and how many were sent again although they had been answered with a 2xx.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import secrets
import time
from base64 import b64encode
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import psutil
from standardwebhooks.webhooks import Webhook

from serving import machine, server, word

FACTOR = 0.02  # an hour of a receiver's outage is 72 s here
STEPS = [{"name": "draw", "type": "generation", "config": {"prompt": "a dress"}}]
PATHS = 20  # endpoints, which share one host
WELL_AGAIN = 900 * FACTOR  # seconds: fifteen minutes, in this bench's time
MOST_AGAIN = 0.01  # of the events: sent again after a 2xx


@dataclass
class Receiver:
    """A server on loopback that behaves as `mood` says: well, slow or lying; down has no server."""

    secret: str
    mood: str = "well"
    bodies: dict[str, set[str]] = field(default_factory=dict)
    accepted: Counter[str] = field(default_factory=Counter)
    requests: int = 0
    forged: int = 0

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one delivery, and do with it what the mood is."""
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in head[1:] if line)
            headers["webhook-signature"] = next(
                line.split(": ", 1)[1] for line in head if line.startswith("webhook-signature")
            )
            body = (await reader.readexactly(int(headers["content-length"]))).decode()
            self.requests += 1
            try:
                Webhook(self.secret).verify(body, headers)
            except Exception:  # noqa: BLE001  # counted, whatever it was
                self.forged += 1
            self.bodies.setdefault(headers["webhook-id"], set()).add(body)
            await self._answer(writer, headers["webhook-id"])
        except (ConnectionError, asyncio.IncompleteReadError, ValueError):
            pass
        finally:
            writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, event: str) -> None:
        if self.mood == "slow":
            await asyncio.sleep(1.5)
        if self.mood == "lying":
            # It has the event, and says that it has not, in one way after the other.
            lies = (b"500 No", b"302 Found\r\nLocation: http://127.0.0.1:1/", b"429 No", b"")
            lie = lies[self.requests % len(lies)]
            if lie:
                writer.write(b"HTTP/1.1 " + lie + b"\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
            return
        self.accepted[event] += 1
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()


@asynccontextmanager
async def up(receiver: Receiver, port: int) -> AsyncIterator[int]:
    """Have the receiver listen, and yield its port."""
    listening = await asyncio.start_server(receiver.handle, "127.0.0.1", port)
    try:
        yield int(listening.sockets[0].getsockname()[1])
    finally:
        listening.close()


def make_events(client: httpx.Client, port: int, count: int) -> set[str]:
    """Make workflows that are cancelled at once, each telling of it, and return their ids.

    What the API was killed under is asked for again: a key makes that harmless.
    """

    def insist(path: str, **options: Any) -> dict[str, Any]:
        while True:
            try:
                answer = client.post(path, **options)
                if answer.status_code < 500:
                    told: dict[str, Any] = answer.raise_for_status().json()
                    return told
            except httpx.TransportError:
                pass
            time.sleep(0.1)

    made = set()
    for index in range(count):
        hook = f"http://127.0.0.1:{port}/{index % PATHS}"
        body = {"name": "told", "steps": STEPS, "webhook_url": hook}
        workflow = insist("/workflows", json=body, headers={"Idempotency-Key": f"event-{index}"})
        insist(f"/workflows/{workflow['id']}/cancel")
        made.add(str(workflow["id"]))
    return made


def kill_api() -> None:
    """kill -9 the API process; `serve` starts another."""
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if " ".join(child.cmdline()).strip() == "imageloom api":
                child.kill()


async def run(count: int, kills: int) -> bool:
    """Do it all and print what came of it; return whether every target was met."""
    secret = f"whsec_{b64encode(secrets.token_bytes(32)).decode()}"
    receiver = Receiver(secret=secret)
    async with up(receiver, 0) as port:
        pass
    settings = {
        "FETCH_ALLOW": f"127.0.0.1:{port}",
        "WEBHOOK_SECRET": secret,
        "WEBHOOK_DELAY_FACTOR": str(FACTOR),
        "LOG_FORMAT": "json",
    }
    with server(**settings) as client:
        making = asyncio.create_task(asyncio.to_thread(make_events, client, port, count))
        killing = asyncio.create_task(_kill_now_and_then(kills))
        await asyncio.sleep(20)  # down: nothing listens
        for mood in ("slow", "lying"):
            receiver.mood = mood
            async with up(receiver, port):
                await asyncio.sleep(15)
        made = await making
        await killing
        receiver.mood = "well"
        async with up(receiver, port):
            began = time.monotonic()
            await asyncio.to_thread(_wait_until, lambda: len(receiver.accepted) >= count)
            took = time.monotonic() - began
            await asyncio.sleep(3)  # what is sent again after all that
    return report(receiver, made, took)


def _wait_until(condition: Callable[[], bool], *, seconds: float = 300.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


async def _kill_now_and_then(kills: int) -> None:
    for _ in range(kills):
        await asyncio.sleep(9)
        await asyncio.to_thread(kill_api)


def report(receiver: Receiver, made: set[str], took: float) -> bool:
    """Print the figures and return whether every target was met."""
    bodies = [body for each in receiver.bodies.values() for body in each]
    told = {json.loads(body)["data"]["id"] for body in bodies}
    again = sum(count - 1 for count in receiver.accepted.values())
    checks = {
        f"delivered {len(receiver.accepted)} of {len(made)} made": len(receiver.accepted)
        >= len(made),
        f"{receiver.forged} of {receiver.requests} signatures did not verify": not receiver.forged,
        f"{len(bodies) - len(receiver.bodies)} ids came with a second body": len(bodies)
        == len(receiver.bodies),
        f"{len(made - told)} workflows were not told, {len(told - made)} others were": not made
        - told,
        f"{again} were sent again after a 2xx": again <= MOST_AGAIN * len(made),
        f"all there {took:.1f} s after it was well, of {WELL_AGAIN:.0f} s": took <= WELL_AGAIN,
    }
    for said, good in checks.items():
        print(f"{word(good)}  {said}")
    return all(checks.values())


def main() -> None:
    """Read the options and run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1000)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    print(machine())
    asyncio.run(run(options.events, options.kills))


if __name__ == "__main__":
    main()
