"""Trainings: submit one, look at a data set before, and keep a record of how it goes."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from imageloom.core.adapters import publish_in
from imageloom.core.announce import announce_progress
from imageloom.core.idempotency import Idempotency, earlier_use, remember_use
from imageloom.core.models import choose_model, get_model, read_catalog
from imageloom.core.monitor import healthy, lease
from imageloom.core.read import with_outlook
from imageloom.core.services import Services
from imageloom.core.settle import settle_in
from imageloom.core.submit import create_foretold, rehearse, submitting
from imageloom.datasets import Report, inspect
from imageloom.domain.adapters import Adapter, Loss, TrainingState
from imageloom.domain.catalog import Model
from imageloom.domain.errors import Conflict, InvalidParams, NotFound
from imageloom.domain.forecast import Effort
from imageloom.domain.ids import new_id
from imageloom.domain.tasks import Cancelled, Claim, NewTask, Status, Task
from imageloom.domain.webhooks import Webhook
from imageloom.runtime.training.cost import Amount
from imageloom.runtime.training.estimate import Device, Estimate, estimate
from imageloom.store import adapters, tasks, training, workers
from imageloom.store.pool import Connection, transaction
from imageloom.task_types.training import spec
from imageloom.task_types.training.spec import TrainingParams


async def prepare_training(
    services: Services, params: TrainingParams, *, tenant: str
) -> dict[str, Any]:
    """Return a request's parameters with every default filled in.

    Raises: UnknownModel, InvalidParams, naming the parameter.
    """
    name = params.base_model or services.settings.default_model
    async with transaction(services.pool) as conn:
        catalog = await read_catalog(conn, tenant=tenant)
    if name not in catalog.models:
        # The catalog's own error speaks of `model`; here the field has another name.
        raise InvalidParams(
            f"base_model: there is no model {name!r}; known are {', '.join(catalog.models)}",
            param="base_model",
        )
    return spec.prepare(params, model=choose_model(catalog, name))


async def submit_training(
    services: Services,
    *,
    tenant: str,
    params: dict[str, Any],
    inputs: dict[str, str],
    retries: str | None = None,
    priority: int = 0,
    webhook: Webhook | None = None,
    effort: Effort | None = None,
    idempotency_use: Idempotency | None = None,
) -> Task:
    """Return a new pending training, or the one that the idempotency key made before.

    Raises: Conflict where the name is taken and no new version is asked for; IdempotencyMismatch.
    """
    async with submitting(services, spec.NAME), transaction(services.pool) as conn:
        if idempotency_use is not None:
            earlier = await earlier_use(conn, tenant, idempotency_use)
            if earlier is not None:
                return await _training(conn, earlier, tenant=tenant)
        await services.outlooks.look(conn, {None if effort is None else effort.pace})
        await adapters.lock_names(conn, tenant)
        await _check_name(conn, params, tenant=tenant)
        new = NewTask(
            id=new_id("train", now_ms=time.time_ns() // 1_000_000),
            tenant=tenant,
            type=spec.NAME,
            params=params,
            inputs=inputs,
            max_attempts=services.settings.max_attempts,
            retries=retries,
            priority=priority,
            webhook=webhook,
            pace=None if effort is None else effort.pace,
            units=None if effort is None else effort.units,
        )
        task = await create_foretold(services, conn, new)
        if idempotency_use is not None:
            await remember_use(conn, tenant, idempotency_use, task.id)
        return task


async def rehearse_training(
    services: Services,
    *,
    tenant: str,
    params: dict[str, Any],
    effort: Effort,
    priority: int = 0,
) -> Task:
    """Return what `submit_training` would, and leave nothing behind. Raises: Conflict."""
    async with transaction(services.pool) as conn:
        await _check_name(conn, params, tenant=tenant)
    return await rehearse(
        services,
        tenant=tenant,
        task_type=spec.NAME,
        params=params,
        effort=effort,
        priority=priority,
    )


async def effort_of(services: Services, params: dict[str, Any], report: Report | None) -> Effort:
    """Return how much work a training is; without a report of its data set nobody knows."""
    amount = None
    if report is not None:
        model = await get_model(services.pool, params["base_model"])
        amount = _amount(report, params, model)
    return spec.effort(params, amount)


async def _check_name(conn: Connection, params: dict[str, Any], *, tenant: str) -> None:
    """Refuse a name that is taken, where no new version is asked for. Raises: Conflict."""
    name = params["output_name"]
    if params["config"]["version"] or not await adapters.is_taken(conn, tenant=tenant, name=name):
        return
    raise Conflict(
        f"output_name: there is an adapter {name!r}, or a training of it; take another "
        "name, or ask for a new version with config.version: true",
        param="output_name",
    )


async def read_training(
    services: Services, task_id: str, *, tenant: str
) -> tuple[Task, TrainingState, Adapter | None]:
    """Return a training, how it stands, and what it published. Raises: NotFound."""
    async with transaction(services.pool) as conn:
        task = await with_outlook(services, conn, await _training(conn, task_id, tenant=tenant))
        state = await training.get_state(conn, task_id)
        return task, state, await adapters.of_task(conn, task_id)


async def read_losses(services: Services, task_id: str, *, tenant: str) -> list[Loss]:
    """Return the loss of every step so far. Raises: NotFound."""
    async with transaction(services.pool) as conn:
        await _training(conn, task_id, tenant=tenant)
        return await training.list_losses(conn, task_id)


async def cancel_training(services: Services, task_id: str, *, tenant: str, keep: bool) -> Task:
    """Cancel a training; with `keep` its last checkpoint is published, if there is one.

    Repeating it is harmless. Raises: NotFound; Conflict where it has completed or failed.
    """
    async with transaction(services.pool) as conn:
        task = await tasks.lock(conn, task_id)
        if task is None or task.tenant != tenant or task.type != spec.NAME:
            raise NotFound(f"there is no training {task_id}")
        if task.status is Status.CANCELLED:
            return task
        if task.status.terminal:
            raise Conflict(f"the training has {task.status.value} already; it cannot be cancelled")
        if task.job_id is not None:
            await services.queue.cancel(conn, task.job_id)
        state = await training.get_state(conn, task_id)
        settled = await settle_in(
            services, conn, task_id, attempt=task.attempt, outcome=Cancelled()
        )
        if settled is None:
            raise RuntimeError(f"training {task_id} changed although its row was held")
        if keep and state.last is not None:
            await publish_in(conn, settled, state.last, lineage=state.lineage)
        return settled


async def begin_record(services: Services, claim: Claim) -> TrainingState:
    """Return what an attempt goes on from; what came after that checkpoint is forgotten."""
    async with transaction(services.pool) as conn:
        state = await training.get_state(conn, claim.task.id)
        await training.forget_losses_after(conn, claim.task.id, state.checkpoint_step)
        samples = (sample for sample in state.samples if sample.step <= state.checkpoint_step)
        return replace(state, samples=tuple(samples))


async def record(
    services: Services,
    claim: Claim,
    *,
    progress: float,
    state: TrainingState,
    losses: Sequence[Loss],
) -> bool:
    """Write how a training goes, 0 to 1; False where the attempt is no longer this worker's."""
    async with transaction(services.pool) as conn:
        ours = await training.put_state(
            conn, claim.task.id, attempt=claim.attempt, progress=progress, state=state
        )
        if ours and losses:
            await training.add_losses(conn, claim.task.id, losses)
        if ours:
            await announce_progress(conn, claim.task, progress=progress)
        return ours


