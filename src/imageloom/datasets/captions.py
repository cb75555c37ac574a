"""The captions of a data set: `.txt` files beside the pictures, or one `metadata.jsonl`."""

from __future__ import annotations

import json
import posixpath
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from imageloom.datasets.archive import Archive, name_key
from imageloom.datasets.report import Problem
from imageloom.datasets.rules import DatasetLimits, refusal, shown
from imageloom.domain.errors import InvalidInput

METADATA = "metadata.jsonl"
_SUFFIX = ".txt"
_LONGEST_CHARACTER = 4  # bytes in UTF-8
_LARGEST_METADATA = 16_000_000  # bytes: 2000 captions of 4000 characters of two bytes
_LONGEST_LINE = 64_000  # characters: a caption of 4000, all written as two \\u, has 48,000
_EXAMPLE = '{"file_name": "1.png", "text": "a red dress"}'


class Captions(NamedTuple):
    """Captions by the `name_key` of their picture, "" for an empty one, and the unused files."""

    of: Mapping[str, str]
    unused: tuple[Problem, ...]


def is_caption(name: str) -> bool:
    """Return whether a file of that name holds captions."""
    return name.lower().endswith(_SUFFIX) or _is_metadata(name)


def read_captions(archive: Archive, pictures: list[str], *, limits: DatasetLimits) -> Captions:
    """Return the captions of `pictures`, names of the archive.

    A picture that `metadata.jsonl` names has its caption from there, any other from the `.txt` of
    its name. A line's `file_name` is relative to the folder that `metadata.jsonl` is in. White
    space is one space between words.
    Raises: InvalidInput, naming the file and the line, when a caption is not usable.
    """
    keys = {name_key(name) for name in pictures}
    captions = _of_metadata(archive, keys, limits)
    by_stem: dict[str, list[str]] = {}
    for key in keys:
        by_stem.setdefault(posixpath.splitext(key)[0], []).append(key)
    unused = []
    for name in archive.names:
        if not name.lower().endswith(_SUFFIX):
            continue
        matching = by_stem.get(name_key(name).removesuffix(_SUFFIX), [])
        without = [key for key in matching if key not in captions]
        if without:
            captions |= dict.fromkeys(without, _of_file(archive, name, limits))
        else:
            why = f"{METADATA} has the caption" if matching else "no picture has its name"
            unused.append(Problem(name=name, kind="unused", message=f"it is not used: {why}"))
    return Captions(captions, tuple(unused))


def tidy(text: str) -> str:
    """Return `text` with one space between words and none around them."""
    return " ".join(text.split())


def _is_metadata(name: str) -> bool:
    return posixpath.basename(name).lower() == METADATA


def _of_file(archive: Archive, name: str, limits: DatasetLimits) -> str:
    data = _read(archive, name, most=_LONGEST_CHARACTER * limits.caption + len(b"\xef\xbb\xbf"))
    return _checked(_decoded(name, data), shown(name), limits)


def _of_metadata(archive: Archive, pictures: set[str], limits: DatasetLimits) -> dict[str, str]:
    found = [name for name in archive.names if _is_metadata(name)]
    if not found:
        return {}
    if len(found) > 1:
        names = " and ".join(shown(name) for name in found[:2])
        raise refusal(f"holds more than one {METADATA}, {names}; send one")
    name = found[0]
    data = _read(archive, name, most=_LARGEST_METADATA)
    captions: dict[str, str] = {}
    for number, line in enumerate(_decoded(name, data).split("\n"), start=1):
        if not line.strip():
            continue
        where = f"line {number} of {shown(name)}"
        file_name, text = _of_line(line, where)
        key = name_key(posixpath.join(posixpath.dirname(name), file_name))
        if key not in pictures:
            raise refusal(f"{where} names {shown(file_name)}, a picture that is not in the zip")
        if key in captions:
            raise refusal(f"{where} names {shown(file_name)} again; give one line to a picture")
        captions[key] = _checked(text, where, limits)
    return captions


def _of_line(line: str, where: str) -> tuple[str, str]:
    # A bound before parsing: a long line of brackets takes twenty times its size in memory.
    if len(line) > _LONGEST_LINE:
        raise refusal(f"{where} is {len(line)} characters long; at most {_LONGEST_LINE}")
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as exc:
        raise refusal(f"{where} is not JSON; a line is {_EXAMPLE}") from exc
    match row:
        case {"file_name": str(file_name), "text": str(text)}:
            return file_name, text
        case _:
            raise refusal(f"{where} lacks file_name or text, two strings; a line is {_EXAMPLE}")


def _read(archive: Archive, name: str, *, most: int) -> bytes:
    size = archive.size(name)
    if size > most:
        raise refusal(f"{shown(name)} is {size} bytes of captions; at most {most} are read")
    try:
        return archive.read(name)
    except InvalidInput as exc:
        raise refusal(f"{shown(name)} cannot be read: {exc.message}; zip it again") from exc


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        line = data.count(b"\n", 0, exc.start) + 1
        raise refusal(
            f"{shown(name)} is not UTF-8: line {line} has the byte 0x{data[exc.start]:02x}; "
            "save it as UTF-8"
        ) from exc


def _checked(text: str, where: str, limits: DatasetLimits) -> str:
    text = tidy(text)
    if len(text) > limits.caption:
        raise refusal(
            f"{where} is a caption of {len(text)} characters; at most {limits.caption} are accepted"
        )
    if any(unicodedata.category(each) in ("Cc", "Cs") for each in text):
        raise refusal(f"{where} has control characters in its caption; send plain text")
    return text
