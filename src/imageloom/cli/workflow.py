"""`imageloom workflow`: run a workflow from a file, watch it, choose, and fetch what it made."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from imageloom.cli._client import (
    INTERRUPTED,
    ApiKey,
    AsJson,
    Url,
    WebhookEvents,
    WebhookUrl,
    connect,
    events_named,
    failures_told,
    note,
    one_line,
    print_json,
    print_page,
)
from imageloom.cli._rows import print_rows, shown_time
from imageloom.cli._workflow_display import pictures, told, workflow_shown
from imageloom.cli._workflow_file import WorkflowFile, read_workflow_file
from imageloom.cli._workflow_input import (
    joined,
    read_choice,
    read_edits,
    read_inputs,
    with_files,
)
from imageloom.cli.generate import tell_images
from imageloom.client import Client, InvalidParams, Step, Workflow, WorkflowPaused

COLUMNS = ("id", "name", "run", "status", "progress", "created")
STEP_COLUMNS = ("step", "type", "pictures", "status")

WorkflowId = Annotated[str, typer.Argument(metavar="ID", help="The workflow's id.")]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Write the last steps' pictures to this folder."),
]
Timeout = Annotated[
    float | None, typer.Option(help="Seconds to wait; the workflow itself goes on.")
]

workflow = typer.Typer(help="Run workflows, watch them, and choose.", no_args_is_help=True)


@workflow.command()
def run(
    context: typer.Context,
    source: Annotated[
        str, typer.Argument(metavar="FILE|ID", help="A YAML file, or the id of a workflow.")
    ],
    given: Annotated[
        list[str] | None,
        typer.Option(
            "--input", metavar="KEY=VALUE", help="A value of the input; once for each of them."
        ),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "--image", "-i", help="A picture to start from: a file or a URL; once for each."
        ),
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute every step anew.")] = False,
    webhook_url: WebhookUrl = None,
    webhook_events: WebhookEvents = None,
    out: Out = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Watch it to its end, or only start it.")
    ] = True,
    timeout: Timeout = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Run a workflow from a YAML file, or run one of the server's again.

    A value of a key that ends in `_url` or `_urls` may be a local file.
    By id, values that are not given stay as in the latest run.
    Ctrl-C leaves the workflow running.

    Exit codes: 0 completed, 1 failed, 2 wrong usage or file,
    3 paused or waiting for a choice, 130 Ctrl-C.

    imageloom workflow run lookbook.yaml --image dress.jpg --out lookbook/
    """
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        inputs = read_inputs(given or [], images=images or [])
        cache = False if no_cache else None
        hook = {"webhook_url": webhook_url, "webhook_events": events_named(webhook_events)}
        if source.startswith("wf_") and not Path(source).exists():
            if hook["webhook_url"] or hook["webhook_events"]:
                raise ValueError("--webhook-url and --webhook-events are for a workflow of a file")
            made = _run_again(client, source, inputs, cache=cache)
        else:
            file = read_workflow_file(Path(source))
            made = _run_file(client, file, inputs, cache=cache, hook=hook)
        if wait:
            _carry_through(made, out=out, timeout=timeout, as_json=as_json)
        else:
            _tell(made, as_json=as_json)


