"""Make the labelled sheet of samples, pictures enlarged with Lanczos.

    python sheet.py --model ../../src/imageloom/runtime/embedded/imageloom-tiny \
        --photograph ../../src/imageloom/runtime/embedded/dress.jpg \
        --out ../../docs/images/tiny-model-samples.png

The last row starts from the photograph: image to image at the strength that its label says.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoPipelineForImage2Image, AutoPipelineForText2Image
from evaluate import generate, load_pipeline
from PIL import Image, ImageDraw, ImageFont

PROMPTS = (
    "a red dress on a white background",
    "a striped blue t-shirt on a yellow background",
    "orange trousers on a grey background",
    "a dotted pink skirt on a blue background",
    "a teal sneaker on a beige background",
    "a brown handbag on a green background",
    "a purple hat on a pink background",
    "a green jacket on a black background",
    "fashion model wearing the dress, studio lighting, white background",
    "a woman wearing a striped red shirt, blue background",
    "a model wearing purple trousers, beige background",
    "a woman wearing a dotted black skirt, yellow background",
    "a person wearing orange sneakers, blue background",
    "a man with a green bag, white background",
    "a woman wearing a yellow hat, green background",
    "a man wearing a blue jacket, grey background",
    "a dotted green dress on a pink background",
    "a striped black bag on a beige background",
    "a dotted teal hat on a yellow background",
    "a red shoe on a white background",
    "model wearing product, studio lighting",
    "a model wearing a pink dress, black background",
    "a woman in a striped teal jacket, pink background",
    "a woman wearing a dotted orange hat, white background",
)
EDITS = (
    ("a blue dress on a white background", 0.5),
    ("a striped red dress on a white background", 0.6),
    ("a dotted green dress on a pink background", 0.7),
    ("a black dress on a yellow background", 0.7),
    ("a striped purple dress on a beige background", 0.7),
    ("fashion model wearing the dress, studio lighting, white background", 0.8),
    ("a woman wearing a red dress, blue background", 0.9),
)
COLUMNS = 8
SIDE, GAP, LABEL = 192, 14, 44


def edited(
    pipeline: AutoPipelineForText2Image, photograph: Image.Image, *, steps: int, guidance: float
) -> np.ndarray:
    """Return the photograph and its edits, uint8 [8, 64, 64, 3]."""
    editor = AutoPipelineForImage2Image.from_pipe(pipeline)
    editor.set_progress_bar_config(disable=True)
    small = photograph.resize((64, 64), Image.Resampling.LANCZOS)
    made = [
        editor(
            prompt,
            image=small,
            strength=strength,
            num_inference_steps=steps,
            guidance_scale=guidance,
            generator=torch.Generator().manual_seed(1),
            output_type="np",
        ).images[0]
        for prompt, strength in EDITS
    ]
    return np.stack([np.asarray(small), *(np.round(x * 255).astype(np.uint8) for x in made)])


def sheet(pictures: np.ndarray, prompts: Sequence[str]) -> Image.Image:
    """Return pictures [n, h, w, 3] in a grid, each with its prompt underneath."""
    rows = -(-len(prompts) // COLUMNS)
    width = COLUMNS * (SIDE + GAP) + GAP
    page = Image.new("RGB", (width, rows * (SIDE + LABEL + GAP) + GAP), "white")
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(12)
    for index, (picture, prompt) in enumerate(zip(pictures, prompts, strict=True)):
        x = GAP + index % COLUMNS * (SIDE + GAP)
        y = GAP + index // COLUMNS * (SIDE + LABEL + GAP)
        large = Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        page.paste(large, (x, y))
        pen.rectangle((x - 1, y - 1, x + SIDE, y + SIDE), outline=(225, 225, 228))
        for line, text in enumerate(_wrapped(pen, prompt, font)):
            pen.text((x, y + SIDE + 4 + 15 * line), text, font=font, fill=(60, 60, 66))
    return page


def _wrapped(
    pen: ImageDraw.ImageDraw, text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont
) -> list[str]:
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if pen.textlength(longer, font=font) > SIDE and lines[-1]:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--photograph", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(1)
    how = {"steps": options.steps, "guidance": options.guidance}
    pipeline = load_pipeline(options.model)
    seeds = [options.seed + index for index in range(len(PROMPTS))]
    drawn = generate(pipeline, list(PROMPTS), seeds=seeds, **how)
    changed = edited(pipeline, Image.open(options.photograph).convert("RGB"), **how)
    labels = [*PROMPTS, "the photograph, for image to image"]
    labels += [f"{prompt} (strength {strength})" for prompt, strength in EDITS]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    sheet(np.concatenate([drawn, changed]), labels).save(options.out, optimize=True)


if __name__ == "__main__":
    main()
