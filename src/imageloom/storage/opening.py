"""Choose the storage that a URL names. Credentials of a cloud are those of its own environment.

That is `AWS_*`, `GOOGLE_*` or `AZURE_*` variables, or the machine's role, as obstore reads them.
`AWS_ENDPOINT_URL` (and `AWS_ALLOW_HTTP=true` for plain http) names another S3-compatible server.
No client options are passed: any would make obstore 0.12 forget those of the environment. Its own
are sound: 5 s to connect, 30 s for one request, and no request of ours moves more than 8 MiB.
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from obstore.store import from_url

from imageloom.storage.base import Storage
from imageloom.storage.local import LocalStorage
from imageloom.storage.objects import ObjectStorage

if TYPE_CHECKING:  # exists for type checkers only
    from obstore.store import RetryConfig, S3Config

_BUCKETS = frozenset({"s3", "gs", "az"})


def open_storage(url: str) -> Storage:
    """Return the storage of a `file:///folder`, `s3://`, `gs://` or `az://` URL.

    A folder is created. A bucket is not contacted: a wrong one shows at the first call.
    Raises: ValueError when the URL is none of these, OSError when a folder cannot be created.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        if parts.netloc not in ("", "localhost") or folder == Path("/") or not parts.path:
            raise ValueError(f"the storage URL {url!r} names no folder; write file:///path/to/it")
        return LocalStorage(folder)
    if parts.scheme == "s3":
        # Beside, not instead of, what the environment says: measured with obstore 0.12.1.
        config: S3Config = {"checksum_algorithm": "SHA256"}
        return ObjectStorage(from_url(url, config=config, retry_config=_retries()))
    if parts.scheme in _BUCKETS:
        return ObjectStorage(from_url(url, retry_config=_retries()))
    raise ValueError(
        f"the storage URL has the scheme {parts.scheme!r}; file, s3, gs and az are supported"
    )


def _retries() -> RetryConfig:
    return {
        "max_retries": 4,
        "retry_timeout": timedelta(seconds=20),  # below SHORT_CALL, so the store's error is seen
        "backoff": {
            "init_backoff": timedelta(milliseconds=200),
            "max_backoff": timedelta(seconds=5),
            "base": 2,
        },
    }
