"""The public names of the client: a list that changes on purpose only."""

from __future__ import annotations

import inspect
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import imageloom.client
from imageloom.client import AsyncClient, AsyncTask, Client, Task

ROOT = Path(__file__).resolve().parents[1]


def test_all_lists_every_public_name() -> None:
    public = {
        name
        for name, value in vars(imageloom.client).items()
        if not name.startswith("_") and not inspect.ismodule(value)
    }
    assert imageloom.client.__all__ == sorted(public)


def test_every_module_of_the_client_is_private() -> None:
    names = [module.name for module in pkgutil.iter_modules(imageloom.client.__path__)]
    assert [name for name in names if not name.startswith("_")] == []


def test_every_public_name_has_a_docstring() -> None:
    lacking = [
        name for name in imageloom.client.__all__ if not getattr(imageloom.client, name).__doc__
    ]
    assert lacking == []


@pytest.mark.parametrize("kind", [Client, AsyncClient, Task, AsyncTask])
def test_every_public_method_has_an_example(kind: type) -> None:
    lacking = [
        name
        for name, value in vars(kind).items()
        if not name.startswith("_")
        and (inspect.isfunction(value) or isinstance(value, classmethod))
        and ">>>" not in (inspect.getdoc(getattr(kind, name)) or "")
    ]
    assert lacking == []


def test_both_halves_have_the_same_methods() -> None:
    def names(kind: type) -> set[str]:
        return {name.replace("aclose", "close") for name in vars(kind) if name[:1] != "_"}

    assert names(Client) == names(AsyncClient)
    assert names(Task) == names(AsyncTask)


def test_generated_half_is_current() -> None:
    command = [sys.executable, "tools/unasync.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_client_imports_nothing_of_the_server() -> None:
    assert imported_by("imageloom.client", known=("imageloom.client",)) == []


def test_command_line_imports_nothing_of_the_server() -> None:
    loaded = imported_by("imageloom.cli.main", known=("imageloom.client", "imageloom.cli"))
    assert loaded == []


def imported_by(module: str, *, known: tuple[str, ...]) -> list[str]:
    """Return what importing a module brings in that the base install must not need."""
    script = f"""
import sys, {module}
heavy = {{"fastapi", "uvicorn", "psycopg", "procrastinate", "torch", "diffusers", "numpy", "PIL"}}
for name in sorted(sys.modules):
    ours = name.startswith("imageloom.") and not name.startswith({known!r})
    if ours or name in heavy or name == "imageloom.cli._server":
        print(name)
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.split()
