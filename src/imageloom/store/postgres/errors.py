"""What is said when no PostgreSQL can run here, and what to do about it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import psycopg

from imageloom.domain.errors import StoreUnavailable

ADVICE = "Or set DATABASE_URL to a PostgreSQL that you run yourself."


class PostgresUnusable(StoreUnavailable):
    """The binaries, the folder or the account do not allow a server; waiting does not help."""

    retryable: ClassVar[bool] = False


@contextmanager
def clear_errors(folder: Path) -> Iterator[None]:
    """Turn what the system and the driver raise into an error that says what to do."""
    try:
        yield
    except PermissionError as exc:
        if os.geteuid() == 0:
            raise PostgresUnusable(
                f"this root may not use {exc.filename or folder} as it must (chown, setuid, "
                "setgid), perhaps in a container without those capabilities; run imageloom as an "
                f"ordinary user. {ADVICE}"
            ) from exc
        raise PostgresUnusable(
            f"user id {os.geteuid()} may not use {exc.filename or folder}; run imageloom as the "
            f"user who made {folder}, or give the folder to this user. {ADVICE}"
        ) from exc
    except OSError as exc:
        raise PostgresUnusable(f"cannot keep PostgreSQL in {folder}: {exc}. {ADVICE}") from exc
    except psycopg.Error as exc:
        raise StoreUnavailable(f"PostgreSQL in {folder} failed: {exc}") from exc
