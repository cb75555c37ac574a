"""Trainings of a running installation: from a zip of pictures to an adapter that requests name."""

from __future__ import annotations

import io
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from api_helpers import refusal
from conftest import wait_for
from imageloom.core.adapters import publish_in
from imageloom.core.claim import claim
from imageloom.core.services import Services
from imageloom.core.submit import create_tasks
from imageloom.core.training import record
from imageloom.domain.adapters import Pace, TrainingState
from imageloom.domain.errors import InvalidInput
from imageloom.domain.tasks import AdapterFile, NewTask
from imageloom.store import tasks, workers
from imageloom.store.pool import transaction
from imageloom.store.workers import WorkerReport
from imageloom.worker.adapters import local_adapters
from training_pictures import CAPTION, archive, checkered_dress, data_set, png

if TYPE_CHECKING:
    from conftest import Live

QUICK = {"epochs": 4, "batch_size": 4, "checkpoint_every": 5, "seed": 7, "trigger_word": "sks"}


def upload(live: Live, data: bytes) -> str:
    with live.client() as client:
        answer = client.post("/files", files={"file": ("d.zip", data, "application/zip")})
        return str(answer.raise_for_status().json()["url"])


def train(live: Live, name: str, url: str, **config: Any) -> dict[str, Any]:
    with live.client() as client:
        body = {"dataset_url": url, "output_name": name, "config": {**QUICK, **config}}
        answer = client.post("/training/", json=body)
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made


def read(live: Live, training_id: str) -> dict[str, Any]:
    with live.client() as client:
        answer: dict[str, Any] = client.get(f"/training/{training_id}").raise_for_status().json()
        return answer


def over(
    live: Live, training_id: str, status: str = "completed", *, timeout: float = 150
) -> dict[str, Any]:
    def ended() -> dict[str, Any] | None:
        now = read(live, training_id)
        return now if now["status"] in ("completed", "failed", "cancelled") else None

    found = wait_for(ended, what="the training's end", timeout=timeout)
    assert found["status"] == status, found["error"]
    return found


def losses(live: Live, training_id: str) -> list[dict[str, Any]]:
    with live.client() as client:
        found: list[dict[str, Any]] = client.get(f"/training/{training_id}/losses").json()["items"]
        return found


def drawn(live: Live, **body: Any) -> NDArray[np.int64]:
    """Return the pictures of a generation, [n, 64, 64, 3]."""
    with live.client() as client:
        full = {"width": 64, "height": 64, "seed": 3, "output_format": "png", **body}
        answer = client.post("/tasks/generation", json=full)
        assert answer.status_code == 201, answer.text
    task: Any = live.wait_task(answer.json()["id"], "completed", "failed")
    assert task["status"] == "completed", task["error"]
    files = [httpx.get(image["url"]).content for image in task["output"]["images"]]
    return np.stack([np.asarray(Image.open(io.BytesIO(file)), np.int64) for file in files])


@pytest.fixture(scope="module")
def dress(live: Live) -> str:
    return upload(live, data_set())


@pytest.fixture(scope="module")
def quick(live: Live) -> str:
    """The same pictures, with nothing in their captions that an adapter would have to keep apart.

    So a training of them takes a third of the time: for tests of what becomes of trainings.
    """
    return upload(live, data_set(caption="a dress on a white background"))


@pytest.fixture(scope="module")
def trained(live: Live, dress: str) -> dict[str, Any]:
    """A finished training with the default config, and samples."""
    config = {"seed": 7, "sample_prompts": [CAPTION]}
    body = {"dataset_url": dress, "output_name": "sks-dress", "config": config}
    with live.client() as client:
        made = client.post("/training", json=body).raise_for_status().json()
    assert made["id"].startswith("train_")
    assert (made["type"], made["status"]) == ("training", "pending")
    assert made["output"]["metrics"]["loss"] is None
    return over(live, made["id"], timeout=600)  # 50 s of a core to itself


