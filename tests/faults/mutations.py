"""Show that the laboratory can turn red: take away one thing that the promises lean on, and look.

Each mutant is a copy of the source tree, in a temporary folder, in which one guard is missing. The
races are run against it in a process of their own and must find a fault of the kind that the guard
is there to prevent. The unchanged tree must pass the same run first.

    python -m faults.mutations
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import imageloom

SOURCE = Path(imageloom.__file__).parent
SCALE = 0.1  # 200 tasks
# The scenario is random: a mutant that one seed spares is tried with the next.
SEEDS = 3
LONGEST = 300.0  # seconds for one run; it gives up by itself before


@dataclass(frozen=True, kw_only=True)
class Edit:
    """One place of the source: what stands there, and what stands there instead."""

    file: str
    old: str
    new: str


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """What is taken away, and the words of the figures of which one must then turn red."""

    name: str
    edits: Sequence[Edit]
    caught_by: Sequence[str]


MUTANTS = (
    Mutant(
        name="the attempt number as a condition of every settlement (fencing)",
        edits=(
            Edit(
                file="core/settle.py",
                old="    if task is None or task.attempt != attempt:\n        return None\n",
                new="    if task is None:\n        return None\n    attempt = task.attempt\n",
            ),
        ),
        caught_by=("stale outcomes that were accepted", "done twice", "redone without a fault"),
    ),
    Mutant(
        name="the transaction around what webhooks tell (outbox)",
        edits=(
            Edit(
                file="core/announce.py",
                old="    await outbox.add(conn, event)\n",
                new=(
                    "    import psycopg\n"
                    "    from psycopg.rows import dict_row\n"
                    "    dsn = conn.info.dsn + f' password={conn.info.password}'\n"
                    "    async with await psycopg.AsyncConnection.connect(\n"
                    "        dsn, autocommit=True, row_factory=dict_row\n"
                    "    ) as other:\n"
                    "        await outbox.add(other, event)\n"
                ),
            ),
        ),
        caught_by=("done twice", "illegal"),
    ),
    Mutant(
        name="the uniqueness of idempotency keys, in the index and in line before it",
        edits=(
            Edit(
                file="store/migrations/0001_initial.sql",
                old="    primary key (tenant, route, key)\n",
                new="    check (true)\n",
            ),
            Edit(
                file="store/idempotency.py",
                old=(
                    '        " on conflict (tenant, route, key) do update set body_hash ='
                    ' excluded.body_hash,"\n'
                    '        " resource_id = excluded.resource_id, created_at = now()",\n'
                ),
                new="        ,\n",
            ),
            Edit(
                file="store/idempotency.py",
                old=(
                    '        "select pg_advisory_xact_lock(hashtextextended(name, 0)) from'
                    ' unnest(%s::text[]) as name",\n'
                    '        ([f"{tenant}\\n{route}\\n{key}" for route, key in names],),\n'
                ),
                new='        "select 1"\n',
            ),
        ),
        caught_by=("unexpected",),
    ),
    Mutant(
        name="the condition that a reaper takes back only what still waits through that job",
        edits=(
            Edit(
                file="core/recover.py",
                old="            if task is not None and task.job_id == job.id:\n",
                new="            if task is not None and not task.status.terminal:\n",
            ),
        ),
        caught_by=("redone without a fault",),
    ),
)


def main() -> int:
    """Run the unchanged source and every mutant; 0 where all were caught."""
    parser = argparse.ArgumentParser(prog="faults.mutations", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    seed = parser.parse_args().seed
    red = reds(SOURCE.parent, seed=seed)
    print(f"unchanged: {'green' if not red else f'RED: {sorted(red)}'}", flush=True)
    good = not red
    for mutant in MUTANTS:
        caught = caught_at(mutant, seed=seed)
        said = f"caught with seed {caught[0]}: {', '.join(caught[1])}" if caught else "NOT CAUGHT"
        print(f"without {mutant.name}: {said}", flush=True)
        good = good and caught is not None
    return 0 if good else 1


def caught_at(mutant: Mutant, *, seed: int) -> tuple[int, list[str]] | None:
    """Return the seed and the figures that caught it, None where none did."""
    with tempfile.TemporaryDirectory(prefix="il-mutant-") as folder:
        root = mutated(mutant, Path(folder))
        for number in range(seed, seed + SEEDS):
            if found := sorted(reds(root, seed=number) & set(mutant.caught_by)):
                return number, found
    return None


def mutated(mutant: Mutant, folder: Path) -> Path:
    """Return the root of a copy of the source without the guard."""
    copy = folder / "imageloom"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for edit in mutant.edits:
        file = copy / edit.file
        text = file.read_text()
        assert text.count(edit.old) == 1, f"{edit.file} has changed; mend this mutant: {edit.old}"
        file.write_text(text.replace(edit.old, edit.new))
    return folder


def reds(root: Path, *, seed: int) -> set[str]:
    """Return which figures of the races turn red with the source at `root`."""
    tests = Path(__file__).parent.parent
    command = [sys.executable, "-m", "faults", "races", "--scale", str(SCALE), "--seed", str(seed)]
    done = subprocess.run(
        command,
        cwd=tests,
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=False,
        timeout=LONGEST,
    )
    failed = re.findall(r"^FAIL \S+\s+(.+?)\s{2,}", done.stdout, flags=re.MULTILINE)
    assert done.returncode == 0 or failed, f"it did not run to its end: {done.stderr[-3000:]}"
    return set(failed)


if __name__ == "__main__":
    sys.exit(main())
