"""C6 (F3): the client never hears a share of its answers, and asks again under the same key."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from faults.checker import judge
from faults.client import Client, wanted
from faults.figures import Figure, Table
from faults.http_proxy import SpoilingProxy
from faults.laboratory import Laboratory
from faults.reading import read_ledgers, settled

PATIENCE = 600.0  # seconds for everything to end


def replies(lab: Laboratory, *, tasks: int, percent: int = 30) -> list[Figure]:
    """Submit `tasks` through proxies that drop that share of the answers."""
    before = {row["id"] for row in lab.ask("select id from task")}
    bodies = [(f"r{number}", wanted(f"r{number}", steps=1, seed=number)) for number in range(tasks)]
    with ExitStack() as stack:
        proxies = [
            stack.enter_context(
                SpoilingProxy(
                    api.port, seed=lab.seed + number, percent=percent, ways=("drop",)
                ).running()
            )
            for number, api in enumerate(lab.apis)
        ]
        apis = [replace(api, port=proxy.port) for api, proxy in zip(lab.apis, proxies, strict=True)]
        Client(lab=replace(lab, apis=apis), threads=8).submit(bodies)
        dropped = sum(proxy.spoiled["drop"] for proxy in proxies)
    settled(lab, timeout=PATIENCE)
    made = {row["id"] for row in lab.ask("select id from task")} - before
    table = Table.of(lab, "C6")
    return [
        *table.never(judge(read_ledgers(lab))),
        table.line("tasks more or fewer than requests", abs(len(made) - tasks), 0),
        table.line("answers that were dropped", dropped, None),
    ]
