"""What a model is loaded from, as one text."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest

pytest.importorskip("huggingface_hub", reason="the worker's packages are not installed")

import huggingface_hub.constants  # the worker's packages are here

from imageloom.domain.catalog import BUILTIN, Model
from imageloom.domain.errors import InvalidParams, ModelNotInstalled
from imageloom.runtime import digests, weights
from imageloom.runtime.digests import weights_digest

NAMED = {model.name: model for model in BUILTIN}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a Swin2SR network."""
    made = tmp_path / "model"
    made.mkdir()
    (made / "config.json").write_text('{"model_type": "swin2sr"}')
    (made / "model.safetensors").write_bytes(b"weights")
    return made


def swin2sr(source: str, **more: object) -> Model:
    fields = {"name": "mine", "kind": "upscaler", "family": "swin2sr", "licence": "mine", **more}
    return Model(source=source, **fields)  # type: ignore[arg-type]


def of_file(path: Path) -> Model:
    return Model(name="mine", kind="segmenter", source=f"file:{path}", family="onnx", licence="m")


def test_a_method_is_its_name_and_this_packages_version() -> None:
    assert weights_digest(NAMED["lanczos"]).split()[0] == "lanczos"
    assert weights_digest(NAMED["grabcut"]).split()[0] == "grabcut"
    assert weights_digest(NAMED["lanczos"]).split()[1].count(".") >= 2


def test_a_method_has_nothing_to_locate() -> None:
    with pytest.raises(InvalidParams, match="'lanczos' needs no weights"):
        weights.locate(NAMED["lanczos"])


def test_the_embedded_model_is_a_sha256() -> None:
    digest = weights_digest(NAMED["imageloom-tiny"])
    assert len(bytes.fromhex(digest)) == 32
    assert digest == weights_digest(NAMED["imageloom-tiny"])


def test_a_copy_elsewhere_is_the_same(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "elsewhere" / name).write_bytes((folder / name).read_bytes())
    elsewhere = swin2sr(f"folder:{tmp_path / 'elsewhere'}", name="another")
    assert weights_digest(swin2sr(f"folder:{folder}")) == weights_digest(elsewhere)


def change_weights(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"WEIGHTS, other ones")


def change_config(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "swin2sr", "upscale": 4}')


def rename_weights(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "other.safetensors")


def add_weights(folder: Path) -> None:
    (folder / "more.safetensors").write_bytes(b"more")


@pytest.mark.parametrize("change", [change_weights, change_config, rename_weights, add_weights])
def test_whatever_is_loaded_changes_the_digest(folder: Path, change: object) -> None:
    before = weights_digest(swin2sr(f"folder:{folder}"))
    change(folder)  # type: ignore[operator]
    assert weights_digest(swin2sr(f"folder:{folder}")) != before


def test_what_is_never_loaded_does_not(folder: Path) -> None:
    before = weights_digest(swin2sr(f"folder:{folder}"))
    (folder / "README.md").write_text("hello")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    assert weights_digest(swin2sr(f"folder:{folder}")) == before


def test_a_file_is_read_again_only_when_its_size_or_time_has_changed(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"aaaa")
    os.utime(path, ns=(0, 1_000))
    before = weights_digest(of_file(path))
    path.write_bytes(b"bbbb")
    os.utime(path, ns=(0, 1_000))
    assert weights_digest(of_file(path)) == before
    os.utime(path, ns=(0, 1_001))
    assert weights_digest(of_file(path)) != before


@pytest.mark.parametrize("beside", ["x.onnx.data", "x.onnx_data_1", "preprocessor_config.json"])
def test_what_an_onnx_file_needs_beside_it_counts(tmp_path: Path, beside: str) -> None:
    (tmp_path / "x.onnx").write_bytes(b"graph")
    (tmp_path / "y.onnx.data").write_bytes(b"of another graph")
    before = weights_digest(of_file(tmp_path / "x.onnx"))
    (tmp_path / beside).write_text("{}")
    assert weights_digest(of_file(tmp_path / "x.onnx")) != before


def test_a_neighbour_of_a_file_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"graph")
    before = weights_digest(of_file(tmp_path / "x.onnx"))
    (tmp_path / "y.onnx").write_bytes(b"graph")
    (tmp_path / "x.onnx.backup").write_bytes(b"graph")
    assert weights_digest(of_file(tmp_path / "x.onnx")) == before


@pytest.fixture
def cached(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A repository of the hub that is in this machine's cache, at one commit."""
    cache = tmp_path / "hub"
    (cache / "models--someone--sharp" / "refs").mkdir(parents=True)
    (cache / "models--someone--sharp" / "refs" / "main").write_text(COMMIT)
    snapshots = cache / "models--someone--sharp" / "snapshots"
    snapshots.mkdir()
    folder.rename(snapshots / COMMIT)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return "hub:someone/sharp"


@pytest.mark.parametrize("revision", [COMMIT, "main", None])
def test_a_model_of_the_hub_is_its_commit(cached: str, revision: str | None) -> None:
    assert weights_digest(swin2sr(cached, revision=revision)) == COMMIT


@pytest.mark.parametrize(
    "source", ["folder:/nowhere/at/all", "file:/nowhere/x.onnx", "hub:no/body", "builtin:gone"]
)
def test_weights_that_are_not_here_are_not_installed(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    model = swin2sr(source, revision=COMMIT)
    if source.startswith("builtin:"):
        model = msgspec.structs.replace(model, kind="base")
    with pytest.raises(ModelNotInstalled, match="mine"):
        weights_digest(model)


def test_no_torch_is_needed() -> None:
    program = (
        "import sys; from imageloom.domain.catalog import BUILTIN;"
        "from imageloom.runtime.digests import weights_digest;"
        "weights_digest(next(m for m in BUILTIN if m.name == 'imageloom-tiny'));"
        "assert not {'torch', 'transformers', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_who_asks_at_once_waits_for_the_first_to_read(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside, go_on, reads = threading.Event(), threading.Event(), []
    read = hashlib.file_digest

    def slow(stream: BinaryIO, name: str) -> object:
        reads.append(stream.name)
        inside.set()
        assert go_on.wait(30)
        return read(stream, name)

    monkeypatch.setattr(hashlib, "file_digest", slow)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(weights_digest, swin2sr(f"folder:{folder}")) for _ in range(4)]
        assert inside.wait(30)
        assert digests._reading.locked()
        go_on.set()
        assert len({each.result() for each in asked}) == 1
    assert len(reads) == len(set(reads)) == 2
