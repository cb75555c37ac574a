"""Read a zip that a stranger sent: all of it is judged before a byte of any entry is unpacked."""

from __future__ import annotations

import posixpath
import re
import stat
import struct
import unicodedata
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, FileIO
from pathlib import Path

from imageloom.datasets.kinds import forbidden_name, is_skipped
from imageloom.datasets.rules import DatasetLimits, refusal, shown
from imageloom.domain.errors import InvalidInput

_LONGEST_NAME = 500  # characters of a path
_BYTES_OF_ENTRY = 1024  # in the list of contents: 46, a name, and times and owners: 100 in all
_SMALL = 1_000_000  # bytes up to which an entry may be packed as well as it can be
_CHUNK = 1 << 20  # bytes unpacked at a time, so that what an entry declares bounds what it costs
_LOCAL_HEADER = struct.Struct("<4s22xHH")  # signature, lengths of name and extra field
_UTF_8 = 0x800  # flag: the name is UTF-8
_ENCRYPTED = 0x1 | 0x40 | 0x2000  # flags: content, strongly, list of contents
# Of the others, one call of bzip2 or lzma can give gigabytes.
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_OTHER_METHODS = {9: "deflate64", 12: "bzip2", 14: "lzma", 93: "zstandard"}
# What `zipfile` raises on hostile bytes; found by reading it and by fuzzing.
_BROKEN = (
    zipfile.BadZipFile,
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
    zlib.error,
)


class Archive:
    """The files of a zip that was judged, without directories and what desktops leave behind.

    `names` are in order; no two are the same to a file system that ignores case or the
    normalisation of Unicode.
    """

    def __init__(self, zipped: zipfile.ZipFile, infos: dict[str, zipfile.ZipInfo]) -> None:
        self.names = tuple(sorted(infos, key=lambda name: (name_key(name), name)))
        self._zipped = zipped
        self._infos = infos

    def size(self, name: str) -> int:
        """Return the bytes that `read` gives."""
        return self._infos[name].file_size

    def read(self, name: str) -> bytes:
        """Return the content of a file, its checksum compared.

        Raises: InvalidInput, its message beginning with `it is`, when it is damaged.
        """
        info = self._infos[name]
        try:
            with self._zipped.open(info) as file:
                data = b"".join(iter(lambda: file.read(_CHUNK), b""))
        except _BROKEN as exc:
            raise InvalidInput("it is damaged: its bytes in the zip do not unpack") from exc
        if len(data) != info.file_size:
            raise InvalidInput(
                f"it is damaged: {len(data)} bytes unpack, {info.file_size} are declared"
            )
        return data


@contextmanager
def open_archive(path: Path, *, limits: DatasetLimits) -> Iterator[Archive]:
    """Yield the files of the zip at `path`.

    Raises: InvalidInput, naming the entry, when it is no zip or any of it is not acceptable.
    """
    with _SparingFile(FileIO(path), most=limits.entries * _BYTES_OF_ENTRY) as file:
        _refuse_other_format(file)
        try:
            zipped = zipfile.ZipFile(file)
        except _BROKEN as exc:
            raise refusal("is a damaged or truncated zip; zip the pictures again") from exc
        with zipped:
            yield Archive(zipped, _judged(zipped, file, limits))


def name_key(name: str) -> str:
    """Return what is the same for names that a file system may take for one.

    Source: The Unicode Standard, definition 145, canonical caseless matching.
    """
    folded = unicodedata.normalize("NFD", name).casefold()
    return unicodedata.normalize("NFD", posixpath.normpath(folded))


def refuse_forbidden(name: str, what: str | None) -> None:
    """Refuse the whole archive for a file that is `what`. Raises: InvalidInput."""
    if what is not None:
        raise refusal(f"holds {shown(name)}, {what}; send pictures and captions alone")


class _SparingFile(BufferedReader):
    """A file that refuses to give more than `most` bytes at once.

    `zipfile` reads the list of contents whole, whatever its size, and makes an object of each entry
    before any can be counted.
    """

    def __init__(self, raw: FileIO, *, most: int) -> None:
        super().__init__(raw)
        self._most = max(most, _CHUNK)

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._most:
            raise refusal(
                f"has a list of contents of {size} bytes, at most {self._most} are read; "
                "send fewer files"
            )
        return super().read(size)


def _refuse_other_format(file: BufferedReader) -> None:
    start = file.read(4)
    if not start:
        raise refusal("is empty, 0 bytes; send a zip of pictures")
    if start not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise refusal("is not a zip; send a zip of pictures")


