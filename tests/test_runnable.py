"""Whether any live worker can ever run a task, and the nearest change with which one could."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from imageloom.domain.catalog import BUILTIN
from imageloom.domain.runnable import RUNNABLE, Able, Demand, judge

MODELS = {model.name: model for model in BUILTIN}
TINY, SDXL, FLUX = (MODELS[name] for name in ("imageloom-tiny", "sd-xl-base", "flux-schnell"))
OWN = msgspec.structs.replace(SDXL, source="folder:/srv/sdxl")
GIB = 2**30
GPU = Able(queues=("generation", "processing"), memory_bytes=24 * GIB, lacking=())
CPU = replace(GPU, memory_bytes=None)
BIG = (1024, 1024)


def small(gb: float) -> Able:
    return replace(GPU, memory_bytes=round(gb * 1e9))


@pytest.mark.parametrize(
    ("demand", "workers"),
    [
        (Demand(queue="generation", model=TINY), [GPU]),
        (Demand(queue="processing", model=None), [GPU]),
        (Demand(queue="generation", model=FLUX, size=BIG), [GPU]),  # its parts take turns
        # One has the weights, and one that does not tell its memory counts as large enough.
        (Demand(queue="generation", model=SDXL), [replace(GPU, lacking=("sd-xl-base",)), GPU]),
        (Demand(queue="generation", model=SDXL, size=BIG), [small(1), CPU]),
        # Of a user's own files nobody says in how many bits they are.
        (Demand(queue="generation", model=OWN, size=BIG), [small(1)]),
    ],
)
def test_what_a_live_worker_can_run_is_runnable(demand: Demand, workers: list[Able]) -> None:
    assert judge(demand, workers, BUILTIN) == RUNNABLE


@pytest.mark.parametrize(
    ("demand", "workers", "reason", "change"),
    [
        (
            Demand(queue="generation", model=TINY),
            [],
            "no worker is alive",
            "start a worker that serves generation",
        ),
        (
            Demand(queue="training", model=TINY),
            [GPU],
            "no live worker serves training",
            "start a worker that serves training",
        ),
        (
            Demand(queue="generation", model=SDXL),
            [replace(GPU, lacking=("sd-xl-base", "sd-1.5"))] * 2,
            "the weights of the model 'sd-xl-base' are on no live worker",
            "imageloom models pull sd-xl-base",
        ),
        (
            Demand(queue="generation", model=SDXL),
            [replace(GPU, serves=("sd-1.5",))],
            "no live worker may serve the model 'sd-xl-base'",
            "name sd-xl-base in IMAGELOOM_WORKER_MODELS of a worker",
        ),
        (
            Demand(queue="generation", model=OWN),
            [replace(GPU, lacking=(OWN.name,))],
            "the weights of the model 'sd-xl-base' are on no live worker",
            "imageloom models add sd-xl-base --path PATH, on a machine with a worker",
        ),
        (  # half of the weights fit, and three quarters of the pixels
            Demand(queue="generation", model=SDXL, size=BIG),
            [small(3.65), small(1)],
            (
                "the model 'sd-xl-base' needs at least 3.7 GB of memory for this, and no live "
                "worker's device has more than 3.6 GB"
            ),
            "1024 x 1024 becomes 896 x 896",
        ),
        (
            Demand(queue="generation", model=FLUX, size=BIG),
            [replace(small(6), lacking=("sd-1.5",))],
            (
                "the model 'flux-schnell' needs at least 17.1 GB of memory for this, and no live "
                "worker's device has more than 6.0 GB"
            ),
            "model sd-xl-base",
        ),
        (  # nothing else is there
            Demand(queue="training", model=SDXL),
            [replace(small(2), queues=("training",), lacking=tuple(MODELS.keys() - {SDXL.name}))],
            (
                "the model 'sd-xl-base' needs at least 3.5 GB of memory for this, and no live "
                "worker's device has more than 2.0 GB"
            ),
            "start a worker on a device with 3.5 GB or more",
        ),
    ],
)
def test_what_none_can_run_says_why_and_what_would(
    demand: Demand, workers: list[Able], reason: str, change: str
) -> None:
    verdict = judge(demand, workers, BUILTIN)
    assert (verdict.runnable, verdict.reason, verdict.change) == (False, reason, change)
