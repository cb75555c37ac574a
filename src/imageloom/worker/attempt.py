"""One attempt at a task, from claim to settlement, as a line of small steps."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from imageloom.core.claim import note_previews, note_progress
from imageloom.core.models import get_model
from imageloom.core.services import Services
from imageloom.core.settle import note_usage, settle
from imageloom.domain.errors import (
    CutOff,
    DeviceAway,
    DeviceLost,
    ImageloomError,
    LeaseLost,
    StoreUnavailable,
)
from imageloom.domain.messages import Done, Errored, Progress, Run
from imageloom.domain.messages import Picture as PictureMessage
from imageloom.domain.messages import Preview as PreviewMessage
from imageloom.domain.receipts import Receipt
from imageloom.domain.tasks import (
    Claim,
    Completed,
    Interrupted,
    Lost,
    Outcome,
    Output,
    OutputImage,
    Preview,
)
from imageloom.fetch import Fetcher
from imageloom.images import Encoded, Picture, encode_picture, resize_picture
from imageloom.storage.keys import attempt_prefix, output_key
from imageloom.task_types.registry import get_task_type
from imageloom.task_types.spec import Work
from imageloom.task_types.training.spec import NAME as TRAINING
from imageloom.worker.account import Account
from imageloom.worker.adapters import local_adapters
from imageloom.worker.cache import key_of, look_up
from imageloom.worker.device import DeviceProcess
from imageloom.worker.digests import WeightDigests
from imageloom.worker.failures import DeviceRefusedError, failed
from imageloom.worker.handover import Handover
from imageloom.worker.inputs import Inputs
from imageloom.worker.lease import Lease
from imageloom.worker.patience import outlast, to_the_end
from imageloom.worker.previews import PreviewWriter
from imageloom.worker.progress import ProgressWriter
from imageloom.worker.receipts import Receipts
from imageloom.worker.reproduction import compared
from imageloom.worker.room import Room
from imageloom.worker.training import TrainingTools, train

_log = structlog.get_logger("imageloom.worker")

SETTLE_TIMEOUT = 120.0  # seconds to keep trying to write an outcome while the database is away


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptTools:
    """What an attempt works with, and who else may be there."""

    services: Services
    device: DeviceProcess
    fetcher: Fetcher
    handover: Handover
    room: Room
    account: Account
    lease: Lease
    digests: WeightDigests


async def run_attempt(tools: AttemptTools, claim: Claim) -> None:
    """Do the work of a claimed task and settle how it ended.

    Cancelled from outside while the task is the worker's, as on a drain, it hands the task back
    without spending the attempt. Writes nothing once the lease is lost.
    """
    log = _log.bind(task_id=claim.task.id, attempt=claim.attempt, task_type=claim.task.type)
    try:
        async with tools.lease.held():
            outcome = await _outcome(tools, claim)
    except asyncio.CancelledError:
        # Either the user's cancel, then the row is final and this is refused, or a drain.
        await to_the_end(_finish(tools, claim, Interrupted()))
        raise
    except CutOff:
        # Refused where others have the task by now; else it waits for anybody, unspent.
        await to_the_end(_finish(tools, claim, Interrupted()))
        return
    except LeaseLost:
        log.warning("lease_lost")
        prefix = attempt_prefix(claim.task.id, claim.attempt)
        await to_the_end(tools.services.storage.delete_prefix(prefix))
        return
    await to_the_end(_finish(tools, claim, outcome))


async def _outcome(tools: AttemptTools, claim: Claim) -> Outcome:
    """Return how the attempt ended. Raises: LeaseLost."""
    try:
        if claim.task.type == TRAINING:
            training = TrainingTools(
                services=tools.services,
                device=tools.device,
                fetcher=tools.fetcher,
                handover=tools.handover,
                account=tools.account,
            )
            return Completed(output=await train(training, claim))
        async with tools.room.for_attempt(claim) as alone:
            return Completed(output=await _work(tools, claim, alone=alone))
    except DeviceRefusedError as exc:
        return exc.failure
    except DeviceAway:
        return Interrupted()
    except DeviceLost as exc:
        return Lost(reason=exc.message)
    except LeaseLost:
        raise
    except ImageloomError as exc:
        return failed(exc)


async def _work(tools: AttemptTools, claim: Claim, *, alone: bool) -> Output:
    """Return what the task made, or what the step cache has of it."""
    task, services = claim.task, tools.services
    task_type = get_task_type(task.type)
    name = task.params.get("model")
    model = None if name is None else await get_model(services.pool, name)
    parts = task_type.parts(task.params)
    loras = await local_adapters(services, task)
    inputs = Inputs(services.storage, tools.fetcher, services.settings.limits, task)

    async def write(progress: float) -> bool:
        return await note_progress(services, claim, progress)

    async def show(found: Sequence[Preview]) -> bool:
        return await note_previews(services, claim, found)

    async with (
        ProgressWriter(write) as progress,
        PreviewWriter(services.storage, claim, show) as previews,
    ):
        cache_base = task.cache_base if len(parts) == 1 else None
        cache_key, digests = None, {}
        if cache_base is not None or task_type.draws_rows:
            with services.tracing.span("fetch inputs"):
                digests = await inputs.digests([name for names in parts for name in names])
        if cache_base is not None:
            cache_key = await key_of(cache_base, digests, model, loras=loras)
            if (found := await look_up(services, task.tenant, cache_key)) is not None:
                return found
        receipts = None
        if model is not None and task_type.draws_rows:
            receipts = Receipts(model, digests=tools.digests, loras=loras, inputs=digests)
        drawn: list[_Drawn] = []
        for part, names in enumerate(parts):
            with services.tracing.span("read inputs"):
                pictures = await inputs.pictures(names, transparency=task_type.transparency)
            work = await asyncio.to_thread(
                task_type.build_work,
                task.params,
                model=model,
                inputs=pictures,
                limits=services.settings.limits,
                loras=loras,
            )
            inputs.forget(
                name for name in names if not any(name in rest for rest in parts[part + 1 :])
            )
            span = _Span(
                first=len(drawn),
                part=part,
                parts=len(parts),
                progress=progress,
                alone=alone,
                previews=previews,
                receipts=receipts,
            )
            drawn += await _draw(tools, claim, work, span)
    output = Output(
        images=tuple(each.image for each in drawn),
        receipts=tuple(each.receipt for each in drawn if each.receipt is not None),
        cache=None if cache_key is None else "miss",
        cache_key=cache_key,
    )
    if task.reproduces is not None:
        return await compared(services, task, task.reproduces, output)
    return output


class _Drawn(NamedTuple):
    image: OutputImage
    receipt: Receipt | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Span:
    """Where one part stands in its attempt: `first` is the index of its first picture.

    `alone` where the attempt has the device to itself, `receipts` where it draws from seeds.
    """

    first: int
    part: int
    parts: int
    progress: ProgressWriter
    previews: PreviewWriter
    alone: bool
    receipts: Receipts | None

    def note(self, value: float) -> None:
        """Note how far this part is, 0 to 1."""
        self.progress.note((self.part + value) / self.parts)


async def _draw(tools: AttemptTools, claim: Claim, work: Work, span: _Span) -> list[_Drawn]:
    """Run one part on the device; store each picture as it is finished."""
    key = f"{claim.task.id}/{claim.attempt}"
    storing: dict[int, asyncio.Task[_Drawn]] = {}
    run = Run(
        key=key,
        task_type=claim.task.type,
        work=work.message,
        alone=span.alone,
        tenant=claim.task.tenant,
        priority=claim.task.priority,
    )
    finished = False
    try:
        async with aclosing(tools.device.run(run)) as messages:
            async for message in messages:
                match message:
                    case Progress(value=value):
                        span.note(value)
                    case PreviewMessage(index=index):
                        span.previews.note(message, index=span.first + index)
                    case PictureMessage(index=index):
                        keeping = _keep(tools, claim, work, message, span)
                        storing[index] = asyncio.create_task(keeping)
                    case Errored(usage=usage):
                        finished = True
                        tools.account.add(usage)
                        raise DeviceRefusedError(message)
                    case Done(usage=usage):
                        finished = True
                        tools.account.add(usage)
                    case _:
                        raise DeviceLost(f"the device answered {type(message).__name__}")
    finally:
        await to_the_end(_let_go(tools, key, storing.values(), finished=finished))
    return [storing[index].result() for index in sorted(storing)]


async def _let_go(
    tools: AttemptTools,
    key: str,
    storing: Collection[asyncio.Task[_Drawn]],
    *,
    finished: bool,
) -> None:
    """Have the device free again, and nothing of the attempt on its way into the storage."""
    if not finished:
        tools.account.add(await tools.device.stop(key))
    if storing:
        # A write goes on in its thread whatever happens to us. It has to arrive before the
        # attempt's bytes can be deleted, or it would be left behind.
        await asyncio.wait(storing)


async def _keep(
    tools: AttemptTools, claim: Claim, work: Work, message: PictureMessage, span: _Span
) -> _Drawn:
    """Encode a picture and store it: bytes come before the row that names them."""
    drawn = Picture(
        width=message.width, height=message.height, rgb=message.rgb, alpha=message.alpha
    )
    tracing = tools.services.tracing
    with tracing.span("encode"):
        finished, encoded = await asyncio.to_thread(_encode, drawn, work)
    index = span.first + message.index
    key = output_key(claim.task.id, claim.attempt, index, encoded.suffix)
    with tracing.span("upload", bytes=len(encoded.data)):
        await tools.services.storage.put(key, encoded.data, media_type=encoded.media_type)
    image = OutputImage(
        key=key,
        seed=message.seed,
        width=finished.width,
        height=finished.height,
        media_type=encoded.media_type,
        size=len(encoded.data),
        sha256=hashlib.sha256(encoded.data).hexdigest(),
        method=message.method,
        confidence=message.confidence,
    )
    receipt = None if span.receipts is None else await span.receipts.of(message)
    return _Drawn(image, receipt)


def _encode(drawn: Picture, work: Work) -> tuple[Picture, Encoded]:
    """Return the picture at its final size and as a file; a cut-out is never a JPEG."""
    picture = drawn if work.size is None else resize_picture(drawn, *work.size)
    opaque_only = work.output_format == "jpeg" and picture.alpha is not None
    output_format = "png" if opaque_only else work.output_format
    return picture, encode_picture(picture, output_format, quality=work.quality)


async def _finish(tools: AttemptTools, claim: Claim, outcome: Outcome) -> None:
    """Settle, waiting out a database restart; a refused settlement leaves no bytes."""
    task_id, attempt = claim.task.id, claim.attempt
    settled = None
    try:
        with tools.services.tracing.span("settle", outcome=type(outcome).__name__.lower()):
            settled = await outlast(
                lambda: settle(
                    tools.services,
                    task_id,
                    attempt=attempt,
                    outcome=outcome,
                    job_id=claim.task.job_id,
                    usage=tools.account.usage,
                ),
                within=SETTLE_TIMEOUT,
            )
        if settled is None and tools.account.usage is not None:
            await note_usage(tools.services, task_id, attempt, tools.account.usage)
    except StoreUnavailable:
        _log.error("settle_gave_up", task_id=task_id, attempt=attempt, after_s=SETTLE_TIMEOUT)
    if settled is None or settled.output is None:
        await tools.services.storage.delete_prefix(attempt_prefix(task_id, attempt))
