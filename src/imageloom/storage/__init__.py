"""Bytes under keys: a local folder, or a bucket of S3, Google Cloud Storage or Azure.

`open_storage` chooses by URL. Bytes are durable when `put` returns, so a row may name them.
"""

from imageloom.storage.base import Storage, StoredStream
from imageloom.storage.keys import output_key, upload_key
from imageloom.storage.local import LocalStorage
from imageloom.storage.objects import ObjectStorage
from imageloom.storage.opening import open_storage
from imageloom.storage.signing import UrlSigner

__all__ = [
    "LocalStorage",
    "ObjectStorage",
    "Storage",
    "StoredStream",
    "UrlSigner",
    "open_storage",
    "output_key",
    "upload_key",
]
