"""The shapes of what lies before a task: when it is expected, and whether it can ever run."""

from __future__ import annotations

from typing import Annotated, TypedDict

from pydantic import BaseModel, Field

from imageloom.api.times import Time
from imageloom.domain.tasks import Moments, Task


class MomentsView(BaseModel):
    """When it will have happened with a probability of 0.5, and of 0.9."""

    p50: Time
    p90: Time


class EtaView(BaseModel):
    """When a task will start and finish. `start` is null once it runs; see docs/forecasts.md."""

    start: MomentsView | None
    finish: MomentsView | None


Expected = Annotated[
    EtaView | None,
    Field(description="When it is expected; null once it is over, and with nothing to go by"),
]
Runnable = Annotated[
    bool | None,
    Field(
        description="Whether a live worker can ever run it; null where it does not wait. One that "
        "is not runnable waits for a worker that is"
    ),
]
Reason = Annotated[str | None, Field(description="Why no live worker can ever run it")]
Change = Annotated[str | None, Field(description="The nearest change with which one could")]


class OutlookFields(TypedDict):
    """What a view of a task says of what lies before it."""

    eta: EtaView | None
    runnable: bool | None
    runnable_reason: str | None
    runnable_change: str | None


def outlook_fields(task: Task) -> OutlookFields:
    """Return what a view of the task says of what lies before it."""
    eta = task.outlook and task.outlook.eta
    verdict = task.outlook and task.outlook.verdict
    return OutlookFields(
        eta=EtaView(start=_moments_view(eta.start), finish=_moments_view(eta.finish))
        if eta
        else None,
        runnable=verdict.runnable if verdict else None,
        runnable_reason=verdict.reason if verdict else None,
        runnable_change=verdict.change if verdict else None,
    )


def _moments_view(moments: Moments | None) -> MomentsView | None:
    return None if moments is None else MomentsView(p50=moments.p50, p90=moments.p90)
