"""The URLs that answers contain: absolute, signed where no key is sent, and known again as ours."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from urllib.parse import urlsplit

from imageloom.storage.signing import UrlSigner

BASE_PATH = "/api/v1"
_ROUND = 3600  # seconds: so that a task read twice has the same URLs, and caches hold
_FILE = re.compile(rf"{BASE_PATH}/files/(file_[0-9a-z]+)/?", re.ASCII)
_OUTPUT = re.compile(rf"{BASE_PATH}/outputs/([A-Za-z0-9._-]+)/[A-Za-z0-9._-]+", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFile:
    """A URL that names an upload."""

    file_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnOutput:
    """A URL that names an output of a task; `key` is its storage key."""

    key: str


class Urls:
    """Makes URLs below one public address. `life` is how many seconds an output's URL lasts."""

    def __init__(self, public_url: str, signer: UrlSigner, *, life: int) -> None:
        self._public = public_url.rstrip("/")
        self._signer = signer
        self._life = life

    @property
    def public(self) -> str:
        """The address that they begin with."""
        return self._public

    def output(self, key: str) -> str:
        """Return the URL of an output: signed, expiring, with a readable last part."""
        expires = (int(time.time()) + self._life + _ROUND - 1) // _ROUND * _ROUND
        token = self._signer.sign("output", key, expires)
        return f"{self._public}{BASE_PATH}/outputs/{token}/output_{key.rpartition('/')[2]}"

    def file(self, file_id: str, expires_at: int) -> str:
        """Return the URL of an upload, good without a key until the upload expires."""
        token = self._signer.sign("file", file_id, expires_at)
        return f"{self._public}{BASE_PATH}/files/{file_id}?token={token}"

    def output_key(self, token: str) -> str:
        """Return the storage key that an output's token stands for. Raises: NotFound, Gone."""
        return self._signer.verify("output", token)

    def file_id(self, token: str) -> str:
        """Return the file id that a file's token stands for. Raises: NotFound, Gone."""
        return self._signer.verify("file", token)

    def own(self, url: str, *, host: str | None) -> OwnFile | OwnOutput | None:
        """Return what a URL of ours names, None where it is somebody else's.

        `host` is what the caller reached us by, as one may sit behind several names.
        Raises: NotFound, Gone where the URL is ours but no longer good.
        """
        try:
            parts = urlsplit(url)
        except ValueError:
            return None  # malformed, so not made by us; `fetch` says what is wrong with it
        if parts.scheme not in ("http", "https"):
            return None
        if parts.netloc not in (urlsplit(self._public).netloc, host):
            return None
        if (file := _FILE.fullmatch(parts.path)) is not None:
            return OwnFile(file_id=file[1])
        if (output := _OUTPUT.fullmatch(parts.path)) is not None:
            return OwnOutput(key=self.output_key(output[1]))
        return None
