"""Read `data:` URLs (RFC 2397): the bytes stand in the URL itself, as base64 or percent-encoded."""

from __future__ import annotations

import base64
import binascii
import re
from urllib.parse import unquote_to_bytes

from imageloom.domain.errors import InvalidInput

_ODD = re.compile(r"[\x00-\x20\x7f-\U0010ffff\\]")


def read_data_url(url: str, *, max_bytes: int) -> tuple[bytes, str | None]:
    """Return the bytes of `url` and the media type that it claims.

    The size is judged before anything is decoded.
    Raises: InvalidInput when it is malformed or holds more than `max_bytes`.
    """
    # Three characters for a byte is the most that either form takes, plus the media type.
    if len(url) > 3 * max_bytes + 1024:
        raise too_large("the data: URL", max_bytes)
    header, comma, payload = url[5:].partition(",")
    if not comma:
        raise InvalidInput("the data: URL has no comma between its media type and its data")
    if _ODD.search(url):
        raise InvalidInput("the data: URL contains white space or non-ASCII characters")
    media_type, _, flags = header.partition(";")
    if flags.lower().rpartition(";")[2] == "base64":
        data = _decode_base64(unquote_to_bytes(payload), max_bytes=max_bytes)
    else:
        data = unquote_to_bytes(payload)
    if len(data) > max_bytes:
        raise too_large("the data: URL", max_bytes)
    return data, media_type.lower() or None


def too_large(what: str, max_bytes: int) -> InvalidInput:
    """Return the error for something that holds more than `max_bytes`."""
    limit = f"{max_bytes / 1e6:g} MB" if max_bytes >= 100_000 else f"{max_bytes} bytes"
    return InvalidInput(f"{what} is larger than {limit}")


def _decode_base64(text: bytes, *, max_bytes: int) -> bytes:
    text = text.rstrip(b"=")
    if len(text) * 3 // 4 > max_bytes:
        raise too_large("the data: URL", max_bytes)
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error as exc:
        raise InvalidInput("the data: URL is not valid base64") from exc
