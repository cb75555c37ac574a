"""The catalog as a tenant sees it: builtin entries and those that the user added."""

from __future__ import annotations

from imageloom.domain.catalog import BUILTIN, Model
from imageloom.domain.errors import UnknownModel
from imageloom.store import models
from imageloom.store.pool import Pool, transaction


async def list_models(pool: Pool) -> tuple[Model, ...]:
    """Return every model that a task may name, by name; added ones hide builtin ones."""
    async with transaction(pool) as conn:
        added = await models.list_added(conn)
    return tuple(
        model for _, model in sorted({model.name: model for model in (*BUILTIN, *added)}.items())
    )


async def get_model(pool: Pool, name: str) -> Model:
    """Return the entry of that name. Raises: UnknownModel, which lists the names there are."""
    known = {model.name: model for model in await list_models(pool)}
    if name not in known:
        raise UnknownModel(
            f"model: there is no model {name!r}; known are {', '.join(known)}", param="model"
        )
    return known[name]


async def add_model(pool: Pool, model: Model) -> None:
    """Add an entry to the catalog, or replace the one of its name."""
    async with transaction(pool) as conn:
        await models.put(conn, model)
