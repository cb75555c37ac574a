"""What the server's commands do: settings from the environment and the options, then one verb."""

from __future__ import annotations

import asyncio
import json as json_module
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import setproctitle
import typer
from pydantic import ValidationError

from imageloom.api.main import listen, run_api
from imageloom.core.keys import TENANT_SCOPES, create_key, list_keys, revoke_key
from imageloom.core.models import add_model, get_model, list_models
from imageloom.core.services import open_services
from imageloom.domain.errors import ImageloomError
from imageloom.logs import configure_logs
from imageloom.settings import Settings
from imageloom.store.database import open_database
from imageloom.store.migrate import migrate
from imageloom.store.pool import Pool, open_pool
from imageloom.store.roles import API, WORKER
from imageloom.supervisor.orphan import end_with_parent
from imageloom.supervisor.serve import Started
from imageloom.supervisor.serve import serve as run_serve
from imageloom.worker.main import Worker

T = TypeVar("T")


def serve(
    *,
    host: str | None,
    port: int | None,
    data_dir: Path | None,
    workers: int | None,
    device: str | None,
) -> None:
    """Run database, API and workers until a signal comes."""
    setproctitle.setproctitle("imageloom serve")
    settings = _settings(host=host, port=port, data_dir=data_dir, device=device)
    configure_logs(settings.log_format)
    with _one_line_errors():
        listener = listen(settings.host, settings.port)
        number = 1 if workers is None else workers
        typer.echo("imageloom: starting PostgreSQL, the API and a worker …", err=True)
        asyncio.run(run_serve(settings, listener, workers=number, announce=_announce))


def api(*, host: str | None, port: int | None, data_dir: Path | None) -> None:
    """Run the API until a signal comes."""
    setproctitle.setproctitle("imageloom api")
    settings = _settings(host=host, port=port, data_dir=data_dir)
    _begin_child(settings)
    with _one_line_errors(), open_database(settings) as url:
        if settings.listen_fd is not None:
            listener = socket.socket(fileno=settings.listen_fd)
        else:
            listener = listen(settings.host, settings.port)
        asyncio.run(run_api(settings, url, listener))


def worker(*, data_dir: Path | None, device: str | None, queues: tuple[str, ...] | None) -> None:
    """Run one worker until a signal comes."""
    setproctitle.setproctitle("imageloom worker")
    settings = _settings(data_dir=data_dir, device=device)
    _begin_child(settings)

    async def work(url: str) -> None:
        await migrate(url)
        # A worker waits out a database restart: its task is worth more than an early error.
        async with open_services(settings, url, pool_timeout=300, process="worker") as services:
            await Worker(services, queues=queues or ()).run()

    with _one_line_errors(), open_database(settings) as url:
        asyncio.run(work(url))


def migrate_database(*, roles: bool, data_dir: Path | None, json: bool) -> None:
    """Apply what is missing; print the names of what was applied."""
    settings = _settings(data_dir=data_dir)
    configure_logs(settings.log_format)
    given = {API: settings.api_db_password, WORKER: settings.worker_db_password}
    passwords = {role: text.get_secret_value() for role, text in given.items() if text is not None}
    with _one_line_errors(), open_database(settings) as url:
        applied = asyncio.run(migrate(url, roles=passwords if roles else None))
    if json:
        _print_json({"applied": applied})
        return
    for name in applied:
        typer.echo(f"applied {name}")
    typer.echo("the database is at the schema of this version")


def keys_create(
    *, tenant: str, scopes: tuple[str, ...] | None, data_dir: Path | None, json: bool
) -> None:
    """Create a key and print it as the last word."""
    made = _with_pool(
        data_dir, lambda pool: create_key(pool, tenant=tenant, scopes=scopes or TENANT_SCOPES)
    )
    if json:
        _print_json(
            {"id": made.id, "tenant": made.tenant, "scopes": list(made.scopes), "key": made.key}
        )
    else:
        typer.echo(f"{made.id} for tenant {made.tenant}, shown only now: {made.key}")


def keys_list(*, data_dir: Path | None, json: bool) -> None:
    """Print one key a line: id, tenant."""
    found = _with_pool(data_dir, list_keys)
    if json:
        _print_json(
            [
                {
                    "id": key.id,
                    "tenant": key.tenant,
                    "scopes": list(key.scopes),
                    "created_at": key.created_at.isoformat(),
                    "revoked_at": key.revoked_at.isoformat() if key.revoked_at else None,
                }
                for key in found
            ]
        )
        return
    for key in found:
        state = "revoked" if key.revoked_at else "live"
        typer.echo(f"{key.id}  {key.tenant}  {','.join(key.scopes)}  {state}")


