"""`imageloom tasks`: look at tasks, cancel them, do them over, and fetch what they made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from imageloom.cli._client import (
    ApiKey,
    AsJson,
    Url,
    connect,
    failures_told,
    is_training,
    note,
    one_line,
    print_json,
    print_page,
)
from imageloom.cli._display import shown
from imageloom.cli._outlook import outlook_told
from imageloom.cli._rows import print_rows, shown_time
from imageloom.cli.generate import tell_files
from imageloom.cli.train import metrics_told, tell_adapter
from imageloom.client import Client, ImageloomError, Task, Training

TaskId = Annotated[str, typer.Argument(metavar="ID", help="The task's id.")]

COLUMNS = ("id", "type", "status", "progress", "created")

tasks = typer.Typer(help="List, show and cancel tasks, and fetch results.", no_args_is_help=True)


@tasks.command("list")
def list_(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only tasks of this status.")] = None,
    task_type: Annotated[str | None, typer.Option("--type", help="Only this task type.")] = None,
    page: Annotated[int | None, typer.Option(min=1, help="Which page, from 1.")] = None,
    page_size: Annotated[int | None, typer.Option(min=1, help="Tasks on a page.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List your tasks, newest first."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        found = client.tasks(status=status, task_type=task_type, page=page, page_size=page_size)
        if as_json:
            print_page(found)
        else:
            print_rows(COLUMNS, (_row(task) for task in found))


@tasks.command()
def show(
    context: typer.Context,
    task_id: TaskId,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show one task."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        task = client.training(task_id) if is_training(task_id) else client.task(task_id)
        if as_json:
            print_json(task.raw)
            return
        facts = dict(zip(COLUMNS, _row(task), strict=True))
        if task.queue_position is not None:
            facts["ahead"] = str(task.queue_position)
        facts |= outlook_told(task)
        if task.error:
            facts["error"] = one_line(task.error)
        if isinstance(task, Training):
            facts |= metrics_told(task.metrics)
        for name, value in facts.items():
            typer.echo(f"{name:9} {value}")
        _print_images(task)


@tasks.command()
def cancel(
    context: typer.Context,
    task_id: TaskId,
    keep: Annotated[
        bool, typer.Option("--keep", help="Of a training: publish its last checkpoint.")
    ] = False,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Cancel a task, pending or running."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        if is_training(task_id):
            _cancel_training(client, task_id, keep=keep, as_json=as_json)
            return
        if keep:
            raise ValueError(f"--keep is for trainings, and {task_id} is none")
        task = client.cancel(task_id)
        if as_json:
            print_json(task.raw)
        else:
            typer.echo(one_line(f"{task.id} {task.status}"))


@tasks.command()
def result(
    context: typer.Context,
    task_id: TaskId,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write what it made to this folder.")
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Print what a completed task made, or write it to a folder."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        if is_training(task_id):
            tell_adapter(client.training(task_id), out=out, as_json=as_json)
            return
        task = client.task(task_id)
        if not task.done:
            raise ImageloomError(f"task {task.id} is {task.status}, at {task.progress:.0%}")
        task.wait()
        if out is not None:
            tell_files(task, task.download(out), as_json=as_json)
        elif as_json:
            print_json(task.output.raw if task.output else {})
        else:
            _print_images(task)


@tasks.command()
def reproduce(
    context: typer.Context,
    task_id: TaskId,
    output: Annotated[int, typer.Option(min=0, help="Which of its pictures, from 0.")] = 0,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the comparison.")] = True,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Make a picture of a generation again, alone, and compare the two."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        task = client.reproduce(task_id, output)
        if wait:
            with shown(as_json=as_json) as display:
                task.wait(progress=display.task)
        if as_json:
            print_json(task.raw)
        elif wait:
            typer.echo(_compared(task))
        else:
            typer.echo(one_line(task.id))


@tasks.command()
def retry(
    context: typer.Context,
    task_id: TaskId,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is over.")] = True,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Do a task over that failed or was cancelled, as a new task."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        task = client.retry(task_id)
        if wait:
            with shown(as_json=as_json) as display:
                task.wait(progress=display.task)
        if as_json:
            print_json(task.raw)
        else:
            typer.echo(one_line(f"{task.id} {task.status}"))
            _print_images(task)


def _compared(task: Task) -> str:
    found = task.output.reproduction if task.output else None
    if found is None:
        raise ImageloomError(f"task {task.id} says nothing of how the two compare")
    text = found.result
    if found.largest_difference:
        text += f", at most {found.largest_difference} of 255 apart"
    if found.changed:
        text += f"; changed since: {', '.join(found.changed)}"
    return one_line(text)


def _cancel_training(client: Client, id_: str, *, keep: bool, as_json: bool) -> None:
    """Cancel a training, and tell what it published where that was asked for."""
    training = client.training(id_).cancel(keep=keep)
    if training.adapter is not None:
        tell_adapter(training, out=None, as_json=as_json)
    elif as_json:
        print_json(training.raw)
    else:
        typer.echo(one_line(f"{training.id} {training.status}"))
        if keep:
            note("it had no checkpoint to keep")


def _row(task: Task | Training) -> tuple[str, ...]:
    cells = (task.id, task.type, task.status, f"{task.progress:.0%}")
    return tuple(one_line(cell) for cell in (*cells, shown_time(task.created_at)))


def _print_images(task: Task | Training) -> None:
    for image in task.output.images if task.output else []:
        seed = "" if image.seed is None else f"  seed {image.seed}"
        typer.echo(one_line(image.url) + seed)
