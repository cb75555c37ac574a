"""The workflows of `workflows/`, by the command line, on a running installation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from conftest import Live

EXAMPLES = Path(__file__).parents[1] / "workflows"
DRESS = str(resources.files("imageloom.runtime") / "embedded" / "dress.jpg")
WAITS = 3  # the exit code where a choice is waited for


def imageloom(live: Live, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user of that installation does."""
    return subprocess.run(
        [sys.executable, "-m", "imageloom.cli.main", "workflow", *words],
        env={**os.environ, "IMAGELOOM_URL": live.url, "IMAGELOOM_API_KEY": live.key},
        capture_output=True,
        text=True,
        timeout=120,
    )


def sizes(folder: Path) -> dict[str, tuple[str, tuple[int, int]]]:
    found = {}
    for path in sorted(folder.iterdir()):
        with Image.open(path) as picture:
            found[path.name] = (picture.mode, picture.size)
    return found


def test_no_example_is_forgotten() -> None:
    assert sorted(path.name for path in EXAMPLES.iterdir()) == [
        "lookbook-with-approval.yaml",
        "marketplace-listing.yaml",
        "product-to-model.yaml",
    ]


def test_product_to_model(live: Live, tmp_path: Path) -> None:
    file = str(EXAMPLES / "product-to-model.yaml")
    done = imageloom(live, "run", file, "--image", DRESS, "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sizes(tmp_path) == {
        f"background-removal_{index}.png": ("RGBA", (512, 512)) for index in range(4)
    }


def test_marketplace_listing(live: Live, tmp_path: Path) -> None:
    file = str(EXAMPLES / "marketplace-listing.yaml")
    done = imageloom(live, "run", file, "--image", DRESS, "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sizes(tmp_path) == {
        "jpeg_0.jpg": ("RGB", (2000, 2000)),
        "thumbnail_0.webp": ("RGB", (400, 400)),
        "webp_0.webp": ("RGB", (2000, 2000)),
    }
    with Image.open(tmp_path / "jpeg_0.jpg") as listing:
        assert listing.convert("RGB").getpixel((5, 5)) == (255, 255, 255)


def test_lookbook_with_approval(live: Live, tmp_path: Path) -> None:
    file = str(EXAMPLES / "lookbook-with-approval.yaml")
    waits = imageloom(live, "run", file, "--json")
    assert waits.returncode == WAITS, waits.stdout + waits.stderr
    workflow = json.loads(waits.stdout)
    assert workflow["status"] == "paused"
    assert len(workflow["steps"][1]["candidates"]) == 4
    chosen = imageloom(live, "resume", workflow["id"], "--select", "2,0")
    assert chosen.returncode == 0, chosen.stdout + chosen.stderr
    done = imageloom(live, "watch", workflow["id"], "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert sizes(tmp_path) == {f"finish_{index}.jpg": ("RGB", (1024, 1024)) for index in range(2)}
