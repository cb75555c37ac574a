"""As whom the server's programs run: ourselves, or for root an ordinary account.

PostgreSQL refuses to run as root, which is what a container mostly runs as.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imageloom.store.postgres.binaries import ENVIRONMENT, PROBE_SECONDS
from imageloom.store.postgres.errors import ADVICE, PostgresUnusable


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """As whom the server's programs run: ourselves, or as root an ordinary account.

    `prefix` is a command that changes the account in place of `user` and `group`.
    """

    uid: int | None = None
    gid: int | None = None
    prefix: tuple[str, ...] = ()

    @property
    def user(self) -> int | None:
        return None if self.prefix else self.uid

    @property
    def group(self) -> int | None:
        return None if self.prefix else self.gid

    @property
    def extra_groups(self) -> list[str | int] | None:
        return None if self.user is None else []

    def run(
        self, command: Sequence[str | Path], *, cwd: Path, seconds: float
    ) -> subprocess.CompletedProcess[str]:
        """Run a short program to its end; what it wrote, errors included, is in `stdout`."""
        return subprocess.run(  # noqa: S603  # our own arguments
            [*self.prefix, *command],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=seconds,
            cwd=cwd,
            env=ENVIRONMENT,
            start_new_session=True,
            user=self.user,
            group=self.group,
            extra_groups=self.extra_groups,
            umask=0o077,
        )

    def own(self, path: Path) -> None:
        """Make `path` the account's, so that this account can also start the server by itself."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid, follow_symlinks=False)


def server_account(folder: Path, data: Path, binaries: Path) -> Account:
    """Return an account that PostgreSQL accepts and that reaches folder and binaries.

    As root it is the owner of existing data, else `postgres` or `nobody`; the folder becomes its.
    """
    if os.geteuid() != 0:
        folder.chmod(0o700)
        return Account()
    uid, gid = _ordinary_account(data)
    os.chown(folder, uid, gid)
    folder.chmod(0o700)
    if data.exists() and data.stat().st_uid == 0:  # restored from a backup by root
        for parent, _, files in os.walk(data):
            for name in (parent, *(f"{parent}/{file}" for file in files)):
                os.chown(name, uid, gid, follow_symlinks=False)
    for account in ways_to_become(uid, gid):
        if _reaches(account, folder, binaries):
            return account
    raise PostgresUnusable(
        f"PostgreSQL refuses to run as root, and as user id {uid} it cannot reach {folder} or "
        f"{binaries}. Run imageloom as an ordinary user, or put the data folder and the Python "
        "environment where that user may go (not below a folder of mode 0700 such as /root), or "
        f"install setpriv (util-linux). {ADVICE}"
    )


def _ordinary_account(data: Path) -> tuple[int, int]:
    if data.exists() and data.stat().st_uid != 0:
        return data.stat().st_uid, data.stat().st_gid
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise PostgresUnusable(
        "PostgreSQL refuses to run as root, and there is no account `postgres` or `nobody` to run "
        f"it as. Run imageloom as an ordinary user, or create the account `postgres`. {ADVICE}"
    )


def ways_to_become(uid: int, gid: int) -> Iterator[Account]:
    """Yield ways to run a program as that account, the least privileged first.

    A closed parent folder (/root, say) is passed with one capability instead of opening it up.
    Searching it needs no more than dac_read_search, which Docker withholds; dac_override it
    grants. no_setuid_fixup: PostgreSQL checks its binaries with access(2), which ignores the
    capabilities of an ordinary user without it.
    """
    yield Account(uid=uid, gid=gid)
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return
    for capability in ("dac_read_search", "dac_override"):
        yield Account(
            uid=uid,
            gid=gid,
            prefix=(
                *(setpriv, "--reuid", str(uid), "--regid", str(gid), "--clear-groups"),
                *("--securebits", "+no_setuid_fixup"),
                *("--inh-caps", f"+{capability}", "--ambient-caps", f"+{capability}", "--"),
            ),
        )


def _reaches(account: Account, folder: Path, binaries: Path) -> bool:
    """Try it for real: mode bits alone know nothing of access lists, mounts and containers."""
    script = 'cd "$1" && "$2" -V && exec "$3" -V'
    places = (folder, binaries / "initdb", binaries / "postgres")
    command = ("/bin/sh", "-c", script, "sh", *places)
    try:
        return account.run(command, cwd=Path("/"), seconds=PROBE_SECONDS).returncode == 0
    except (OSError, subprocess.SubprocessError):
        return False
