"""`imageloom process`: one operation on pictures, and the results in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from imageloom.cli._client import (
    ApiKey,
    AsJson,
    Priority,
    Url,
    WebhookEvents,
    WebhookUrl,
    connect,
    events_named,
    failures_told,
    picture,
)
from imageloom.cli.generate import carry_through
from imageloom.client import Task


def process(
    context: typer.Context,
    operation: Annotated[
        str,
        typer.Argument(
            help="upscale, remove-background, replace-background, resize, crop, convert or adjust."
        ),
    ],
    images: Annotated[
        list[str],
        typer.Argument(metavar="IMAGE", help="Files or URLs, up to 16; `workflow run` takes more."),
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")] = Path(
        "outputs"
    ),
    scale: Annotated[int | None, typer.Option(help="upscale: 2 or 4.")] = None,
    width: Annotated[int | None, typer.Option(help="resize, crop: pixels.")] = None,
    height: Annotated[int | None, typer.Option(help="resize, crop: pixels.")] = None,
    fit: Annotated[str | None, typer.Option(help="resize: contain, cover, stretch or pad.")] = None,
    left: Annotated[int | None, typer.Option(help="crop: pixels.")] = None,
    top: Annotated[int | None, typer.Option(help="crop: pixels.")] = None,
    aspect_ratio: Annotated[
        str | None, typer.Option(help="crop: such as 4:5, instead of a box.")
    ] = None,
    gravity: Annotated[
        str | None, typer.Option(help="crop: which part an aspect ratio keeps.")
    ] = None,
    background_color: Annotated[
        str | None,
        typer.Option(help="replace-background, convert, resize with pad: '#rrggbb' or a name."),
    ] = None,
    background_image: Annotated[
        str | None, typer.Option(help="replace-background: a file or a URL.")
    ] = None,
    quality: Annotated[int | None, typer.Option(help="convert: 1 to 100.")] = None,
    brightness: Annotated[float | None, typer.Option(help="adjust: 1 leaves it.")] = None,
    contrast: Annotated[float | None, typer.Option(help="adjust: 1 leaves it.")] = None,
    saturation: Annotated[float | None, typer.Option(help="adjust: 1 leaves it.")] = None,
    sharpness: Annotated[float | None, typer.Option(help="adjust: 1 leaves it.")] = None,
    model: Annotated[str | None, typer.Option(help="A name from `imageloom models list`.")] = None,
    priority: Priority = None,
    webhook_url: WebhookUrl = None,
    webhook_events: WebhookEvents = None,
    output_format: Annotated[
        str | None, typer.Option("--format", help="jpeg, png or webp.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait for the results, or only submit.")
    ] = True,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds to wait; the task itself goes on.")
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Change pictures, and write the results to a folder.

    Give the options that the operation takes. Ctrl-C cancels the task.

    imageloom process upscale dress.jpg --scale 4
    imageloom process replace-background a.jpg b.jpg --background-color white
    """
    params: dict[str, Any] = {
        "scale": scale,
        "width": width,
        "height": height,
        "fit": fit,
        "left": left,
        "top": top,
        "aspect_ratio": aspect_ratio,
        "gravity": gravity,
        "background_color": background_color,
        "background_image_url": None if background_image is None else picture(background_image),
        "quality": quality,
        "brightness": brightness,
        "contrast": contrast,
        "saturation": saturation,
        "sharpness": sharpness,
        "model": model,
        "priority": priority,
        "output_format": output_format,
        "webhook_url": webhook_url,
        "webhook_events": events_named(webhook_events),
    }
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        task: Task
        if len(images) == 1:
            task = client.process(operation, image=images[0], **params)
        else:
            task = client.process(operation, images=images, **params)
        carry_through(task, wait=wait, folder=out, timeout=timeout, as_json=as_json)