def keys_revoke(*, key_id: str, data_dir: Path | None, json: bool) -> None:
    """Revoke a key."""
    _with_pool(data_dir, lambda pool: revoke_key(pool, key_id))
    if json:
        _print_json({"id": key_id, "revoked": True})
    else:
        typer.echo(f"revoked {key_id}")


def models_list(*, data_dir: Path | None, json: bool) -> None:
    """Print the catalog."""
    found = _with_pool(data_dir, list_models)
    if json:
        _print_json(
            [
                {
                    "name": model.name,
                    "kind": model.kind,
                    "source": model.source,
                    "licence": model.licence,
                }
                for model in found
            ]
        )
        return
    width = max(len(model.name) for model in found)
    for model in found:
        typer.echo(f"{model.name:{width}}  {model.kind:9}  {model.source}  ({model.licence})")


def models_pull(*, name: str, data_dir: Path | None, json: bool) -> None:
    """Download a model's weights into this machine's cache."""
    # Only a machine that has the worker's packages has a cache to fill.
    from imageloom.runtime.weights import pull

    model = _with_pool(data_dir, lambda pool: get_model(pool, name))
    with _one_line_errors():
        folder = pull(model)
    if json:
        _print_json({"name": name, "folder": str(folder)})
    else:
        typer.echo(f"{name} is in {folder}")


def models_add(*, name: str, path: Path, data_dir: Path | None, json: bool) -> None:
    """Register a folder or file as a model."""
    from imageloom.runtime.model_files import describe_path

    with _one_line_errors():
        # Not resolved: in the hub's cache a file is a link to one without a suffix.
        model = describe_path(path.absolute(), name=name)
    _with_pool(data_dir, lambda pool: add_model(pool, model))
    if json:
        _print_json(
            {"name": name, "kind": model.kind, "source": model.source, "family": model.family}
        )
    else:
        typer.echo(f"{name} is {model.source} ({model.kind}, family {model.family})")


def _settings(**options: Any) -> Settings:
    """Return the settings: options that were given, else the environment, else defaults."""
    try:
        return Settings(**{name: value for name, value in options.items() if value is not None})
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        typer.echo(f"imageloom: the setting {name} is wrong: {first['msg']}", err=True)
        raise typer.Exit(2) from exc


def _begin_child(settings: Settings) -> None:
    configure_logs(settings.log_format)
    if settings.supervised:
        end_with_parent()


def _with_pool(data_dir: Path | None, verb: Callable[[Pool], Awaitable[T]]) -> T:
    """Run one verb on the installation's database, started for the moment where nothing runs."""
    settings = _settings(data_dir=data_dir)
    if data_dir is not None:
        # The option names an installation; a DATABASE_URL of the environment may name another.
        settings = settings.model_copy(update={"database_url": None})

    async def run(url: str) -> T:
        await migrate(url)
        async with open_pool(url, max_size=2, wait=10) as pool:
            return await verb(pool)

    with _one_line_errors(), open_database(settings) as url:
        return asyncio.run(run(url))
    raise AssertionError("unreachable: an error left the block")


@contextmanager
def _one_line_errors() -> Iterator[None]:
    """Turn what an operator can mend into one line and exit status 1."""
    try:
        yield
    except ImageloomError as exc:
        typer.echo(f"imageloom: {exc.message}", err=True)
        raise typer.Exit(1) from exc
    except OSError as exc:
        typer.echo(f"imageloom: {exc.strerror or exc}", err=True)
        raise typer.Exit(1) from exc


def _announce(started: Started) -> None:
    """Say where everything is. To stdout and at once: another program may wait for it."""
    lines = [f"imageloom: API   {started.url}/api/v1", f"imageloom: docs  {started.url}/docs"]
    if started.new_key is not None:
        lines.append(f"imageloom: key   {started.new_key.key}   (shown only now; keep it)")
    else:
        lines.append("imageloom: key   as before; `imageloom keys create --tenant T` makes another")
    lines.append("imageloom: Ctrl-C stops everything")
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()


def _print_json(value: Any) -> None:
    typer.echo(json_module.dumps(value))
