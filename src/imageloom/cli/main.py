"""The command line. `app` knows every command; their work is imported when one of them runs.

`imageloom generate`, `process`, `train`, `tasks`, `workflow`, `webhooks` and `status` need the base
install only. The server's commands are declared in `server_commands.py` and done by `_server.py`,
which may import what the base install lacks.
"""

from __future__ import annotations

from typing import Annotated

import typer

from imageloom import __version__
from imageloom.cli import server_commands
from imageloom.cli.demo import demo
from imageloom.cli.generate import generate
from imageloom.cli.process import process
from imageloom.cli.status import status
from imageloom.cli.tasks import tasks
from imageloom.cli.train import train
from imageloom.cli.webhooks import webhooks
from imageloom.cli.workflow import workflow

app = typer.Typer(
    name="imageloom",
    help="Generate images on your own GPUs, from the command line.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(generate)
app.command()(process)
app.command()(train)
app.command()(demo)
app.command()(status)
app.add_typer(tasks, name="tasks")
app.add_typer(workflow, name="workflow")
app.add_typer(webhooks, name="webhooks")
server_commands.register(app)


def main() -> None:
    """Run the command line; the entry point of the installed `imageloom` script."""
    app(prog_name="imageloom")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"imageloom {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_version, is_eager=True),
    ] = False,
) -> None:
    pass


if __name__ == "__main__":
    main()
