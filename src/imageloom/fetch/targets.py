"""Read a user's URL into a `Target`, or refuse it with the reason.

Strict on purpose: what two parsers could read in two ways (credentials, backslashes, white space,
control characters) is refused, so nothing is left to disagree about. Addresses are judged when
they are dialled, in `dialing`; here only those that are written in the URL itself.
"""

from __future__ import annotations

import re
import socket
import unicodedata
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Literal, NoReturn

import httpx

from imageloom.domain.errors import InvalidInput
from imageloom.fetch.addresses import is_public

LONGEST_URL = 8192  # characters; presigned URLs of the large clouds stay under 2,500
_DEFAULT_PORTS = {"http": 80, "https": 443}
_HOST = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*\.?", re.ASCII)
_IPV6 = re.compile(r"[0-9a-f:.]+", re.ASCII)
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):", re.ASCII)
_AUTHORITY = re.compile(r"https?://([^/?#]*)", re.ASCII | re.IGNORECASE)
_HOST_AND_PORT = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(:[0-9]{0,5})?", re.ASCII)
_FETCHABLE = "a URL begins with https://, http:// or data:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where one request goes. `host` is lower-case ASCII without brackets."""

    scheme: Literal["http", "https"]
    host: str
    port: int
    url: httpx.URL

    @property
    def shown(self) -> str:
        """The URL for messages: without its query, which may hold a signature, and cut short."""
        text = f"{self.scheme}://{self.url.netloc.decode('ascii')}{self.url.path}"
        return shorten(text)


def check_url(url: str, *, allow: Collection[str] = ()) -> None:
    """Refuse at the door what `Fetcher` could never fetch. Opens nothing, resolves nothing.

    A name that resolves to a private address passes here and is refused when it is dialled.
    Raises: InvalidInput with the reason.
    """
    if not is_data_url(url):
        check_web_url(url, allow=allow)


def check_web_url(url: str, *, allow: Collection[str] = ()) -> None:
    """Do what `check_url` does, and refuse data: URLs, to which nothing can be sent."""
    if is_data_url(url):
        raise InvalidInput("is a data: URL; use https:// or http://")
    target = parse_target(url)
    literal = _literal_address(target.host)
    if literal is None or is_public(literal):
        return
    if (target.host, target.port) not in parse_allowed(allow):
        refuse_private(target.host, target.port)


def is_data_url(url: str) -> bool:
    """Return whether `url` carries its own bytes."""
    return url[:5].lower() == "data:"


def parse_target(url: str) -> Target:
    """Return the target of an http or https URL.

    Raises: InvalidInput when it is anything else, or can be read in more than one way.
    """
    if len(url) > LONGEST_URL:
        raise InvalidInput(f"the URL has {len(url)} characters; at most {LONGEST_URL} are accepted")
    _refuse_odd_characters(url)
    scheme = _SCHEME.match(url)
    if scheme is None:
        raise InvalidInput(f"{shorten(url)!r} has no scheme; {_FETCHABLE}")
    authority = _AUTHORITY.match(url)
    if authority is None:
        found = scheme[1].lower()
        found = f"{found}: without //" if found in _DEFAULT_PORTS else f"the scheme {found}:"
        raise InvalidInput(f"the URL has {shorten(found)}; {_FETCHABLE}")
    if "@" in authority[1]:
        raise InvalidInput("the URL has a user name or password before its host; leave it out")
    if not _HOST_AND_PORT.fullmatch(authority[1]):
        raise InvalidInput(f"{shorten(authority[1])!r} is not a host and port")
    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii").lower()
    except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
        raise InvalidInput(f"{shorten(url)!r} is not a valid URL") from exc
    if not host:
        raise InvalidInput(f"{shorten(url)!r} has no host")
    _refuse_odd_host(host)
    target_scheme: Literal["http", "https"] = "https" if parsed.scheme == "https" else "http"
    port = _DEFAULT_PORTS[target_scheme] if parsed.port is None else parsed.port
    if not 1 <= port <= 65535:
        raise InvalidInput(f"the URL has port {port}; ports are 1 to 65535")
    return Target(scheme=target_scheme, host=host, port=port, url=parsed)


def parse_redirect(target: Target, location: str) -> Target:
    """Return where `target` redirects to.

    Raises: InvalidInput when that is no http or https URL, or leaves https for http.
    """
    _refuse_odd_characters(location)
    if _SCHEME.match(location):
        after = parse_target(location)
    else:
        try:
            joined = str(target.url.join(location))
        except (httpx.InvalidURL, UnicodeError, ValueError) as exc:
            raise InvalidInput(f"{target.shown} redirects to something that is no URL") from exc
        after = parse_target(joined)
    if target.scheme == "https" and after.scheme == "http":
        raise InvalidInput(f"{target.shown} redirects from https to http; give the https URL")
    return after


def parse_allowed(allow: Iterable[str]) -> frozenset[tuple[str, int]]:
    """Return the host and port of every `host:port` entry; an IPv6 host stands in brackets.

    Raises: ValueError when an entry is not exactly that.
    """
    pairs = set()
    for entry in allow:
        host, colon, port = entry.strip().lower().rpartition(":")
        bracketed = host.startswith("[") and host.endswith("]")
        host = host[1:-1] if bracketed else host
        if not colon or not host or (":" in host and not bracketed) or not port.isdecimal():
            raise ValueError(f"IMAGELOOM_FETCH_ALLOW has {entry!r}; an entry is host:port")
        pairs.add((host, int(port)))
    return frozenset(pairs)


def refuse_private(host: str, port: int) -> NoReturn:
    """Raise the error for a host whose address is not public."""
    entry = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    raise InvalidInput(
        f"the address of {shorten(host)} is private or reserved; "
        f"the operator can permit it with IMAGELOOM_FETCH_ALLOW={shorten(entry)}"
    )


def shorten(text: str) -> str:
    """Return `text` cut to 100 characters for a message."""
    return text if len(text) <= 100 else f"{text[:99]}…"


def _refuse_odd_characters(url: str) -> None:
    for character in url:
        # Categories C*: control, format (zero width, bidirectional), surrogate. Z*: white space.
        if character == "\\" or unicodedata.category(character)[0] in "CZ":
            raise InvalidInput(
                f"the URL contains the character U+{ord(character):04X}; "
                "percent-encode white space, backslashes and control characters"
            )


def _refuse_odd_host(host: str) -> None:
    pattern = _IPV6 if ":" in host else _HOST
    if len(host) > 253 or not pattern.fullmatch(host):
        raise InvalidInput(f"{shorten(host)!r} is not a host name or address")


def _literal_address(host: str) -> str | None:
    """Return the address that `host` spells, `0x7f.1` and `2130706433` included, else None."""
    if ":" in host:
        return host
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return None
