"""What `throughput.py` compares with: diffusers' stock pipeline, as its users run it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch

from imageloom.domain.catalog import BUILTIN
from imageloom.images import encode_picture
from imageloom.runtime.pil import to_picture
from imageloom.runtime.stock import load_pipeline
from imageloom.runtime.torch_device import choose_device
from serving import LOOK

MODEL = next(model for model in BUILTIN if model.name == "imageloom-tiny")
Body = Mapping[str, Any]


class Stock:
    """The pipeline in this process: one picture after the other, and no server to pay for."""

    def __init__(self) -> None:
        self._pipeline = load_pipeline(MODEL, choose_device("cpu", threads=1))

    def keep(self, adapters: Mapping[str, Path]) -> None:
        """Load adapters, to be switched between by the requests that name them."""
        # peft warns of a second adapter; a second one is meant.
        warnings.filterwarnings("ignore", message="Already found a `peft_config`")
        for name, path in adapters.items():
            self._pipeline.load_lora_weights(str(path), adapter_name=name)

    def seconds(self, bodies: Sequence[Body]) -> float:
        """Draw and encode the pictures and return how long that took."""
        began = time.perf_counter()
        for body in bodies:
            if loras := body.get("loras"):
                names, weights = zip(
                    *((lora["name"], lora["weight"]) for lora in loras), strict=True
                )
                self._pipeline.set_adapters(list(names), list(weights))
            drawn = self._pipeline(
                prompt=body["prompt"],
                num_inference_steps=body["steps"],
                guidance_scale=body["guidance_scale"],
                width=body["width"],
                height=body["height"],
                generator=torch.Generator().manual_seed(body["seed"]),
            )
            encode_picture(to_picture(drawn.images[0]), "jpeg")
        return time.perf_counter() - began


class LitServe:
    """A LitServe of the pipeline on a port of this machine."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def seconds(self, bodies: Sequence[Body], *, callers: int) -> float:
        """Ask for the pictures, `callers` at a time, and return how long that took."""
        began = time.perf_counter()
        with ThreadPoolExecutor(callers) as pool:
            list(pool.map(self._ask, bodies))
        return time.perf_counter() - began

    def _ask(self, body: Body) -> None:
        self._client.post("/predict", json=dict(body)).raise_for_status()


@contextmanager
def litserve(way: str) -> Iterator[LitServe]:
    """Run `litserve_app.py` that way and yield it once it is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    app = Path(__file__).with_name("litserve_app.py")
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, str(app), str(port), way],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
            start_new_session=True,  # it leaves processes behind that would go on polling
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
                while not _healthy(client):
                    if process.poll() is not None:
                        log.seek(0)
                        raise RuntimeError(f"LitServe ended: {log.read()[-2000:].decode()}")
                    time.sleep(LOOK)
                yield LitServe(client)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _healthy(client: httpx.Client) -> bool:
    try:
        return client.get("/health").status_code == 200
    except httpx.TransportError:
        return False
