"""Which prompts a training keeps as the base model draws them."""

from __future__ import annotations

import pytest

pytest.importorskip("torch", reason="the worker's packages are not installed")

from imageloom.runtime.training.ordinary import prompts_beside  # needs torch


def test_ordinary_words_stand_in_the_place_of_the_adapters_own() -> None:
    prompts = prompts_beside(["a zwx dress on a white background"] * 3)
    assert "a blue dress on a white background" in prompts
    assert "a striped dress on a white background" in prompts
    assert not any("zwx" in prompt for prompt in prompts)
    assert len(set(prompts)) == len(prompts)


def test_only_a_few_captions_are_varied() -> None:
    captions = [f"Zwx dress number {index}" for index in range(20)]
    assert len(prompts_beside(captions)) == 2 * len(prompts_beside(captions[:1]))


def test_captions_without_a_word_of_their_own_have_none_beside() -> None:
    assert prompts_beside(["a red hat", "a pair of shoes"]) == ()
