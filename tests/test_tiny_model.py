"""The embedded model draws what it is asked, small, repeatable and true to an input picture."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "src" / "imageloom" / "runtime" / "embedded" / "imageloom-tiny"
TOOLS = ROOT / "tools" / "tiny_model"
STEPS, GUIDANCE = 12, 3.0
LIMIT_BYTES = 8_000_000

# (prompt, colour of the garment or None where a figure covers the middle, background)
ASKED = (
    ("a red dress on a white background", "red", "white"),
    ("a blue shirt on a yellow background", "blue", "yellow"),
    ("green trousers on a beige background", "green", "beige"),
    ("a purple skirt on a green background", "purple", "green"),
    ("an orange shoe on a blue background", "orange", "blue"),
    ("a teal bag on a pink background", "teal", "pink"),
    ("a brown hat on a white background", "brown", "white"),
    ("a yellow jacket on a black background", "yellow", "black"),
    ("a pink dress on a grey background", "pink", "grey"),
    ("a black bag on a yellow background", "black", "yellow"),
    ("a red hat on a blue background", "red", "blue"),
    ("a green shirt, white background, studio lighting", "green", "white"),
    ("a model wearing a red dress on a blue background", None, "blue"),
    ("a woman wearing a green jacket, beige background", None, "beige"),
    ("a man in a blue shirt, yellow background", None, "yellow"),
    ("fashion model wearing the dress, studio lighting, white background", None, "white"),
)


@pytest.fixture(scope="module")
def torch() -> Any:
    """Return torch held to one thread while this module runs."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def pixels() -> Any:
    """Return the judges that look at pixels, from the model's own tools."""
    yield from _imported("judge")


@pytest.fixture(scope="module")
def drawing() -> Any:
    """Return the module that draws scenes, from the model's own tools."""
    yield from _imported("draw")


@pytest.fixture(scope="module")
def pipeline(torch: Any) -> Any:
    """Return the stock text-to-image pipeline over the embedded folder."""
    diffusers = pytest.importorskip("diffusers")
    loaded = diffusers.AutoPipelineForText2Image.from_pretrained(
        FOLDER, local_files_only=True, dtype=torch.float32
    )
    loaded.set_progress_bar_config(disable=True)
    return loaded


@pytest.fixture(scope="module")
def answers(torch: Any, pipeline: Any) -> np.ndarray:
    """Return one picture for each prompt asked, uint8 [n, 64, 64, 3]."""
    return _generate(torch, pipeline, [prompt for prompt, _, _ in ASKED])


def test_folder_is_small_and_safetensors_only() -> None:
    files = [path for path in FOLDER.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= LIMIT_BYTES
    assert {path.suffix for path in files} <= {".json", ".txt", ".safetensors"}
    assert (FOLDER / "unet" / "diffusion_pytorch_model.safetensors").exists()


def test_background_is_the_colour_asked(pixels: ModuleType, answers: np.ndarray) -> None:
    seen = [pixels.background_name(picture) for picture in answers]
    wrong = [(prompt, got) for (prompt, _, want), got in zip(ASKED, seen, strict=True)
             if got != want]  # fmt: skip
    assert len(wrong) <= 1, wrong


def test_garment_is_the_colour_asked(pixels: ModuleType, answers: np.ndarray) -> None:
    seen = [pixels.garment_colour(picture) for picture in answers]
    wrong = [(prompt, got) for (prompt, want, _), got in zip(ASKED, seen, strict=True)
             if want is not None and got != want]  # fmt: skip
    assert len(wrong) <= 1, wrong


def test_image_to_image_keeps_the_silhouette(
    torch: Any, pipeline: Any, pixels: ModuleType, drawing: ModuleType
) -> None:
    diffusers = pytest.importorskip("diffusers")
    pillow = pytest.importorskip("PIL.Image")
    editor = diffusers.AutoPipelineForImage2Image.from_pipe(pipeline)
    editor.set_progress_bar_config(disable=True)
    overlaps = []
    for kind in ("dress", "bag", "jacket", "hat"):
        drawn = drawing.draw_scene(
            drawing.Scene(kind=kind, colour="red", background="blue", seed=5)
        )
        made = editor(
            f"a green {kind} on a blue background",
            image=pillow.fromarray(drawn),
            strength=0.5,
            num_inference_steps=20,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(3),
            output_type="np",
        ).images[0]
        overlaps.append(pixels.silhouette_overlap(drawn, np.round(made * 255).astype(np.uint8)))
    assert np.mean(overlaps) > 0.9, overlaps


def test_same_seed_gives_the_same_bytes(torch: Any, pipeline: Any) -> None:
    once, again = (_generate(torch, pipeline, ["a yellow bag"]) for _ in range(2))
    assert once.tobytes() == again.tobytes()


def test_any_prompt_gives_a_picture(torch: Any, pipeline: Any) -> None:
    pictures = _generate(torch, pipeline, ["", "模特 в платье 👗", "zxqv " * 200])
    assert pictures.shape == (3, 64, 64, 3)
    assert all(picture.std() > 4 for picture in pictures)


def _generate(torch: Any, pipeline: Any, prompts: list[str]) -> np.ndarray:
    made = pipeline(
        prompts,
        num_inference_steps=STEPS,
        guidance_scale=GUIDANCE,
        generator=[torch.Generator().manual_seed(seed) for seed in range(len(prompts))],
        output_type="np",
    ).images
    return np.round(made * 255).astype(np.uint8)


def _imported(name: str) -> Any:
    """Yield a module of tools/tiny_model; its folder leaves the path afterwards."""
    pytest.importorskip("cv2")
    pytest.importorskip("torch")
    sys.path.insert(0, str(TOOLS))
    try:
        yield importlib.import_module(name)
    finally:
        sys.path.remove(str(TOOLS))
