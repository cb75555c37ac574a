"""The long form: every scenario at its full size; prints the table, and 1 where a figure is not
reached.

    python -m faults               all of them
    python -m faults kills --seed 7 --scale 0.1
"""

from __future__ import annotations

import argparse
import logging
import platform
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import structlog

from faults.figures import Figure
from faults.laboratory import Laboratory, laboratory
from faults.scenarios import (
    cancels,
    database,
    kills,
    load,
    poison,
    races,
    replies,
    rolling,
    storage,
    workflows,
    zombies,
)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """One experiment: the installation that it needs, and what is done to it."""

    run: Callable[[Laboratory], list[Figure]]
    settings: dict[str, str] = field(default_factory=dict)
    apis: int = 1
    workers: int = 4
    bucket: bool = False
    step: float = 0.02

    def figures(self, seed: int) -> list[Figure]:
        """Run it in an installation of its own."""
        with laboratory(
            seed=seed,
            apis=self.apis,
            workers=self.workers,
            bucket=self.bucket,
            step_seconds=self.step,
            settings=self.settings,
        ) as lab:
            return self.run(lab)


def scenarios(scale: float) -> dict[str, Callable[[int], list[Figure]]]:
    """Return the scenarios by name, at a share of their full size."""

    def size(full: int) -> int:
        return max(1, round(full * scale))

    return {
        "races": lambda seed: races.races(seed=seed, tasks=size(2000)),
        "kills": Scenario(
            run=partial(kills.kills, tasks=size(1000), kills=size(50)),
            settings=kills.SETTINGS,
            bucket=True,
        ).figures,
        "restarts": Scenario(
            run=partial(database.restarts, tasks=size(1000), restarts=size(20)), apis=2
        ).figures,
        "sessions": Scenario(
            run=partial(database.sessions, tasks=size(500), ended=size(300)), apis=2
        ).figures,
        "zombies": Scenario(run=partial(zombies.zombies, rounds=size(60))).figures,
        "cancels": Scenario(
            run=partial(cancels.cancels, races=size(10_000)), apis=2, workers=2
        ).figures,
        "poison": Scenario(
            run=partial(poison.poison, good=size(500), bad=size(5)), settings=poison.SETTINGS
        ).figures,
        "replies": Scenario(
            run=partial(replies.replies, tasks=size(1000)), apis=2, workers=2, step=0.0
        ).figures,
        "storage": Scenario(
            run=partial(storage.bad_storage, tasks=size(500)), workers=2, bucket=True, step=0.0
        ).figures,
        "disk": Scenario(
            run=partial(storage.full_disk, tasks=size(50)), workers=1, step=0.0
        ).figures,
        "rolling": Scenario(
            run=partial(rolling.rolling, rounds=size(5)), apis=2, workers=2
        ).figures,
        "accepting": Scenario(
            run=partial(load.accepting, seconds=size(600)), workers=1, step=0.0
        ).figures,
        "backlog": Scenario(
            run=partial(load.backlog, queued=size(100_000), measured=size(3000)),
            workers=1,
            step=0.0,
        ).figures,
        "workflows": Scenario(
            run=partial(workflows.workflows, count=size(200), faults=size(40), struck=5),
            settings=kills.SETTINGS,
        ).figures,
    }


def main() -> int:
    """Read the options, run and print."""
    parser = argparse.ArgumentParser(prog="faults", description=__doc__)
    parser.add_argument("names", nargs="*", help="scenarios; all without")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(10**6))
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds in a row")
    parser.add_argument("--scale", type=float, default=1.0)
    options = parser.parse_args()
    # What the played verbs log would bury the table; processes have logs of their own.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.getLogger("psycopg.pool").setLevel(logging.CRITICAL)
    known = scenarios(options.scale)
    if unknown := set(options.names) - known.keys():
        parser.error(f"no scenario {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    print(f"{platform.platform()}, Python {platform.python_version()}; seed {options.seed}")
    # Asked to end, it ends what it started: processes in groups of their own outlive it else.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    found: list[Figure] = []
    for name in options.names or known:
        for seed in range(options.seed, options.seed + options.seeds):
            began = time.monotonic()
            print(f"\n{name}, seed {seed}", flush=True)
            figures = known[name](seed)
            print(*figures, sep="\n")
            print(f"{(time.monotonic() - began) / 60:.1f} min in all", flush=True)
            found += figures
    bad = [figure for figure in found if not figure.good]
    print(f"\n{len(found) - len(bad)} of {len(found)} figures reached")
    print(*bad, sep="\n")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