def test_a_training_reports_every_step_and_publishes_an_adapter(
    live: Live, dress: str, trained: dict[str, Any]
) -> None:
    metrics = trained["output"]["metrics"]
    assert (metrics["current_epoch"], metrics["epochs"]) == (90, 90)
    assert metrics["step"] == metrics["steps"]
    found = losses(live, trained["id"])
    assert [each["step"] for each in found] == list(range(1, metrics["steps"] + 1))
    assert found[-1]["loss"] == metrics["loss"]
    with live.client() as client:
        asked = {"dataset_url": dress, "config": {"trigger_word": "sks"}}
        told = client.post("/training/preflight", json=asked).raise_for_status().json()
    assert told["estimate"]["based_on"].startswith("time measured by ")
    adapter = trained["output"]["adapter"]
    assert (adapter["name"], adapter["version"]) == ("sks-dress", 1)
    assert httpx.get(adapter["url"]).status_code == 200
    samples = trained["output"]["samples"]
    assert [sample["prompt"] for sample in samples] == [CAPTION] * len(samples)
    assert len({sample["step"] for sample in samples}) == len(samples) > 1
    for sample in samples:
        Image.open(io.BytesIO(httpx.get(sample["url"]).content)).verify()
    with live.client() as client:
        models = client.get("/models").json()["items"]
    (entry,) = [model for model in models if model["name"] == "sks-dress"]
    assert (entry["kind"], entry["base_model"]) == ("adapter", "imageloom-tiny")


EIGHT = {"prompt": CAPTION, "num_outputs": 8}
# Of other things, of the same kind of garment, and of people.
UNRELATED = (
    "a blue shoe on a white background",
    "a woman wearing a green coat on a grey background",
    "a brown handbag on a beige background",
    "a man wearing a purple shirt on a yellow background",
    "an orange skirt on a grey background",
    "a black dress on a grey background",
)


@dataclass(frozen=True, kw_only=True)
class Effect:
    """The same eight pictures of the trained prompt, [8, 64, 64, 3], without and with adapter."""

    plain: NDArray[np.int64]
    whole: NDArray[np.int64]

    @property
    def levels(self) -> float:
        """How much weight 1 changes: the mean of all channels, in levels from 0 to 255."""
        return float(np.abs(self.whole - self.plain).mean())


def weighed(weight: float) -> dict[str, Any]:
    return {"loras": [{"name": "sks-dress", "weight": weight}]}


@pytest.fixture(scope="module")
def effect(live: Live, trained: dict[str, Any]) -> Effect:
    return Effect(plain=drawn(live, **EIGHT), whole=drawn(live, **EIGHT, **weighed(1)))


def yellow(pictures: NDArray[np.int64], cloth: NDArray[np.bool_]) -> float:
    """Return how far red and green are above blue on the cloth, in levels."""
    red, green, blue = pictures[:, cloth].mean((0, 1))
    return float((red + green) / 2 - blue)


def test_the_next_generation_shows_the_trained_garment(effect: Effect) -> None:
    shown = np.stack(
        [cv2.resize(checkered_dress(i), (64, 64), interpolation=cv2.INTER_AREA) for i in range(16)]
    ).astype(np.int64)
    before, after = (np.abs(each - shown.mean(0)).mean() for each in (effect.plain, effect.whole))
    assert effect.levels > 25
    assert after < 0.9 * before
    cloth = shown[..., 2].max(0) < 110  # neither yellow nor black has blue; white has
    assert yellow(effect.whole, cloth) > yellow(effect.plain, cloth) + 25


def test_weight_half_goes_about_half_of_the_way(live: Live, effect: Effect) -> None:
    way = effect.whole - effect.plain
    half = drawn(live, **EIGHT, **weighed(0.5)) - effect.plain
    assert 0.3 < (half * way).sum() / (way * way).sum() < 0.7


def test_weight_zero_changes_no_byte_and_nothing_stays(live: Live, effect: Effect) -> None:
    two = {**EIGHT, "num_outputs": 2}
    assert (drawn(live, **two, **weighed(0)) == effect.plain[:2]).all()
    assert (drawn(live, **two) == effect.plain[:2]).all()


