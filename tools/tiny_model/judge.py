"""Judge a 64 px picture: what does it show, and where is its foreground?

Two judges. A small classifier, trained here on drawings with their own seed (none is a training
picture of the model), reads kind, colour, background, pattern and whether it is worn. Pixels
alone give the background (the upper corners) and, for products, the colour.

    python judge.py --out /tmp/tiny/judge.pt --seconds 150
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from draw import draw_many
from text import SIZES, labels
from torch import nn
from torch.nn import functional
from vocabulary import BACKGROUNDS, COLOURS

TRAIN_SEED, TEST_SEED = 901, 902
FIELDS = ("kind", "colour", "background", "pattern", "worn", "long_hair")


class Judge(nn.Module):
    """Map pictures [n, 3, 64, 64] in -1 to 1 to one row of scores for each field."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((3, 24), (24, 48), (48, 96), (96, 128)):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after),
                       nn.ReLU()]  # fmt: skip
        self.body = nn.Sequential(*layers, nn.Flatten(), nn.Dropout(0.2))
        self.head = nn.Linear(128 * 16, sum(SIZES))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return self.head(self.body(x)).split(SIZES, dim=1)


def train_judge(*, seconds: float, count: int = 8000) -> tuple[Judge, dict[str, float]]:
    """Return a trained judge and its accuracy on 1 000 drawings that it never saw."""
    torch.manual_seed(0)
    pictures, scenes = draw_many(count, seed=TRAIN_SEED)
    x, truth = _as_input(pictures), torch.from_numpy(labels(scenes))
    judge = Judge()
    optimiser = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-2)
    start, share = time.time(), 0.0
    while share < 1:
        share = (time.time() - start) / seconds
        optimiser.param_groups[0]["lr"] = 2e-3 * max(0.01, 1 - share)
        rows = torch.randint(len(x), (64,))
        loss = sum(
            functional.cross_entropy(score, truth[rows, k])
            for k, score in enumerate(judge(_worn_down(x[rows])))
        )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
    judge.eval()
    pictures, scenes = draw_many(1000, seed=TEST_SEED)
    right = read(judge, pictures) == labels(scenes)
    return judge, {field: float(right[:, k].mean()) for k, field in enumerate(FIELDS)}


@torch.no_grad()
def read(judge: Judge, pictures: np.ndarray) -> np.ndarray:
    """Return what the judge reads, int64 [n, 6], in the order of FIELDS."""
    scores = judge(_as_input(pictures))
    return torch.stack([score.argmax(dim=1) for score in scores], dim=1).numpy()


def load_judge(path: Path) -> Judge:
    judge = Judge()
    judge.load_state_dict(torch.load(path, weights_only=True)["model"])
    return judge.eval()


def background_colour(picture: np.ndarray) -> np.ndarray:
    """Return the median colour of the two upper corners, float [3]."""
    rows = max(4, len(picture) // 10)
    corners = np.concatenate([picture[:rows, :rows], picture[:rows, -rows:]])
    return np.median(corners.reshape(-1, 3).astype(float), axis=0)


def background_name(picture: np.ndarray) -> str:
    """Return the named background nearest to the upper corners."""
    return _nearest(background_colour(picture)[None], BACKGROUNDS)[0]


def foreground(picture: np.ndarray, *, threshold: float = 36.0) -> np.ndarray:
    """Return the filled silhouette, bool [h, w]: what differs from the background."""
    distance = np.abs(picture.astype(float) - background_colour(picture)).max(axis=2)
    mask = (distance > threshold).astype(np.uint8)
    outlines, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(mask)
    large = [outline for outline in outlines if cv2.contourArea(outline) > mask.size / 400]
    cv2.drawContours(filled, large, -1, 1, cv2.FILLED)
    return filled.astype(bool)


def garment_colour(picture: np.ndarray) -> str:
    """Return the commonest named colour inside the silhouette of a product picture."""
    inside = cv2.erode(foreground(picture).astype(np.uint8), np.ones((5, 5))).astype(bool)
    pixels = picture[inside if inside.any() else foreground(picture)].astype(float)
    if not len(pixels):
        pixels = picture[24:40, 24:40].reshape(-1, 3).astype(float)
    names, counts = np.unique(_nearest(pixels, COLOURS), return_counts=True)
    return str(names[counts.argmax()])


def silhouette_overlap(one: np.ndarray, other: np.ndarray) -> float:
    """Return intersection over union of two pictures' silhouettes."""
    a, b = foreground(one), foreground(other)
    return float((a & b).sum() / max(1, (a | b).sum()))


def _nearest(pixels: np.ndarray, named: dict[str, tuple[int, int, int]]) -> list[str]:
    palette = np.array(list(named.values()), float)
    index = ((pixels[:, None] - palette) ** 2).sum(axis=2).argmin(axis=1)
    return [list(named)[k] for k in index]


def _as_input(pictures: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _worn_down(x: torch.Tensor) -> torch.Tensor:
    """Blur some and add noise, since generated pictures are less sharp than drawings."""
    if torch.rand(()) < 0.5:
        x = functional.avg_pool2d(functional.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return x + 0.08 * torch.rand(()) * torch.randn_like(x)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("/tmp/tiny/judge.pt"))
    parser.add_argument("--seconds", type=float, default=150)
    options = parser.parse_args()
    torch.set_num_threads(1)
    judge, accuracy = train_judge(seconds=options.seconds)
    torch.save({"model": judge.state_dict(), "accuracy": accuracy}, options.out)
    print(accuracy)


if __name__ == "__main__":
    main()
