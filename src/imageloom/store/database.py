"""Which database a process works on: the named one, else our own in the data folder."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from imageloom.settings import Settings
from imageloom.store.postgres import EmbeddedPostgres


def embedded(settings: Settings) -> EmbeddedPostgres | None:
    """Return the data folder's own PostgreSQL, not started; None where DATABASE_URL names one."""
    if settings.database_url is not None:
        return None
    return EmbeddedPostgres(settings.data_dir.resolve() / "postgres", bin_dir=settings.pg_bin)


@contextmanager
def open_database(settings: Settings) -> Iterator[str]:
    """Yield the URL of a running database; one that we started stops when its last user leaves.

    Raises: StoreUnavailable where it cannot be started.
    """
    own = embedded(settings)
    if own is None:
        assert settings.database_url is not None  # noqa: S101  # says to mypy what `embedded` did
        yield settings.database_url
        return
    url = own.start()
    try:
        yield url
    finally:
        own.stop()
