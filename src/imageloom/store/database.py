"""Which database a process works on: the named one, else our own in the data folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imageloom.settings import Settings
from imageloom.store.postgres import EmbeddedPostgres


def embedded(settings: Settings) -> EmbeddedPostgres | None:
    """Return the data folder's own PostgreSQL, not started; None where DATABASE_URL names one."""
    return None if settings.database_url is not None else _in_folder(settings)


@contextmanager
def open_database(settings: Settings) -> Iterator[str]:
    """Yield the URL of a running database; one that we started stops when its last user leaves.

    Raises: StoreUnavailable where it cannot be started.
    """
    if settings.database_url is not None:
        yield settings.database_url
        return
    with _in_folder(settings) as own:
        yield own.start()


def _in_folder(settings: Settings) -> EmbeddedPostgres:
    return EmbeddedPostgres(settings.data_dir.resolve() / "postgres", bin_dir=settings.pg_bin)
