"""The stock pipeline behind LitServe with its batching: what `throughput.py` compares with.

    python bench/litserve_app.py PORT grouped|largest

A batch of a pipeline has one number of steps. `grouped` draws those of a batch that ask for the
same number together, and so what was asked for. `largest` runs all to the largest number asked for:
one call a batch, but other pictures than those that were asked for.
"""

from __future__ import annotations

import base64
import os
import sys
from collections import defaultdict
from typing import Any

os.environ["TRANSFORMERS_VERBOSITY"] = "error"  # it warns of torchvision; nobody needs that

import litserve
import torch

from imageloom.domain.catalog import BUILTIN
from imageloom.images import encode_picture
from imageloom.runtime.pil import to_picture
from imageloom.runtime.stock import load_pipeline
from imageloom.runtime.torch_device import choose_device

BATCH, PATIENCE = 8, 0.05  # pictures, and seconds for a batch to fill
Request = dict[str, Any]


class Pictures(litserve.LitAPI):  # type: ignore[misc]
    """One picture a request."""

    def __init__(self, way: str) -> None:
        super().__init__(max_batch_size=BATCH, batch_timeout=PATIENCE)
        self._way = way

    def setup(self, device: str) -> None:
        """Load the model, in the process that draws."""
        model = next(model for model in BUILTIN if model.name == "imageloom-tiny")
        self._pipeline = load_pipeline(model, choose_device(device, threads=1))

    def batch(self, inputs: list[Request]) -> list[Request]:
        """Leave the requests as they are: `predict` needs their step counts."""
        return inputs

    def predict(self, requests: list[Request]) -> list[Any]:
        """Return a picture for each request, in order."""
        groups: dict[int, list[int]] = defaultdict(list)
        largest = max(request["steps"] for request in requests)
        for index, request in enumerate(requests):
            groups[largest if self._way == "largest" else request["steps"]].append(index)
        drawn: dict[int, Any] = {}
        for steps, members in groups.items():
            drawn |= zip(members, self._draw([requests[i] for i in members], steps), strict=True)
        return [drawn[index] for index in range(len(requests))]

    def unbatch(self, output: list[Any]) -> list[Any]:
        """Leave the pictures as they are."""
        return output

    def encode_response(self, output: Any) -> dict[str, str]:
        """Return a picture as LitServe's examples do."""
        encoded = encode_picture(to_picture(output), "jpeg")
        return {"image": base64.b64encode(encoded.data).decode()}

    def _draw(self, requests: list[Request], steps: int) -> list[Any]:
        drawn = self._pipeline(
            prompt=[request["prompt"] for request in requests],
            num_inference_steps=steps,
            guidance_scale=requests[0]["guidance_scale"],
            width=64,
            height=64,
            generator=[torch.Generator().manual_seed(request["seed"]) for request in requests],
        )
        images: list[Any] = drawn.images
        return images


if __name__ == "__main__":  # LitServe starts processes that import this file
    port, way = sys.argv[1:]
    app = litserve.LitServer(Pictures(way), accelerator="cpu", devices=1, timeout=60)
    app.run(host="127.0.0.1", port=int(port), log_level="warning", generate_client_file=False)
