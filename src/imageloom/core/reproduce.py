"""Reproduce: make one output of a task again, alone, and compare it with the first."""

from __future__ import annotations

from dataclasses import replace

from imageloom.core.idempotency import Idempotency
from imageloom.core.read import get_output, get_task
from imageloom.core.services import Services
from imageloom.core.submit import submit
from imageloom.domain.errors import Conflict, InvalidParams
from imageloom.domain.forecast import Effort
from imageloom.domain.receipts import OutputRef
from imageloom.domain.tasks import Task
from imageloom.domain.webhooks import Webhook
from imageloom.task_types.registry import get_task_type


async def reproduce(
    services: Services,
    task_id: str,
    *,
    output: int,
    tenant: str,
    webhook: Webhook | None = None,
    idempotency_use: Idempotency | None = None,
) -> Task:
    """Return a new pending task that draws that output of a completed task once more.

    It has the parameters of the first but for one picture of the output's own seed, and the device
    to itself. What it makes says how the two compare.
    Raises: NotFound; Conflict where the task is not completed or does not draw from seeds; Gone
    after its outputs were deleted; InvalidParams where it has no such output; IdempotencyMismatch.
    """
    task = await get_task(services, task_id, tenant=tenant)
    if not get_task_type(task.type).draws_rows:
        raise Conflict(f"a {task.type} does not draw from a seed; only generations are reproduced")
    images = (await get_output(services, task_id, tenant=tenant)).images
    if output >= len(images):
        raise InvalidParams(
            f"output: {output} is not there; the task has outputs 0 to {len(images) - 1}",
            param="output",
        )
    kept = {name: value for name, value in task.params.items() if name != "preview_every"}
    return await submit(
        services,
        tenant=tenant,
        task_type=task.type,
        params={**kept, "seed": images[output].seed, "num_outputs": 1},
        inputs=task.inputs,
        reproduces=OutputRef(task_id=task_id, output=output),
        webhook=webhook,
        effort=_effort_of_one(task),
        idempotency_use=idempotency_use,
    )


def _effort_of_one(task: Task) -> Effort | None:
    """Return how much work one picture of a task is, None of one from before that was noted."""
    whole = task.effort
    if whole is None or whole.units is None:
        return whole
    return replace(whole, units=whole.units / task.params["num_outputs"])
