"""What a file of an archive is, by its name, and what it must not be, by its first bytes too."""

from __future__ import annotations

from pathlib import PurePosixPath


def _suffixes(words: str) -> frozenset[str]:
    return frozenset(f".{word}" for word in words.split())


# Of which format a picture is, its bytes say; those that we do not read are told as unreadable.
_PICTURES = _suffixes("jpg jpeg jfif png webp gif bmp tif tiff heic heif avif jxl jp2 svg psd ico")
_CODE = _suffixes(
    "py pyc pyo pyd ipynb sh bash zsh command bat cmd ps1 vbs hta exe dll so dylib com msi scr lnk "
    "desktop jar class apk deb rpm js mjs cjs html htm php pl rb lua wasm"
)
_WEIGHTS = _suffixes(
    "pt pth ckpt bin pkl pickle joblib safetensors onnx gguf ggml h5 hdf5 keras npy npz pb tflite "
    "mlmodel msgpack engine"
)
_ARCHIVES = _suffixes("zip tar gz tgz bz2 tbz2 xz txz lzma zst lz4 br 7z rar cab iso dmg")
_FORBIDDEN = {
    **dict.fromkeys(_CODE, "code"),
    **dict.fromkeys(_WEIGHTS, "weights of a model"),
    **dict.fromkeys(_ARCHIVES, "an archive"),
}
_FIRST_BYTES = {
    b"PK\x03\x04": "an archive",
    b"\x1f\x8b": "an archive",
    b"BZh": "an archive",
    b"\xfd7zXZ\x00": "an archive",
    b"7z\xbc\xaf\x27\x1c": "an archive",
    b"Rar!\x1a\x07": "an archive",
    b"MZ": "code",
    b"\x7fELF": "code",
    b"\xcf\xfa\xed\xfe": "code",
    b"#!": "code",
}
_LEFT_BEHIND = frozenset({".ds_store", "thumbs.db", "desktop.ini"})  # by desktops


def is_picture(name: str) -> bool:
    """Return whether a file of that name is meant as a picture."""
    return PurePosixPath(name).suffix.lower() in _PICTURES


def is_skipped(name: str) -> bool:
    """Return whether a desktop made that file beside those that its user meant."""
    *folders, last = name.split("/")
    # `._name` is where macOS keeps what other file systems have no place for.
    return "__MACOSX" in folders or last.lower() in _LEFT_BEHIND or last.startswith("._")


def forbidden_name(name: str) -> str | None:
    """Return what a file of that name is, where a data set must not hold it."""
    # Trailing dots and spaces: Windows drops them.
    return _FORBIDDEN.get(PurePosixPath(name.rstrip(". ")).suffix.lower())


def forbidden_bytes(data: bytes) -> str | None:
    """Return what a file that begins so is, where a data set must not hold it."""
    for start, what in _FIRST_BYTES.items():
        if data.startswith(start):
            return what
    return None