async def preflight(services: Services, key: str, *, config: dict[str, Any]) -> Report:
    """Return what is in an uploaded data set. Raises: InvalidInput where it is of no use."""
    async with local_copy(services, key) as path:
        return await asyncio.to_thread(
            inspect,
            path,
            trigger_word=config["trigger_word"],
            resolution=config["resolution"],
        )


async def estimate_training(
    services: Services, report: Report, *, params: dict[str, Any]
) -> Estimate:
    """Return what a training on a data set will take, on the workers that there are now."""
    name = params["base_model"]
    model = await get_model(services.pool, name)
    async with transaction(services.pool) as conn:
        paces = await training.list_paces(conn, name)
        found = await workers.list_all(conn, lease=lease(services))
    amount = _amount(report, params, model)
    devices = [
        Device(name=worker.device, memory_bytes=worker.memory_bytes)
        for worker in found
        if healthy(worker) and spec.NAME in worker.queues
    ]
    return estimate(model, amount, paces=paces, devices=devices)


def _amount(report: Report, params: dict[str, Any], model: Model) -> Amount:
    pictures = [(item.caption, item.width, item.height) for item in report.items]
    return spec.amount_of(pictures, params["config"], model=model)


@asynccontextmanager
async def local_copy(services: Services, key: str) -> AsyncIterator[Path]:
    """Yield a file with the stored bytes, which is gone afterwards. Raises: NotFound."""
    stored = await services.storage.open(key)
    with tempfile.TemporaryDirectory(prefix="imageloom-") as folder:
        path = Path(folder) / "dataset.zip"
        with path.open("wb") as file:
            async for chunk in stored.chunks:
                await asyncio.to_thread(file.write, chunk)
        yield path


async def _training(conn: Connection, task_id: str, *, tenant: str) -> Task:
    task = await tasks.get(conn, task_id, tenant=tenant)
    if task is None or task.type != spec.NAME:
        raise NotFound(f"there is no training {task_id}")
    return task
