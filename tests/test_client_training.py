"""Training through the client, against a small server that speaks the contract."""

from __future__ import annotations

import doctest
import inspect
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import httpx
import pytest

import imageloom.client._sync
import imageloom.client._training_sync
from fake_api import ADAPTER, BASE, CDN, JPEG, FakeServer, refusal
from imageloom import client as sdk
from imageloom.client import AsyncTraining, Dataset, Training

UPLOADED = f"{BASE}/files/file_1?signature=abc"
ZIP_URL = "https://example.com/pictures.zip"


@pytest.fixture
def server() -> FakeServer:
    return FakeServer()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder as people have it: pictures and captions, and what does not belong there."""
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    (folder / ".git").mkdir()
    (folder / "__MACOSX").mkdir()
    for name, content in (
        ("b.PNG", b"\x89PNG"),
        ("b.txt", "ein Kleid, größer".encode()),
        ("a.jpg", JPEG),
        ("more/c.webp", b"RIFF"),
        ("more/c.txt", b"a dress"),
        ("metadata.jsonl", b"{}"),
        ("notes.txt", b"call the studio"),
        ("raw.heic", b"raw"),
        ("train.py", b"pass"),
        (".hidden.jpg", b"hidden"),
        (".git/d.jpg", b"hidden"),
        ("__MACOSX/a.jpg", b"left by a desktop"),
        ("Thumbs.db", b"left by a desktop"),
    ):
        (folder / name).write_bytes(content)
    return folder


def started(server: FakeServer, **config: Any) -> Training:
    training: Training = server.client().train(ZIP_URL, name="my-dress", **config)
    return training


def unpacked(server: FakeServer) -> dict[str, bytes]:
    """Return the files of the archive that was uploaded last."""
    name, media_type, content = server.uploads[-1]
    assert (name, media_type) == ("dataset.zip", "application/zip")
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {entry: archive.read(entry) for entry in archive.namelist()}


# --- the data set


def test_folder_is_read_as_pictures_captions_and_the_rest(pictures: Path) -> None:
    dataset = Dataset.read(pictures)
    assert dataset.pictures == ("a.jpg", "b.PNG", "more/c.webp")
    assert dataset.captions == ("b.txt", "metadata.jsonl", "more/c.txt")
    assert dataset.left_out == ("notes.txt", "raw.heic", "train.py")


def test_folder_goes_up_as_a_zip_of_what_a_training_takes(
    server: FakeServer, pictures: Path
) -> None:
    server.client().train(pictures, name="my-dress")
    assert unpacked(server) == {
        "a.jpg": JPEG,
        "b.PNG": b"\x89PNG",
        "b.txt": "ein Kleid, größer".encode(),
        "metadata.jsonl": b"{}",
        "more/c.txt": b"a dress",
        "more/c.webp": b"RIFF",
    }
    assert server.trainings.bodies["train_1"] == {
        "dataset_url": UPLOADED,
        "output_name": "my-dress",
    }


def test_same_files_give_the_same_archive(pictures: Path, tmp_path: Path) -> None:
    archives = [tmp_path / "1.zip", tmp_path / "2.zip"]
    for archive in archives:
        Dataset.read(pictures).pack(archive)
        os.utime(pictures / "a.jpg", (1_000_000_000, 1_000_000_000))
        (pictures / "a.jpg").chmod(0o600)
    first, second = (archive.read_bytes() for archive in archives)
    assert first == second


def test_training_under_the_same_key_is_the_same_one(server: FakeServer, pictures: Path) -> None:
    client = server.client()
    made = [
        client.train(source, name="my-dress", idempotency_key="k").id
        for source in (pictures, str(pictures))
    ]
    assert (made, len(server.uploads)) == (["train_1", "train_1"], 1)


def test_upload_tells_its_bytes_and_leaves_no_archive_behind(
    server: FakeServer, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    (pictures / "large.jpg").write_bytes(JPEG * 10_000)
    told: list[tuple[int, int]] = []
    server.next = [httpx.ConnectError("lost")]
    server.client().train(
        pictures, name="my-dress", progress=lambda sent, total: told.append((sent, total))
    )
    size = len(server.uploads[-1][2])
    assert {total for _, total in told} == {size}
    assert told[0] == (65536, size)
    assert told[-1] == (size, size)
    assert list(temporary.iterdir()) == []


def test_zip_and_bytes_go_up_as_they_are(server: FakeServer, tmp_path: Path) -> None:
    content = b"PK\x03\x04 an archive"
    archive = tmp_path / "summer.zip"
    archive.write_bytes(content)
    for source in (archive, str(archive), content):
        server.client().train(source, name="my-dress")
    names = [name for name, _, _ in server.uploads]
    assert names == ["summer.zip", "summer.zip", "upload.zip"]
    assert {made for _, _, made in server.uploads} == {content}


def test_folder_of_no_use_sends_nothing(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no picture")
    client = server.client()
    with pytest.raises(ValueError, match="holds no pictures; JPEG, PNG and WebP are taken"):
        client.train(tmp_path, name="my-dress")
    with pytest.raises(FileNotFoundError):
        client.train(tmp_path / "missing", name="my-dress")
    with pytest.raises(FileNotFoundError):
        Dataset.read(tmp_path / "missing")
    assert server.requests == []


# --- starting and looking before


def test_config_is_sent_as_it_is_given(server: FakeServer) -> None:
    server.client().train(
        ZIP_URL,
        name="my-dress",
        base_model="sd-xl-base",
        trigger_word="sks",
        epochs=100,
        learning_rate=1e-4,
        min_snr_gamma=None,
    )
    assert server.trainings.bodies["train_1"] == {
        "dataset_url": ZIP_URL,
        "base_model": "sd-xl-base",
        "output_name": "my-dress",
        "config": {
            "epochs": 100,
            "learning_rate": 1e-4,
            "min_snr_gamma": None,
            "trigger_word": "sks",
        },
    }


def test_taken_name_is_a_conflict_until_a_version_is_asked_for(server: FakeServer) -> None:
    started(server).wait()
    with pytest.raises(sdk.Conflict):
        started(server)
    adapter = started(server, version=True).wait().adapter
    assert adapter is not None
    assert adapter.version == 2


def test_preflight_says_what_is_there_and_where(server: FakeServer, pictures: Path) -> None:
    client = server.client()
    report = client.preflight(pictures, trigger_word="sks", epochs=2)
    assert server.trainings.preflights == [
        {"dataset_url": UPLOADED, "config": {"epochs": 2, "trigger_word": "sks"}}
    ]
    assert (report.dataset_url, report.usable, report.steps) == (UPLOADED, 4, 240)
    assert (report.minutes, report.memory_bytes) == (1.6, 1_200_000_000)
    assert report.based_on == "time measured by 1 training of imageloom-tiny on x86_64"
    assert report.warnings == ["smaller than 64 pixels: 1 picture; enlarged, without fine detail"]
    assert report.problems == [
        sdk.DatasetProblem(name="tiny.png", kind="tiny", message="is 8 x 8 pixels")
    ]
    assert report.pictures[0] == sdk.DatasetPicture(
        name="0.jpg", caption="sks", width=64, height=64
    )
    assert report.buckets == {"64x64": 3, "48x80": 1}
    client.train(report.dataset_url, name="my-dress")
    assert len(server.uploads) == 1


def test_short_report_is_read_calmly(server: FakeServer) -> None:
    server.trainings.report = {"usable": 4}
    report = server.client().preflight(ZIP_URL)
    assert (report.problems, report.buckets, report.steps, report.minutes) == ([], {}, None, None)


# --- waiting


def test_wait_tells_each_change_once(server: FakeServer) -> None:
    training = started(server)
    server.next = [refusal(503, "unavailable", "away", retry_after=1)]
    seen: list[tuple[str, int, float | None, int]] = []

    def on_change(changed: Training) -> None:
        metrics = changed.metrics
        seen.append((changed.status, metrics.step, metrics.loss, len(changed.samples)))

    assert training.wait(on_change=on_change) is training
    assert seen == [
        ("pending", 0, None, 0),
        ("running", 0, None, 0),
        ("running", 1, 1.0, 0),
        ("completed", 8, 0.125, 1),
    ]
    training.wait(on_change=on_change)
    assert len(seen) == 5


def test_completed_training_has_metrics_samples_and_adapter(server: FakeServer) -> None:
    training = started(server, epochs=2).wait()
    assert training.metrics == sdk.Metrics(
        current_epoch=2,
        epochs=2,
        step=8,
        steps=8,
        loss=0.125,
        held_out_loss=0.25,
        learning_rate=0.002,
        images_per_second=3.25,
        eta_seconds=0.0,
    )
    (sample,) = training.samples
    assert (sample.step, sample.prompt, sample.seed) == (8, "a photo of sks", 7)
    assert training.adapter is not None
    assert (training.adapter.name, training.adapter.version) == ("my-dress", 1)
    losses = training.losses()
    assert [loss.step for loss in losses] == list(range(1, 9))
    assert losses[1] == sdk.Loss(step=2, loss=0.5, learning_rate=0.002)


def test_document_s_answer_is_read_calmly(server: FakeServer) -> None:
    answer = {
        "id": "train_xyz789",
        "status": "running",
        "progress": 0.45,
        "output": {"metrics": {"current_epoch": 45, "loss": 0.023}},
    }
    server.next = [httpx.Response(200, json=answer)]
    training = server.client().training("train_xyz789")
    assert (training.metrics.current_epoch, training.metrics.loss) == (45, 0.023)
    assert (training.samples, training.adapter, training.name) == ([], None, None)


def test_failed_training_raises_with_its_reason(server: FakeServer) -> None:
    server.trainings.ends = {"status": "failed", "error": "CUDA out of memory"}
    with pytest.raises(sdk.TaskFailed, match="train_1 failed: CUDA out of memory"):
        started(server).wait()


def test_wait_ends_at_its_timeout_and_the_training_goes_on(server: FakeServer) -> None:
    training = started(server)
    with pytest.raises(sdk.WaitTimeout):
        training.wait(timeout=0.5)
    assert training.wait().done


# --- cancelling


@pytest.mark.parametrize(("keep", "body"), [(True, b'{"keep":true}'), (False, b"")])
def test_cancel_keeps_the_last_checkpoint_only_when_asked(
    server: FakeServer, keep: bool, body: bytes
) -> None:
    training = started(server).refresh().refresh()
    training.cancel(keep=keep)
    assert server.requests[-1].content == body
    assert (training.status, training.adapter is not None) == ("cancelled", keep)
    with pytest.raises(sdk.TaskCancelled):
        training.wait()


def test_cancel_of_a_completed_training_is_a_conflict(server: FakeServer) -> None:
    training = started(server).wait()
    with pytest.raises(sdk.Conflict):
        training.cancel()


# --- the adapter


def test_download_writes_adapter_and_samples(server: FakeServer, tmp_path: Path) -> None:
    training = started(server).wait()
    told: list[tuple[int, int]] = []
    paths = training.download(
        tmp_path / "made", progress=lambda count, total: told.append((count, total))
    )
    assert [path.name for path in paths] == ["my-dress.safetensors", "sample_8_0.jpg"]
    assert paths[0].read_bytes() == ADAPTER
    assert paths[1].read_bytes() == JPEG
    assert told == [(1, 2), (2, 2)]
    assert all("Authorization" not in request.headers for request in server.requests[-2:])


def test_samples_are_numbered_within_their_step(server: FakeServer, tmp_path: Path) -> None:
    training = started(server).wait()
    training.raw["output"]["samples"] = [
        {"url": f"{CDN}/img?{n}", "step": step} for n, step in enumerate((8, 4, 8, 4))
    ]
    names = [path.name for path in training.download(tmp_path)]
    assert names[1:] == [f"sample_{step}_{n}.jpg" for step in (4, 8) for n in (0, 1)]


def test_download_refuses_other_bytes_than_were_published(
    server: FakeServer, tmp_path: Path
) -> None:
    training = started(server).wait()
    training.raw["output"]["adapter"]["sha256"] = "0" * 64
    with pytest.raises(sdk.ImageloomError, match="download it again"):
        training.download(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "file"),
    [("../evil", "-evil.safetensors"), ("..", "adapter.safetensors"), ("v1.5", "v1.5.safetensors")],
)
def test_adapter_s_file_stays_in_the_folder(
    server: FakeServer, tmp_path: Path, name: str, file: str
) -> None:
    training = started(server).wait()
    training.raw["output"]["adapter"]["name"] = name
    folder = tmp_path / "made"
    assert training.download(folder)[0] == folder / file
    assert (folder / file).exists()


def test_download_needs_an_adapter(server: FakeServer, tmp_path: Path) -> None:
    with pytest.raises(sdk.ImageloomError, match="train_1 is pending: it published no adapter"):
        started(server).download(tmp_path)


def test_adapter_is_listed_until_it_is_deleted(server: FakeServer) -> None:
    client = server.client()
    started(server, trigger_word="sks").wait()
    adapter = client.models()[-1]
    assert (adapter.name, adapter.kind, adapter.version) == ("my-dress", "adapter", 1)
    assert adapter.base_model == "imageloom-tiny"
    client.delete_model("my-dress")
    assert [model.name for model in client.models()] == ["imageloom-tiny"]
    with pytest.raises(sdk.NotFound):
        client.delete_model("my-dress")
    with pytest.raises(ValueError, match="not the name of a model"):
        client.delete_model("..")


# --- the asynchronous half


async def test_async_training_from_folder_to_files(
    server: FakeServer, pictures: Path, tmp_path: Path
) -> None:
    async with server.async_client() as client:
        report = await client.preflight(pictures)
        made = await client.train(report.dataset_url, name="my-dress", epochs=2)
        training = await client.training(made.id)
        await training.wait()
        paths = await training.download(tmp_path / "made")
        assert [loss.step for loss in await training.losses()] == list(range(1, 9))
        await client.delete_model("my-dress")
        again = await (await client.train(pictures, name="my-dress")).cancel(keep=True)
    assert [path.name for path in paths] == ["my-dress.safetensors", "sample_8_0.jpg"]
    assert again.status == "cancelled"
    assert len(unpacked(server)) == 6


# --- the public face


@pytest.mark.parametrize("kind", [Training, AsyncTraining])
def test_every_public_method_has_an_example(kind: type) -> None:
    lacking = [
        name
        for name, value in vars(kind).items()
        if not name.startswith("_") and inspect.isfunction(value) and ">>>" not in value.__doc__
    ]
    assert lacking == []


def test_both_halves_have_the_same_methods() -> None:
    def names(kind: type) -> set[str]:
        return {name for name in vars(kind) if not name.startswith("_")}

    assert names(Training) == names(AsyncTraining)


def examples() -> list[doctest.DocTest]:
    found = doctest.DocTestFinder().find(imageloom.client._training_sync, "training")
    return [each for each in found if each.examples]


@pytest.mark.parametrize("example", examples(), ids=lambda example: example.name)
def test_example_of_the_documentation_runs(
    server: FakeServer, pictures: Path, tmp_path: Path, example: doctest.DocTest
) -> None:
    example.globs |= {"client": server.client(), "folder": tmp_path / "made", "pictures": pictures}
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example, out=report.append)
    assert result.failed == 0, "".join(report)
