"""`imageloom train`: a folder of pictures becomes an adapter, while its loss is seen to fall."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from imageloom.cli._client import (
    INTERRUPTED,
    ApiKey,
    AsJson,
    Priority,
    Url,
    WebhookEvents,
    WebhookUrl,
    connect,
    events_named,
    failures_told,
    is_training,
    note,
    one_line,
    picture,
    print_json,
)
from imageloom.cli._rows import print_rows, shown_bytes, shown_duration
from imageloom.cli._training_display import metrics_in_words, training_shown, upload_shown
from imageloom.cli._workflow_input import json_or_text
from imageloom.client import Client, Dataset, ImageloomError, Metrics, Preflight, Training

NAMED = 10  # files that are told by their names; of more, how many
ARGUMENTS = frozenset({"dataset", "name", "base_model", "priority", "idempotency_key", "progress"})

ANY_CAPTION = "the first caption"

PROBLEM_COLUMNS = ("left out", "why")


def train(
    context: typer.Context,
    source: Annotated[
        str,
        typer.Argument(
            metavar="FOLDER|ZIP|URL|ID",
            help="Pictures with their captions as .txt beside them; or the id of a training.",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="What requests will call the adapter.")] = None,
    trigger: Annotated[
        str | None, typer.Option(help="The caption of pictures that have none.")
    ] = None,
    base_model: Annotated[
        str | None, typer.Option(help="A name from `imageloom models list`.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="Times that every picture is seen.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Such as 1e-4.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures of one step.")] = None,
    rank: Annotated[int | None, typer.Option(help="Size of the adapter.")] = None,
    resolution: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed, the same adapter.")] = None,
    checkpoint_every: Annotated[int | None, typer.Option(help="Steps.")] = None,
    sample_prompts: Annotated[
        list[str] | None,
        typer.Option(
            "--sample",
            help="Draw this at each checkpoint, instead of the first caption; may be repeated.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Another value of the API's `config`."),
    ] = None,
    priority: Priority = None,
    webhook_url: WebhookUrl = None,
    webhook_events: WebhookEvents = None,
    new_version: Annotated[
        bool, typer.Option("--new-version", help="Of an adapter of that name.")
    ] = False,
    preflight: Annotated[
        bool, typer.Option("--preflight", help="Only look at the pictures; train nothing.")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write adapter and samples to this folder.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Watch it to its end, or only start it.")
    ] = True,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait; the training itself goes on.")
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Train an adapter on a folder of pictures, and watch it; or watch one by its id.

    Ctrl-C leaves the training running.

    Exit codes: 0 completed, 1 failed, 2 wrong usage or folder, 130 Ctrl-C.

    imageloom train pictures/ --name my-dress --trigger sks --epochs 60
    """
    config = _config(
        settings or [],
        trigger_word=trigger,
        epochs=epochs,
        learning_rate=learning_rate,
        batch_size=batch_size,
        rank=rank,
        resolution=resolution,
        seed=seed,
        checkpoint_every=checkpoint_every,
        sample_prompts=sample_prompts or None,
        version=new_version or None,
    )
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        if is_training(source) and not Path(source).exists():
            training = client.training(source)
        elif preflight:
            report = _looked_at(client, source, base_model, config, as_json=as_json)
            _print_report(report, as_json=as_json)
            return
        else:
            training = _started(
                client,
                source,
                name,
                base_model,
                config,
                asked={
                    "priority": priority,
                    "webhook_url": webhook_url,
                    "webhook_events": events_named(webhook_events),
                },
                as_json=as_json,
            )
        if wait:
            _carry_through(training, out=out, timeout=timeout, as_json=as_json)
        elif as_json:
            print_json(training.raw)
        else:
            typer.echo(one_line(f"{training.id} {training.status}"))


def tell_adapter(training: Training, *, out: Path | None, as_json: bool) -> None:
    """Print what a training published, or the files that it became in the folder `out`.

    Raises: ImageloomError when it published nothing.
    """
    adapter = training.adapter
    if adapter is None:
        raise ImageloomError(
            f"training {training.id} is {training.status}, at {training.progress:.0%}: "
            "it published no adapter"
        )
    paths = [] if out is None else training.download(out)
    if as_json:
        files = {} if out is None else {"files": [{"path": str(path)} for path in paths]}
        print_json(training.raw | files)
        return
    if out is None:
        version = "" if adapter.version is None else f"  version {adapter.version}"
        typer.echo(one_line(adapter.name) + version + f"  {one_line(adapter.url)}")
    for path in paths:
        typer.echo(str(path))
    note(f'to use it: imageloom generate "…" --lora {adapter.name}:1')


def metrics_told(metrics: Metrics) -> dict[str, str]:
    """Return how a training goes as facts by their names; none before its first step."""
    words = metrics_in_words(metrics) if metrics.step > 0 else []
    return {"training": ", ".join(words)} if words else {}


