"""A folder of pictures as the data set of a training: what of it goes up, and its archive."""

from __future__ import annotations

import os
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PICTURES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
METADATA = "metadata.jsonl"

_SKIPPED = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})  # what desktops leave behind
_OLDEST = (1980, 1, 1, 0, 0, 0)  # a zip knows no earlier time


@dataclass(frozen=True, slots=True, kw_only=True)
class Dataset:
    """The files of a folder that a training takes, by their names below it, in order.

    `captions` are the `.txt` beside the pictures and `metadata.jsonl`. `left_out` are the other
    files, which stay here; what is hidden is not even named.
    """

    folder: Path
    pictures: tuple[str, ...]
    captions: tuple[str, ...]
    left_out: tuple[str, ...]

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Self:
        """Return what is in a folder and in those inside it.

        Raises: OSError when it cannot be read; ValueError when no picture is there.
        """
        root = Path(folder).expanduser()
        names = _names_below(root)
        pictures = [name for name in names if Path(name).suffix.lower() in PICTURES]
        if not pictures:
            raise ValueError(f"{root} holds no pictures; JPEG, PNG and WebP are taken")
        stems = {str(Path(name).with_suffix("")) for name in pictures}
        captions = [name for name in names if name == METADATA or _captions(name, stems)]
        taken = {*pictures, *captions}
        return cls(
            folder=root,
            pictures=tuple(pictures),
            captions=tuple(captions),
            left_out=tuple(name for name in names if name not in taken),
        )

    def pack(self, target: Path) -> None:
        """Write the archive, one file after the other; the same files give the same bytes.

        Pictures are compressed already, so they are stored as they are.
        """
        with zipfile.ZipFile(target, "w") as archive:
            for name in sorted((*self.pictures, *self.captions)):
                source = self.folder / name
                entry = zipfile.ZipInfo(name, date_time=_OLDEST)
                entry.external_attr = 0o644 << 16
                entry.file_size = source.stat().st_size
                with source.open("rb") as reader, archive.open(entry, "w") as writer:
                    shutil.copyfileobj(reader, writer)


def _names_below(root: Path) -> list[str]:
    """Return the visible files below a folder, with `/` between the parts of a name."""

    def refused(error: OSError) -> None:
        raise error

    names = []
    for path, folders, files in os.walk(root, onerror=refused):
        folders[:] = [name for name in folders if _is_shown(name)]
        names += [
            (Path(path) / name).relative_to(root).as_posix() for name in files if _is_shown(name)
        ]
    return sorted(names)


def _is_shown(name: str) -> bool:
    return not name.startswith(".") and name not in _SKIPPED


def _captions(name: str, stems: set[str]) -> bool:
    path = Path(name)
    return path.suffix.lower() == ".txt" and str(path.with_suffix("")) in stems
