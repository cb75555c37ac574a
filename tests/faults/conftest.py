"""One installation for the short forms of all scenarios, and its seed: a failure shows it."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator

import pytest

from faults.laboratory import Laboratory, laboratory
from faults.scenarios import kills, poison

# So that a silent worker is noticed in half of the time: the short form is short.
QUICK = {"HEARTBEAT_INTERVAL": "0.5", "LEASE_SECONDS": "5", "REAP_INTERVAL": "0.5"}


@pytest.fixture(scope="package")
def lab() -> Iterator[Laboratory]:
    """An installation with two API processes, four workers and an S3 bucket over HTTP."""
    seed = int(os.environ.get("IMAGELOOM_FAULTS_SEED") or random.SystemRandom().randrange(10**6))
    # Shown where a test fails: set IMAGELOOM_FAULTS_SEED to it to have the same dice.
    print(f"seed {seed}")
    with laboratory(
        seed=seed,
        apis=2,
        workers=3,
        bucket=True,
        step_seconds=0.01,
        settings={**QUICK, **kills.SETTINGS, **poison.SETTINGS},
    ) as made:
        yield made
