"""What the client's commands share: the connection, its options, and how failures are told.

Results go to stdout, everything else to stderr. With `--json`, stdout is one JSON object whatever
happens: the answer, or the task that did not succeed, or `{"error": …}`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from imageloom.client import (
    APIError,
    Client,
    ConnectionFailed,
    ImageloomError,
    Page,
    TaskCancelled,
    TaskFailed,
    Unauthorized,
    WaitTimeout,
    WorkflowCancelled,
    WorkflowFailed,
    WorkflowPaused,
    WorkflowTimeout,
)

WAITING = 3  # a run waits for a choice: no failure, and not done either
INTERRUPTED = 130

Url = Annotated[
    str | None,
    typer.Option("--url", help="The server; else IMAGELOOM_URL.", show_default=False),
]
ApiKey = Annotated[
    str | None,
    typer.Option("--api-key", help="The key; else IMAGELOOM_API_KEY.", show_default=False),
]
Priority = Annotated[
    int | None,
    typer.Option(help="-10 to 10: of your own waiting tasks the highest is first."),
]
WebhookUrl = Annotated[
    str | None, typer.Option(metavar="URL", help="Where it tells of itself by signed requests.")
]
WebhookEvents = Annotated[
    str | None,
    typer.Option(metavar="A,B", help="What it tells, such as started,completed; else its end."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


def connect(context: typer.Context, *, url: str | None, api_key: str | None) -> Client:
    """Return the client that the options and the environment ask for.

    The context's object, when there is one, makes it instead: the seam for tests.
    """
    make: Callable[..., Client] = context.obj or Client.from_env
    return make(base_url=url, api_key=api_key)


@contextmanager
def failures_told(*, as_json: bool) -> Iterator[None]:
    """Turn every expected failure into one line on stderr and an exit code.

    1 for what went wrong, 2 for what cannot be asked, 3 for a run that is paused, 130 for Ctrl-C.
    """
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    except BrokenPipeError:
        raise
    except ImageloomError as exc:
        if as_json:
            print_json(_as_object(exc))
        if isinstance(exc, WorkflowPaused):
            note(f"{exc.workflow.id} is paused{_advice(exc)}")
            raise typer.Exit(WAITING) from None
        _fail(str(exc) + _advice(exc), code=1)
    except OSError as exc:
        what = f"{exc.filename}: {exc.strerror}" if exc.filename and exc.strerror else str(exc)
        if as_json:
            print_json({"error": {"type": "os_error", "message": what}})
        _fail(what, code=1)
    except ValueError as exc:
        if as_json:
            print_json({"error": {"type": "usage", "message": str(exc)}})
        _fail(str(exc), code=2)


def picture(text: str, *, folder: Path = Path()) -> str | Path:
    """Return what names a picture: a URL as it is, a file name as a path below `folder`."""
    if "://" in text or text.startswith("data:"):
        return text
    return folder / Path(text).expanduser()


def events_named(text: str | None) -> list[str] | None:
    """Return the events of `--webhook-events`, None where it is not given."""
    return None if text is None else [each.strip() for each in text.split(",")]


def is_training(id_: str) -> bool:
    """Return whether an id is that of a training rather than of another task."""
    return id_.startswith("train_")


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object on stdout, on one line that cannot steer a terminal."""
    text = json.dumps(value, ensure_ascii=False)
    # JSON itself escapes control characters below U+0020 only.
    typer.echo("".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in text))


def print_page(page: Page[Any]) -> None:
    """Print one page of a list as JSON, as the API has it."""
    print_json(
        {
            "items": [item.raw for item in page],
            "total": page.total,
            "page": page.page,
            "page_size": page.page_size,
        }
    )


def one_line(text: str) -> str:
    """Return a server's text as one line that cannot steer a terminal."""
    return "".join(c if c.isprintable() else " " for c in " ".join(text.split()))


def note(text: str) -> None:
    """Say something on stderr, beside the result."""
    typer.echo(one_line(text), err=True)


def _fail(message: str, *, code: int) -> NoReturn:
    note(f"error: {message}")
    raise typer.Exit(code)


def _advice(exc: ImageloomError) -> str:
    match exc:
        case Unauthorized():
            return "; give --api-key or set IMAGELOOM_API_KEY"
        case ConnectionFailed():
            return "; is the server running? --url or IMAGELOOM_URL say where"
        case WaitTimeout() if is_training(exc.task.id):
            return f"; it goes on: imageloom train {exc.task.id}"
        case WaitTimeout():
            return f"; it goes on: imageloom tasks result {exc.task.id}"
        case WorkflowFailed():
            return f"; to redo what did not complete: imageloom workflow resume {exc.workflow.id}"
        case WorkflowPaused(steps=[]):
            return f"; to go on: imageloom workflow resume {exc.workflow.id}"
        case WorkflowPaused():
            step = f" --step {exc.steps[0].name}" if len(exc.steps) > 1 else ""
            return (
                f"; to choose, for example: imageloom workflow resume {exc.workflow.id}"
                f" --select 0,2{step}"
            )
        case WorkflowTimeout():
            return f"; it goes on: imageloom workflow watch {exc.workflow.id}"
        case _:
            return ""


def _as_object(exc: ImageloomError) -> dict[str, Any]:
    match exc:
        case TaskFailed() | TaskCancelled() | WaitTimeout():
            return exc.task.raw
        case WorkflowFailed() | WorkflowCancelled() | WorkflowPaused() | WorkflowTimeout():
            return exc.workflow.raw
        case APIError():
            error = {
                "type": exc.type,
                "message": exc.message,
                "param": exc.param,
                "request_id": exc.request_id,
            }
            return {"error": error}
        case ConnectionFailed():
            return {"error": {"type": "connection_failed", "message": str(exc)}}
        case _:
            return {"error": {"type": "error", "message": str(exc)}}
