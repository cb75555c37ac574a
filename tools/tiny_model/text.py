"""Write captions as token rows, and teach the text encoders their words before any picture.

    python text.py --data /tmp/tiny/train.npz --tokenizer /tmp/tiny/tokenizer --out /tmp/tiny

`tokens.npy` holds several captions a picture, int16 [pictures, variants, 40]. `text.pt` holds both
encoders after a minute of reading the scene off its caption with a linear layer. The denoiser
then starts with words that are already told apart; without it, "handbag" alone gave a dress.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from architecture import EOS, build_text_encoders, encode_text
from captions import caption
from tokenizer import MAX_LENGTH
from torch import nn
from torch.nn import functional
from transformers import CLIPTokenizer
from vocabulary import BACKGROUNDS, COLOURS, KINDS, PATTERNS, Scene

SIZES = (len(KINDS), len(COLOURS), len(BACKGROUNDS), len(PATTERNS), 2, 2)


def tokenise(
    scenes: list[Scene], tokenizer: CLIPTokenizer, *, variants: int, seed: int
) -> np.ndarray:
    """Return random captions of each scene as tokens, int16 [scenes, variants, 40]."""
    rng = np.random.default_rng(seed)
    texts = [caption(scene, rng) for scene in scenes for _ in range(variants)]
    rows = tokenizer(texts, padding="max_length", truncation=True, max_length=MAX_LENGTH)
    return np.array(rows.input_ids, np.int16).reshape(len(scenes), variants, MAX_LENGTH)


def labels(scenes: list[Scene]) -> np.ndarray:
    """Return kind, colour, background, pattern, worn and long hair as numbers, int64 [n, 6]."""
    colours, backgrounds = list(COLOURS), list(BACKGROUNDS)
    return np.array(
        [
            (
                KINDS.index(scene.kind),
                colours.index(scene.colour),
                backgrounds.index(scene.background),
                PATTERNS.index(scene.pattern),
                int(scene.worn),
                int(scene.long_hair),
            )
            for scene in scenes
        ]
    )


def load_scenes(data: Path) -> list[Scene]:
    """Return the scenes of a picture archive."""
    return [Scene(**json.loads(line)) for line in np.load(data)["scenes"]]


def teach(
    tokens: torch.Tensor, truth: torch.Tensor, *, seconds: float, seed: int
) -> tuple[nn.Module, nn.Module]:
    """Return both encoders, trained to carry the scene at the caption's end and when pooled."""
    torch.manual_seed(seed)
    first, second = build_text_encoders()
    heads = nn.ModuleList([nn.Linear(width, sum(SIZES)) for width in (48, 80, 80)])
    parameters = [*first.parameters(), *second.parameters(), *heads.parameters()]
    optimiser = torch.optim.AdamW(parameters, lr=3e-3, betas=(0.9, 0.98), weight_decay=1e-2)
    start, step, share = time.time(), 0, 0.0
    while share < 1:
        share = (time.time() - start) / seconds
        optimiser.param_groups[0]["lr"] = 3e-3 * min(1, (step + 1) / 50) * max(0.02, 1 - share)
        rows = torch.randint(len(tokens), (128,))
        batch = tokens[rows, torch.randint(tokens.shape[1], (128,))].long()
        states, pooled = encode_text(first, second, batch)
        end = states[torch.arange(128), (batch == EOS).int().argmax(dim=1)]
        views = (end[:, :48], end[:, 48:], pooled)
        loss = sum(
            functional.cross_entropy(part, truth[rows, k])
            for head, view in zip(heads, views, strict=True)
            for k, part in enumerate(head(view).split(SIZES, dim=1))
        ) + 1e-3 * sum(view.square().mean() for view in views)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimiser.step()
        step += 1
        if step % 100 == 0:
            print(f"{step} loss {loss.item():.3f} of {3 * len(SIZES)} terms", flush=True)
    spread = [float(view.detach().std()) for view in views]
    print(f"{step} steps, standard deviation of the three views {spread}")
    return first, second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("/tmp/tiny/train.npz"))
    parser.add_argument("--tokenizer", type=Path, default=Path("/tmp/tiny/tokenizer"))
    parser.add_argument("--out", type=Path, default=Path("/tmp/tiny"))
    parser.add_argument("--variants", type=int, default=12)
    parser.add_argument("--seconds", type=float, default=120)
    options = parser.parse_args()
    torch.set_num_threads(1)
    scenes = load_scenes(options.data)
    tokenizer = CLIPTokenizer.from_pretrained(options.tokenizer, model_max_length=MAX_LENGTH)
    tokens = tokenise(scenes, tokenizer, variants=options.variants, seed=21)
    np.save(options.out / "tokens.npy", tokens)
    truth = torch.from_numpy(labels(scenes))
    first, second = teach(torch.from_numpy(tokens), truth, seconds=options.seconds, seed=22)
    weights = {"first": first.state_dict(), "second": second.state_dict()}
    torch.save(weights, options.out / "text.pt")


if __name__ == "__main__":
    main()
