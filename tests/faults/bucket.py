"""An S3 bucket that moto serves over HTTP, in a process of its own."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx
import obstore
from obstore.store import S3Store

from faults.waiting import wait_for

NAME = "lab"
_KEYS = {
    "AWS_ACCESS_KEY_ID": "lab",
    "AWS_SECRET_ACCESS_KEY": "lab",
    "AWS_REGION": "us-east-1",
    "AWS_ALLOW_HTTP": "true",
}


@dataclass(frozen=True, kw_only=True)
class Bucket:
    """Where it is, and what processes must be told to find it."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """The settings of those who use it."""
        return {
            **_KEYS,
            "AWS_ENDPOINT_URL": self.endpoint,
            "IMAGELOOM_STORAGE_URL": f"s3://{NAME}/",
        }

    def stored(self) -> Mapping[str, str]:
        """Return the digest of each output in it."""
        store = S3Store(
            NAME,
            endpoint=self.endpoint,
            access_key_id="lab",
            secret_access_key="lab",
            region="us-east-1",
            client_options={"allow_http": True},
        )
        keys = [entry["path"] for batch in obstore.list(store, "outputs") for entry in batch]
        return {key: hashlib.sha256(obstore.get(store, key).bytes()).hexdigest() for key in keys}


@contextmanager
def bucket_server(folder: Path) -> Iterator[Bucket]:
    """Yield a bucket that is served until the block ends."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    with (folder / "s3.log").open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
            env={**os.environ, **_KEYS},
            stdout=output,
            stderr=output,
        )
    bucket = Bucket(endpoint=f"http://127.0.0.1:{port}")
    try:

        def made() -> bool:
            with suppress(httpx.TransportError):
                return httpx.put(f"{bucket.endpoint}/{NAME}", timeout=5).status_code == 200
            return False

        wait_for(made, what="an S3 server")
        yield bucket
    finally:
        process.kill()
        process.wait()
