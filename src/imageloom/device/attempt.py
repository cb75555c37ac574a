"""What a unit of work says, sent over the link to the parent."""

from __future__ import annotations

from collections.abc import Callable

from imageloom.device.link import Link
from imageloom.domain.messages import Checkpoint, Progress, Setup, TrainingStep
from imageloom.domain.messages import Picture as PictureMessage
from imageloom.domain.messages import Preview as PreviewMessage
from imageloom.images import Picture
from imageloom.runtime.units import Dropped


class LinkedAttempt:
    """What a unit of work says, sent over the link: `runtime.units.Attempt`."""

    def __init__(self, link: Link, key: str, *, share: Callable[[], None]) -> None:
        """`share` lets others have their turn in the middle of a long unit."""
        self.key = key
        self._link = link
        self._share = share

    def between_steps(self, progress: float) -> None:
        """Report progress, 0 to 1, and leave if the parent wants so. Raises: Dropped."""
        if self._link.is_cancelled(self.key):
            raise Dropped(self.key)
        self._link.send(Progress(key=self.key, value=progress))
        self._share()

    def preview(self, *, index: int, step: int, steps: int, picture: Picture) -> None:
        """Show the parent what a picture may become, after `step` of its `steps`."""
        self._link.send(
            PreviewMessage(
                key=self.key,
                index=index,
                step=step,
                steps=steps,
                width=picture.width,
                height=picture.height,
                rgb=picture.rgb,
            )
        )

    def deliver(
        self,
        *,
        index: int,
        picture: Picture,
        seed: int | None = None,
        method: str | None = None,
        confidence: float | None = None,
        setup: Setup | None = None,
    ) -> None:
        """Hand a finished picture to the parent."""
        self._link.send(
            PictureMessage(
                key=self.key,
                index=index,
                width=picture.width,
                height=picture.height,
                rgb=picture.rgb,
                alpha=picture.alpha,
                seed=seed,
                method=method,
                confidence=confidence,
                setup=setup,
            )
        )

    def report_step(
        self,
        *,
        step: int,
        steps: int,
        epoch: int,
        loss: float,
        learning_rate: float,
        images_per_second: float,
    ) -> None:
        """Tell the parent how a training goes."""
        self._link.send(
            TrainingStep(
                key=self.key,
                step=step,
                steps=steps,
                epoch=epoch,
                loss=loss,
                learning_rate=learning_rate,
                images_per_second=images_per_second,
            )
        )

    def report_checkpoint(
        self,
        *,
        step: int,
        path: str,
        adapter_path: str,
        held_out_loss: float | None,
        last: bool,
        planned: bool,
    ) -> None:
        """Tell the parent that a training can go on from here."""
        self._link.send(
            Checkpoint(
                key=self.key,
                step=step,
                path=path,
                adapter_path=adapter_path,
                held_out_loss=held_out_loss,
                last=last,
                planned=planned,
            )
        )
