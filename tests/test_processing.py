"""Processing tasks: what may be asked, and what comes out of a running installation."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import numpy as np
import pytest
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from skimage import data as photographs

from api_helpers import refusal
from conftest import wait_for
from imageloom.domain.catalog import BUILTIN, Model
from imageloom.domain.errors import InvalidInput, InvalidParams, UnknownModel
from imageloom.domain.work import ProcessingWork
from imageloom.images import Picture
from imageloom.settings import Limits
from imageloom.task_types.processing.spec import Processing
from product_drawings import draw, dress, mug, pale_grey, shoe, white
from tiny_models import brightness_graph, compact_weights, segmenter, swin2sr

if TYPE_CHECKING:
    from conftest import Live

URL = "https://example.com/dress.jpg"
MODELS = {model.name: model for model in BUILTIN}
TYPE = Processing()


def prepared(body: dict[str, Any], *, limits: Limits | None = None) -> dict[str, Any]:
    params = TYPE.parse({"input_image_url": URL, **body})
    defaults = {"base": "imageloom-tiny", "upscaler": "lanczos", "segmenter": "grabcut"}
    name = TYPE.model_name(params, defaults=defaults)  # type: ignore[arg-type]
    model = None if name is None else MODELS[name]
    return TYPE.prepare(params, model=model, limits=limits or Limits())


# What may be asked


BAD: list[tuple[dict[str, Any], str]] = [
    ({}, "operation"),
    ({"operation": None}, "operation"),
    ({"operation": 1}, "operation"),
    ({"operation": ["crop"]}, "operation"),
    ({"operation": "rotate"}, "operation"),
    ({"operation": "upscale", "scale": 3}, "scale"),
    ({"operation": "upscale", "scale": 64}, "scale"),
    ({"operation": "upscale", "scale": "2"}, "scale"),
    ({"operation": "upscale", "scale": 2.5}, "scale"),
    ({"operation": "upscale", "scale": True}, "scale"),
    ({"operation": "upscale", "num_output": 1}, "num_output"),
    ({"operation": "upscale", "input_image_url": None}, "input_image_url"),
    ({"operation": "upscale", "input_image_urls": [URL]}, "input_image_url"),
    ({"operation": "upscale", "input_image_url": None, "input_image_urls": []}, "input_image_urls"),
    (
        {"operation": "upscale", "input_image_url": None, "input_image_urls": [URL] * 17},
        "input_image_urls",
    ),
    ({"operation": "upscale", "output_format": "gif"}, "output_format"),
    ({"operation": "remove-background", "scale": 2}, "scale"),
    ({"operation": "replace-background"}, "background_color"),
    ({"operation": "replace-background", "background_color": "reddish"}, "background_color"),
    (
        {
            "operation": "replace-background",
            "background_color": "red",
            "background_image_url": URL,
        },
        "background_color",
    ),
    ({"operation": "resize"}, "width"),
    ({"operation": "resize", "width": 0}, "width"),
    ({"operation": "resize", "width": 16_385}, "width"),
    ({"operation": "resize", "width": 16_384, "height": 16_384}, "width"),
    ({"operation": "resize", "width": 10, "fit": "cover"}, "fit"),
    ({"operation": "resize", "width": 10, "fit": "squeeze"}, "fit"),
    ({"operation": "resize", "width": 10, "background_color": "red"}, "background_color"),
    ({"operation": "crop"}, "width"),
    ({"operation": "crop", "width": 10}, "width"),
    ({"operation": "crop", "width": 10, "height": 10, "left": -1}, "left"),
    ({"operation": "crop", "width": 10, "height": 10, "aspect_ratio": "1:1"}, "aspect_ratio"),
    ({"operation": "crop", "aspect_ratio": "0:1"}, "aspect_ratio"),
    ({"operation": "crop", "aspect_ratio": "square"}, "aspect_ratio"),
    ({"operation": "crop", "width": 10, "height": 10, "gravity": "top"}, "gravity"),
    ({"operation": "convert"}, "output_format"),
    ({"operation": "convert", "output_format": "jpeg", "quality": 0}, "quality"),
    ({"operation": "convert", "output_format": "jpeg", "quality": 101}, "quality"),
    ({"operation": "adjust"}, "brightness"),
    ({"operation": "adjust", "brightness": -0.1}, "brightness"),
    ({"operation": "adjust", "contrast": 4.1}, "contrast"),
    ({"operation": "adjust", "saturation": float("nan")}, "saturation"),
    ({"operation": "adjust", "sharpness": "1"}, "sharpness"),
]


@pytest.mark.parametrize(("body", "param"), BAD)
def test_a_senseless_request_is_refused_by_name(body: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidParams) as caught:
        prepared(body)
    assert caught.value.param == param
    assert caught.value.message.startswith(f"{param}: ")


@pytest.mark.parametrize(
    ("operation", "model"), [("upscale", "grabcut"), ("remove-background", "imageloom-tiny")]
)
def test_a_model_for_something_else_is_refused(operation: str, model: str) -> None:
    with pytest.raises(UnknownModel, match=model) as caught:
        prepared({"operation": operation, "model": model})
    assert caught.value.param == "model"


def work_for(params: dict[str, Any], picture: Picture) -> ProcessingWork:
    work = TYPE.build_work(
        params,
        model=MODELS.get(params.get("model") or ""),
        inputs={"input_image_url": picture},
        limits=Limits(output_pixels=10_000),
    )
    return msgspec.msgpack.decode(work.message, type=ProcessingWork)


def blank(width: int, height: int) -> Picture:
    return Picture(width=width, height=height, rgb=bytes(3 * width * height))


@pytest.mark.parametrize(
    ("body", "param", "fits"),
    [
        ({"operation": "upscale", "scale": 4}, "scale", (25, 25)),
        ({"operation": "resize", "width": 200}, "width", (80, 20)),
        ({"operation": "resize", "height": 200}, "height", (20, 80)),
    ],
)
def test_what_would_become_too_large_is_refused_before_it_is_made(
    body: dict[str, Any], param: str, fits: tuple[int, int]
) -> None:
    with pytest.raises(InvalidInput, match="megapixels") as caught:
        work_for(prepared(body), blank(60, 50))
    assert caught.value.param == param
    assert work_for(prepared(body), blank(*fits)).image.width == fits[0]


def test_the_background_crosses_the_pipe_at_the_size_of_the_picture() -> None:
    params = prepared({"operation": "replace-background", "background_image_url": URL})
    work = TYPE.build_work(
        params,
        model=MODELS["grabcut"],
        inputs={"input_image_url": blank(20, 10), "background_image_url": blank(300, 300)},
        limits=Limits(),
    )
    background = msgspec.msgpack.decode(work.message, type=ProcessingWork).background
    assert background is not None
    assert (background.width, background.height) == (20, 10)


async def test_post_tasks_takes_processing_too(tenant: httpx.AsyncClient) -> None:
    body = {"type": "processing", "operation": "upscale", "input_image_url": URL}
    answer = await tenant.post("/tasks", json=body)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["type"], answer.json()["params"]["scale"]) == ("processing", 2)
    assert answer.json()["params"]["model"] == "lanczos"
    answer = await tenant.post("/tasks/processing/", json={"operation": "rotate"})
    assert refusal(answer) == (422, "invalid_params", "operation")


# What comes out, of a running installation


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def shirt(size: tuple[int, int] = (61, 47), ground: Any = "white") -> Image.Image:
    """A blue disc before an even ground."""
    image = Image.new("RGB", size, ground)
    ImageDraw.Draw(image).ellipse(
        (size[0] // 4, size[1] // 4, size[0] * 3 // 4, size[1] * 3 // 4), fill=(20, 60, 160)
    )
    return image


def sources() -> dict[str, tuple[bytes, tuple[int, int]]]:
    """Every kind of picture that users send, and its size."""
    image = shirt()
    cut_out = image.convert("RGBA")
    cut_out.putalpha(Image.fromarray(np.asarray(image.convert("L")) < 200))
    photograph = Image.fromarray(photographs.coffee())
    wide = np.zeros((47, 61), np.uint16)
    wide[10:30, 20:40] = 50_000
    turned = Image.Exif()
    turned[0x0112] = 6
    turned.get_ifd(0x8825)[1] = "N"
    return {
        "jpeg": (saved(image, "JPEG"), (61, 47)),
        "png with alpha": (saved(cut_out, "PNG"), (61, 47)),
        "webp": (saved(image, "WEBP"), (61, 47)),
        "cmyk jpeg": (saved(image.convert("CMYK"), "JPEG"), (61, 47)),
        "16-bit png": (saved(Image.fromarray(wide), "PNG"), (61, 47)),
        "animation": (
            saved(image, "WEBP", save_all=True, append_images=[shirt(ground="red")]),
            (61, 47),
        ),
        "photograph": (saved(photograph, "JPEG", quality=90), photograph.size),
        "turned, with a place": (saved(image, "JPEG", exif=turned.tobytes()), (47, 61)),
    }


@pytest.fixture(scope="module")
def uploads(live: Live) -> dict[str, tuple[str, tuple[int, int]]]:
    with live.client() as client:
        return {
            name: (client.post("/files", files={"file": data}).json()["url"], size)
            for name, (data, size) in sources().items()
        }


def processed(live: Live, **body: Any) -> list[tuple[dict[str, Any], Image.Image]]:
    """Return each output of a processing task and its picture."""
    with live.client() as client:
        answer = client.post("/tasks/processing", json=body)
        assert answer.status_code == 201, answer.text
    task: Any = live.wait_task(answer.json()["id"], "completed", "failed")
    assert task["status"] == "completed", task["error"]
    pictures = []
    for image in task["output"]["images"]:
        picture = Image.open(io.BytesIO(httpx.get(image["url"]).content))
        assert picture.size == (image["width"], image["height"])
        # Nothing of the source's metadata: no camera, no place, no profile, one frame.
        assert not picture.getexif()
        assert not {"exif", "xmp", "icc_profile", "comment"} & set(picture.info)
        assert getattr(picture, "n_frames", 1) == 1
        picture.load()
        pictures.append((image, picture))
    return pictures


OPERATIONS: dict[str, tuple[dict[str, Any], Any]] = {
    "upscale": ({"scale": 2}, lambda w, h: (2 * w, 2 * h)),
    "upscale 4": ({"operation": "upscale", "scale": 4}, lambda w, h: (4 * w, 4 * h)),
    "remove-background": ({}, lambda w, h: (w, h)),
    "replace-background": ({"background_color": "#ff8800"}, lambda w, h: (w, h)),
    "resize": ({"width": 50, "height": 50, "fit": "pad"}, lambda _w, _h: (50, 50)),
    "crop": ({"left": 5, "top": 6, "width": 30, "height": 31}, lambda _w, _h: (30, 31)),
    "convert": ({"output_format": "webp", "quality": 80}, lambda w, h: (w, h)),
    "adjust": ({"brightness": 1.2, "contrast": 0.9, "saturation": 0}, lambda w, h: (w, h)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation_takes_every_kind_of_picture(
    live: Live, uploads: dict[str, tuple[str, tuple[int, int]]], name: str
) -> None:
    body, size_after = OPERATIONS[name]
    urls = [url for url, _ in uploads.values()]
    found = processed(live, **{"operation": name, "input_image_urls": urls, **body})
    for (kind, (_, size)), (image, picture) in zip(uploads.items(), found, strict=True):
        assert picture.size == size_after(*size), kind
        transparent = picture.mode == "RGBA"
        match name:
            case "remove-background":
                assert transparent or image["confidence"] == 0, kind
                assert picture.format == "PNG" or not transparent
                assert image["method"] == ("alpha" if kind == "png with alpha" else "grabcut")
            case "replace-background":
                assert (picture.format, picture.mode) == ("JPEG", "RGB")
                if kind in ("jpeg", "png with alpha", "webp"):
                    red, green, blue = picture.getpixel((1, 1))  # type: ignore[misc]
                    assert abs(red - 255) + abs(green - 136) + blue < 24, kind
            case "resize":
                assert transparent  # padded, and no colour was given
                assert picture.format == "PNG"
            case "convert":
                assert picture.format == "WEBP"
                assert transparent == (kind == "png with alpha")
            case _:
                assert picture.format == ("PNG" if kind == "png with alpha" else "JPEG"), kind
        assert "seed" not in image


def test_a_picture_that_stood_on_its_side_comes_out_upright(
    live: Live, uploads: dict[str, tuple[str, tuple[int, int]]]
) -> None:
    url = uploads["turned, with a place"][0]
    ((_, picture),) = processed(live, operation="convert", output_format="png", input_image_url=url)
    upright = Image.open(io.BytesIO(sources()["jpeg"][0])).transpose(Image.Transpose.ROTATE_270)
    assert np.abs(np.asarray(picture, int) - np.asarray(upright, int)).max() <= 2


def test_a_subject_can_be_put_before_a_picture(
    live: Live, uploads: dict[str, tuple[str, tuple[int, int]]]
) -> None:
    ((_, picture),) = processed(
        live,
        operation="replace-background",
        input_image_url=uploads["png with alpha"][0],
        background_image_url=uploads["photograph"][0],
        output_format="png",
    )
    assert picture.mode == "RGB"
    pixels = np.asarray(picture, int)
    assert np.abs(pixels[23, 30] - (20, 60, 160)).max() <= 2  # the subject
    background = Image.open(io.BytesIO(sources()["photograph"][0])).resize((71, 47))
    assert np.abs(pixels[2, 2] - np.asarray(background, int)[2, 7]).max() < 60


def test_background_removal_finds_drawn_products_without_any_model(live: Live) -> None:
    drawings = [
        draw(subject, ground, seed=seed)
        for seed, (subject, ground) in enumerate([(mug, white), (shoe, pale_grey), (dress, white)])
    ]
    with live.client() as client:
        urls = [
            client.post(
                "/files", files={"file": saved(Image.fromarray(drawing.rgb), "PNG")}
            ).json()["url"]
            for drawing in drawings
        ]
    found = processed(live, operation="remove-background", input_image_urls=urls)
    scores = []
    for drawing, (image, picture) in zip(drawings, found, strict=True):
        alpha = np.asarray(picture.convert("RGBA").getchannel("A")) >= 128
        both, either = (alpha & drawing.mask).sum(), (alpha | drawing.mask).sum()
        scores.append(both / either)
        assert 0 <= image["confidence"] <= 1
    assert np.mean(scores) >= 0.9


def test_a_box_outside_of_the_picture_is_named(
    live: Live, uploads: dict[str, tuple[str, tuple[int, int]]]
) -> None:
    body = {"operation": "crop", "left": 60, "width": 10, "height": 10}
    with live.client() as client:
        task = client.post(
            "/tasks/processing", json={**body, "input_image_url": uploads["jpeg"][0]}
        ).json()
    failed: Any = live.wait_task(task["id"], "failed", "completed")
    assert failed["error"].startswith("Invalid input: ")
    assert "61 x 47" in failed["error"]
    assert failed["error_detail"]["retryable"] is False
    assert failed["error_detail"]["attempt"] == 1


def test_a_file_that_is_no_picture_fails_by_its_name_in_the_list(
    live: Live, uploads: dict[str, tuple[str, tuple[int, int]]]
) -> None:
    with live.client() as client:
        cut = client.post("/files", files={"file": sources()["jpeg"][0][:200]}).json()["url"]
        body = {"operation": "upscale", "input_image_urls": [uploads["jpeg"][0], cut]}
        task = client.post("/tasks/processing", json=body).json()
    failed: Any = live.wait_task(task["id"], "failed", "completed")
    assert failed["error"].startswith("Invalid input: input_image_urls.1: ")
    assert failed["error_detail"]["param"] == "input_image_urls.1"
    # Nothing of the first picture is left behind.
    folder = live.data_dir / "storage" / "outputs" / str(task["id"])
    wait_for(lambda: not list(folder.rglob("*.*")), what="no outputs of the failed task")


# The user's own weights, through the catalog


def add_model(live: Live, name: str, path: Path) -> None:
    options = ["--path", str(path), "--data-dir", str(live.data_dir), "--json"]
    subprocess.run(
        [sys.executable, "-m", "imageloom.cli.main", "models", "add", name, *options],
        check=True,
        capture_output=True,
        timeout=90,
    )


def test_the_user_s_own_networks_enlarge_to_the_pixel(
    live: Live, uploads: dict[str, tuple[str, tuple[int, int]]], tmp_path: Path
) -> None:
    save_file(compact_weights(scale=4, seed=None), tmp_path / "four.safetensors")
    add_model(live, "four", tmp_path / "four.safetensors")
    swin2sr(tmp_path / "swin")
    add_model(live, "swin", tmp_path / "swin")
    url = uploads["png with alpha"][0]
    for model in ("four", "swin"):
        for scale in (2, 4):
            ((_, picture),) = processed(
                live, operation="upscale", scale=scale, model=model, input_image_url=url
            )
            assert picture.size == (61 * scale, 47 * scale)
            assert picture.mode == "RGBA"
    # This network repeats pixels, so that its exact answer is known.
    ((_, picture),) = processed(
        live,
        operation="upscale",
        scale=4,
        model="four",
        input_image_url=uploads["webp"][0],
        output_format="png",
    )
    source = np.asarray(Image.open(io.BytesIO(sources()["webp"][0])).convert("RGB"), int)
    expected = source.repeat(4, axis=0).repeat(4, axis=1)
    assert np.abs(np.asarray(picture, int) - expected).max() <= 1


def test_the_user_s_own_segmenter_decides_what_is_cut_out(live: Live, tmp_path: Path) -> None:
    model: Model = segmenter(tmp_path, brightness_graph(gain=40, middle=0.5, sigmoid=True))
    add_model(live, "bright", Path(model.source.partition(":")[2]))
    image = Image.new("RGB", (48, 32), (10, 10, 10))
    image.paste((250, 250, 250), (12, 8, 36, 24))
    with live.client() as client:
        url = client.post("/files", files={"file": saved(image, "PNG")}).json()["url"]
    ((told, picture),) = processed(
        live, operation="remove-background", model="bright", input_image_url=url
    )
    alpha = np.asarray(picture.getchannel("A"))
    expected = np.zeros((32, 48), bool)
    expected[8:24, 12:36] = True
    assert ((alpha >= 128) == expected).all()
    assert told["method"] == "bright"
    assert told["confidence"] > 0.9
