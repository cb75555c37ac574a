"""How large a data set may be, and how a refusal of one is worded."""

from __future__ import annotations

from dataclasses import dataclass

from imageloom.domain.errors import InvalidInput

_PARAM = "dataset_url"
_LONGEST_SHOWN = 80  # characters of a name in a message


@dataclass(frozen=True, slots=True, kw_only=True)
class DatasetLimits:
    """Bounds on an archive and on what is in it."""

    entries: int = 2000
    unpacked: int = 4_000_000_000  # bytes of all entries together
    entry: int = 100_000_000  # bytes of one entry
    ratio: int = 200  # unpacked bytes for each packed one; text of one letter reaches 1000
    pixels: int = 64_000_000  # of one picture
    # Of all pictures: two minutes of decoding. The bytes do not bound it: 2000 white pictures of 64
    # megapixels are a zip of a megabyte and a quarter of an hour.
    all_pixels: int = 3_000_000_000
    unreadable: int = 100  # damaged pictures, which cost as much as others and tell no size
    least_pictures: int = 4
    least_side: int = 64  # pixels
    caption: int = 4000  # characters


DEFAULT_LIMITS = DatasetLimits()


def refusal(reason: str) -> InvalidInput:
    """Return the error that refuses a whole data set."""
    return InvalidInput(f"{_PARAM}: {reason}", param=_PARAM)


def shown(name: str) -> str:
    """Return a name of the archive for a message: of one short line, nothing invisible in it."""
    if len(name) > _LONGEST_SHOWN:
        name = f"{name[:_LONGEST_SHOWN]}…"
    return "".join(each if each.isprintable() else f"\\u{ord(each):04x}" for each in name)


def counted(number: int, noun: str) -> str:
    """Return `1 picture`, `2 pictures`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def listed(parts: list[str], *, most: int, between: str = "; ") -> str:
    """Return the first `most` parts, and how many more there are."""
    more = len(parts) - most
    return between.join(parts[:most]) + (f"{between}and {more} more" if more > 0 else "")
