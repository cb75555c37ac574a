"""Routes about the installation: models, queues, workers, health."""

from __future__ import annotations

from fastapi import APIRouter

from imageloom.api.auth import Reader, Viewer, Writer
from imageloom.api.context import InContext
from imageloom.api.routing import both_slashes, errors_of
from imageloom.api.seeing import sees_all
from imageloom.api.shapes import (
    HealthView,
    ModelView,
    PageView,
    QueuesView,
    QueueView,
    RetiredView,
    WorkersView,
    adapter_model_view,
    model_view,
    worker_view,
)
from imageloom.core.adapters import list_adapters, retire
from imageloom.core.models import list_models
from imageloom.core.monitor import healthy, list_workers, queue_states, watch_workers
from imageloom.domain.errors import NoWorker
from imageloom.task_types.registry import QUEUES

HEALTH_TIMEOUT = 3.0  # seconds that a health check waits for the database


def monitoring_router() -> APIRouter:
    """Return the routes that show models, queues and workers."""
    router = APIRouter(responses=errors_of(401, 403, 503))

    @both_slashes(
        router.get,
        "/models",
        operation_id="list_models",
        summary="List the models that a task may name",
        tags=["models"],
    )
    async def models(context: InContext, tenant: Reader) -> PageView[ModelView]:
        found = await list_models(context.services.pool)
        defaults = context.services.settings.default_models.values()
        items = [model_view(model, defaults=defaults) for model in found]
        items += [
            adapter_model_view(adapter)
            for adapter in await list_adapters(context.services, tenant=tenant)
        ]
        return PageView(items=items, total=len(items), page=1, page_size=max(50, len(items)))

    @both_slashes(
        router.delete,
        "/models/{name}",
        operation_id="retire_model",
        summary="Take one of your adapters out of use",
        tags=["models"],
        responses=errors_of(404, 422),
    )
    async def retire_model(name: str, context: InContext, tenant: Writer) -> RetiredView:
        await retire(context.services, name, tenant=tenant)
        return RetiredView(name=name, retired=True)

    @both_slashes(
        router.get,
        "/monitoring/queues",
        operation_id="list_queues",
        summary="How many tasks wait and run, and how many workers serve them",
        tags=["monitoring"],
    )
    async def queues(context: InContext, _viewer: Viewer) -> QueuesView:
        states = await queue_states(context.services, names=QUEUES)
        return QueuesView(
            queues=[
                QueueView(
                    name=state.name,
                    pending=state.count.pending,
                    running=state.count.running,
                    workers=state.workers,
                    oldest_age=state.count.oldest_age,
                )
                for state in states
            ]
        )

    async def workers(context: InContext, viewer: Viewer) -> WorkersView:
        found = await watch_workers(
            context.services, tenant=None if sees_all(viewer) else viewer.tenant
        )
        well = sum(1 for worker, _ in found if healthy(worker))
        return WorkersView(
            healthy=well,
            unhealthy=len(found) - well,
            total=len(found),
            workers=[worker_view(worker, tasks=tasks) for worker, tasks in found],
        )

    both_slashes(
        router.get,
        "/monitoring/workers",
        operation_id="list_workers",
        summary="The workers of the last hour",
        tags=["monitoring"],
    )(workers)
    both_slashes(
        router.get,
        "/monitoring/workers/health",
        operation_id="workers_health",
        summary="How many workers are well, and each of them",
        tags=["monitoring"],
    )(workers)
    return router


def health_router() -> APIRouter:
    """Return the two routes for load balancers; they need no key and say nothing else."""
    router = APIRouter(tags=["health"], responses=errors_of(503))

    @router.get("/healthz", operation_id="healthz", summary="The process and its database are well")
    async def healthz(context: InContext) -> HealthView:
        await list_workers(context.services, wait=HEALTH_TIMEOUT)
        return HealthView(status="ok")

    @router.get("/readyz", operation_id="readyz", summary="A live worker is there too")
    async def readyz(context: InContext) -> HealthView:
        workers = await list_workers(context.services, wait=HEALTH_TIMEOUT)
        if not any(healthy(worker) for worker in workers):
            raise NoWorker("no worker is alive; tasks would wait")
        return HealthView(status="ok")

    return router
