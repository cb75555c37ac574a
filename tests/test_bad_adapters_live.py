"""Bad adapters on a running installation: a clear error, and nothing stays of them."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import httpx
import pytest

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

from safetensors.torch import save  # noqa: E402  # needs torch

from conftest import wait_for  # noqa: E402
from live_adapters import adapter, publish  # noqa: E402

if TYPE_CHECKING:
    from conftest import Live

NEXT = {"prompt": "a red dress", "steps": 3, "seed": 5, "width": 64, "height": 64}
LAYER = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
GOOD = adapter(r"attn1\.to_q\.weight", rank=2, seed=1)
COMPLAINTS = {
    "pickle": "it is not safetensors, or cut short",
    "other-model": f"does not fit the model 'imageloom-tiny': layer {LAYER} is [40, 40]",
    "not-a-number": "has values that are no finite numbers",
    "long-header": "its header takes 100000000 bytes, the limit is 10000000",
    "many-tensors": "bytes, the limit is 10000000",
}


def bad_files() -> Iterator[tuple[str, bytes]]:
    """Each name with what is in its file."""
    yield "pickle", pickle.dumps({LAYER: [1.0] * 100})
    yield "other-model", save(matrices(width=40))
    yield "not-a-number", save(matrices(width=96, value=float("nan")))
    yield "long-header", with_header(b"{}".ljust(100_000_000))
    entry = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    yield "many-tensors", with_header(json.dumps(dict.fromkeys(map(str, range(300_000)), entry)))


def matrices(*, width: int, value: float = 1.0) -> dict[str, Any]:
    down, up = torch.full((2, width), value), torch.ones(width, 2)
    return {f"{LAYER}.lora_A.weight": down, f"{LAYER}.lora_B.weight": up}


def with_header(text: str | bytes) -> bytes:
    header = text.encode() if isinstance(text, str) else text
    return len(header).to_bytes(8, "little") + header


def drawn(live: Live, **more: Any) -> dict[str, Any]:
    with live.client() as client:
        headers = {"Prefer": "wait=60"}
        answer = client.post("/tasks/generation", json={**NEXT, **more}, headers=headers)
        task: dict[str, Any] = answer.raise_for_status().json()
    return task


def picture(live: Live, **more: Any) -> bytes:
    (image,) = drawn(live, **more)["output"]["images"]
    return httpx.get(image["url"]).raise_for_status().content


def test_a_bad_adapter_is_refused_by_name_and_the_next_picture_is_a_fresh_workers(
    live: Live,
) -> None:
    publish(live, {"good": GOOD, **dict(bad_files())})
    pictures = []
    for name, complaint in COMPLAINTS.items():
        task = drawn(live, loras=[{"name": "good"}, {"name": name, "weight": 0.5}])
        assert task["status"] == "failed"
        assert f"the adapter '{name}'" in task["error"]
        assert complaint in task["error"]
        assert task["error_detail"]["retryable"] is False
        pictures.append(picture(live))
    killed = live.kill("imageloom device")
    wait_for(lambda: live.pids("imageloom device") not in ([], [killed]), what="a fresh device")
    assert {picture(live)} == set(pictures)
    assert picture(live, loras=[{"name": "good"}]) not in pictures
