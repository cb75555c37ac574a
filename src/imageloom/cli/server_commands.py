"""The server's commands: names and options only.

An option that is not given arrives as None, so that the environment's setting holds. The bodies
hand over to `imageloom.cli._server`, imported when one runs: the base install has this file too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

HEAVY = frozenset(
    {
        "accelerate",
        "cv2",
        "diffusers",
        "einops",
        "huggingface_hub",
        "numpy",
        "onnxruntime",
        "peft",
        "safetensors",
        "torch",
        "transformers",
    }
)

Host = Annotated[str | None, typer.Option(help="Address to listen on.", show_default=False)]
Port = Annotated[
    int | None, typer.Option(min=0, max=65535, help="Port to listen on.", show_default=False)
]
DataDir = Annotated[
    Path | None, typer.Option(help="Folder of the server's data.", show_default=False)
]
Device = Annotated[
    str | None, typer.Option(help="auto, cpu, mps, cuda or cuda:N.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

keys = typer.Typer(help="Create, list and revoke API keys.", no_args_is_help=True)
models = typer.Typer(help="List, pull and add models.", no_args_is_help=True)


def register(app: typer.Typer) -> None:
    """Add the server's commands to the command line."""
    for command in (serve, api, worker, migrate):
        app.command()(command)
    app.add_typer(keys, name="keys")
    app.add_typer(models, name="models")


def serve(
    host: Host = None,
    port: Port = None,
    data_dir: DataDir = None,
    workers: Annotated[
        int | None, typer.Option(min=0, help="Number of workers.", show_default=False)
    ] = None,
    device: Device = None,
) -> None:
    """Run everything on this machine: database, API and workers."""
    with _extra_named("worker"):
        from imageloom.cli import _server

        _server.serve(host=host, port=port, data_dir=data_dir, workers=workers, device=device)


def api(host: Host = None, port: Port = None, data_dir: DataDir = None) -> None:
    """Run the API alone."""
    with _extra_named("api"):
        from imageloom.cli import _server

        _server.api(host=host, port=port, data_dir=data_dir)


def worker(
    data_dir: DataDir = None,
    device: Device = None,
    queues: Annotated[
        str | None, typer.Option(help="Queues to serve, separated by commas.", show_default=False)
    ] = None,
) -> None:
    """Run one worker."""
    with _extra_named("worker"):
        from imageloom.cli import _server

        _server.worker(data_dir=data_dir, device=device, queues=_listed(queues))


def migrate(
    roles: Annotated[
        bool, typer.Option("--roles", help="Also make the roles imageloom_api, imageloom_worker.")
    ] = False,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Bring the database to the schema of this version.

    API and workers do so by themselves when they start, where they may. Where they run under the
    roles, run this first, with the DATABASE_URL of the owner of the tables. The roles get the
    passwords in IMAGELOOM_API_DB_PASSWORD and IMAGELOOM_WORKER_DB_PASSWORD, where these are set.
    """
    with _extra_named("api"):
        from imageloom.cli import _server

        _server.migrate_database(roles=roles, data_dir=data_dir, json=as_json)


@keys.command("create")
def keys_create(
    tenant: Annotated[str, typer.Option(help="Whose key it is.")],
    scopes: Annotated[
        str | None,
        typer.Option(help="What it may do, separated by commas.", show_default=False),
    ] = None,
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it, this once."""
    with _extra_named("api"):
        from imageloom.cli import _server

        _server.keys_create(tenant=tenant, scopes=_listed(scopes), data_dir=data_dir, json=as_json)


@keys.command("list")
def keys_list(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the keys, never their secrets."""
    with _extra_named("api"):
        from imageloom.cli import _server

        _server.keys_list(data_dir=data_dir, json=as_json)


@keys.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, from `keys list`.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Revoke a key."""
    with _extra_named("api"):
        from imageloom.cli import _server

        _server.keys_revoke(key_id=key_id, data_dir=data_dir, json=as_json)


@models.command("list")
def models_list(data_dir: DataDir = None, as_json: AsJson = False) -> None:
    """List the models, and which of them are here."""
    with _extra_named("api"):
        from imageloom.cli import _server

        _server.models_list(data_dir=data_dir, json=as_json)


@models.command("pull")
def models_pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name of the catalog.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Download a model's weights."""
    with _extra_named("worker"):
        from imageloom.cli import _server

        _server.models_pull(name=name, data_dir=data_dir, json=as_json)


@models.command("add")
def models_add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What tasks will call it.")],
    path: Annotated[Path, typer.Option(help="The model's folder or file.")],
    data_dir: DataDir = None,
    as_json: AsJson = False,
) -> None:
    """Register a local folder or file as a model.

    A folder in diffusers layout is a base model; a Swin2SR folder in transformers layout and a
    .safetensors file of a super-resolution network are upscalers; an .onnx file is a segmenter.
    """
    with _extra_named("api"):
        from imageloom.cli import _server

        _server.models_add(name=name, path=path, data_dir=data_dir, json=as_json)


@contextmanager
def _extra_named(extra: str) -> Iterator[None]:
    """Turn the lack of a server package into the command that installs it.

    A module of our own that does not import is a bug, and stays one.
    """
    try:
        yield
    except ImportError as exc:
        missing = (exc.name or "").partition(".")[0]
        if missing in {"", "imageloom"}:
            raise
        needed = "worker" if missing in HEAVY else extra
        typer.echo(
            f"error: {missing} is not installed here: pip install 'imageloom[{needed}]'", err=True
        )
        raise typer.Exit(1) from exc


def _listed(value: str | None) -> tuple[str, ...] | None:
    if value is None:
        return None
    return tuple(part.strip() for part in value.split(",") if part.strip())