def _judged(
    zipped: zipfile.ZipFile, file: BufferedReader, limits: DatasetLimits
) -> dict[str, zipfile.ZipInfo]:
    """Return the files by name."""
    infos = zipped.infolist()
    if not infos:
        raise refusal("is an empty zip; it must hold pictures")
    if len(infos) > limits.entries:
        raise refusal(f"holds {len(infos)} files; at most {limits.entries} are accepted")
    named: dict[str, zipfile.ZipInfo] = {}
    keys: dict[str, str] = {}
    for info in infos:
        name = _name(info)
        _refuse_name(name)
        _refuse_kind(name, info)
        _refuse_size(name, info, limits)
        if name.endswith("/"):
            continue
        key = name_key(name)
        if key == ".":
            raise refusal("holds a file without a name; zip the pictures again")
        if key in keys:
            raise refusal(
                f"holds {shown(keys[key])} and {shown(name)}, one name to many systems; give every "
                "file a name of its own"
            )
        keys[key] = name
        if not is_skipped(name):
            refuse_forbidden(name, forbidden_name(name))
            named[name] = info
    unpacked = sum(info.file_size for info in infos)
    if unpacked > limits.unpacked:
        raise refusal(f"unpacks to {unpacked} bytes; at most {limits.unpacked} are accepted")
    _refuse_overlap(zipped, file)
    return named


def _name(info: zipfile.ZipInfo) -> str:
    """Return the name of an entry. macOS writes UTF-8 without saying so."""
    if "\0" in info.orig_filename:
        return info.orig_filename
    if not info.flag_bits & _UTF_8:
        try:
            return info.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass  # a name in the code page of an old system
    return info.filename


def _refuse_name(name: str) -> None:
    if len(name) > _LONGEST_NAME:
        raise refusal(
            f"holds a file with a name of {len(name)} characters, {shown(name)}; at most "
            f"{_LONGEST_NAME} are accepted"
        )
    if any(unicodedata.category(each) in ("Cc", "Cs") for each in name):
        raise refusal(f"holds {shown(name)}, a name with control characters; rename it")
    if "\\" in name:
        raise refusal(f"holds {shown(name)}, a name with a backslash; separate folders with /")
    if name.startswith("/") or re.match("[A-Za-z]:", name) or ".." in name.split("/"):
        raise refusal(
            f"holds {shown(name)}, which leads out of the archive's folder; zip the folder itself"
        )


def _refuse_kind(name: str, info: zipfile.ZipInfo) -> None:
    if info.flag_bits & _ENCRYPTED:
        raise refusal(f"is encrypted ({shown(name)} is); send it without a password")
    mode = stat.S_IFMT(info.external_attr >> 16)
    if mode == stat.S_IFLNK:
        raise refusal(f"holds {shown(name)}, a link; send the file that it points to")
    if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refusal(f"holds {shown(name)}, a device or pipe; send pictures and captions alone")
    if info.compress_type not in _METHODS:
        method = _OTHER_METHODS.get(info.compress_type, f"method {info.compress_type}")
        raise refusal(f"has {shown(name)} packed by {method}; use deflate or no compression")


def _refuse_size(name: str, info: zipfile.ZipInfo, limits: DatasetLimits) -> None:
    if info.file_size > limits.entry:
        raise refusal(
            f"holds {shown(name)} of {info.file_size} bytes; at most {limits.entry} are accepted"
        )
    if info.file_size > max(_SMALL, limits.ratio * info.compress_size):
        raise refusal(
            f"holds {shown(name)}, whose {info.compress_size} bytes unpack to {info.file_size}, "
            f"more than {limits.ratio} times as many; no picture does"
        )


def _refuse_overlap(zipped: zipfile.ZipFile, file: BufferedReader) -> None:
    """Refuse bytes that several entries share: so a small zip holds the same bomb many times."""
    free = 0
    for info in sorted(zipped.infolist(), key=lambda info: info.header_offset):
        name = shown(info.filename)
        if info.header_offset < free:
            raise refusal(f"holds {name}, which shares bytes with another file; zip it again")
        try:
            file.seek(info.header_offset)
            signature, *lengths = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
        except _BROKEN as exc:
            raise refusal(f"is a damaged or truncated zip at {name}; zip it again") from exc
        free = info.header_offset + _LOCAL_HEADER.size + sum(lengths) + info.compress_size
        if signature != b"PK\x03\x04" or free > zipped.start_dir:
            raise refusal(f"is a damaged or truncated zip at {name}; zip it again")
