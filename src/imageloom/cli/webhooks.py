"""`imageloom webhooks`: the secret that signs them, what was delivered, and sending it again."""

from __future__ import annotations

from typing import Annotated

import typer

from imageloom.cli._client import (
    ApiKey,
    AsJson,
    Url,
    connect,
    failures_told,
    one_line,
    print_json,
    print_page,
)
from imageloom.cli._rows import print_rows, shown_time
from imageloom.client import Delivery

COLUMNS = ("id", "type", "resource", "state", "tries", "last", "created")

webhooks = typer.Typer(
    help="Show the secret of webhooks and what was delivered, and send it again.",
    no_args_is_help=True,
)


@webhooks.command()
def secret(
    context: typer.Context, url: Url = None, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Print the secret that your webhooks are signed with."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        _tell(client.webhooks.secret(), as_json=as_json)


@webhooks.command()
def rotate(
    context: typer.Context, url: Url = None, api_key: ApiKey = None, as_json: AsJson = False
) -> None:
    """Make a new secret and print it; the old one signs beside it for 24 hours."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        _tell(client.webhooks.rotate(), as_json=as_json)


@webhooks.command()
def deliveries(
    context: typer.Context,
    resource: Annotated[
        str | None, typer.Option(help="Only of this task, training or workflow.")
    ] = None,
    event: Annotated[
        str | None, typer.Option("--type", help="Only these, such as task.completed.")
    ] = None,
    state: Annotated[str | None, typer.Option(help="pending, delivered or failed.")] = None,
    page: Annotated[int | None, typer.Option(min=1, help="Which page, from 1.")] = None,
    page_size: Annotated[int | None, typer.Option(min=1, help="Deliveries on a page.")] = None,
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """List what was told or is to be told, newest first."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        found = client.webhooks.deliveries(
            resource_id=resource, type=event, state=state, page=page, page_size=page_size
        )
        if as_json:
            print_page(found)
        else:
            print_rows(COLUMNS, (_row(each) for each in found))


@webhooks.command()
def replay(
    context: typer.Context,
    delivery_id: Annotated[str, typer.Argument(metavar="ID", help="The delivery: msg_….")],
    url: Url = None,
    api_key: ApiKey = None,
    as_json: AsJson = False,
) -> None:
    """Have a delivery sent again, now: the same id, the same body."""
    with failures_told(as_json=as_json), connect(context, url=url, api_key=api_key) as client:
        found = client.webhooks.replay(delivery_id)
        if as_json:
            print_json(found.raw)
        else:
            typer.echo(one_line(f"{found.id} {found.state}"))


def _tell(found: str, *, as_json: bool) -> None:
    if as_json:
        print_json({"secret": found})
    else:
        typer.echo(one_line(found))


def _row(delivery: Delivery) -> tuple[str, ...]:
    last = delivery.last_attempt
    came = "" if last is None else str(last.status or last.error or "")
    tries = str(delivery.attempt_count)
    cells = (delivery.id, delivery.type, delivery.resource_id, delivery.state, tries, came)
    return (*cells, shown_time(delivery.created_at))
