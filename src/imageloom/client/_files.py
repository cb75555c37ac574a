"""Local files: what is uploaded, and where downloads go.

File operations here block; the asynchronous client calls them in a thread.
"""

from __future__ import annotations

import io
import os
import re
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeGuard

Source = str | os.PathLike[str] | bytes
Told = Callable[[int, int], object]  # called with how much is done, and of how much

_SIGNATURES = (
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"PK\x03\x04", "application/zip"),
)
_SUFFIXES = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "application/zip": ".zip",
}
_UNKNOWN = "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """Something to upload; `open` begins anew at each try."""

    name: str
    media_type: str
    open: Callable[[], BinaryIO]


def is_url(source: Source) -> TypeGuard[str]:
    """Return whether an image argument is a URL rather than a local file."""
    return isinstance(source, str) and ("://" in source or source.startswith("data:"))


def prepare_upload(source: Source, *, progress: Told | None = None) -> Upload:
    """Return what to upload, its media type told from its first bytes.

    `progress` is called with the bytes of a file that are sent, and those that there are.

    Raises: OSError when the file cannot be read.
    """
    if isinstance(source, bytes):
        media_type = sniff(source)
        name = "upload" + _SUFFIXES.get(media_type, ".bin")
        return Upload(name=name, media_type=media_type, open=lambda: io.BytesIO(source))
    path = Path(source).expanduser()
    with path.open("rb") as file:
        media_type = sniff(file.read(16))
    return Upload(
        name=path.name,
        media_type=media_type,
        open=lambda: path.open("rb") if progress is None else _CountedFile(path, progress),
    )


def file_stems(names: Iterable[str]) -> list[str]:
    """Return names that users gave as stems of file names, no two of them the same."""
    stems: list[str] = []
    for name in names:
        stem = re.sub(r"[^\w-]+", "-", name).strip("-") or "step"
        while stem in stems:
            stem += "-"
        stems.append(stem)
    return stems


def save(content: bytes, *, folder: Path, stem: str, media_type: str | None) -> Path:
    """Write one download as `folder/stem.suffix`, whole or not at all, and return its path.

    The suffix follows the media type that the server named, else the bytes. A file of that name
    is replaced.
    """
    named = (media_type or "").partition(";")[0].strip().lower()
    suffix = _SUFFIXES.get(named) or _SUFFIXES.get(sniff(content), ".bin")
    return save_as(folder / (stem + suffix), content)


def save_as(target: Path, content: bytes) -> Path:
    """Write a file, whole or not at all, in place of what has its name, and return its path."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}-{secrets.token_hex(8)}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return target


def sniff(head: bytes) -> str:
    """Return the media type that the first bytes of a file tell."""
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    for signature, media_type in _SIGNATURES:
        if head.startswith(signature):
            return media_type
    return _UNKNOWN


class _CountedFile(io.FileIO):
    """A file that tells how much of it was read."""

    def __init__(self, path: Path, progress: Told) -> None:
        super().__init__(path)
        self._progress = progress
        self._total = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1) -> bytes:
        content = super().read(-1 if size is None else size)
        if content:
            self._progress(self.tell(), self._total)
        return content
