"""One attempt at a training: its data set, its device's reports, its checkpoints."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import structlog

from imageloom.core.models import get_model
from imageloom.core.services import Services
from imageloom.core.training import begin_record, local_copy, record
from imageloom.datasets import Report, inspect, unpack
from imageloom.domain.adapters import Loss, Pace, Sample, TrainingState
from imageloom.domain.catalog import Model
from imageloom.domain.errors import DeviceLost, InvalidInput, NotFound
from imageloom.domain.messages import Checkpoint, Done, Errored, Progress, Run, TrainingStep
from imageloom.domain.messages import Picture as PictureMessage
from imageloom.domain.tasks import AdapterFile, Claim, Output, OutputImage
from imageloom.domain.work import TrainingPicture, TrainingWork
from imageloom.fetch import Fetcher
from imageloom.images import Picture, encode_picture
from imageloom.runtime.digests import weights_digest
from imageloom.runtime.training.ordinary import prompts_to_keep
from imageloom.storage.keys import adapter_key, checkpoint_key, checkpoint_prefix, output_key
from imageloom.task_types.training.spec import is_held_out
from imageloom.worker.account import Account
from imageloom.worker.device import DeviceProcess
from imageloom.worker.failures import DeviceRefusedError
from imageloom.worker.handover import Handover
from imageloom.worker.patience import outlast, to_the_end
from imageloom.worker.progress import ProgressWriter

LATEST = 0.1  # how much one step counts in the pace that is told: single ones vary by half

_log = structlog.get_logger("imageloom.worker")

# Seconds that a checkpoint waits for the database; the device goes on meanwhile.
OUTAGE_LIMIT = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingTools:
    """What a training works with."""

    services: Services
    device: DeviceProcess
    fetcher: Fetcher
    handover: Handover
    account: Account


async def train(tools: TrainingTools, claim: Claim) -> Output:
    """Do the training of a claimed task, from its last checkpoint on, and return what it made.

    Raises: InvalidInput where the data set is of no use; LeaseLost; DeviceLost.
    """
    base, services = claim.task.params["base_model"], tools.services
    model = await outlast(lambda: get_model(services.pool, base), within=OUTAGE_LIMIT)
    state = await outlast(lambda: begin_record(services, claim), within=OUTAGE_LIMIT)
    _log.info(
        "training_begun",
        task_id=claim.task.id,
        attempt=claim.attempt,
        after_step=state.checkpoint_step,
    )
    async with _scratch(services, claim) as folder:
        report, pictures = await _data_set(tools, claim, folder)
        lineage = {
            "dataset_sha256": report.sha256,
            "base_digest": await asyncio.to_thread(weights_digest, model),
        }
        ledger = _Ledger(
            services, claim, replace(state, lineage=lineage), _Speed(tools, claim, pictures)
        )
        work = _work(
            claim,
            model,
            pictures,
            folder=folder,
            resume=await _checkpoint(services, state, folder),
        )
        async with ProgressWriter(ledger.write) as progress:
            await _run(tools, claim, work, ledger, progress)
    await services.storage.delete_prefix(checkpoint_prefix(claim.task.id))
    best = claim.task.params["config"]["publish"] == "best"
    return Output(
        images=tuple(sample.image for sample in ledger.state.samples),
        adapter=ledger.state.chosen(best=best),
        lineage=lineage,
    )


async def _run(
    tools: TrainingTools,
    claim: Claim,
    work: TrainingWork,
    ledger: _Ledger,
    progress: ProgressWriter,
) -> None:
    """Have the device train, and keep everything that it reports."""
    key = f"{claim.task.id}/{claim.attempt}"
    run = Run(
        key=key,
        task_type=claim.task.type,
        work=msgspec.msgpack.encode(work),
        background=True,
        share=tools.services.settings.training_share,
    )

    async def save() -> None:
        if ledger.stepped:
            await tools.device.save(key)
            await ledger.saved.wait()

    tools.handover.offer(save)
    finished = False
    try:
        async with aclosing(tools.device.run(run)) as messages:
            async for message in messages:
                match message:
                    case Progress(value=value):
                        progress.note(value)
                    case TrainingStep():
                        ledger.add_step(message)
                    case PictureMessage():
                        await ledger.add_sample(message, work.sample_prompts)
                    case Checkpoint():
                        await ledger.add_checkpoint(message)
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
        if not finished:
            # The device must be free again whatever happens to us meanwhile.
            tools.account.add(await to_the_end(tools.device.stop(key)))


class _Speed:
    """How fast an attempt goes: of its steps, the latest count most."""

    def __init__(
        self, tools: TrainingTools, claim: Claim, pictures: tuple[TrainingPicture, ...]
    ) -> None:
        info = tools.device.info
        self._device = "" if info is None else info.name
        self._config = claim.task.params["config"]
        captions = [picture.caption for picture in pictures if not picture.held_out]
        self._keeping = bool(prompts_to_keep(captions))
        self._seconds: float | None = None  # of one picture

    def after(self, images_per_second: float) -> Pace:
        """Return the pace with one step more, which had that one."""
        seconds = 1 / images_per_second
        before = seconds if self._seconds is None else self._seconds
        self._seconds = before + LATEST * (seconds - before)
        return Pace(
            device=self._device,
            side=self._config["resolution"],
            batch_size=self._config["batch_size"],
            keeping=self._keeping,
            images_per_second=1 / self._seconds,
        )


class _Ledger:
    """How the training stands, and what of it is not written yet."""

    def __init__(
        self, services: Services, claim: Claim, state: TrainingState, speed: _Speed
    ) -> None:
        self.state = state
        self._speed = speed
        self._services = services
        self._claim = claim
        self.stepped = False
        self.saved = asyncio.Event()
        self._losses: list[Loss] = []
        self._progress = 0.0
        self._writing = asyncio.Lock()

    async def write(self, progress: float) -> bool:
        """Write what is new; False where the attempt is no longer ours."""
        async with self._writing:
            self._progress = max(self._progress, progress)
            losses, self._losses = self._losses, []
            try:
                return await record(
                    self._services,
                    self._claim,
                    progress=self._progress,
                    state=self.state,
                    losses=losses,
                )
            except BaseException:
                self._losses = losses + self._losses
                raise

    def add_step(self, step: TrainingStep) -> None:
        """Note one optimiser step."""
        self.stepped = True
        self._losses.append(Loss(step=step.step, loss=step.loss, learning_rate=step.learning_rate))
        pace = self._speed.after(step.images_per_second)
        config = self._claim.task.params["config"]
        each = config["batch_size"] * config["gradient_accumulation"]
        self.state = replace(self.state, pace=pace)
        self._note(
            current_epoch=step.epoch,
            epochs=config["epochs"],
            step=step.step,
            steps=step.steps,
            loss=step.loss,
            learning_rate=step.learning_rate,
            images_per_second=pace.images_per_second,
            eta_seconds=(step.steps - step.step) * each / pace.images_per_second,
        )

    async def add_sample(self, message: PictureMessage, prompts: tuple[str, ...]) -> None:
        """Store a sample: bytes come before the row that names them."""
        drawn = Picture(width=message.width, height=message.height, rgb=message.rgb)
        encoded = await asyncio.to_thread(encode_picture, drawn, "png")
        # Of no attempt: a sample of a checkpoint is as good after the attempt that drew it died,
        # and who goes on from an earlier one draws the same pixels again.
        key = output_key(self._claim.task.id, 0, message.index, encoded.suffix)
        await self._services.storage.put(key, encoded.data, media_type=encoded.media_type)
        image = OutputImage(
            key=key,
            seed=message.seed,
            width=message.width,
            height=message.height,
            media_type=encoded.media_type,
            size=len(encoded.data),
            sha256=hashlib.sha256(encoded.data).hexdigest(),
        )
        others = tuple(each for each in self.state.samples if each.image.key != key)
        sample = Sample(
            image=image,
            step=int(self.state.metrics.get("step", 0)),
            prompt=prompts[message.index % len(prompts)],
        )
        self.state = replace(self.state, samples=(*others, sample))

    async def add_checkpoint(self, message: Checkpoint) -> None:
        """Store a checkpoint and its adapter, then make them what a new attempt goes on from."""
        storage, claim = self._services.storage, self._claim
        key = checkpoint_key(claim.task.id, claim.attempt, message.step)
        data = await asyncio.to_thread(Path(message.path).read_bytes)
        await storage.put(key, data, media_type="application/octet-stream")
        adapter = await asyncio.to_thread(Path(message.adapter_path).read_bytes)
        sha256 = hashlib.sha256(adapter).hexdigest()
        file = AdapterFile(
            key=adapter_key(claim.task.tenant, claim.task.id, sha256),
            sha256=sha256,
            size=len(adapter),
            step=message.step,
            held_out_loss=message.held_out_loss,
        )
        await storage.put(file.key, adapter, media_type="application/octet-stream")
        before = self.state
        best = before.best
        # One that nothing judged may be gone on from, and kept on a cancel, but it is not compared.
        if message.planned and (best is None or _loss(file) <= _loss(best)):
            best = file
        self.state = replace(
            before, checkpoint=key, checkpoint_step=message.step, best=best, last=file
        )
        if message.planned:
            self._note(held_out_loss=message.held_out_loss)
        if await outlast(lambda: self.write(self._progress), within=OUTAGE_LIMIT):
            kept = {self.state.checkpoint, best and best.key, file.key}
            old = {
                before.checkpoint,
                before.best and before.best.key,
                before.last and before.last.key,
            }
            await storage.delete([each for each in old - kept if each])
        for path in (message.path, message.adapter_path):
            await asyncio.to_thread(Path(path).unlink, missing_ok=True)
        if not message.planned:
            _log.info(
                "training_saved", task_id=claim.task.id, attempt=claim.attempt, step=message.step
            )
            self.saved.set()

    def _note(self, **values: Any) -> None:
        self.state = replace(self.state, metrics={**self.state.metrics, **values})


def _loss(file: AdapterFile) -> float:
    """Return what checkpoints are compared by; where nothing was held out the later is better."""
    return -float(file.step) if file.held_out_loss is None else file.held_out_loss


async def _data_set(
    tools: TrainingTools, claim: Claim, folder: Path
) -> tuple[Report, tuple[TrainingPicture, ...]]:
    """Unpack the data set into the attempt's own folder. Raises: InvalidInput."""
    params, services = claim.task.params, tools.services
    config = params["config"]

    def read(archive: Path) -> tuple[Report, list[tuple[Path, str]]]:
        report = inspect(
            archive, trigger_word=config["trigger_word"], resolution=config["resolution"]
        )
        pictures = folder / "pictures"
        pictures.mkdir()
        return report, unpack(archive, report, pictures, resolution=config["resolution"])

    key = claim.task.inputs.get("dataset_url")
    if key is not None:
        try:
            async with local_copy(services, key) as archive:
                report, found = await asyncio.to_thread(read, archive)
        except NotFound as exc:
            raise InvalidInput(
                "dataset_url: that file has expired or was deleted; upload it again",
                param="dataset_url",
            ) from exc
    else:
        limit = services.settings.limits.dataset
        try:
            fetched = await tools.fetcher.fetch(params["dataset_url"], max_bytes=limit)
        except InvalidInput as exc:
            raise InvalidInput(f"dataset_url: {exc.message}", param="dataset_url") from exc
        archive = folder / "dataset.zip"
        await asyncio.to_thread(archive.write_bytes, fetched.data)
        report, found = await asyncio.to_thread(read, archive)
    pictures = tuple(
        TrainingPicture(path=str(path), caption=caption, held_out=is_held_out(index))
        for index, (path, caption) in enumerate(found)
    )
    return report, pictures