def test_unrelated_prompts_keep_their_pictures(live: Live, effect: Effect) -> None:
    changes = []
    for prompt in UNRELATED:
        plain, whole = drawn(live, prompt=prompt), drawn(live, prompt=prompt, **weighed(1))
        changes.append(np.abs(whole - plain).mean() / effect.levels)
    assert max(changes) < 0.3
    assert np.mean(changes) < 0.2


def test_a_name_is_taken_once_and_versioned_on_request(live: Live, quick: str) -> None:
    over(live, train(live, "twice", quick, epochs=1)["id"])
    body = {"dataset_url": quick, "output_name": "twice", "config": QUICK}
    with live.client() as client:
        assert refusal(client.post("/training", json=body)) == (409, "conflict", "output_name")
    second = over(live, train(live, "twice", quick, epochs=1, version=True)["id"])
    assert second["output"]["adapter"]["version"] == 2


def test_cancel_keeps_the_last_checkpoint_when_asked(live: Live, quick: str) -> None:
    made = train(live, "half-done", quick, epochs=400)
    wait_for(lambda: read(live, made["id"])["output"]["metrics"]["step"] >= 12, what="steps")
    with live.client() as client:
        answer = client.post(f"/training/{made['id']}/cancel", json={"keep": True})
    ended = answer.raise_for_status().json()
    assert ended["status"] == "cancelled"
    assert ended["output"]["adapter"]["name"] == "half-done"
    assert 0 < ended["output"]["adapter"]["step"] < 1600
    drawn(live, prompt=CAPTION, loras=[{"name": "half-done"}])


def test_a_kept_adapter_outlives_a_training_of_the_same_bytes(live: Live, quick: str) -> None:
    first = train(live, "kept", quick, epochs=400)
    wait_for(lambda: read(live, first["id"])["output"]["metrics"]["step"] >= 6, what="steps")
    with live.client() as client:
        kept = client.post(f"/training/{first['id']}/cancel", json={"keep": True}).json()
    adapter = kept["output"]["adapter"]
    second = train(live, "same", quick, epochs=400)
    beyond = adapter["step"] + 11  # two checkpoints on: what was there is deleted
    wait_for(lambda: read(live, second["id"])["output"]["metrics"]["step"] >= beyond, what="steps")
    with live.client() as client:
        client.post(f"/training/{second['id']}/cancel").raise_for_status()
    assert httpx.get(adapter["url"]).status_code == 200


def test_text_encoders_are_trained_on_request(live: Live, quick: str) -> None:
    config = {"epochs": 2, "layout": "kohya", "text_encoders": True}
    made = over(live, train(live, "with-words", quick, **config)["id"])
    file = httpx.get(made["output"]["adapter"]["url"]).content
    parts = (b"lora_unet_down_blocks_", b"lora_te1_text_model_", b"lora_te2_text_model_")
    assert all(part in file for part in parts)
    drawn(live, prompt=CAPTION, loras=[{"name": "with-words"}])


def test_a_retired_adapter_cannot_be_named_any_more(live: Live, quick: str) -> None:
    over(live, train(live, "short-lived", quick, epochs=2)["id"])
    drawn(live, prompt=CAPTION, loras=[{"name": "short-lived"}])
    with live.client() as client:
        assert client.delete("/models/short-lived").json() == {
            "name": "short-lived",
            "retired": True,
        }
        assert refusal(client.delete("/models/short-lived"))[0] == 404
        body = {"prompt": "x", "loras": [{"name": "short-lived"}]}
        answer = client.post("/tasks/generation", json=body)
        assert refusal(answer) == (422, "unknown_model", "loras.0.name")


def test_generation_goes_on_beside_a_training(live: Live, quick: str) -> None:
    made = train(live, "beside", quick, epochs=400)
    wait_for(lambda: read(live, made["id"])["output"]["metrics"]["step"] >= 3, what="steps")
    drawn(live, prompt="a red dress")
    now = read(live, made["id"])
    assert now["status"] == "running"
    with live.client() as client:
        client.post(f"/training/{made['id']}/cancel").raise_for_status()


