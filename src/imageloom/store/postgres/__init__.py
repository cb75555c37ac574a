"""A real PostgreSQL of our own inside the data folder, for installations without a DATABASE_URL.

`launcher` holds the public verb; `binaries` says what runs, `accounts` as whom, `cluster` makes
and starts it, `postmaster` waits for it and ends it, `folder` and `locks` are what they stand on.
"""

from __future__ import annotations

from imageloom.store.postgres.binaries import find_binaries
from imageloom.store.postgres.errors import PostgresUnusable
from imageloom.store.postgres.launcher import EmbeddedPostgres

__all__ = ["EmbeddedPostgres", "PostgresUnusable", "find_binaries"]