async def _checkpoint(services: Services, state: TrainingState, folder: Path) -> str | None:
    """Return a local file of what to go on from, None where the training begins."""
    if state.checkpoint is None:
        return None
    path = folder / "resume.safetensors"
    await asyncio.to_thread(path.write_bytes, await services.storage.get(state.checkpoint))
    return str(path)


def _work(
    claim: Claim,
    model: Model,
    pictures: tuple[TrainingPicture, ...],
    *,
    folder: Path,
    resume: str | None,
) -> TrainingWork:
    config = claim.task.params["config"]
    checkpoints = folder / "checkpoints"
    checkpoints.mkdir()
    return TrainingWork(
        model=model,
        pictures=pictures,
        epochs=config["epochs"],
        learning_rate=config["learning_rate"],
        batch_size=config["batch_size"],
        gradient_accumulation=config["gradient_accumulation"],
        rank=config["rank"],
        alpha=float(config["rank"]),
        resolution=config["resolution"],
        seed=config["seed"],
        schedule=config["schedule"],
        warmup_steps=config["warmup_steps"],
        min_snr_gamma=config["min_snr_gamma"],
        noise_offset=config["noise_offset"],
        flip=config["flip"],
        text_encoders=config["text_encoders"],
        checkpoint_every=config["checkpoint_every"],
        sample_prompts=tuple(config["sample_prompts"]),
        layout=config["layout"],
        folder=str(checkpoints),
        resume=resume,
    )


@asynccontextmanager
async def _scratch(services: Services, claim: Claim) -> AsyncIterator[Path]:
    """Yield the attempt's own folder, which is gone afterwards."""
    root = services.settings.data_dir.resolve() / "scratch"
    folder = root / f"{claim.task.id}-{claim.attempt}-{time.time_ns()}"
    await asyncio.to_thread(folder.mkdir, parents=True)
    try:
        yield folder
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