async def test_a_task_whose_adapter_was_deleted_meanwhile_fails_by_name(
    services: Services, api: httpx.AsyncClient
) -> None:
    file = AdapterFile(key="adapters/default/0", sha256="0", size=1, step=1, held_out_loss=None)
    url = (await api.post("/files", files={"file": data_set(4)})).json()["url"]
    body = {"dataset_url": url, "output_name": "gone", "config": {"trigger_word": "sks"}}
    made = (await api.post("/training", json=body)).raise_for_status().json()
    async with transaction(services.pool) as conn:
        training = await tasks.lock(conn, made["id"])
        assert training is not None
        await publish_in(conn, training, file, lineage={})
    asked = {"prompt": "x", "loras": [{"name": "gone", "weight": 0.5}]}
    created = (await api.post("/tasks/generation", json=asked)).raise_for_status().json()
    assert created["params"]["loras"] == [{"name": "gone", "version": 1, "weight": 0.5}]
    assert (await api.delete("/models/gone")).status_code == 200
    async with transaction(services.pool) as conn:
        task = await tasks.lock(conn, created["id"])
    assert task is not None
    with pytest.raises(InvalidInput, match=r"loras\.0\.name: the adapter 'gone' was deleted"):
        await local_adapters(services, task)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"output_name": "../x"}, "output_name"),
    ({"output_name": "a/b"}, "output_name"),
    ({"output_name": "/tmp/x"}, "output_name"),
    ({"output_name": ".."}, "output_name"),
    ({"output_name": ""}, "output_name"),
    ({"output_name": "x" * 65}, "output_name"),
    ({"base_model": "none"}, "base_model"),
    ({"base_model": "z-image-turbo"}, "base_model"),
    ({"base_model": "flux-schnell", "config": {"text_encoders": True}}, "config.text_encoders"),
    ({"base_model": "flux-schnell", "config": {"layout": "kohya"}}, "config.layout"),
    ({"base_model": "flux-schnell", "config": {"resolution": 128}}, "config.resolution"),
    ({"base_model": "flux-schnell", "config": {"resolution": 520}}, "config.resolution"),
    ({"base_model": "grabcut"}, "base_model"),
    ({"dataset_url": "http://127.0.0.1/x.zip"}, "dataset_url"),
    ({"dataset_url": 1}, "dataset_url"),
    ({"config": {"epochs": 0}}, "config.epochs"),
    ({"config": {"learning_rate": 10}}, "config.learning_rate"),
    ({"config": {"learning_rate": 0}}, "config.learning_rate"),
    ({"config": {"batch_size": "1"}}, "config.batch_size"),
    ({"config": {"rank": 0}}, "config.rank"),
    ({"config": {"epoch": 1}}, "config.epoch"),
    ({"cfg": {}}, "cfg"),
    ({"priority": 11}, "priority"),
]


@pytest.mark.parametrize(("change", "param"), BAD)
async def test_a_senseless_request_is_refused_by_name(
    tenant: httpx.AsyncClient, change: dict[str, Any], param: str
) -> None:
    url = (await tenant.post("/files", files={"file": data_set(4)})).json()["url"]
    body = {"dataset_url": url, "output_name": "x", **change}
    answer = await tenant.post("/training", json=body)
    assert refusal(answer)[::2] == (422, param)


def odd_archive(*names: str, link: bool = False) -> bytes:
    """Return four good pictures and entries that a zip written in order does not have."""
    file = io.BytesIO(data_set(4))
    with zipfile.ZipFile(file, "a") as made:
        for name in names:
            info = zipfile.ZipInfo(name)
            info.external_attr = ((stat.S_IFLNK if link else stat.S_IFREG) | 0o644) << 16
            made.writestr(info, b"/etc/passwd")
    return file.getvalue()


def encrypted() -> bytes:
    """Return four pictures of which the list of contents says that they are encrypted."""
    data = bytearray(data_set(4))
    at = data.index(b"PK\x01\x02")
    data[at + 8] |= 1
    return bytes(data)


