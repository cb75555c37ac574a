"""Routes about trainings: start one, look at its data set before, watch it, cancel it."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel, ConfigDict

from imageloom.api.auth import Reader, Writer
from imageloom.api.bodies import (
    idempotency_use,
    read_json_object,
    read_optional_object,
    refuse_query,
)
from imageloom.api.context import Context, InContext
from imageloom.api.dry_run import ANSWER, DRY_RUN, dry_run_answer, wants_dry_run
from imageloom.api.preference import PREFER, wait_as_preferred
from imageloom.api.routing import both_slashes, errors_of, json_body
from imageloom.api.training_shapes import (
    EstimateView,
    LossesView,
    PreflightView,
    TrainingView,
    estimate_view,
    losses_view,
    preflight_view,
    training_view,
)
from imageloom.api.urls import OwnFile
from imageloom.core import training
from imageloom.core.files import dataset_of_tenant
from imageloom.core.prepare import webhook_of
from imageloom.datasets import Report
from imageloom.domain.errors import Gone, InvalidInput, InvalidParams, NotFound
from imageloom.fetch import check_url
from imageloom.task_types.parsing import parse_params
from imageloom.task_types.training import spec
from imageloom.task_types.training.spec import TrainingParams

_EXAMPLE = {
    "dataset_url": "https://example.com/datasets/model-ref.zip",
    "base_model": "sd-xl-base",
    "output_name": "custom-model-v1",
    "config": {"epochs": 100, "learning_rate": 1e-4, "batch_size": 1},
}


class CancelBody(BaseModel):
    """The body of `cancel`; it may be left out."""

    model_config = ConfigDict(extra="forbid", strict=True)

    keep: bool = False


def training_router() -> APIRouter:
    """Return the routes of trainings."""
    router = APIRouter(prefix="/training", tags=["training"])

    @both_slashes(
        router.post,
        "",
        status_code=201,
        operation_id="create_training",
        summary="Train an adapter of a base model on a data set",
        response_model=TrainingView,
        responses={**ANSWER, **errors_of(401, 403, 409, 413, 415, 422, 503)},
        openapi_extra=json_body(
            TrainingParams.model_json_schema(), example=_EXAMPLE, parameters=[PREFER, DRY_RUN]
        ),
    )
    async def create_training(
        request: Request, response: Response, context: InContext, tenant: Writer
    ) -> TrainingView | Response:
        dry_run = wants_dry_run(request)
        body = await read_json_object(request)
        asked = spec.parse(body)
        params, key = await _accept(request, context, tenant, asked)
        report = None
        if key is not None:
            # What is ours can be looked at now: no GPU second for a data set of no use.
            report = await training.preflight(context.services, key, config=params["config"])
        effort = await training.effort_of(context.services, params, report)
        webhook = webhook_of(asked, allow=context.services.settings.fetch_allow)
        use = idempotency_use(request, route="training", body=body)
        if dry_run:
            task = await training.rehearse_training(
                context.services,
                tenant=tenant,
                params=params,
                effort=effort,
                priority=asked.priority,
            )
            return dry_run_answer(
                task, context.urls, estimate=await _estimate(context, report, params)
            )
        task = await training.submit_training(
            context.services,
            tenant=tenant,
            params=params,
            inputs={} if key is None else {"dataset_url": key},
            priority=asked.priority,
            webhook=webhook,
            effort=effort,
            idempotency_use=use,
        )
        await wait_as_preferred(request, response, context, task)
        return await _view(context, task.id, tenant)

    @both_slashes(
        router.post,
        "/preflight",
        operation_id="preflight_training",
        summary="Say what is in an uploaded data set, and what training on it will take",
        responses=errors_of(401, 403, 413, 415, 422, 503),
        openapi_extra=json_body(TrainingParams.model_json_schema(), example=_EXAMPLE),
    )
    async def preflight(request: Request, context: InContext, tenant: Writer) -> PreflightView:
        refuse_query(request)
        body = {"output_name": "preflight", **await read_json_object(request)}
        params, key = await _accept(request, context, tenant, spec.parse(body))
        if key is None:
            raise InvalidParams(
                "dataset_url: upload the archive to POST /files and give its URL; others are "
                "looked at when the training begins",
                param="dataset_url",
            )
        report = await training.preflight(context.services, key, config=params["config"])
        estimate = await training.estimate_training(context.services, report, params=params)
        return preflight_view(report, estimate)

    @both_slashes(
        router.get,
        "/{task_id}",
        operation_id="get_training",
        summary="Read a training",
        responses=errors_of(401, 403, 404, 422, 503),
    )
    async def get_training(task_id: str, context: InContext, tenant: Reader) -> TrainingView:
        return await _view(context, task_id, tenant)

    @both_slashes(
        router.get,
        "/{task_id}/losses",
        operation_id="list_losses",
        summary="Read the loss of every step so far",
        responses=errors_of(401, 403, 404, 422, 503),
    )
    async def list_losses(task_id: str, context: InContext, tenant: Reader) -> LossesView:
        found = await training.read_losses(context.services, task_id, tenant=tenant)
        return losses_view(found)

    @both_slashes(
        router.post,
        "/{task_id}/cancel",
        operation_id="cancel_training",
        summary="Cancel a training; keep: true publishes its last checkpoint",
        responses=errors_of(401, 403, 404, 409, 415, 422, 503),
    )
    async def cancel_training(
        request: Request, task_id: str, context: InContext, tenant: Writer
    ) -> TrainingView:
        refuse_query(request)
        body = parse_params(CancelBody, await read_optional_object(request))
        await training.cancel_training(context.services, task_id, tenant=tenant, keep=body.keep)
        return await _view(context, task_id, tenant)

    return router


async def _accept(
    request: Request, context: Context, tenant: str, asked: TrainingParams
) -> tuple[dict[str, Any], str | None]:
    """Return a request's parameters, and the data set's storage key where it is an upload."""
    params = await training.prepare_training(context.services, asked, tenant=tenant)
    try:
        own = context.urls.own(asked.dataset_url, host=request.headers.get("host"))
        if isinstance(own, OwnFile):
            return params, await dataset_of_tenant(context.services, own.file_id, tenant=tenant)
        if own is None:
            check_url(asked.dataset_url, allow=context.services.settings.fetch_allow)
            return params, None
    except (NotFound, Gone, InvalidInput) as exc:
        raise InvalidInput(f"dataset_url: {exc.message}", param="dataset_url") from exc
    raise InvalidInput(
        "dataset_url: is an output of a task, not a zip of pictures", param="dataset_url"
    )


async def _estimate(
    context: Context, report: Report | None, params: dict[str, Any]
) -> EstimateView | None:
    if report is None:
        return None
    found = await training.estimate_training(context.services, report, params=params)
    return estimate_view(found)


async def _view(context: Context, task_id: str, tenant: str) -> TrainingView:
    task, state, adapter = await training.read_training(context.services, task_id, tenant=tenant)
    return training_view(task, state, adapter, context.urls)