@workflow.command()
def watch(
    context: typer.Context,
    workflow_id: WorkflowId,
    out: Out = None,
    timeout: Timeout = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Watch the latest run to its end; fetch its pictures with --out. Ctrl-C only looks away."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        found = client.workflows.get(workflow_id)
        _carry_through(found, out=out, timeout=timeout, as_json=as_json)


@workflow.command("list")
def list_(
    context: typer.Context,
    status: Annotated[str | None, typer.Option(help="Only workflows of this status.")] = None,
    search: Annotated[
        str | None, typer.Option(help="The beginning of an id, or a part of the name.")
    ] = None,
    page: Annotated[int | None, typer.Option(min=1, help="Which page, from 1.")] = None,
    page_size: Annotated[int | None, typer.Option(min=1, help="Workflows on a page.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List your workflows, newest first, each in its latest run."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        found = client.workflows.list(status=status, search=search, page=page, page_size=page_size)
        if as_json:
            print_page(found)
        else:
            print_rows(COLUMNS, (_row(each) for each in found))


@workflow.command()
def show(
    context: typer.Context,
    workflow_id: WorkflowId,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Show a workflow in its latest run: its steps, what waits, and what it made."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        found = client.workflows.get(workflow_id)
        if as_json:
            print_json(found.raw)
            return
        facts = dict(zip(COLUMNS, _row(found), strict=True))
        if found.error:
            facts["error"] = found.error
        for name, value in facts.items():
            typer.echo(f"{name:9} {one_line(value)}")
        typer.echo()
        print_rows(STEP_COLUMNS, [_step_row(step) for step in found.steps])
        for step in found.waiting:
            typer.echo()
            _print_candidates(step)
        for image in found.images:
            typer.echo(one_line(image.url) + _seed(image.seed))


@workflow.command()
def resume(
    context: typer.Context,
    workflow_id: WorkflowId,
    select: Annotated[
        str | None,
        typer.Option(help="The candidates that go on, in order: 0,2 or all."),
    ] = None,
    step: Annotated[str | None, typer.Option(help="Which approval, when several wait.")] = None,
    edits: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="STEP.PARAMETER=VALUE", help="Change a later step in this run."
        ),
    ] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Go on: with a choice, after a pause, or redoing what failed."""
    changes = read_edits(edits or []) or None
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        found = client.workflows.get(workflow_id)
        chosen = None
        if select is not None:
            waiting = [each for each in found.waiting if step in (None, each.name)]
            among = len(waiting[0].candidates) if len(waiting) == 1 else None
            chosen = read_choice(select, candidates=among)
        _tell(found.resume(select=chosen, edits=changes, step=step), as_json=as_json)


@workflow.command()
def pause(
    context: typer.Context,
    workflow_id: WorkflowId,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Let what is running finish, and start nothing more until `resume`."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        _tell(client.workflows.get(workflow_id).pause(), as_json=as_json)


@workflow.command()
def cancel(
    context: typer.Context,
    workflow_id: WorkflowId,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Cancel the latest run for good."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        _tell(client.workflows.get(workflow_id).cancel(), as_json=as_json)


@workflow.command()
def cleanup(
    context: typer.Context,
    workflow_id: WorkflowId,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Delete the outputs of the latest run, which must be over."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        cleaned = client.workflows.get(workflow_id).cleanup()
        if as_json:
            print_json(cleaned.raw)
        else:
            typer.echo(one_line(f"{cleaned.id} cleaned up"))


def _run_file(
    client: Client,
    file: WorkflowFile,
    inputs: dict[str, Any],
    *,
    cache: bool | None,
    hook: dict[str, Any],
) -> Workflow:
    """Create the file's workflow and start it.

    A step that the server refuses is told with its place in the file.
    """
    whole = joined(with_files(file.input, folder=file.path.parent), inputs)
    try:
        made = client.workflows.create(
            name=file.name, steps=file.steps, description=file.description, **hook
        )
    except InvalidParams as exc:
        if exc.param is not None and exc.param.split(".")[0] not in hook:
            exc.message = f"{file.place(exc.param)}: {exc.message}"
        raise
    return made.start(input=whole, cache=cache)


def _run_again(
    client: Client, workflow_id: str, inputs: dict[str, Any], *, cache: bool | None
) -> Workflow:
    """Run a workflow of the server, with what its latest run was given in place of what is not."""
    before = client.workflows.get(workflow_id).input
    return client.workflows.run(workflow_id, input=joined(before, inputs), cache=cache)


def _carry_through(
    running: Workflow, *, out: Path | None, timeout: float | None, as_json: bool
) -> None:
    """Watch a run to its end, ask for choices where somebody is there, and tell what it made."""
    try:
        while True:
            try:
                with workflow_shown(as_json=as_json) as display:
                    running.wait(timeout=timeout, on_change=display.changed)
                break
            except WorkflowPaused as paused:
                if as_json or not _chosen(running, paused.steps):
                    raise
    except (KeyboardInterrupt, typer.Abort):
        note(
            f"{running.id} goes on; look: imageloom workflow watch {running.id}; "
            f"stop it: imageloom workflow cancel {running.id}"
        )
        if as_json:
            print_json(running.raw)
        raise typer.Exit(INTERRUPTED) from None
    _tell_result(running, out=out, as_json=as_json)


def _chosen(running: Workflow, waiting: list[Step]) -> bool:
    """Show what waits; where somebody is there, ask about the first and resume with the answer.

    Return whether it goes on: not where nobody is there, or who is there does not choose.
    """
    asks = _someone_there()
    for step in waiting[:1] if asks else waiting:
        _print_candidates(step)
    choice = _ask(waiting[0]) if asks and waiting else None
    if choice is not None:
        running.resume(select=choice, step=waiting[0].name)
    return choice is not None


def _someone_there() -> bool:
    return sys.stdin.isatty() and sys.stdout.isatty() and sys.stderr.isatty()


def _ask(step: Step) -> list[int] | None:
    """Return the indices that somebody types, None for an empty answer."""
    while True:
        answer: str = typer.prompt(
            "Which go on? (such as 0,2, or all; nothing leaves it waiting)",
            default="",
            show_default=False,
            err=True,
        )
        if not answer.strip():
            return None
        try:
            return read_choice(answer, candidates=len(step.candidates))
        except ValueError as exc:
            note(str(exc))


def _tell_result(done: Workflow, *, out: Path | None, as_json: bool) -> None:
    if out is not None:
        tell_images(done.raw, done.images, done.download(out), as_json=as_json)
    elif as_json:
        print_json(done.raw)
    else:
        for image in done.images:
            typer.echo(one_line(image.url) + _seed(image.seed))


def _tell(found: Workflow, *, as_json: bool) -> None:
    if as_json:
        print_json(found.raw)
    else:
        typer.echo(one_line(f"{found.id} {found.status}"))


def _print_candidates(step: Step) -> None:
    note(f"{step.name}: {step.message or 'which pictures go on?'}")
    for each in step.candidates:
        size = "" if each.width is None else f"  {each.width} x {each.height}"
        typer.echo(f"{each.index:3}  {one_line(each.url)}{_seed(each.seed)}{size}")


def _row(found: Workflow) -> tuple[str, ...]:
    number = "" if found.run_number is None else str(found.run_number)
    cells = (found.id, found.name, number, found.status, f"{found.progress:.0%}")
    return (*cells, shown_time(found.created_at))


def _step_row(step: Step) -> tuple[str, ...]:
    count = pictures(step)
    shown = "" if count is None else f"{count[0]}/{count[1]}"
    return (step.name, step.type, shown, told(step))


def _seed(seed: int | None) -> str:
    return "" if seed is None else f"  seed {seed}"
