"""What the server's answers about trainings become, as `_types` does it for tasks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from imageloom.client._types import JSON, TaskData, image_from, integer


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """How a training goes; what is not known yet is None.

    `loss` is that of the latest step, `held_out_loss` that of the pictures kept aside, at the
    latest checkpoint. `eta_seconds` is how long it will still take.
    """

    current_epoch: int = 0
    epochs: int | None = None
    step: int = 0
    steps: int | None = None
    loss: float | None = None
    held_out_loss: float | None = None
    learning_rate: float | None = None
    images_per_second: float | None = None
    eta_seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A picture that a training drew of `prompt` after `step` steps. `url` is signed."""

    url: str
    step: int
    prompt: str | None = None
    seed: int | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Adapter:
    """What a training published: a request names it in `loras`. `url` is that of its file."""

    name: str
    url: str
    version: int | None = None
    base_model: str | None = None
    sha256: str | None = None
    raw: JSON = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """The loss of one optimiser step; steps count from 1."""

    step: int
    loss: float
    learning_rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetPicture:
    """A picture that a training would see, with its caption."""

    name: str
    caption: str | None = None
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetProblem:
    """A file of a data set that is left out, and why: `kind` for programs, `message` for people."""

    name: str
    kind: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """What is in a data set, and what training on it will take.

    `buckets` are the numbers of pictures by the size they are trained at, such as `64x64`.
    `dataset_url` is where the data set is now: `train` takes it without uploading again.
    `minutes` and `memory_bytes` are estimates, None where the server knows nothing to make them
    of; `based_on` says what they rest on. `warnings` are sentences about what is perhaps not meant.
    """

    dataset_url: str
    usable: int
    pictures: list[DatasetPicture] = field(default_factory=list)
    problems: list[DatasetProblem] = field(default_factory=list)
    buckets: dict[str, int] = field(default_factory=dict)
    steps: int | None = None
    minutes: float | None = None
    memory_bytes: int | None = None
    based_on: str | None = None
    warnings: list[str] = field(default_factory=list)
    raw: JSON = field(default_factory=dict, repr=False)


class TrainingData(TaskData):
    """The last answer about a training, read through properties."""

    @property
    def name(self) -> str | None:
        """What requests will call the adapter."""
        params = self.raw.get("params")
        return params.get("output_name") if isinstance(params, dict) else None

    @property
    def metrics(self) -> Metrics:
        """How the training goes."""
        raw = self._made("metrics")
        return metrics_from(raw if isinstance(raw, dict) else {})

    @property
    def samples(self) -> list[Sample]:
        """The pictures that it drew of its sample prompts, the earliest first."""
        samples = [_sample(each) for each in self._made("samples") or () if each.get("url")]
        return sorted(samples, key=lambda sample: sample.step)

    @property
    def adapter(self) -> Adapter | None:
        """What it published; None before it completed, or was cancelled with `keep`."""
        raw = self._made("adapter")
        return _adapter(raw) if isinstance(raw, dict) else None

    def _made(self, name: str) -> Any:
        output = self.raw.get("output")
        return output.get(name) if isinstance(output, dict) else None


def metrics_from(raw: JSON) -> Metrics:
    """Return how a training goes from its answer."""
    return Metrics(
        current_epoch=integer(raw.get("current_epoch")) or 0,
        epochs=integer(raw.get("epochs")),
        step=integer(raw.get("step")) or 0,
        steps=integer(raw.get("steps")),
        loss=raw.get("loss"),
        held_out_loss=raw.get("held_out_loss"),
        learning_rate=raw.get("learning_rate"),
        images_per_second=raw.get("images_per_second"),
        eta_seconds=raw.get("eta_seconds"),
    )


def loss_from(raw: JSON) -> Loss:
    """Return the loss of one step from an item of the list."""
    return Loss(
        step=int(raw["step"]), loss=float(raw["loss"]), learning_rate=raw.get("learning_rate")
    )


def preflight_from(raw: JSON, *, dataset_url: str) -> Preflight:
    """Return what is in the data set at `dataset_url` from its answer."""
    estimate = raw.get("estimate") or {}
    return Preflight(
        dataset_url=dataset_url,
        usable=int(raw["usable"]),
        pictures=[_picture(each) for each in raw.get("pictures") or ()],
        problems=[_problem(each) for each in raw.get("problems") or ()],
        buckets=raw.get("buckets") or {},
        steps=integer(estimate.get("steps")),
        minutes=estimate.get("minutes"),
        memory_bytes=integer(estimate.get("memory_bytes")),
        based_on=estimate.get("based_on"),
        warnings=[str(each) for each in raw.get("warnings") or ()],
        raw=raw,
    )


def _sample(raw: JSON) -> Sample:
    image = image_from(raw)
    return Sample(
        url=image.url,
        step=integer(raw.get("step")) or 0,
        prompt=raw.get("prompt"),
        seed=image.seed,
        width=image.width,
        height=image.height,
    )


def _adapter(raw: JSON) -> Adapter:
    return Adapter(
        name=str(raw["name"]),
        url=str(raw["url"]),
        version=integer(raw.get("version")),
        base_model=raw.get("base_model"),
        sha256=raw.get("sha256"),
        raw=raw,
    )


def _picture(raw: JSON) -> DatasetPicture:
    return DatasetPicture(
        name=str(raw["name"]),
        caption=raw.get("caption"),
        width=integer(raw.get("width")),
        height=integer(raw.get("height")),
    )


def _problem(raw: JSON) -> DatasetProblem:
    return DatasetProblem(
        name=str(raw["name"]),
        kind=str(raw.get("kind") or ""),
        message=str(raw.get("message") or ""),
    )