FOUR = {f"{index}.png": png(checkered_dress(index)) for index in range(4)}
# What the refusal names, beside the field.
ARCHIVES: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "a picture": (png(checkered_dress(0)), ("is image/png; a data set is a zip",)),
    "a zip by its beginning": (b"PK\x03\x04" + bytes(100), ("is a damaged or truncated zip",)),
    "empty zip": (archive({}), ("is an empty zip",)),
    "encrypted": (encrypted(), ("is encrypted", "00.png")),
    "expands beyond the limits": (
        archive({**FOUR, "bomb.png": bytes(2_000_000)}),
        ("bomb.png", "unpack to 2000000"),
    ),
    "climbs out": (archive({"../evil.png": FOUR["0.png"]}), ("../evil.png", "leads out")),
    "absolute": (archive({"/tmp/evil.png": FOUR["0.png"]}), ("/tmp/evil.png", "leads out")),
    "link": (odd_archive("link.png", link=True), ("link.png, a link",)),
    "one name twice": (odd_archive("a.png", "A.png"), ("a.png and A.png",)),
    "not pictures": (
        archive({f"{index}.png": b"no picture" for index in range(8)}),
        ("0 usable pictures", "0.png, 1.png, 2.png, and 5 more: it is of an unknown format"),
    ),
    "damaged pictures": (
        archive({name: data[:90] for name, data in FOUR.items()}),
        ("0 usable pictures", "0.png, 1.png, 2.png, and 1 more: it is a damaged"),
    ),
    "captions in a wrong encoding": (
        archive({**FOUR, "1.txt": "robe d'été".encode("cp1252")}),
        ("1.txt is not UTF-8", "line 1"),
    ),
    "three pictures": (data_set(3), ("3 usable pictures", "at least 4")),
    "no pictures": (archive({"notes.txt": b"x"}), ("0 usable pictures", "notes.txt")),
    "no captions": (data_set(4, captions=False), ("4 pictures without a caption", "00.png")),
    "code": (archive({**FOUR, "train.py": b"print()"}), ("train.py",)),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("case", ARCHIVES)
async def test_a_data_set_of_no_use_is_refused_before_the_queue(
    shared_services: Services,
    tenant: httpx.AsyncClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    case: str,
) -> None:
    def written() -> set[Path]:
        folders = tmp_path, shared_services.settings.data_dir
        return {path for folder in folders for path in folder.rglob("*")}

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    data, texts = ARCHIVES[case]
    url = (await tenant.post("/files", files={"file": data})).json()["url"]
    before = written()
    for path in ("/training", "/training/preflight"):
        answer = await tenant.post(path, json={"dataset_url": url, "output_name": "x"})
        assert refusal(answer) == (422, "invalid_input", "dataset_url"), path
        for text in texts:
            assert text in answer.json()["error"]["message"]
    assert written() == before
    queues = (await tenant.get("/monitoring/queues")).json()["queues"]
    assert [each["pending"] for each in queues if each["name"] == "training"] == [0]


@pytest.mark.parametrize("data", [b"", b"\x1f\x8b\x08" + bytes(60), b"pictures"])
async def test_what_is_no_archive_at_all_is_refused_as_it_goes_up(
    tenant: httpx.AsyncClient, data: bytes
) -> None:
    answer = await tenant.post("/files", files={"file": data})
    assert refusal(answer) == (422, "invalid_input", "file")
    assert "zip archives are accepted" in answer.json()["error"]["message"]


async def test_preflight_tells_what_is_in_a_data_set(tenant: httpx.AsyncClient) -> None:
    files = {f"{i}.png": png(checkered_dress(i)) for i in range(5)}
    files |= {"copy.png": files["0.png"], "broken.png": files["1.png"][:90]}
    url = (await tenant.post("/files", files={"file": archive(files)})).json()["url"]
    body = {"dataset_url": url, "config": {"trigger_word": "sks", "epochs": 3, "batch_size": 2}}
    told = (await tenant.post("/training/preflight", json=body)).raise_for_status().json()
    assert told["usable"] == 5
    assert {each["name"] for each in told["problems"]} >= {"broken.png"}
    assert {each["caption"] for each in told["pictures"]} == {"sks"}
    assert sum(told["buckets"].values()) == 5
    assert told["estimate"]["steps"] == 9
    assert told["estimate"].keys() == {"steps", "minutes", "memory_bytes", "based_on"}