def _config(settings: Sequence[str], **options: Any) -> dict[str, Any]:
    """Return the options that are given and the values of `--set`. Raises: typer.BadParameter."""
    config = {name: value for name, value in options.items() if value is not None}
    for each in settings:
        name, equals, text = each.partition("=")
        if not (equals and name.isidentifier()):
            raise typer.BadParameter(f"{each!r} is not KEY=VALUE", param_hint="--set")
        if name in ARGUMENTS:
            raise typer.BadParameter(f"{name!r} is no part of `config`", param_hint="--set")
        if name in config:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--set")
        config[name] = json_or_text(text)
    return config


def _started(
    client: Client,
    source: str,
    name: str | None,
    base_model: str | None,
    config: dict[str, Any],
    *,
    asked: dict[str, Any],
    as_json: bool,
) -> Training:
    """Create the training, once its pictures were looked at where the server can do that now.

    `asked` is what the request says of the task rather than of the training.
    """
    if name is None:
        raise ValueError("say with --name what requests will call the adapter")
    dataset = picture(source)
    if isinstance(dataset, str):
        sampled = _sampled(config, config.get("trigger_word"))
        return client.train(dataset, name=name, base_model=base_model, **asked, **sampled)
    report = _looked_at(client, source, base_model, config, as_json=as_json)
    if not as_json:
        _note_report(report)
    captions = [each.caption for each in report.pictures if each.caption]
    sampled = _sampled(config, captions[0] if captions else config.get("trigger_word"))
    return client.train(report.dataset_url, name=name, base_model=base_model, **asked, **sampled)


def _sampled(config: dict[str, Any], caption: str | None) -> dict[str, Any]:
    """Return the config with the caption to draw at each checkpoint, unless it says what."""
    return config if caption is None else {"sample_prompts": [caption]} | config


def _looked_at(
    client: Client,
    source: str,
    base_model: str | None,
    config: dict[str, Any],
    *,
    as_json: bool,
) -> Preflight:
    """Upload a data set that is here, and return what the server finds in it.

    Its estimate is with the sample that the training will draw, whose caption nobody has read yet.
    """
    dataset: str | Path | Dataset = picture(source)
    if isinstance(dataset, Path) and dataset.is_dir():
        dataset = Dataset.read(dataset)
        if dataset.left_out and not as_json:
            note(f"not uploaded, neither pictures nor captions: {_names(dataset.left_out)}")
    with upload_shown(as_json=as_json) as told:
        sampled = _sampled(config, config.get("trigger_word", ANY_CAPTION))
        return client.preflight(dataset, base_model=base_model, progress=told, **sampled)


def _carry_through(
    training: Training, *, out: Path | None, timeout: float | None, as_json: bool
) -> None:
    """Watch a training to its end and tell what it published."""
    try:
        with training_shown(as_json=as_json) as display:
            training.wait(timeout=timeout, on_change=display.changed)
    except KeyboardInterrupt:
        note(f"{training.id} goes on")
        note(f"to look: imageloom train {training.id}")
        note(f"to stop it: imageloom tasks cancel {training.id}")
        note("and to publish its last checkpoint then: --keep")
        if as_json:
            print_json(training.raw)
        raise typer.Exit(INTERRUPTED) from None
    tell_adapter(training, out=out, as_json=as_json)


def _note_report(report: Preflight) -> None:
    """Tell on stderr what a data set holds, before the training begins."""
    sizes = f": {_sizes(report)}" if report.buckets else ""
    note("; ".join([f"{report.usable} pictures{sizes}", ", ".join(_estimate(report))]))
    for each in report.problems:
        note(f"left out: {each.name}: {each.message}")
    for warning in report.warnings:
        note(f"note: {warning}")


def _print_report(report: Preflight, *, as_json: bool) -> None:
    """Print what a data set holds."""
    if as_json:
        print_json(report.raw | {"dataset_url": report.dataset_url})
        return
    facts = {
        "pictures": str(report.usable),
        "sizes": _sizes(report),
        "training": ", ".join(_estimate(report)),
        "rests on": report.based_on or "",
        "url": report.dataset_url,
    }
    for name, value in facts.items():
        if value:
            typer.echo(f"{name:9} {one_line(value)}")
    for warning in report.warnings:
        typer.echo(f"{'note':9} {one_line(warning)}")
    if report.problems:
        typer.echo()
        print_rows(PROBLEM_COLUMNS, ((each.name, each.message) for each in report.problems))


def _sizes(report: Preflight) -> str:
    return ", ".join(f"{count} of {size}" for size, count in report.buckets.items())


def _estimate(report: Preflight) -> list[str]:
    """Return what the training will take, those parts of it that the server told."""
    words = []
    if report.steps is not None:
        words.append(f"{report.steps} steps")
    if report.minutes is not None:
        words.append(f"about {shown_duration(report.minutes * 60)}")
    if report.memory_bytes is not None:
        words.append(f"about {shown_bytes(report.memory_bytes)} of memory")
    return words


def _names(names: Iterable[str]) -> str:
    """Return the first names, and how many more there are."""
    listed = list(names)
    more = len(listed) - NAMED
    return ", ".join(listed[:NAMED]) + (f" and {more} more" if more > 0 else "")
