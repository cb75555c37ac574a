"""One attempt at a task, from claim to settlement, as a line of small steps."""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from dataclasses import dataclass

import structlog

from imageloom.core.claim import note_progress
from imageloom.core.models import get_model
from imageloom.core.services import Services
from imageloom.core.settle import settle
from imageloom.domain.errors import (
    DeviceLost,
    ImageloomError,
    InvalidInput,
    LeaseLost,
    NotFound,
    StoreUnavailable,
)
from imageloom.domain.messages import Done, Errored, Progress, Run
from imageloom.domain.messages import Picture as PictureMessage
from imageloom.domain.tasks import (
    Claim,
    Completed,
    Failed,
    Interrupted,
    Lost,
    Outcome,
    Output,
    OutputImage,
)
from imageloom.fetch import Fetcher
from imageloom.images import Encoded, Picture, decode_picture, encode_picture, resize_picture
from imageloom.storage.keys import attempt_prefix, output_key
from imageloom.task_types.registry import get_task_type
from imageloom.task_types.spec import Work
from imageloom.worker.device import DeviceProcess
from imageloom.worker.progress import ProgressWriter

_log = structlog.get_logger("imageloom.worker")

SETTLE_TIMEOUT = 120.0  # seconds to keep trying to write an outcome while the database is away


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptTools:
    """What an attempt works with."""

    services: Services
    device: DeviceProcess
    fetcher: Fetcher


async def run_attempt(tools: AttemptTools, claim: Claim) -> None:
    """Do the work of a claimed task and settle how it ended.

    Cancelled from outside while the task is the worker's, as on a drain, it hands the task back
    without spending the attempt. Writes nothing once the lease is lost.
    """
    log = _log.bind(task_id=claim.task.id, attempt=claim.attempt, task_type=claim.task.type)
    try:
        outcome = await _outcome(tools, claim)
    except asyncio.CancelledError:
        # Either the user's cancel, then the row is final and this is refused, or a drain.
        await _finish(tools, claim, Interrupted())
        raise
    except LeaseLost:
        log.warning("lease_lost")
        await tools.services.storage.delete_prefix(attempt_prefix(claim.task.id, claim.attempt))
        return
    await _finish(tools, claim, outcome)


async def _outcome(tools: AttemptTools, claim: Claim) -> Outcome:
    """Return how the attempt ended. Raises: LeaseLost."""
    try:
        work = await _prepare(tools, claim)
        return Completed(output=await _draw(tools, claim, work))
    except _DeviceRefusedError as exc:
        return exc.failure
    except DeviceLost as exc:
        return Lost(reason=exc.message)
    except LeaseLost:
        raise
    except ImageloomError as exc:
        return _failed(exc)


async def _prepare(tools: AttemptTools, claim: Claim) -> Work:
    """Gather the inputs and make the device's share of the work."""
    task = claim.task
    task_type = get_task_type(task.type)
    model = await get_model(tools.services.pool, task.params["model"])
    inputs = {
        name: await _read_input(tools, claim, name)
        for name in task_type.input_fields
        if task.params.get(name)
    }
    return await asyncio.to_thread(
        task_type.build_work,
        task.params,
        model=model,
        inputs=inputs,
        limits=tools.services.settings.limits,
    )


async def _read_input(tools: AttemptTools, claim: Claim, name: str) -> Picture:
    """Return an input picture. Raises: InvalidInput, naming the parameter; StorageUnavailable."""
    limits = tools.services.settings.limits
    try:
        data = await _input_bytes(tools, claim, name)
        return await asyncio.to_thread(decode_picture, data, max_pixels=limits.pixels)
    except InvalidInput as exc:
        raise InvalidInput(f"{name}: {exc.message}", param=name) from exc


async def _input_bytes(tools: AttemptTools, claim: Claim, name: str) -> bytes:
    """Return an input as it is: our own files straight from storage, all others through `fetch`."""
    own_key = claim.task.inputs.get(name)
    if own_key is None:
        limit = tools.services.settings.limits.fetch
        return (await tools.fetcher.fetch(claim.task.params[name], max_bytes=limit)).data
    try:
        return await tools.services.storage.get(own_key)
    except NotFound as exc:
        raise InvalidInput("that file has expired or was deleted; upload it again") from exc


