"""The catalog as a tenant sees it: builtin entries and those that the user added."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from imageloom.domain.adapters import Adapter
from imageloom.domain.catalog import BUILTIN, Model
from imageloom.domain.errors import UnknownModel
from imageloom.store import adapters, models
from imageloom.store.pool import Connection, Pool, statements, transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """What a tenant's requests may name: models, those that draw first, and its own adapters."""

    models: Mapping[str, Model]
    adapters: Mapping[str, Adapter]


async def read_catalog(conn: Connection, *, tenant: str) -> Catalog:
    """Return what a tenant's requests may name; added models hide builtin ones."""
    return Catalog(
        models=await read_models(conn),
        adapters={each.name: each for each in await adapters.list_newest(conn, tenant=tenant)},
    )


async def list_models(pool: Pool) -> tuple[Model, ...]:
    """Return every model, those that draw first."""
    async with statements(pool) as conn:
        return tuple((await read_models(conn)).values())


async def get_model(pool: Pool, name: str) -> Model:
    """Return the model of that name. Raises: UnknownModel."""
    async with statements(pool) as conn:
        return _choose(await read_models(conn), name)


def choose_model(catalog: Catalog, name: str) -> Model:
    """Return the model of that name. Raises: UnknownModel, which lists the names there are."""
    return _choose(catalog.models, name)


async def read_models(conn: Connection) -> Mapping[str, Model]:
    """Return every model by name, those that draw first; added ones hide builtin ones."""
    added = await models.list_added(conn)
    known = {model.name: model for model in (*BUILTIN, *added)}
    return dict(sorted(known.items(), key=lambda item: (item[1].kind != "base", item[0])))


def _choose(known: Mapping[str, Model], name: str) -> Model:
    if name not in known:
        raise UnknownModel(
            f"model: there is no model {name!r}; known are {', '.join(known)}", param="model"
        )
    return known[name]


async def add_model(pool: Pool, model: Model) -> None:
    """Add an entry to the catalog, or replace the one of its name."""
    async with transaction(pool) as conn:
        await models.put(conn, model)
