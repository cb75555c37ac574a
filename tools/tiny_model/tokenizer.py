"""Build the tiny CLIP tokenizer: 256 byte symbols, twice, then merges learnt from captions.

Every text tokenises, since each byte is a symbol of its own. Writes `vocab.json` and
`merges.txt`, then lets transformers save its own files.

    python tokenizer.py --out /tmp/tiny/tokenizer
"""

from __future__ import annotations

import argparse
import json
import string
from pathlib import Path

import numpy as np
from captions import FILLERS, GENERIC, caption
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer
from vocabulary import sample_scene

MAX_LENGTH = 40
_SPLIT = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|"
    r"[^\s\p{L}\p{N}]+"
)
_EXTRA_WORDS = """
blurry distorted low quality worst bad anatomy ugly deformed watermark text logo photograph
photography portrait lighting daylight sunset garden beach city street fabric texture
pattern checkered floral denim wool linen knit sleeve sleeves collar button zipper pocket
long short wide slim fit loose sport sports running walking sitting girl boy lady child
young old blonde brunette hair face smile hand hands style trend season spring autumn
elegant party wedding office business formal simple natural warm cold dark light pale deep
"""
_MERGES = 376


def build_tokenizer(folder: Path, *, seed: int = 5) -> CLIPTokenizer:
    """Train the merges, write the tokenizer files into `folder` and return the tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    merges = _learn_merges(_corpus(np.random.default_rng(seed)))
    symbols = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = symbols + [symbol + "</w>" for symbol in symbols]
    tokens += ["".join(pair) for pair in merges] + ["<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    tokenizer = CLIPTokenizer.from_pretrained(folder, model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(folder)
    return tokenizer


def _corpus(rng: np.random.Generator) -> list[str]:
    lines = [caption(sample_scene(rng, seed=index), rng) for index in range(6000)]
    words = [*_EXTRA_WORDS.split(), *FILLERS, *GENERIC]
    return lines + [" ".join(str(word) for word in rng.choice(words, 6)) for _ in range(3000)]


def _learn_merges(lines: list[str]) -> list[tuple[str, str]]:
    """Return the most frequent merges that can be built from earlier ones."""
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=1400,
        min_frequency=8,
        end_of_word_suffix="</w>",
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(lines, trainer)
    learnt = json.loads(tokenizer.to_str())["model"]["merges"]
    pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in learnt]
    return pairs[:_MERGES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("/tmp/tiny/tokenizer"))
    tokenizer = build_tokenizer(parser.parse_args().out)
    for text in ("a red striped dress", "blurry, distorted " + string.punctuation, "Привет 模特"):
        print(len(tokenizer(text).input_ids), tokenizer.tokenize(text))


if __name__ == "__main__":
    main()