async def _draw(tools: AttemptTools, claim: Claim, work: Work) -> Output:
    """Run the work on the device; store each picture as it is finished."""
    key = f"{claim.task.id}/{claim.attempt}"
    storing: dict[int, asyncio.Task[OutputImage]] = {}
    run = Run(key=key, task_type=claim.task.type, work=work.message)

    async def write(progress: float) -> bool:
        return await note_progress(tools.services, claim, progress)

    finished = False
    async with ProgressWriter(write) as progress:
        try:
            async with aclosing(tools.device.run(run)) as messages:
                async for message in messages:
                    match message:
                        case Progress(value=value):
                            progress.note(value)
                        case PictureMessage(index=index):
                            storing[index] = asyncio.create_task(_keep(tools, claim, work, message))
                        case Errored():
                            finished = True
                            raise _DeviceRefusedError(message)
                        case Done():
                            finished = True
                        case _:
                            raise DeviceLost(f"the device answered {type(message).__name__}")
        finally:
            if not finished:
                # Shielded: the device must be free again whatever happens to us meanwhile.
                await asyncio.shield(tools.device.stop(key))
            if storing:
                # A write goes on in its thread whatever happens to us. It has to arrive before the
                # attempt's bytes can be deleted, or it would be left behind.
                await asyncio.wait(storing.values())
    return Output(images=tuple(storing[index].result() for index in sorted(storing)))


async def _keep(
    tools: AttemptTools, claim: Claim, work: Work, message: PictureMessage
) -> OutputImage:
    """Encode a picture and store it: bytes come before the row that names them."""
    drawn = Picture(width=message.width, height=message.height, rgb=message.rgb)
    encoded = await asyncio.to_thread(_encode, drawn, work)
    key = output_key(claim.task.id, claim.attempt, message.index, encoded.suffix)
    await tools.services.storage.put(key, encoded.data, media_type=encoded.media_type)
    return OutputImage(
        key=key,
        seed=message.seed,
        width=work.width,
        height=work.height,
        media_type=encoded.media_type,
        size=len(encoded.data),
        sha256=hashlib.sha256(encoded.data).hexdigest(),
    )


def _encode(drawn: Picture, work: Work) -> Encoded:
    return encode_picture(resize_picture(drawn, work.width, work.height), work.output_format)


async def _finish(tools: AttemptTools, claim: Claim, outcome: Outcome) -> None:
    """Settle, waiting out a database restart; a refused settlement leaves no bytes."""
    task_id, attempt = claim.task.id, claim.attempt
    settled = None
    try:
        async with asyncio.timeout(SETTLE_TIMEOUT):
            while True:
                try:
                    settled = await settle(
                        tools.services, task_id, attempt=attempt, outcome=outcome
                    )
                    break
                except StoreUnavailable:
                    await asyncio.sleep(0.5)
    except TimeoutError:
        _log.error("settle_gave_up", task_id=task_id, attempt=attempt, after_s=SETTLE_TIMEOUT)
    if settled is None or settled.output is None:
        await tools.services.storage.delete_prefix(attempt_prefix(task_id, attempt))


class _DeviceRefusedError(Exception):
    """The device named the failure; carries it out of the message loop."""

    def __init__(self, message: Errored) -> None:
        super().__init__(message.message)
        self.failure = Failed(
            code=message.code,
            message=_public(message.code, message.message),
            retryable=message.retryable,
            param=message.param,
        )


def _failed(error: ImageloomError) -> Failed:
    return Failed(
        code=error.code,
        message=_public(error.code, error.message),
        retryable=error.retryable,
        param=error.param,
    )


_INPUT_CODES = frozenset({"invalid_input", "invalid_params"})


def _public(code: str, message: str) -> str:
    """Return the text of `task.error`; the user's client looks for the phrase `Invalid input`."""
    return f"Invalid input: {message}" if code in _INPUT_CODES else message
