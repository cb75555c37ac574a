"""Measure the exported model with the stock diffusers pipelines, on one thread.

    python evaluate.py --model ../../src/imageloom/runtime/embedded/imageloom-tiny \
        --judge /tmp/tiny/judge.pt --out results.json

200 prompts with fixed seeds over the whole vocabulary, then kind-only prompts, image to image and
speed. The judges are described in judge.py.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image
from draw import draw_scene
from judge import (
    FIELDS,
    background_name,
    foreground,
    garment_colour,
    load_judge,
    read,
    silhouette_overlap,
)
from PIL import Image
from text import labels
from vocabulary import COLOURS, KINDS, Scene, sample_scene

NEGATIVE = "blurry, distorted, low quality"


def load_pipeline(folder: Path) -> AutoPipelineForText2Image:
    """Return the stock pipeline in fp32, as a user would load it."""
    pipeline = AutoPipelineForText2Image.from_pretrained(
        folder, local_files_only=True, dtype=torch.float32
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def generate(
    pipeline: AutoPipelineForText2Image,
    prompts: list[str],
    *,
    seeds: list[int],
    steps: int,
    guidance: float,
    negative: str = "",
) -> np.ndarray:
    """Return one picture a prompt, uint8 [n, 64, 64, 3]; each has its own seed."""
    pictures = []
    for start in range(0, len(prompts), 20):
        part = prompts[start : start + 20]
        noise = [torch.Generator().manual_seed(seed) for seed in seeds[start : start + 20]]
        pictures.append(
            pipeline(
                part,
                negative_prompt=[negative] * len(part),
                generator=noise,
                num_inference_steps=steps,
                guidance_scale=guidance,
                output_type="np",
            ).images
        )
    return np.round(np.concatenate(pictures) * 255).astype(np.uint8)


def describe(scene: Scene) -> str:
    """Return a plain prompt that says the whole scene."""
    pattern = "" if scene.pattern == "plain" else scene.pattern + " "
    one = "" if scene.kind == "trousers" else "a "
    item = f"{one}{pattern}{scene.colour} {scene.kind}"
    subject = f"a model wearing {item}" if scene.worn else f"{item}"
    return f"{subject} on a {scene.background} background"


def prompts_and_scenes(count: int, *, seed: int) -> tuple[list[str], list[Scene]]:
    """Return random full prompts, evenly over the kinds of garment."""
    rng = np.random.default_rng(seed)
    scenes = [
        dataclasses.replace(sample_scene(rng, seed=index), kind=KINDS[index % len(KINDS)])
        for index in range(count)
    ]
    return [describe(scene) for scene in scenes], scenes


def accuracy(
    pictures: np.ndarray, scenes: list[Scene], judge: torch.nn.Module
) -> dict[str, float | dict[str, float]]:
    """Return the shares of pictures that show what was asked, by classifier and on pixels."""
    right = read(judge, pictures) == labels(scenes)
    result: dict[str, float | dict[str, float]] = {
        field: round(float(right[:, k].mean()), 4) for k, field in enumerate(FIELDS[:5])
    }
    named = [background_name(picture) for picture in pictures]
    backgrounds = [name == scene.background for name, scene in zip(named, scenes, strict=True)]
    result["background_on_pixels"] = round(float(np.mean(backgrounds)), 4)
    colours = [
        garment_colour(p) == s.colour
        for p, s in zip(pictures, scenes, strict=True)
        if not s.worn and s.pattern == "plain" and s.colour != s.background
    ]
    result["colour_on_pixels_plain_products"] = round(float(np.mean(colours)), 4)
    result["kind_by_kind"] = {
        kind: round(float(right[[s.kind == kind for s in scenes], 0].mean()), 3) for kind in KINDS
    }
    return result


def kind_only(
    pipeline: AutoPipelineForText2Image, judge: torch.nn.Module, *, steps: int, guidance: float
) -> dict[str, float]:
    """Return how often a bare word such as "handbag" gives its kind."""
    words = {"dress": "dress", "shirt": "t-shirt", "trousers": "pants", "skirt": "skirt",
             "shoe": "sneaker", "bag": "handbag", "hat": "hat", "jacket": "jacket"}  # fmt: skip
    prompts = [words[kind] for kind in KINDS for _ in range(5)]
    pictures = generate(
        pipeline, prompts, seeds=list(range(len(prompts))), steps=steps, guidance=guidance
    )
    asked = np.repeat(np.arange(len(KINDS)), 5)
    hit = read(judge, pictures)[:, 0] == asked
    return {words[k]: float(hit[asked == i].mean()) for i, k in enumerate(KINDS)}


def image_to_image(
    pipeline: AutoPipelineForText2Image,
    judge: torch.nn.Module,
    *,
    steps: int,
    guidance: float,
    strength: float,
    count: int = 48,
) -> dict[str, float]:
    """Return how well held-out product drawings keep their silhouette in a new colour."""
    editor = AutoPipelineForImage2Image.from_pipe(pipeline)
    editor.set_progress_bar_config(disable=True)
    rng = np.random.default_rng(71)
    overlaps, recoloured = [], []
    for index in range(count):
        scene = dataclasses.replace(
            sample_scene(rng, seed=9_000_000 + index),
            kind=KINDS[index % len(KINDS)],
            background="beige" if index % 2 else "blue",
            colour=("red", "purple", "green", "black")[index % 4],
            pattern="plain",
            worn=False,
        )
        wish = dataclasses.replace(scene, colour=str(rng.choice(["orange", "teal", "brown"])))
        drawn = draw_scene(scene)
        made = editor(
            describe(wish),
            image=Image.fromarray(drawn),
            strength=strength,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(index),
            output_type="np",
        ).images[0]
        made = np.round(made * 255).astype(np.uint8)
        overlaps.append(silhouette_overlap(drawn, made))
        shown = list(COLOURS)[read(judge, made[None])[0, 1]]
        recoloured.append(shown == wish.colour)
    return {
        "strength": strength,
        "silhouette_iou_mean": round(float(np.mean(overlaps)), 4),
        "silhouette_iou_worst": round(float(np.min(overlaps)), 4),
        "asked_colour_taken": round(float(np.mean(recoloured)), 4),
    }


def seconds_a_picture(pipeline: AutoPipelineForText2Image, *, steps: int, guidance: float) -> float:
    """Return the median time of one picture on one thread."""
    times = []
    for seed in range(7):
        start = time.perf_counter()
        generate(pipeline, ["a red dress"], seeds=[seed], steps=steps, guidance=guidance)
        times.append(time.perf_counter() - start)
    return round(float(np.median(times)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--judge", type=Path, default=Path("/tmp/tiny/judge.pt"))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, nargs="+", default=[3.0])
    parser.add_argument("--quick", action="store_true", help="only the 200 prompts")
    options = parser.parse_args()
    torch.set_num_threads(1)
    pipeline, judge = load_pipeline(options.model), load_judge(options.judge)
    prompts, scenes = prompts_and_scenes(options.count, seed=4242)
    results: dict[str, object] = {
        "prompts": options.count,
        "steps": options.steps,
        "judge_on_unseen_drawings": torch.load(options.judge, weights_only=True)["accuracy"],
    }
    for guidance in options.guidance:
        how = {"steps": options.steps, "guidance": guidance}
        pictures = generate(pipeline, prompts, seeds=list(range(options.count)), **how)
        report: dict[str, object] = {"accuracy": accuracy(pictures, scenes, judge)}
        drawn = [foreground(p).any() for p in pictures]
        report["with_foreground"] = float(np.mean(drawn))
        if not options.quick:
            pictures = generate(
                pipeline, prompts, seeds=list(range(options.count)), negative=NEGATIVE, **how
            )
            report["accuracy_with_negative_prompt"] = accuracy(pictures, scenes, judge)
            report["kind_only"] = kind_only(pipeline, judge, **how)
            report["image_to_image"] = [
                image_to_image(pipeline, judge, strength=s, **how) for s in (0.3, 0.5, 0.7)
            ]
            report["seconds_a_picture_one_thread"] = seconds_a_picture(pipeline, **how)
        results[f"guidance {guidance}"] = report
        print(json.dumps({f"guidance {guidance}": report}, indent=1), flush=True)
    if options.out:
        files = [path for path in options.model.rglob("*") if path.is_file()]
        results["folder_bytes"] = sum(path.stat().st_size for path in files)
        options.out.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
