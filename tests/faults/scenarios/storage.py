"""C11 (F14, F16): storage that refuses, stalls, breaks off, stores other bytes; and a full disk."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from faults.checker import judge
from faults.client import Client, wanted
from faults.figures import Figure, Table
from faults.http_proxy import SpoilingProxy
from faults.laboratory import Laboratory
from faults.reading import read_ledgers, settled

PATIENCE = 900.0  # seconds for everything to end


def bad_storage(lab: Laboratory, *, tasks: int, percent: int = 50) -> list[Figure]:
    """Run `tasks` on two workers whose bucket does what it should to the rest of the requests."""
    assert lab.bucket is not None
    port = int(lab.bucket.endpoint.rsplit(":", 1)[1])
    bodies = [(f"b{number}", wanted(f"b{number}", steps=1, seed=number)) for number in range(tasks)]
    proxy = SpoilingProxy(
        port, seed=lab.seed, percent=percent, ways=("refuse", "stall", "cut", "lie", "drop")
    )
    with proxy.running():
        # One that knows the bucket itself would take its share.
        for worker in list(lab.workers):
            worker.end()
            lab.workers.remove(worker)
            lab.start_worker(AWS_ENDPOINT_URL=f"http://127.0.0.1:{proxy.port}")
        Client(lab=lab).submit(bodies)
        ended = settled(lab, timeout=PATIENCE)
        proxy.percent = 0
        verdict = judge(read_ledgers(lab))
    completed = _count(lab, "b", "completed")
    table = Table.of(lab, "C11")
    return [
        table.line("tasks without an end", 0 if ended else lab.unfinished(), 0),
        table.line("lost", len(verdict.lost), 0, said=verdict.lost),
        table.line("done twice", len(verdict.done_twice), 0, said=verdict.done_twice),
        table.line(
            "completed with unreadable or wrong output",
            len(verdict.unreadable),
            0,
            said=verdict.unreadable,
        ),
        table.line("completed", completed, None),
        table.line("failed in order", tasks - completed, None),
        *(table.line(f"requests: {way}", count, None) for way, count in proxy.spoiled.items()),
    ]


def full_disk(lab: Laboratory, *, tasks: int) -> list[Figure]:
    """Run `tasks` on a folder that has no room, then make some, and run as many again."""
    table = Table.of(lab, "C11")
    with _small_disk(lab.folder / "storage") as disk:
        if disk is None:
            return [table.line("a full disk: not tried without root", 0, None)]
        filler = disk / "filler"
        _fill(filler)
        _run(lab, "full", tasks)
        refused = tasks - _count(lab, "full", "completed")
        filler.unlink()
        _run(lab, "room", tasks)
        verdict = judge(read_ledgers(lab))
        return [
            table.line("completed on a full disk", tasks - refused, 0),
            table.line("not completed with room", tasks - _count(lab, "room", "completed"), 0),
            table.line(
                "unreadable or wrong on it",
                len(verdict.unreadable),
                0,
                said=verdict.unreadable,
            ),
            table.line("lost on it", len(verdict.lost), 0, said=verdict.lost),
        ]


def _run(lab: Laboratory, word: str, tasks: int) -> None:
    named = [f"{word}{number}" for number in range(tasks)]
    Client(lab=lab).submit([(name, wanted(name, steps=1)) for name in named])
    assert settled(lab, timeout=PATIENCE)


def _count(lab: Laboratory, word: str, status: str) -> int:
    query = (
        "select count(*) as n from task where params ->> 'negative_prompt' like %s and status = %s"
    )
    return int(lab.ask(query, f"{word}%", status)[0]["n"])


@contextmanager
def _small_disk(folder: Path) -> Iterator[Path | None]:
    """Yield the folder on a disk of 4 MB; None where we may not mount one."""
    folder.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        yield None
        return
    try:
        (folder / ".staging").mkdir()
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
