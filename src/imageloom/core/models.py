"""The catalog as a tenant sees it: builtin entries and those that the user added."""

from __future__ import annotations

from collections.abc import Mapping

from imageloom.domain.catalog import BUILTIN, Model
from imageloom.domain.errors import UnknownModel
from imageloom.store import models
from imageloom.store.pool import Connection, Pool, transaction

Catalog = Mapping[str, Model]


async def read_catalog(conn: Connection) -> Catalog:
    """Return every model that a task may name, by name: those that draw first.

    Added ones hide builtin ones.
    """
    added = await models.list_added(conn)
    known = {model.name: model for model in (*BUILTIN, *added)}
    return dict(sorted(known.items(), key=lambda item: (item[1].kind != "base", item[0])))


async def list_models(pool: Pool) -> tuple[Model, ...]:
    """Return the entries of `read_catalog`."""
    async with transaction(pool) as conn:
        return tuple((await read_catalog(conn)).values())


async def get_model(pool: Pool, name: str) -> Model:
    """Do what `choose_model` does, by today's catalog. Raises: UnknownModel."""
    async with transaction(pool) as conn:
        return choose_model(await read_catalog(conn), name)


def choose_model(catalog: Catalog, name: str) -> Model:
    """Return the entry of that name. Raises: UnknownModel, which lists the names there are."""
    if name not in catalog:
        raise UnknownModel(
            f"model: there is no model {name!r}; known are {', '.join(catalog)}", param="model"
        )
    return catalog[name]


async def add_model(pool: Pool, model: Model) -> None:
    """Add an entry to the catalog, or replace the one of its name."""
    async with transaction(pool) as conn:
        await models.put(conn, model)
