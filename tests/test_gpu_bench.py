"""bench/gpu.py, which is meant for a GPU: each of its lines runs, on narrow layers."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the worker's packages are not installed")

BENCHES = Path(__file__).parent.parent / "bench"


def test_the_bench_measures_every_side_and_says_what_was_met(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(BENCHES)
    monkeypatch.setenv("TRANSFORMERS_VERBOSITY", "error")  # it sets these, and so puts them back
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    import gpu
    import sdxl

    # Shallow too: its seventy transformer blocks take a minute of a busy core.
    monkeypatch.setitem(sdxl.UNET_OF_BOTH, "transformer_layers_per_block", (1, 1, 1))
    monkeypatch.setitem(sdxl.TEXT_OF_BOTH, "num_hidden_layers", 2)
    monkeypatch.setitem(sdxl.TEXT_2_OF_BOTH, "num_hidden_layers", 2)
    monkeypatch.setattr(gpu, "BATCHES", (1, 2))
    monkeypatch.setattr(gpu, "MIXED_ROWS", 3)
    found = tmp_path / "found.md"
    arguments = ["gpu.py", "--small", "--plain", "--steps", "1", "--out", str(found)]
    monkeypatch.setattr(sys, "argv", arguments)
    gpu.main()
    report = found.read_text()
    assert report in capsys.readouterr().out
    assert "| ours, 2 in a pass |" in report
    assert "| exact, any company | the same bits | the same bits | PASS |" in report
    assert "adapter switch, warm" in report


def test_without_a_gpu_the_bench_has_nothing_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here: the bench would run for minutes")
    monkeypatch.syspath_prepend(BENCHES)
    import gpu

    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    gpu.main()
    assert "not yet measured" in capsys.readouterr().out
