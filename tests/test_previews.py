"""Previews: what a row may become, cheap, while it is made; and the picture stays as it is."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest
from PIL import Image

from imageloom.domain.catalog import BUILTIN
from imageloom.domain.schedulers import schedulers_of
from imageloom.images import Picture

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

from imageloom.runtime.denoiser import Denoiser, load_drawing  # noqa: E402
from imageloom.runtime.folders import describe_folder  # noqa: E402
from imageloom.runtime.previews import ColourMap  # noqa: E402
from imageloom.runtime.torch_device import choose_device  # noqa: E402
from test_runtime import work  # noqa: E402
from test_training_flux import random_flux  # noqa: E402

if TYPE_CHECKING:
    from conftest import Live

TINY = next(model for model in BUILTIN if model.name == "imageloom-tiny")


@pytest.fixture(scope="module")
def tiny() -> Denoiser:
    drawing = load_drawing(TINY, choose_device("cpu", threads=1))
    assert isinstance(drawing, Denoiser)
    return drawing


def small(picture: Picture, side: int) -> Any:
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    reduced = image.resize((side, side), Image.Resampling.BOX)
    return torch.frombuffer(bytearray(reduced.tobytes()), dtype=torch.uint8).float() / 255


@pytest.mark.parametrize("scheduler", schedulers_of("sdxl"))
def test_previews_come_near_the_picture_and_leave_it_as_it_is(
    tiny: Denoiser, scheduler: str
) -> None:
    asked = msgspec.structs.replace(work(prompt="a red dress"), steps=8, scheduler=scheduler)
    pictures, distances = [], []
    for every in (None, 3):
        (row,) = tiny.begin(msgspec.structs.replace(asked, preview_every=every), [])
        previews = []
        while not row.done:
            tiny.step([row])
            if (preview := tiny.preview(row)) is not None:
                previews.append((row.position, preview))
        assert tiny.preview(row) is None
        pictures.append(tiny.finish(row))
        steps = len(row.timesteps)
        assert [step for step, _ in previews] == [
            step for step in range(1, steps) if every is not None and step % every == 0
        ]
    assert pictures[0] == pictures[1]
    distances = [
        float((small(preview, 16) - small(pictures[0], 16)).abs().mean()) for _, preview in previews
    ]
    # A map of four channels to colours is 0.08 to 0.10 off by itself.
    assert distances[-1] < 0.16
    assert distances[-1] <= distances[0] + 0.01


def test_a_flow_is_previewed_from_packed_latents(tmp_path: Path) -> None:
    random_flux(distilled=False).save_pretrained(tmp_path, safe_serialization=True)
    model = describe_folder(tmp_path, name="mine")
    drawing = load_drawing(model, choose_device("cpu", threads=1))
    assert isinstance(drawing, Denoiser)
    asked = msgspec.structs.replace(
        work(), model=model, width=64, height=128, steps=4, preview_every=1
    )
    (row,) = drawing.begin(asked, [])
    drawing.step([row])
    preview = drawing.preview(row)
    assert preview is not None
    assert preview.height == 2 * preview.width


def test_a_linear_autoencoder_is_matched_exactly() -> None:
    mixing = torch.tensor([[0.2, 0.0, 0.1], [0.0, 0.2, 0.0], [0.1, 0.0, 0.2], [0.0, 0.1, 0.1]])

    def decode(latents: Any, size: tuple[int, int]) -> Picture:
        colours = torch.einsum("bchw,cd->bhwd", latents, mixing) * 0.3 + 0.5
        image = (colours[0].clamp(0, 1) * 255).round().to(torch.uint8)
        pixels = image.repeat_interleave(8, 0).repeat_interleave(8, 1)
        return Picture(width=size[0], height=size[1], rgb=pixels.numpy().tobytes())

    latents = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    colours = ColourMap.fitted(decode, like=latents, factor=8)
    shown = colours.picture(latents)
    meant = decode(latents, (64, 64))
    assert float((small(shown, 8) - small(meant, 8)).abs().max()) <= 2 / 255


def test_a_running_task_shows_previews_and_a_completed_one_its_pictures(live: Live) -> None:
    body = {
        "prompt": "a green hat",
        "steps": 60,
        "num_outputs": 2,
        "seed": 3,
        "preview_every": 1,
        "output_format": "png",
    }
    with live.client() as client:
        created = client.post("/tasks/generation", json=body).raise_for_status().json()
        seen: dict[int, dict[str, Any]] = {}
        bytes_of: dict[int, bytes] = {}
        task = created
        while task["status"] in ("pending", "running"):
            for preview in task["previews"] or ():
                if preview["index"] not in seen:
                    answer = httpx.get(preview["url"])
                    if answer.status_code == 200:  # else a newer one has taken its place
                        seen[preview["index"]] = preview
                        bytes_of[preview["index"]] = answer.content
            task = client.get(f"/tasks/{created['id']}").json()
        assert (task["status"], task["previews"]) == ("completed", None)
        assert seen.keys() == {0, 1}
        for index, preview in seen.items():
            image = Image.open(io.BytesIO(bytes_of[index]))
            assert image.format == "JPEG"
            assert image.size == (preview["width"], preview["height"]) == (256, 256)
            assert 1 <= preview["step"] < preview["steps"] == 60
            assert httpx.get(preview["url"]).status_code == 410
        del body["preview_every"]
        again = client.post("/tasks/generation", json=body).json()
    plain = live.wait_task(again["id"], "completed", "failed")
    pictures = [
        [httpx.get(image["url"]).content for image in each["output"]["images"]]
        for each in (task, plain)
    ]
    assert pictures[0] == pictures[1]
    folder = live.data_dir / "storage" / "outputs" / created["id"]
    assert sorted(path.name for path in folder.rglob("*.*")) == ["0.png", "1.png"]
