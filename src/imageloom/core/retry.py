"""Retry: do a task over that ended without completing, as a new task."""

from __future__ import annotations

from collections.abc import Mapping

from imageloom.core.files import get_file, output_of_tenant
from imageloom.core.idempotency import Idempotency
from imageloom.core.read import get_task
from imageloom.core.services import Services
from imageloom.core.submit import submit
from imageloom.core.training import submit_training
from imageloom.domain.errors import Conflict, Gone, NotFound
from imageloom.domain.tasks import Status, Task
from imageloom.storage.keys import file_of
from imageloom.task_types.training.spec import NAME as TRAINING


async def retry(
    services: Services,
    task_id: str,
    *,
    tenant: str,
    idempotency_use: Idempotency | None = None,
) -> Task:
    """Return a new pending task that asks for what a failed or cancelled one did.

    The old one stays as it ended, since an end is final; the new one names it in `retries`. A
    training begins anew: what could help it go on, its own attempts have tried from its last
    checkpoint.
    Raises: NotFound; Conflict where the task has not ended or has completed, belongs to a workflow,
    or is a training whose name was taken since; Gone where an input is; IdempotencyMismatch.
    """
    task = await get_task(services, task_id, tenant=tenant)
    _check_ended(task)
    await _check_inputs(services, task.inputs, tenant=tenant)
    if task.type == TRAINING:
        return await submit_training(
            services,
            tenant=tenant,
            params=task.params,
            inputs=task.inputs,
            retries=task.id,
            priority=task.priority,
            webhook=task.webhook,
            effort=task.effort,
            idempotency_use=idempotency_use,
        )
    return await submit(
        services,
        tenant=tenant,
        task_type=task.type,
        params=task.params,
        inputs=task.inputs,
        reproduces=task.reproduces,
        retries=task.id,
        priority=task.priority,
        webhook=task.webhook,
        effort=task.effort,
        idempotency_use=idempotency_use,
    )


def _check_ended(task: Task) -> None:
    if task.workflow_id is not None:
        raise Conflict(
            f"the task belongs to a workflow; POST /workflows/{task.workflow_id}/runs/"
            f"{task.run_id}/resume redoes what failed there"
        )
    match task.status:
        case Status.PENDING | Status.RUNNING:
            raise Conflict(f"the task is {task.status.value}; only one that ended is retried")
        case Status.COMPLETED:
            raise Conflict(
                "the task has completed; create another, or reproduce one of its outputs"
            )
        case Status.FAILED | Status.CANCELLED:
            return


async def _check_inputs(services: Services, inputs: Mapping[str, str], *, tenant: str) -> None:
    for param, key in inputs.items():
        try:
            file_id = file_of(key)
            if file_id is None:
                await output_of_tenant(services, key, tenant=tenant)
            else:
                await get_file(services, file_id, tenant=tenant)
        except (NotFound, Gone) as exc:
            raise Gone(
                f"{param}: what the task started from is gone; create a task with another",
                param=param,
            ) from exc
