"""What a model would be loaded from, as one short text: two workers agree on it or differ in bytes.

No torch: whoever records a result asks, not only the device.
"""

from __future__ import annotations

import hashlib
import re
import threading
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path

from imageloom.domain.catalog import Model, is_method
from imageloom.runtime.weights import PATTERNS, locate, parts_of_file

# Tasks that begin together ask for the same gigabytes: the first reads them, the others wait.
_reading = threading.Lock()
_COMMIT = re.compile(r"[0-9a-f]{40}")


def weights_digest(model: Model) -> str:
    """Return a text that changes when other weights would be loaded.

    Of a hub model the commit; of a folder or file a SHA-256 over the names and bytes of what is
    loaded; of a method without weights its name and this package's version. A file is read again
    only when its size or modification time has changed: the first answer takes 1 to 3 s a gigabyte.
    Raises: ModelNotInstalled, BadWeights.
    """
    if is_method(model):
        return f"{model.source.partition(':')[2]} {version('imageloom')}"
    path = locate(model)
    if model.source.startswith("hub:"):
        if model.revision is not None and _COMMIT.fullmatch(model.revision):
            return model.revision
        return path.name  # the cache names a snapshot by its commit
    if path.is_dir():
        return _digest(path, {file for pattern in PATTERNS for file in path.rglob(pattern)})
    return _digest(path.parent, set(parts_of_file(path)))


def _digest(folder: Path, files: set[Path]) -> str:
    whole = hashlib.sha256()
    for file in sorted(files):
        stat = file.stat()
        with _reading:
            content = _file_digest(file, stat.st_size, stat.st_mtime_ns)
        whole.update(f"{file.relative_to(folder).as_posix()}\0{content}\n".encode())
    return whole.hexdigest()


@lru_cache(maxsize=1024)
def _file_digest(file: Path, _size: int, _modified_ns: int) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
