"""`imageloom generate`: create a task, watch it, and write its images to a folder."""

from __future__ import annotations

import math
from collections.abc import Sequence
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
    note,
    one_line,
    print_json,
)
from imageloom.cli._display import Display, shown
from imageloom.cli._outlook import tell_dry_run
from imageloom.client import Image, ImageloomError, Task

_WEB = ("http://", "https://", "data:")


def generate(
    context: typer.Context,
    prompt: Annotated[str, typer.Argument(help="What to make.")],
    image: Annotated[
        str | None,
        typer.Option("--image", "-i", help="A picture to start from: a file or a URL."),
    ] = None,
    num_outputs: Annotated[
        int | None, typer.Option("--num-outputs", "-n", help="How many images.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the images.")] = Path(
        "outputs"
    ),
    negative_prompt: Annotated[str | None, typer.Option(help="What to avoid.")] = None,
    strength: Annotated[
        float | None, typer.Option(help="How far to leave the picture, above 0 to 1.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps.")] = None,
    guidance: Annotated[
        float | None, typer.Option(help="How closely to follow the prompt.")
    ] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first image.")] = None,
    scheduler: Annotated[
        str | None, typer.Option(help="How noise is taken away, such as dpmpp-2m-karras.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="A name from `imageloom models list`.")] = None,
    lora: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME:WEIGHT", help="An adapter; give it once for each."),
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="The same bytes whatever is drawn beside, on a GPU too.")
    ] = False,
    preview_every: Annotated[
        int | None, typer.Option(min=1, help="Show what it becomes, after so many steps.")
    ] = None,
    priority: Priority = None,
    webhook_url: WebhookUrl = None,
    webhook_events: WebhookEvents = None,
    output_format: Annotated[
        str | None, typer.Option("--format", help="jpeg, png or webp.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say whether it can run and when, and make nothing.")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the images, or only submit.")
    ] = True,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait; the task itself goes on.")
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Generate images from a prompt, and write them to a folder.

    Ctrl-C cancels the task.
    """
    loras = _loras(lora or [])
    if dry_run and image is not None and not image.startswith(_WEB):
        raise typer.BadParameter("with --dry-run give a URL: nothing is uploaded", param_hint="-i")
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        if dry_run:
            found = client.estimate(
                prompt=prompt,
                input_image_url=image,
                negative_prompt=negative_prompt,
                strength=strength,
                num_outputs=num_outputs,
                steps=steps,
                guidance_scale=guidance,
                width=width,
                height=height,
                seed=seed,
                scheduler=scheduler,
                model=model,
                loras=[{"name": name, "weight": weight} for name, weight in loras.items()] or None,
                determinism="exact" if exact else None,
                preview_every=preview_every,
                priority=priority,
                output_format=output_format,
            )
            tell_dry_run(found, as_json=as_json)
            return
        task = client.generate(
            prompt,
            image=image,
            negative_prompt=negative_prompt,
            strength=strength,
            num_outputs=num_outputs,
            steps=steps,
            guidance_scale=guidance,
            width=width,
            height=height,
            seed=seed,
            scheduler=scheduler,
            model=model,
            loras=loras or None,
            determinism="exact" if exact else None,
            preview_every=preview_every,
            priority=priority,
            output_format=output_format,
            webhook_url=webhook_url,
            webhook_events=events_named(webhook_events),
        )
        carry_through(task, wait=wait, folder=out, timeout=timeout, as_json=as_json)


def carry_through(
    task: Task, *, wait: bool, folder: Path, timeout: float | None, as_json: bool
) -> None:
    """Watch a task and write its images to `folder`, or tell its id alone where not to wait.

    Ctrl-C cancels the task and exits with 130.
    """
    if not wait:
        _tell_submitted(task, as_json=as_json)
        return
    try:
        with shown(as_json=as_json) as display:
            paths = _finish(task, folder=folder, timeout=timeout, display=display)
    except KeyboardInterrupt:
        _cancel(task)
        if as_json:
            print_json(task.raw)
        raise typer.Exit(INTERRUPTED) from None
    tell_files(task, paths, as_json=as_json)


def tell_files(task: Task, paths: list[Path], *, as_json: bool) -> None:
    """Print the files that a task's images became, each with its seed."""
    images = task.output.images if task.output else []
    tell_images(task.raw, images, paths, as_json=as_json)


def tell_images(
    raw: dict[str, Any], images: Sequence[Image], paths: Sequence[Path], *, as_json: bool
) -> None:
    """Print the files that images became; as JSON inside the answer `raw`, which they are from."""
    made = list(zip(paths, images, strict=True))
    if as_json:
        files: list[dict[str, Any]] = [
            {
                "path": str(path),
                "url": image.url,
                "seed": image.seed,
                "width": image.width,
                "height": image.height,
            }
            for path, image in made
        ]
        print_json(raw | {"files": files})
        return
    for path, image in made:
        typer.echo(str(path) if image.seed is None else f"{path}  seed {image.seed}")


def _finish(task: Task, *, folder: Path, timeout: float | None, display: Display) -> list[Path]:
    task.wait(timeout=timeout, progress=display.task)
    return task.download(folder, progress=display.downloaded)


def _tell_submitted(task: Task, *, as_json: bool) -> None:
    if as_json:
        print_json(task.raw)
    else:
        typer.echo(one_line(task.id))


def _cancel(task: Task) -> None:
    """Ask the server to cancel, unless the task ended already."""
    if task.done:
        note(f"interrupted; {task.id} is {task.status}")
        return
    try:
        task.cancel()
    except ImageloomError as exc:
        note(f"interrupted; {task.id} could not be cancelled: {exc}")
    else:
        note(f"{task.id} {task.status}")


def _loras(given: list[str]) -> dict[str, float]:
    loras: dict[str, float] = {}
    for each in given:
        name, colon, weight = each.rpartition(":")
        if not colon:
            name, weight = each, "1"
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value):
            raise typer.BadParameter(f"{each!r} is not NAME:WEIGHT", param_hint="--lora")
        if name in loras:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--lora")
        loras[name] = value
    return loras