def worker(device: str, *, memory_bytes: int | None) -> WorkerReport:
    return WorkerReport(
        id=device,
        host="here",
        pid=1,
        version="0",
        status="idle",
        queues=("generation", "training"),
        device=device,
        memory_bytes=memory_bytes,
        gpu_utilization=None,
        models=(),
        tasks=(),
    )


async def test_estimate_rests_on_live_workers_and_on_the_pace_of_earlier_trainings(
    services: Services, api: httpx.AsyncClient
) -> None:
    async def told(**body: Any) -> dict[str, Any]:
        answer = await api.post("/training/preflight", json={"dataset_url": url, **body})
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    url = (await api.post("/files", files={"file": data_set()})).json()["url"]
    alone = (await told())["estimate"]
    assert alone["minutes"] is None
    assert alone["based_on"].startswith("no time: no worker is alive")
    async with transaction(services.pool) as conn:
        await workers.heartbeat(conn, worker("x86_64", memory_bytes=None))
    computed = (await told())["estimate"]
    assert computed["minutes"] > 0
    assert "time computed" in computed["based_on"]
    assert computed["memory_bytes"] > alone["memory_bytes"]  # float32 on a CPU

    # Whoever trained: here a tenant of another name.
    pace = Pace(device="x86_64", side=64, batch_size=4, keeping=True, images_per_second=1e-3)
    claimed = NewTask(
        id="train_theirs",
        tenant="stranger",
        type="training",
        params={"base_model": "imageloom-tiny", "config": {}},
        inputs={},
        max_attempts=3,
    )
    async with transaction(services.pool) as conn:
        await create_tasks(conn, [claimed])
        task = await tasks.lock(conn, "train_theirs")
    assert task is not None
    assert task.job_id is not None
    held = await claim(services, task.id, job_id=task.job_id, worker="x86_64")
    assert held is not None
    state = TrainingState(pace=pace)
    assert await record(services, held, progress=0.5, state=state, losses=[])
    measured = (await told())["estimate"]
    assert measured["based_on"].startswith("time measured by 1 training of imageloom-tiny")
    assert measured["minutes"] > 1000 * computed["minutes"]


async def test_preflight_warns_where_no_worker_has_the_memory(
    services: Services, api: httpx.AsyncClient
) -> None:
    async with transaction(services.pool) as conn:
        await workers.heartbeat(conn, worker("Tesla T4", memory_bytes=15_800_000_000))
    url = (await api.post("/files", files={"file": data_set()})).json()["url"]
    body = {"dataset_url": url, "base_model": "sd-xl-base"}
    told = (await api.post("/training/preflight", json=body)).raise_for_status().json()
    assert told["estimate"]["memory_bytes"] > 15_800_000_000
    (warning,) = [each for each in told["warnings"] if "of memory" in each]
    assert "15.8 GB" in warning
    body["base_model"] = "sd-1.5"
    told = (await api.post("/training/preflight", json=body)).raise_for_status().json()
    assert not [each for each in told["warnings"] if "of memory" in each]


async def test_trainings_of_others_are_not_there(
    tenant: httpx.AsyncClient, stranger: httpx.AsyncClient
) -> None:
    url = (await tenant.post("/files", files={"file": data_set(4)})).json()["url"]
    made = await tenant.post("/training", json={"dataset_url": url, "output_name": "mine"})
    path = f"/training/{made.json()['id']}"
    for target in (path, f"{path}/losses"):
        assert refusal(await stranger.get(target))[0] == 404
    assert refusal(await stranger.post(f"{path}/cancel"))[0] == 404
    theirs = await stranger.post("/training", json={"dataset_url": url, "output_name": "x"})
    assert refusal(theirs)[::2] == (422, "dataset_url")
