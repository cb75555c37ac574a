"""Train on the tests' garment, and draw the two pictures of docs/training.md.

    imageloom serve                              # in another terminal, with IMAGELOOM_API_KEY set
    python tools/training_run.py --out docs/images

A real run through the API with the default config. Writes `training-loss.png`, the loss of every
step and its running mean, and `training-weights.png`, a row for each prompt: without the adapter,
then at weights 0, 0.5 and 1. Prints the seconds from the request to the published adapter.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from imageloom.client import Client

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
from training_pictures import CAPTION, checkered_dress, png

PICTURES = 16
SEED = 7  # of the training and of every picture
PROMPTS = (
    CAPTION,
    "a red dress on a white background",
    "an orange skirt on a grey background",
    "a blue shoe on a white background",
    "a woman wearing a green coat on a grey background",
)
SIDE, SHOWN = 64, 192  # pixels, drawn and in the sheet
WIDTH, HEIGHT, LEFT, BELOW, ABOVE = 800, 300, 56, 32, 12  # of the chart and its margins
WINDOW = 15  # steps of the running mean


def main() -> None:
    """Train, then write both pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, required=True, help="the folder to write into")
    options = parser.parse_args()
    name = f"check-{int(time.time())}"
    with Client.from_env() as client, tempfile.TemporaryDirectory() as folder:
        for index in range(PICTURES):
            (Path(folder) / f"{index:02d}.png").write_bytes(png(checkered_dress(index)))
            (Path(folder) / f"{index:02d}.txt").write_text(CAPTION)
        began = time.monotonic()
        training = client.train(folder, name=name, seed=SEED).wait()
        losses = [each.loss for each in training.losses()]
        print(f"{len(losses)} steps, {time.monotonic() - began:.0f} s to the adapter")
        chart(losses).save(options.out / "training-loss.png", optimize=True)
        sheet(client, name).save(options.out / "training-weights.png", optimize=True)
        client.delete_model(name)


def sheet(client: Client, name: str) -> Image.Image:
    """Return a row for each prompt: without the adapter, then at each weight."""
    uses = (None, {name: 0.0}, {name: 0.5}, {name: 1.0})
    made = Image.new("RGB", (SHOWN * len(uses), SHOWN * len(PROMPTS)))
    for row, prompt in enumerate(PROMPTS):
        for column, loras in enumerate(uses):
            with tempfile.TemporaryDirectory() as folder:
                task = client.generate(
                    prompt, width=SIDE, height=SIDE, seed=SEED, loras=loras, output_format="png"
                )
                with Image.open(task.wait().download(folder)[0]) as drawn:
                    shown = drawn.resize((SHOWN, SHOWN), Image.Resampling.BICUBIC)
            made.paste(shown, (column * SHOWN, row * SHOWN))
    return made


def chart(losses: Sequence[float]) -> Image.Image:
    """Return the losses as a pale line, and their running mean as a dark one."""
    made = Image.new("RGB", (WIDTH, HEIGHT), "white")
    pen, font = ImageDraw.Draw(made), ImageFont.load_default(size=13)
    # The first steps are far above all others; what comes later is what one looks for.
    top = sorted(losses)[int(0.98 * (len(losses) - 1))]

    def at(step: float, loss: float) -> tuple[float, float]:
        x = LEFT + (step - 1) / max(1, len(losses) - 1) * (WIDTH - LEFT - ABOVE)
        return x, HEIGHT - BELOW - min(loss / top, 1) * (HEIGHT - BELOW - ABOVE)

    for quarter in range(5):
        loss = top * quarter / 4
        _, y = at(1, loss)
        pen.line((LEFT, y, WIDTH - ABOVE, y), fill="#e6e8ec")
        pen.text((LEFT - 8, y), f"{loss:.2f}", fill="#50555f", font=font, anchor="rm")
    for sixth in range(7):
        step = max(1, round(len(losses) * sixth / 6))
        pen.text((at(step, 0)[0], HEIGHT - 8), f"{step}", fill="#50555f", font=font, anchor="ms")
    pen.line([at(step, loss) for step, loss in enumerate(losses, 1)], fill="#b9d0f2")
    means = [
        at(end - (WINDOW - 1) / 2, statistics.fmean(losses[end - WINDOW : end]))
        for end in range(WINDOW, len(losses) + 1)
    ]
    pen.line(means, fill="#2563c9", width=3, joint="curve")
    return made


main()
