"""What a training request may say, and what it means for a base model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from imageloom.domain.catalog import Model
from imageloom.domain.forecast import Effort
from imageloom.domain.seeds import MAX_SEED, draw_seed
from imageloom.domain.webhooks import Resource
from imageloom.runtime.training import cost, plan
from imageloom.runtime.training.cost import Amount
from imageloom.runtime.training.ordinary import prompts_beside, prompts_to_keep
from imageloom.task_types.parsing import TaskParams, parse_params

NAME = "training"
HELD_OUT = 8  # one picture of so many is kept from training, to choose the best checkpoint by
Prompt = Annotated[str, StringConstraints(min_length=1, max_length=4000, pattern=r"\S")]


class TrainingConfig(BaseModel):
    """The `config` of a training. What is not given follows the base model."""

    model_config = ConfigDict(extra="forbid", strict=True)

    epochs: int | None = Field(
        None, ge=1, le=10_000, description="Times that every picture is seen"
    )
    learning_rate: float | None = Field(None, gt=0, le=0.1, allow_inf_nan=False)
    batch_size: int | None = Field(None, ge=1, le=64, description="Pictures of one step")
    gradient_accumulation: int = Field(1, ge=1, le=64)
    rank: int | None = Field(None, ge=1, le=256)
    resolution: int | None = Field(None, ge=64, le=2048, multiple_of=8, description="Pixels")
    trigger_word: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="The caption of pictures that have none"
    )
    seed: int | None = Field(None, ge=0, le=MAX_SEED)
    checkpoint_every: int | None = Field(None, ge=5, le=100_000, description="Steps")
    sample_prompts: list[Prompt] = Field(default_factory=list, max_length=8)
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int | None = Field(None, ge=0, le=100_000)
    min_snr_gamma: float | None = Field(5.0, gt=0, le=100, allow_inf_nan=False)
    noise_offset: float = Field(0.0, ge=0, le=0.5, allow_inf_nan=False)
    flip: bool = Field(False, description="See pictures mirrored, too")
    text_encoders: bool = Field(
        False, description="Train them beside the denoiser; every step then encodes its captions"
    )
    publish: Literal["best", "last"] = Field(
        "best", description="Which checkpoint: of the lowest held-out loss, or the last"
    )
    layout: Literal["diffusers", "kohya"] = Field(
        "diffusers", description="Of the file that is published; other tools read either"
    )
    version: bool = Field(False, description="Make a new version of an adapter of that name")


class TrainingParams(TaskParams):
    """The body of `POST /training`."""

    resource: ClassVar[Resource] = "training"

    dataset_url: Annotated[str, StringConstraints(min_length=1, max_length=4000)] = Field(
        description="A zip of pictures, captions as .txt beside them or one metadata.jsonl"
    )
    base_model: Annotated[str, StringConstraints(min_length=1, max_length=200)] | None = Field(
        None, description="A name from GET /models"
    )
    output_name: Annotated[
        str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    ] = Field(description="What requests will call the adapter: letters, digits, `.`, `_`, `-`")
    config: TrainingConfig = Field(default_factory=TrainingConfig)


def parse(body: Mapping[str, Any]) -> TrainingParams:
    """Return a request's parameters. Raises: InvalidParams, naming the field."""
    return parse_params(TrainingParams, body)


def prepare(params: TrainingParams, *, model: Model) -> dict[str, Any]:
    """Return the parameters to store, with every default of the base model filled in.

    Raises: InvalidParams where the model cannot be trained.
    """
    asked = params.config
    resolution = plan.training_side(model, asked.resolution or model.default_size)
    plan.check_trainable(
        model,
        resolution=resolution,
        text_encoders=asked.text_encoders,
        layout=asked.layout,
    )
    small = model.native_size is not None
    filled = asked.model_copy(
        update={
            "epochs": asked.epochs or (90 if small else 30),
            "learning_rate": asked.learning_rate or (1.5e-3 if small else 1e-4),
            "batch_size": asked.batch_size or (4 if small else 1),
            "rank": asked.rank or 16,
            "resolution": resolution,
            "seed": draw_seed() if asked.seed is None else asked.seed,
            "checkpoint_every": asked.checkpoint_every or 50,
            "warmup_steps": 10 if asked.warmup_steps is None else asked.warmup_steps,
        }
    )
    stored = params.model_copy(update={"base_model": model.name, "config": filled})
    return stored.model_dump(mode="json")


def is_held_out(index: int) -> bool:
    """Whether the picture of that index is kept from training."""
    return index % HELD_OUT == HELD_OUT - 1


def effort(params: Mapping[str, Any], amount: Amount | None) -> Effort:
    """Return how much work a training with these stored parameters is, in evaluations x megapixels.

    Only who has looked at its data set knows the `amount`.
    """
    units = None if amount is None else cost.evaluations(amount) * amount.pixels / 1e6
    return Effort(pace=f"{NAME}/{params['base_model']}", units=units)


def amount_of(
    pictures: Sequence[tuple[str, int, int]], config: Mapping[str, Any], *, model: Model
) -> Amount:
    """Return in numbers a training on pictures of these captions, widths and heights."""
    seen = [each for index, each in enumerate(pictures) if not is_held_out(index)]
    sizes = [
        plan.bucket(plan.Size(width=width, height=height), side=config["resolution"])
        for _, width, height in seen
    ]
    captions = [caption for caption, _, _ in seen]
    steps = plan.count_steps(
        sizes,
        batch_size=config["batch_size"],
        gradient_accumulation=config["gradient_accumulation"],
        epochs=config["epochs"],
    )
    return Amount(
        steps=steps,
        pictures=len(seen) * config["epochs"],
        cached=len(pictures),
        held_out=len(pictures) - len(seen),
        kept=len(prompts_to_keep(captions)) + len(prompts_beside(captions)),
        checkpoints=math.ceil(steps / config["checkpoint_every"]),
        samples=len(config["sample_prompts"]),
        sample_steps=min(model.steps, plan.SAMPLE_STEPS),
        guided=cost.guided_evaluations(model),
        trained=cost.trained_evaluations(model),
        pixels=max(size.width * size.height for size in sizes),
        batch_size=config["batch_size"],
        gradient_accumulation=config["gradient_accumulation"],
        rank=config["rank"],
    )
