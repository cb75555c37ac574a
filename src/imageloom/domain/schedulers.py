"""The schedulers that a request may name, and which kind of model each is for."""

from __future__ import annotations

from typing import Final, Literal, get_args

Scheduler = Literal[
    "euler",
    "euler-ancestral",
    "ddim",
    "dpmpp-2m",
    "dpmpp-2m-karras",
    "unipc",
    "lcm",
    "heun",
    "flow-euler",
]
SCHEDULERS: Final[tuple[Scheduler, ...]] = get_args(Scheduler)
# Families whose networks predict a flow take these, those that predict noise or velocity the rest.
_OF_FLOW: Final[tuple[Scheduler, ...]] = ("flow-euler",)


def schedulers_of(family: str) -> tuple[Scheduler, ...]:
    """Return the schedulers that a model of that family may be asked to use; none if it is drawn by
    the stock pipeline, which has its own.
    """
    if family in ("sdxl", "sd1"):
        return tuple(name for name in SCHEDULERS if name not in _OF_FLOW)
    return _OF_FLOW if family == "flux" else ()
