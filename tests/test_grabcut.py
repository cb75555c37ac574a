"""Background removal without a model: how well it cuts out drawn products, and what it admits."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from skimage import data

from imageloom.images import Picture
from imageloom.runtime.cutout import CutOut
from imageloom.runtime.grabcut import cut_out_by_border
from imageloom.runtime.matting import unmix
from product_drawings import (
    BACKGROUNDS,
    SUBJECTS,
    Background,
    Drawing,
    Subject,
    bag,
    chair,
    cloth,
    draw,
    gradient,
    mug,
    pale_bottle,
    shirt,
    shoe,
    vignette,
    white,
    white_mug,
)

SIZES = ((400, 400), (440, 340), (320, 420), (500, 500), (300, 300))
CLEAN = ("white", "pale_grey", "gradient", "coloured", "vignette")


def alpha_of(cut: CutOut, picture: Picture) -> NDArray[np.uint8]:
    return np.frombuffer(cut.alpha, np.uint8).reshape(picture.height, picture.width)


def overlap(alpha: NDArray[np.uint8], drawing: Drawing) -> float:
    """Return the intersection over union of what is at least half opaque with the true mask."""
    found = alpha >= 128
    return float((found & drawing.mask).sum() / (found | drawing.mask).sum())


def picture_of(rgb: NDArray[np.uint8]) -> Picture:
    height, width = rgb.shape[:2]
    return Picture(width=width, height=height, rgb=np.ascontiguousarray(rgb).tobytes())


class Shot:
    """A drawing with what was made of it."""

    def __init__(self, drawing: Drawing) -> None:
        self.drawing = drawing
        self.cut = cut_out_by_border(drawing.picture)
        self.alpha = alpha_of(self.cut, drawing.picture)
        self.overlap = overlap(self.alpha, drawing)


@pytest.fixture(scope="module")
def shots() -> list[Shot]:
    """Every subject once, over every kind of background, size, noise and JPEG quality."""
    made = []
    for index, subject in enumerate(SUBJECTS):
        width, height = SIZES[index % len(SIZES)]
        made.append(
            draw(
                subject,
                BACKGROUNDS[index % len(BACKGROUNDS)],
                seed=index,
                width=width,
                height=height,
                noise=0.5 + 0.5 * (index % 4),
                jpeg=(None, 92, 85)[index % 3],
            )
        )
    return [Shot(drawing) for drawing in made]


def test_products_are_cut_out_as_drawn(shots: list[Shot]) -> None:
    overlaps = {shot.drawing.name: round(shot.overlap, 3) for shot in shots}
    assert len(overlaps) >= 24
    assert np.mean(list(overlaps.values())) >= 0.95, overlaps
    assert min(overlaps.values()) >= 0.6, overlaps


def test_confidence_is_high_for_clean_studio_shots(shots: list[Shot]) -> None:
    clean = [s for s in shots if s.drawing.name.split()[-1] in CLEAN and s.overlap > 0.97]
    trusted = [s for s in clean if s.cut.confidence > 0.7]
    assert len(trusted) >= 0.9 * len(clean) > 10


@pytest.mark.parametrize(("subject", "background"), [(white_mug, vignette), (pale_bottle, cloth)])
def test_confidence_is_low_where_the_cut_out_is_bad(
    subject: Subject, background: Background
) -> None:
    drawing = draw(subject, background, seed=2, width=300, height=300, jpeg=85)
    shot = Shot(drawing)
    assert shot.overlap < 0.6
    assert shot.cut.confidence < 0.5


@pytest.mark.parametrize("jpeg", [None, 85])
def test_a_picture_that_was_enlarged_is_cut_out_too(jpeg: int | None) -> None:
    """What the embedded model draws, and every upscaled picture: no edge is sharp any more."""
    shots = [(mug, white), (bag, gradient), (shirt, white), (shoe, vignette)]
    for seed, (subject, background) in enumerate(shots):
        small = draw(subject, background, seed=seed, width=80, height=80, jpeg=jpeg)
        large = cv2.resize(small.rgb, (480, 480), interpolation=cv2.INTER_CUBIC)
        truth = cv2.resize(small.coverage, (480, 480), interpolation=cv2.INTER_CUBIC)
        picture = picture_of(large)
        cut = cut_out_by_border(picture)
        found = alpha_of(cut, picture) >= 128
        either = found | (truth >= 0.5)
        assert (found & (truth >= 0.5)).sum() / either.sum() > 0.85, small.name
        assert cut.confidence > 0.5, small.name


@pytest.mark.parametrize("name", ["chelsea", "rocket", "coffee", "astronaut"])
def test_confidence_is_low_for_photographs_without_a_studio(name: str) -> None:
    cut = cut_out_by_border(picture_of(getattr(data, name)()))
    assert cut.confidence < 0.5


def test_photographed_coins_are_told_from_their_dark_cloth() -> None:
    coins = np.repeat(data.coins()[..., None], 3, axis=2)
    alpha = alpha_of(cut_out_by_border(picture_of(coins)), picture_of(coins))
    count, _, stats, _ = cv2.connectedComponentsWithStats((alpha >= 128).astype(np.uint8))
    assert 20 <= int((stats[1:, cv2.CC_STAT_AREA] > 400).sum()) <= 26
    assert count > 1


def test_a_hole_shows_the_background_and_a_white_print_does_not() -> None:
    cup = Shot(draw(mug, white, seed=3))
    side = cup.drawing.picture.width
    inside_the_handle = cup.alpha[int(0.5 * side), int(0.74 * side)]
    highlight = cup.alpha[int(0.5 * side), int(0.35 * side)]
    assert (inside_the_handle, highlight) == (0, 255)


def test_a_soft_shadow_goes_with_the_background() -> None:
    shot = Shot(draw(chair, gradient, seed=3))
    around = ~cv2.dilate(shot.drawing.mask.astype(np.uint8), np.ones((9, 9), np.uint8)).astype(bool)
    assert float(shot.alpha[around].mean()) < 0.5


def test_the_edge_is_antialiased_at_the_full_size() -> None:
    drawing = draw(mug, white, seed=5, width=1200, height=1200)
    shot = Shot(drawing)
    edge = (drawing.coverage > 0.02) & (drawing.coverage < 0.98)
    off = np.abs(shot.alpha / 255 - drawing.coverage)
    assert shot.overlap > 0.995
    assert float(off[edge].mean()) < 0.1  # a mask without soft edges is off by 0.25 here
    far_from_edges = ~cv2.dilate(edge.astype(np.uint8), np.ones((13, 13), np.uint8)).astype(bool)
    assert np.isin(shot.alpha[far_from_edges], (0, 255)).mean() > 0.999


def test_the_same_pixels_give_the_same_bytes() -> None:
    picture = draw(chair, gradient, seed=8, width=300, height=300).picture
    first = cut_out_by_border(picture)
    cv2.setRNGSeed(99)
    assert cut_out_by_border(picture) == first
    assert first.method == "grabcut"


@pytest.mark.parametrize("level", [0, 128, 255])
def test_a_picture_of_one_colour_stays_opaque(level: int) -> None:
    picture = picture_of(np.full((90, 120, 3), level, np.uint8))
    assert cut_out_by_border(picture) == CutOut(
        alpha=b"\xff" * 90 * 120, confidence=0.0, method="grabcut"
    )


@pytest.mark.parametrize("spread", [3, 40, 255])
def test_noise_has_no_subject(spread: int) -> None:
    rng = np.random.default_rng(4)
    noise = (128 + spread * (rng.random((200, 260, 3)) - 0.5)).astype(np.uint8)
    cut = cut_out_by_border(picture_of(noise))
    assert set(cut.alpha) == {255}
    assert cut.confidence == 0


@pytest.mark.parametrize(
    ("width", "height"),
    [(1, 1), (1, 9), (9, 1), (2, 2), (7, 7), (8, 8), (9, 30), (16, 16), (10_000, 20), (20, 3000)],
)
@pytest.mark.parametrize("kind", ["flat", "noise", "subject"])
def test_no_size_is_too_odd(width: int, height: int, kind: str) -> None:
    rgb = np.full((height, width, 3), 240, np.uint8)
    if kind == "noise":
        rgb = np.random.default_rng(1).integers(0, 256, rgb.shape).astype(np.uint8)
    if kind == "subject":
        rgb[height // 4 : -(height // 4) or None, width // 4 : -(width // 4) or None] = (20, 60, 90)
    cut = cut_out_by_border(picture_of(rgb))
    assert len(cut.alpha) == width * height
    assert max(cut.alpha) == 255
    assert 0 <= cut.confidence <= 1


def test_alpha_that_the_picture_has_is_left_to_the_caller() -> None:
    picture = draw(mug, white, seed=2, width=300, height=300).picture
    faded = Picture(
        width=picture.width,
        height=picture.height,
        rgb=picture.rgb,
        alpha=bytes(picture.width * picture.height),
    )
    assert cut_out_by_border(faded) == cut_out_by_border(picture)


@pytest.mark.parametrize("ground", [(255, 255, 255), (20, 20, 20)])
def test_an_outline_keeps_nothing_of_its_old_background(ground: tuple[int, int, int]) -> None:
    colour = np.array((30, 90, 200))
    fine = np.zeros((1200, 1200), np.uint8)
    cv2.circle(fine, (600, 600), 400, 255, -1)
    alpha = cv2.resize(fine, (300, 300), interpolation=cv2.INTER_AREA)
    share = alpha[..., None] / 255
    mixed = np.round(share * colour + (1 - share) * ground).astype(np.uint8)
    visible = alpha > 12
    off = np.abs(unmix(mixed, alpha).astype(int) - colour).max(axis=2)[visible]
    assert np.abs(mixed.astype(int) - colour).max(axis=2)[visible].max() > 50
    assert off.max() <= 12
    # What is wholly opaque or clear stays as it is.
    whole = (alpha == 0) | (alpha == 255)
    assert (unmix(mixed, alpha)[whole] == mixed[whole]).all()
