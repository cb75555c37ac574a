"""What a run is started with, from the command line and from a workflow's file."""

from __future__ import annotations

import errno
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from imageloom.cli._client import picture

PICTURES = ("image_url", "image_urls")


def read_inputs(given: Sequence[str], *, images: Sequence[str]) -> dict[str, Any]:
    """Return the values of `--input KEY=VALUE` and `--image`, local files as path objects.

    A value that is JSON, such as `7`, `true` or `["a"]`, is that; any other is text. A key that
    ends in `_urls` may be given several times; a file name may have wildcards.
    Raises: typer.BadParameter; FileNotFoundError when no file matches wildcards.
    """
    inputs: dict[str, Any] = {}
    for each in given:
        name, equals, text = each.partition("=")
        if not (equals and name):
            raise typer.BadParameter(f"{each!r} is not KEY=VALUE", param_hint="--input")
        value = text if name.endswith("_url") else json_or_text(text)
        if name.endswith("_urls"):
            inputs.setdefault(name, []).extend(value if isinstance(value, list) else [text])
        elif name in inputs:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--input")
        else:
            inputs[name] = value
    if images:
        if inputs.keys() & set(PICTURES):
            raise typer.BadParameter("give --image or --input image_url, not both")
        found = [file for image in images for file in _matching(image, folder=Path())]
        inputs |= {"image_urls": found} if len(found) > 1 else {"image_url": found[0]}
    return with_files(inputs, folder=Path())


def with_files(inputs: Mapping[str, Any], *, folder: Path) -> dict[str, Any]:
    """Return inputs with the local files of their `…_url` and `…_urls` as paths below `folder`."""
    made: dict[str, Any] = {}
    for name, value in inputs.items():
        if name.endswith("_url") and isinstance(value, str):
            made[name] = picture(value, folder=folder)
        elif name.endswith("_urls") and isinstance(value, list):
            made[name] = [each for item in value for each in _matching(item, folder=folder)]
        else:
            made[name] = value
    return made


def joined(before: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return `before` with what is given in its place; new pictures replace all the old ones."""
    kept = dict(before)
    if given.keys() & set(PICTURES):
        for name in PICTURES:
            kept.pop(name, None)
    return kept | dict(given)


def read_edits(given: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the edits that `--set STEP.PARAMETER=VALUE` ask for. Raises: typer.BadParameter."""
    edits: dict[str, dict[str, Any]] = {}
    for each in given:
        target, equals, text = each.partition("=")
        step, dot, parameter = target.rpartition(".")
        if not (equals and dot and step and parameter):
            raise typer.BadParameter(f"{each!r} is not STEP.PARAMETER=VALUE", param_hint="--set")
        edits.setdefault(step, {})[parameter] = json_or_text(text)
    return edits


def read_choice(text: str, *, candidates: int | None) -> list[int]:
    """Return the indices in text such as `0,2` or `all`, in its order.

    `candidates` is how many there are to choose from; None where that is not known, so that only
    the server can tell. Raises: ValueError, saying what would do.
    """
    if text.strip() == "all" and candidates is not None:
        return list(range(candidates))
    parts = [part for part in text.replace(",", " ").split() if part]
    if not parts or not all(part.isascii() and part.isdigit() for part in parts):
        raise ValueError(f"{text!r} is no choice; give indices such as 0,2, or all")
    chosen = [int(part) for part in parts]
    if candidates is not None and max(chosen) >= candidates:
        raise ValueError(f"there is no candidate {max(chosen)}; they are 0 to {candidates - 1}")
    return chosen


def json_or_text(text: str) -> Any:
    """Return what text such as `7`, `true` or `["a"]` is as JSON; any other is text."""

    def refuse(constant: str) -> Any:
        raise ValueError(f"{constant} is not JSON")

    try:
        return json.loads(text, parse_constant=refuse)
    except ValueError:
        return text


def _matching(item: Any, *, folder: Path) -> list[Any]:
    """Return the picture that an item names, or those that its wildcards mean, in order.

    Raises: FileNotFoundError when no file matches.
    """
    if not isinstance(item, str):
        return [item]
    pattern = picture(item, folder=folder)
    if isinstance(pattern, str) or not set(item) & set("*?[") or pattern.exists():
        return [pattern]
    found = sorted(Path(pattern.anchor).glob(str(pattern.relative_to(pattern.anchor))))
    if not found:
        raise FileNotFoundError(errno.ENOENT, "no file matches", str(pattern))
    return list(found)
