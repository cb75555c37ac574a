"""What is done with a picture, compared with exact values or with arithmetic written here.

The photographs are those that the wheel of scikit-image carries.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import skimage
from numpy.typing import NDArray
from PIL import Image, ImageCms
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from imageloom.domain.errors import InvalidInput
from imageloom.images import (
    Fit,
    Format,
    Gravity,
    Picture,
    adjust,
    crop,
    crop_to_ratio,
    decode_picture,
    encode_picture,
    enlarge,
    enlarging,
    fit_picture,
    lay_on,
    parse_color,
    resize,
    resize_picture,
    resized_size,
    with_alpha,
)

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
FORMATS: tuple[Format, ...] = ("jpeg", "png", "webp")
Floats = NDArray[np.float64]


def photograph(name: str = "coffee.png", size: tuple[int, int] | None = None) -> Image.Image:
    with Image.open(PHOTOGRAPHS / name) as image:
        whole = image.convert("RGB")
    return whole if size is None else whole.resize(size, Image.Resampling.BOX)


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def picture_of(rgb: NDArray[np.uint8], alpha: NDArray[np.uint8] | None = None) -> Picture:
    height, width = rgb.shape[:2]
    held = None if alpha is None else alpha.tobytes()
    return Picture(width=width, height=height, rgb=rgb.tobytes(), alpha=held)


def colours(picture: Picture) -> Floats:
    flat = np.frombuffer(picture.rgb, np.uint8)
    return flat.reshape(picture.height, picture.width, 3).astype(float)


def alpha_of(picture: Picture) -> Floats:
    """Return the alpha from 0 to 1, 1 where the picture has none."""
    if picture.alpha is None:
        return np.ones((picture.height, picture.width))
    flat = np.frombuffer(picture.alpha, np.uint8)
    return flat.reshape(picture.height, picture.width) / 255


def with_soft_disc(image: Image.Image) -> Image.Image:
    """Return `image` cut out by a disc with a soft edge, pure green where nothing is seen."""
    x, y = np.meshgrid(np.linspace(-1, 1, image.width), np.linspace(-1, 1, image.height))
    seen = np.clip((0.9 - np.hypot(x, y)) * 8, 0, 1)
    rgb = np.where(seen[..., None] > 0, np.asarray(image), (0, 255, 0)).astype(np.uint8)
    return Image.fromarray(np.dstack([rgb, np.round(seen * 255).astype(np.uint8)]))


def sixteen_bit_png(image: Image.Image) -> bytes:
    wide = np.asarray(image).astype(">u2") * 257
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in wide)

    def chunk(kind: bytes, data: bytes) -> bytes:
        length, check = struct.pack(">I", len(data)), struct.pack(">I", zlib.crc32(kind + data))
        return length + kind + data + check

    header = struct.pack(">IIBBBBB", image.width, image.height, 16, 6, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def animated(file_format: str) -> bytes:
    first, second = with_soft_disc(photograph(size=(120, 80))), Image.new("RGBA", (120, 80))
    return saved(
        first,
        file_format,
        save_all=True,
        append_images=[second],
        duration=20,
        lossless=True,
        exact=True,
    )


SOURCES: dict[str, Callable[[], bytes]] = {
    "photograph": lambda: (PHOTOGRAPHS / "chelsea.png").read_bytes(),
    "jpeg": lambda: saved(photograph(size=(120, 80)), "JPEG", quality=90),
    "cmyk jpeg": lambda: saved(photograph(size=(120, 80)).convert("CMYK"), "JPEG", quality=90),
    "png with alpha": lambda: saved(with_soft_disc(photograph(size=(120, 80))), "PNG"),
    "16-bit png": lambda: sixteen_bit_png(with_soft_disc(photograph(size=(120, 80)))),
    "webp": lambda: saved(photograph(size=(120, 80)), "WEBP"),
    "webp with alpha": lambda: saved(with_soft_disc(photograph(size=(120, 80))), "WEBP"),
    "animated webp": lambda: animated("WEBP"),
    "animated png": lambda: animated("PNG"),
}
CUT_OUTS = {"png with alpha", "16-bit png", "webp with alpha", "animated webp", "animated png"}


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest) -> Picture:
    data = SOURCES[request.param]()
    picture = decode_picture(data, max_pixels=1_000_000, transparency="keep")
    assert (picture.alpha is not None) == (request.param in CUT_OUTS)
    return picture


def disc() -> Picture:
    data = saved(with_soft_disc(photograph(size=(120, 80))), "PNG")
    return decode_picture(data, max_pixels=1_000_000, transparency="keep")


def hard_cut_out(color: tuple[int, int, int] = (100, 30, 200)) -> Picture:
    """Return a square of one colour with a hard edge, pure green where nothing is seen."""
    rgb = np.full((60, 60, 3), (0, 255, 0), np.uint8)
    alpha = np.zeros((60, 60), np.uint8)
    rgb[20:40, 20:40], alpha[20:40, 20:40] = color, 255
    return picture_of(rgb, alpha)


# --- colours


@pytest.mark.parametrize(
    ("text", "color"),
    [
        ("#fff", (255, 255, 255)),
        ("#1aF", (17, 170, 255)),
        ("#0080ff", (0, 128, 255)),
        ("#ABCDEF", (171, 205, 239)),
        ("white", (255, 255, 255)),
        ("SteelBlue", (70, 130, 180)),
        ("darkgrey", (169, 169, 169)),
        ("rebeccapurple", (102, 51, 153)),
    ],
)
def test_colour_is_read(text: str, color: tuple[int, int, int]) -> None:
    assert parse_color(text) == color


@pytest.mark.parametrize(
    "text",
    ["", "#", "#ff", "#ffff", "#fffff", "#ffffffff", "#ggg", "fff", "white ", "#fff\n", "#١٢٣"],
)
def test_what_is_no_colour_is_named(text: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(repr(text))} is no colour; #rgb, #rrggbb"):
        parse_color(text)


@pytest.mark.parametrize("text", ["transparent", "rgb(1,2,3)", "hsl(0,100%,50%)", "rgba(0,0,0,0)"])
def test_functions_and_transparency_are_no_colours(text: str) -> None:
    with pytest.raises(ValueError, match="is no colour"):
        parse_color(text)


# --- sizes


@pytest.mark.parametrize(
    ("size", "width", "height", "fit", "becomes"),
    [
        ((400, 300), 200, None, "contain", (200, 150)),
        ((400, 300), None, 150, "contain", (200, 150)),
        ((400, 300), 1000, None, "contain", (1000, 750)),
        ((3, 2), 100, None, "contain", (100, 67)),
        ((3, 2), 99, None, "contain", (99, 66)),
        ((2, 1), 3, None, "contain", (3, 2)),  # 1.5 goes up
        ((2, 1), 5, None, "contain", (5, 3)),  # and so does 2.5
        ((1000, 1), 10, None, "contain", (10, 1)),
        ((1, 1000), None, 10, "contain", (1, 10)),
        ((400, 300), 200, 200, "contain", (200, 150)),
        ((300, 400), 200, 200, "contain", (150, 200)),
        ((400, 300), 800, 800, "contain", (800, 600)),
        ((400, 300), 400, 300, "contain", (400, 300)),
        ((999, 1000), 100, 100, "contain", (100, 100)),
        ((10_000, 1), 100, 100, "contain", (100, 1)),
        ((400, 300), 200, 200, "cover", (200, 200)),
        ((400, 300), 200, 200, "stretch", (200, 200)),
        ((400, 300), 200, 200, "pad", (200, 200)),
        ((400, 300), 200, None, "cover", (200, 150)),
        ((400, 300), None, 30, "pad", (40, 30)),
    ],
)
def test_size_after_resizing(
    size: tuple[int, int],
    width: int | None,
    height: int | None,
    fit: Fit,
    becomes: tuple[int, int],
) -> None:
    assert resized_size(size, width, height, fit=fit) == becomes


@pytest.mark.parametrize("fit", get_args(Fit))
@pytest.mark.parametrize("box", [(61, 47), (200, 33), (7, None), (None, 301), (120, 80), (1, 1)])
def test_picture_gets_the_size_that_was_foretold(
    box: tuple[int | None, int | None], fit: Fit
) -> None:
    resized = resize(disc(), *box, fit=fit)
    assert (resized.width, resized.height) == resized_size((120, 80), *box, fit=fit)


def test_size_of_no_side_is_refused() -> None:
    with pytest.raises(ValueError, match="give width, height or both"):
        resize(disc(), None, None, fit="contain")


@pytest.mark.parametrize("size", [(1, 1000), (1000, 1)])
@pytest.mark.parametrize("fit", get_args(Fit))
def test_thinnest_pictures_are_resized(size: tuple[int, int], fit: Fit) -> None:
    thin = picture_of(np.full((size[1], size[0], 3), 77, np.uint8))
    resized = resize(thin, size[1], size[0], fit=fit, color=(77, 77, 77))
    assert set(resized.rgb) == {77}


# --- resampling


def kernel(x: Floats, support: int) -> Floats:
    """Return Lanczos of `support` lobes, or for 2 the cubic with a = -0.5."""
    x = np.abs(x)
    if support == 3:
        return np.where(x < 3, np.sinc(x) * np.sinc(x / 3), 0)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def weights(before: int, after: int, start: float, length: float, support: int) -> Floats:
    """Return [after, before]: the part of each old pixel in each new one."""
    step = length / after
    centres = start + (np.arange(after) + 0.5) * step
    distances = (np.arange(before)[None] + 0.5 - centres[:, None]) / max(step, 1)
    parts = kernel(distances, support)
    return parts / parts.sum(axis=1, keepdims=True)


def resampled(
    values: Floats, size: tuple[int, int], box: tuple[float, float, float, float], support: int
) -> Floats:
    left, top, right, bottom = box
    down = weights(values.shape[0], size[1], top, bottom - top, support)
    across = weights(values.shape[1], size[0], left, right - left, support)
    return np.einsum("yi,ijc,xj->yxc", down, values, across, optimize=True)


@pytest.mark.parametrize("size", [(61, 47), (240, 160), (300, 40), (12, 150)])
@pytest.mark.parametrize("bring", [resize_picture, fit_picture])
def test_photograph_is_resampled_with_lanczos(
    size: tuple[int, int], bring: Callable[[Picture, int, int], Picture]
) -> None:
    before = picture_of(np.asarray(photograph(size=(120, 80))))
    box = (0.0, 0.0, 120.0, 80.0) if bring is resize_picture else covered((120, 80), size)
    expected = np.clip(resampled(colours(before), size, box, 3), 0, 255)
    # Pillow rounds, and clips, between the directions.
    assert np.abs(colours(bring(before, *size)) - expected).mean() < 0.6
    assert np.quantile(np.abs(colours(bring(before, *size)) - expected), 0.99) < 2


def covered(size: tuple[int, int], box: tuple[int, int]) -> tuple[float, float, float, float]:
    """Return the middle of `size` that has the proportions of `box`."""
    width = min(size[0], size[1] * box[0] / box[1])
    height = min(size[1], size[0] * box[1] / box[0])
    left, top = (size[0] - width) / 2, (size[1] - height) / 2
    return left, top, left + width, top + height


@pytest.mark.parametrize("size", [(61, 47), (240, 160), (90, 80)])
@pytest.mark.parametrize("bring", [resize_picture, fit_picture])
def test_cut_out_is_resampled_by_what_is_visible(
    size: tuple[int, int], bring: Callable[[Picture, int, int], Picture]
) -> None:
    before = disc()
    box = (0.0, 0.0, 120.0, 80.0) if bring is resize_picture else covered((120, 80), size)
    seen = alpha_of(before)[..., None]
    alpha = resampled(seen, size, box, 2)
    weighted = resampled(colours(before) * seen, size, box, 2)
    after = bring(before, *size)
    assert np.abs(alpha_of(after)[..., None] - np.clip(alpha, 0, 1)).max() < 0.02
    plain = (alpha > 0.5)[..., 0]
    expected = np.clip(weighted / np.where(alpha > 0.5, alpha, 1), 0, 255)
    assert np.abs(colours(after) - expected)[plain].mean() < 1
    assert np.quantile(np.abs(colours(after) - expected)[plain], 0.99) < 4


@pytest.mark.parametrize("color", [(100, 30, 200), (250, 250, 250), (3, 3, 3)])
@pytest.mark.parametrize("size", [(90, 90), (240, 240), (33, 33), (37, 151), (61, 60), (3, 3)])
def test_resized_cut_out_of_one_colour_stays_of_that_colour(
    size: tuple[int, int], color: tuple[int, int, int]
) -> None:
    for bring in (resize_picture, fit_picture):
        resized = bring(hard_cut_out(color), *size)
        seen = alpha_of(resized) > 0.5
        assert np.abs(colours(resized)[seen] - color).max(initial=0) <= 2
        on_black = colours(resized) * alpha_of(resized)[..., None]
        assert (on_black[..., 1] <= color[1] + 2).all()  # no green shows anywhere


@pytest.mark.parametrize("scale", [2, 4])
def test_enlarged_cut_out_of_one_colour_stays_of_that_colour(scale: int) -> None:
    enlarged = enlarge(hard_cut_out(), scale)
    seen = alpha_of(enlarged) > 0
    assert np.abs(colours(enlarged)[seen] - (100, 30, 200)).max() <= 3


def test_no_ring_of_alpha_surrounds_an_outline() -> None:
    for resized in (resize_picture(hard_cut_out(), 240, 240), enlarge(hard_cut_out(), 4)):
        alpha = alpha_of(resized)
        assert (alpha[:, :76] == 0).all()  # the outline is at 80, bicubic reaches no further
        assert (alpha[84:156, 84:156] == 1).all()


# --- fits


def test_pad_fills_up_on_both_sides() -> None:
    red = picture_of(np.full((10, 20, 3), (200, 0, 0), np.uint8))
    padded = resize(red, 40, 31, fit="pad", color=(1, 2, 3))
    assert padded.alpha is None
    expected = np.full((31, 40, 3), (1, 2, 3))
    expected[5:25] = (200, 0, 0)
    assert (colours(padded) == expected).all()


def test_pad_without_a_colour_is_transparent() -> None:
    red = picture_of(np.full((20, 10, 3), (200, 0, 0), np.uint8))
    padded = resize(red, 41, 40, fit="pad", color=None)
    expected = np.zeros((40, 41))
    expected[:, 10:30] = 1
    assert (alpha_of(padded) == expected).all()
    assert (colours(padded)[expected == 1] == (200, 0, 0)).all()


def test_pad_of_the_same_proportions_stays_opaque() -> None:
    red = picture_of(np.full((20, 10, 3), (200, 0, 0), np.uint8))
    assert resize(red, 20, 40, fit="pad", color=None).alpha is None


def test_padded_cut_out_lies_on_the_colour_or_stays_one() -> None:
    square = hard_cut_out()
    on_white = resize(square, 80, 60, fit="pad", color=(255, 255, 255))
    assert on_white.alpha is None
    expected = np.full((60, 80, 3), 255)
    expected[20:40, 30:50] = (100, 30, 200)
    assert (colours(on_white) == expected).all()
    kept = resize(square, 80, 60, fit="pad", color=None)
    assert alpha_of(kept).sum() == 400
    assert (alpha_of(kept)[20:40, 30:50] == 1).all()


def test_cover_cuts_the_overhang_off_both_sides() -> None:
    stripes = np.zeros((10, 30, 3), np.uint8)
    stripes[:, 10:20] = 250
    covering = resize(picture_of(stripes), 10, 10, fit="cover", color=None)
    assert (colours(covering)[:, 1:9] > 240).all()


def test_stretch_does_not_keep_proportions() -> None:
    halves = np.zeros((10, 40, 3), np.uint8)
    halves[:, 20:] = 200
    stretched = colours(resize(picture_of(halves), 10, 40, fit="stretch", color=None))
    assert (stretched[:, :3] <= 3).all()
    assert (stretched[:, 7:] >= 197).all()


# --- crop


def test_crop_is_that_box(source: Picture) -> None:
    cut = crop(source, 7, 11, 50, 33)
    assert (cut.width, cut.height) == (50, 33)
    assert (colours(cut) == colours(source)[11:44, 7:57]).all()
    assert (alpha_of(cut) == alpha_of(source)[11:44, 7:57]).all()
    assert (cut.alpha is None) == (source.alpha is None)


def test_crop_of_everything_is_the_picture() -> None:
    whole = disc()
    assert crop(whole, 0, 0, 120, 80) is whole


@pytest.mark.parametrize(
    "box", [(0, 0, 121, 80), (0, 0, 120, 81), (119, 0, 2, 1), (0, 80, 1, 1), (-1, 0, 2, 2)]
)
def test_crop_outside_of_the_picture_is_refused(box: tuple[int, int, int, int]) -> None:
    left, top, width, height = box
    message = (
        f"the box of {width} x {height} at left {left}, top {top} reaches outside of the picture, "
        "which is 120 x 80"
    )
    with pytest.raises(InvalidInput, match=f"^{message}$"):
        crop(disc(), *box)


def test_crop_to_nothing_is_refused() -> None:
    with pytest.raises(InvalidInput, match="the box is 0 x 5; at least 1 x 1 is needed"):
        crop(disc(), 0, 0, 0, 5)


@pytest.mark.parametrize(
    ("gravity", "left", "top"),
    [
        ("center", 20, 0),
        ("top", 20, 0),
        ("bottom", 20, 0),
        ("left", 0, 0),
        ("right", 40, 0),
        ("top-left", 0, 0),
        ("top-right", 40, 0),
        ("bottom-left", 0, 0),
        ("bottom-right", 40, 0),
    ],
)
def test_gravity_says_what_a_wide_picture_keeps(gravity: Gravity, left: int, top: int) -> None:
    assert crop_to_ratio(disc(), 1, 1, gravity) == crop(disc(), left, top, 80, 80)


@pytest.mark.parametrize(
    ("gravity", "top"),
    [
        ("center", 10),
        ("top", 0),
        ("bottom", 20),
        ("left", 10),
        ("right", 10),
        ("top-left", 0),
        ("top-right", 0),
        ("bottom-left", 20),
        ("bottom-right", 20),
    ],
)
def test_gravity_says_what_a_high_picture_keeps(gravity: Gravity, top: int) -> None:
    assert crop_to_ratio(disc(), 2, 1, gravity) == crop(disc(), 0, top, 120, 60)


@pytest.mark.parametrize(
    ("across", "down", "size"),
    [
        (3, 2, (120, 80)),
        (4, 5, (64, 80)),
        (16, 9, (120, 68)),  # 67.5
        (9, 16, (45, 80)),
        (1, 9999, (1, 80)),
        (9999, 1, (120, 1)),
    ],
)
def test_ratio_gives_the_largest_box(across: int, down: int, size: tuple[int, int]) -> None:
    cut = crop_to_ratio(disc(), across, down, "center")
    assert (cut.width, cut.height) == size


# --- adjust


def grey(rgb: Floats) -> Floats:
    return rgb @ (0.299, 0.587, 0.114)


def blended(start: Floats | float, end: Floats, factor: float) -> Floats:
    return np.clip(start + factor * (end - start), 0, 255)


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.6, 4.0])
def test_brightness_is_a_factor(source: Picture, factor: float) -> None:
    adjusted = adjust(source, brightness=factor)
    assert np.abs(colours(adjusted) - np.clip(colours(source) * factor, 0, 255)).max() <= 1
    assert adjusted.alpha == source.alpha


@pytest.mark.parametrize("factor", [0.0, 0.4, 1.6])
def test_contrast_is_around_the_mean_of_what_is_visible(source: Picture, factor: float) -> None:
    mean = grey(colours(source))[alpha_of(source) > 0].mean()
    adjusted = adjust(source, contrast=factor)
    assert np.abs(colours(adjusted) - blended(mean, colours(source), factor)).max() <= 2
    assert adjusted.alpha == source.alpha


def test_hidden_colours_do_not_move_the_contrast() -> None:
    square = hard_cut_out((10, 10, 10))
    assert (colours(adjust(square, contrast=0))[20:40, 20:40] == 10).all()
    nothing = with_alpha(picture_of(np.full((4, 4, 3), 9, np.uint8)), bytes(16))
    assert adjust(nothing, contrast=0.5).alpha == bytes(16)


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.5])
def test_saturation_is_the_distance_from_grey(source: Picture, factor: float) -> None:
    adjusted = adjust(source, saturation=factor)
    expected = blended(grey(colours(source))[..., None], colours(source), factor)
    assert np.abs(colours(adjusted) - expected).max() <= 2
    assert adjusted.alpha == source.alpha


@pytest.mark.parametrize("factor", [0.0, 0.5, 2.0])
def test_sharpness_is_the_distance_from_the_mean_of_the_visible_neighbours(
    source: Picture, factor: float
) -> None:
    adjusted = adjust(source, sharpness=factor)
    inside = (slice(1, -1), slice(1, -1))
    soft = np.zeros((source.height - 2, source.width - 2, 3))
    total = np.zeros((source.height - 2, source.width - 2, 1))
    seen = alpha_of(source)[..., None]
    for y in (0, 1, 2):
        for x in (0, 1, 2):
            part = 5 if x == y == 1 else 1
            box = (slice(y, source.height - 2 + y), slice(x, source.width - 2 + x))
            soft += part * (colours(source) * seen)[box]
            total += part * seen[box]
    plain = seen[inside][..., 0] > 0.5
    expected = blended(soft / np.where(total, total, 1), colours(source)[inside], factor)
    assert np.abs(colours(adjusted)[inside] - expected)[plain].max() <= 3
    assert adjusted.alpha == source.alpha


@pytest.mark.parametrize("factor", [0.0, 0.5, 3.0])
def test_sharpness_draws_no_hidden_colour_into_an_outline(factor: float) -> None:
    adjusted = adjust(hard_cut_out(), sharpness=factor)
    assert np.abs(colours(adjusted)[20:40, 20:40] - (100, 30, 200)).max() <= 3


def test_factors_of_one_change_nothing(source: Picture) -> None:
    assert adjust(source) == source


def test_adjustments_follow_one_another_in_the_order_of_their_names() -> None:
    photo = picture_of(np.asarray(photograph(size=(120, 80))))
    step = adjust(adjust(photo, brightness=1.5), contrast=0.7)
    step = adjust(adjust(step, saturation=1.8), sharpness=2)
    together = adjust(photo, brightness=1.5, contrast=0.7, saturation=1.8, sharpness=2)
    assert together == step
    assert adjust(adjust(photo, contrast=0.7), brightness=1.5) != adjust(
        photo, contrast=0.7, brightness=1.5
    )


# --- backgrounds and cut-outs


def test_colour_shows_through_what_is_transparent(source: Picture) -> None:
    laid = lay_on(source, (10, 200, 90))
    seen = alpha_of(source)[..., None]
    expected = colours(source) * seen + np.array((10, 200, 90)) * (1 - seen)
    assert laid.alpha is None
    assert np.abs(colours(laid) - expected).max() <= 1


def test_background_is_scaled_to_cover() -> None:
    background = picture_of(np.asarray(photograph("chelsea.png")))
    before = disc()
    laid = lay_on(before, background)
    seen = alpha_of(before)[..., None]
    behind = colours(fit_picture(background, 120, 80))
    expected = colours(before) * seen + behind * (1 - seen)
    assert laid.alpha is None
    assert np.abs(colours(laid) - expected).max() <= 1


def test_transparent_background_is_white() -> None:
    nothing = with_alpha(picture_of(np.zeros((5, 5, 3), np.uint8)), bytes(25))
    laid = lay_on(hard_cut_out(), nothing)
    assert laid.alpha is None
    assert (colours(laid)[:20] == 255).all()
    assert (colours(laid)[20:40, 20:40] == (100, 30, 200)).all()


def test_opaque_picture_covers_its_background() -> None:
    photo = picture_of(np.asarray(photograph(size=(120, 80))))
    assert lay_on(photo, (1, 2, 3)) is photo


def test_alpha_cuts_out_and_colours_stay() -> None:
    photo = picture_of(np.asarray(photograph(size=(120, 80))))
    alpha = bytes(value % 256 for value in range(120 * 80))
    assert with_alpha(photo, alpha) == Picture(width=120, height=80, rgb=photo.rgb, alpha=alpha)


def test_alpha_of_a_cut_out_is_multiplied() -> None:
    every = np.arange(256, dtype=np.uint8)
    own, other = np.repeat(every, 256), np.tile(every, 256)
    before = picture_of(np.zeros((256, 256, 3), np.uint8), own.reshape(256, 256))
    cut = with_alpha(before, other.tobytes())
    expected = np.floor(own.astype(float) * other / 255 + 0.5).reshape(256, 256)
    assert cut.alpha == expected.astype(np.uint8).tobytes()


@pytest.mark.parametrize("before", [hard_cut_out(), lay_on(hard_cut_out(), (0, 0, 0))])
@pytest.mark.parametrize("length", [0, 3599, 3601])
def test_alpha_of_another_size_is_refused(before: Picture, length: int) -> None:
    with pytest.raises(ValueError, match=f"60 x 60 alpha has 3600 bytes, not {length}"):
        with_alpha(before, bytes(length))


# --- enlarge


@pytest.mark.parametrize("scale", [2, 4])
def test_every_source_is_enlarged_exactly(source: Picture, scale: int) -> None:
    small = crop(source, 10, 10, 60, 40)
    larger = enlarge(small, scale)
    assert (larger.width, larger.height) == (60 * scale, 40 * scale)
    assert (larger.alpha is None) == (small.alpha is None)
    seen = alpha_of(larger)[..., None]
    blocks = (40, scale, 60, scale, 3)
    back = (colours(larger) * seen).reshape(blocks).mean(axis=(1, 3))
    expected = colours(small) * alpha_of(small)[..., None]
    assert peak_signal_noise_ratio(expected, back, data_range=255) > 28


@pytest.mark.parametrize(("scale", "gain"), [(2, 0.2), (4, 0.15)])
def test_enlarged_photograph_is_nearer_to_the_original_than_lanczos(
    scale: int, gain: float
) -> None:
    for name in ("astronaut.png", "coffee.png"):
        original = photograph(name)
        small = original.reduce(scale)
        ours = enlarge(picture_of(np.asarray(small)), scale)
        plain = small.resize(original.size, Image.Resampling.LANCZOS)
        truth = np.asarray(original)
        pixels = colours(ours).astype(np.uint8)
        won = peak_signal_noise_ratio(truth, pixels) - peak_signal_noise_ratio(
            truth, np.asarray(plain)
        )
        assert won > gain
        assert structural_similarity(truth, pixels, channel_axis=2) > structural_similarity(
            truth, np.asarray(plain), channel_axis=2
        )


@pytest.mark.parametrize("scale", [2, 4])
def test_enlarging_neither_rings_nor_clips(scale: int) -> None:
    photo = np.asarray(photograph("astronaut.png", (128, 128)))
    larger = colours(enlarge(picture_of(photo), scale))
    framed = np.pad(photo, ((2, 2), (2, 2), (0, 0)), "edge")
    around = np.lib.stride_tricks.sliding_window_view(framed, (5, 5), axis=(0, 1))
    spread = np.ones((scale, scale, 1))
    assert (larger <= np.kron(around.max(axis=(3, 4)), spread)).all()
    assert (larger >= np.kron(around.min(axis=(3, 4)), spread)).all()
    edge = np.full((32, 64, 3), 64, np.uint8)
    edge[:, 32:] = 192
    enlarged = colours(enlarge(picture_of(edge), scale))
    assert (enlarged.min(), enlarged.max()) == (64, 192)


def test_flat_colour_is_enlarged_to_itself() -> None:
    flat = picture_of(np.full((9, 7, 3), (13, 120, 251), np.uint8))
    assert (colours(enlarge(flat, 4)) == (13, 120, 251)).all()


def test_strips_leave_no_seam(monkeypatch: pytest.MonkeyPatch) -> None:
    before = disc()
    at_once = enlarge(before, 4)
    monkeypatch.setattr(enlarging, "_STRIP", 1)
    assert enlarge(before, 4) == at_once
    monkeypatch.setattr(enlarging, "_STRIP", 7 * 120 * 16)
    assert enlarge(before, 4) == at_once


# --- what outputs carry


def photograph_with_a_past() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "SecretCamera"
    exif.get_ifd(0x8825).update({1: "N", 2: (52.0, 31.0, 12.0), 3: "E", 4: (13.0, 24.0, 18.0)})
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return saved(
        photograph(size=(120, 80)),
        "JPEG",
        exif=exif.tobytes(),
        icc_profile=profile,
        xmp=b"<x:xmpmeta>SecretPlace</x:xmpmeta>",
        comment=b"SecretComment",
    )


OPERATIONS: dict[str, Callable[[Picture], Picture]] = {
    "nothing": lambda picture: picture,
    "resize": lambda picture: resize(picture, 60, 60, fit="contain", color=None),
    "crop": lambda picture: crop(picture, 1, 1, 40, 40),
    "adjust": lambda picture: adjust(picture, contrast=1.2),
    "lay on": lambda picture: lay_on(picture, (0, 0, 0)),
    "enlarge": lambda picture: enlarge(picture, 2),
}


@pytest.mark.parametrize("output_format", FORMATS)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_output_carries_nothing_of_the_source_but_pixels(
    operation: str, output_format: Format
) -> None:
    data = photograph_with_a_past()
    for secret in (b"SecretCamera", b"SecretPlace", b"SecretComment", b"ICC_PROFILE"):
        assert secret in data
    picture = decode_picture(data, max_pixels=1_000_000, transparency="keep")
    encoded = encode_picture(OPERATIONS[operation](picture), output_format)
    for trace in (b"Secret", b"ICC_PROFILE", b"iCCP", b"ICCP", b"Exif", b"EXIF", b"eXIf", b"xmp"):
        assert trace not in encoded.data
    with Image.open(BytesIO(encoded.data)) as image:
        assert not image.getexif()
        assert not set(image.info) & {"exif", "icc_profile", "xmp", "comment", "photoshop"}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_takes_every_source(source: Picture, operation: str) -> None:
    result = OPERATIONS[operation](source)
    assert (result.alpha is None) == (source.alpha is None or operation == "lay on")
    encoded = encode_picture(result, "png")
    again = decode_picture(encoded.data, max_pixels=1_000_000, transparency="keep")
    assert (again.width, again.height, again.rgb) == (result.width, result.height, result.rgb)


@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_cut_out_comes_back_from_its_file(output_format: Format) -> None:
    before = disc()
    encoded = encode_picture(before, output_format)
    again = decode_picture(encoded.data, max_pixels=1_000_000, transparency="keep")
    assert again.alpha == before.alpha
    difference = np.abs(colours(again) - colours(before))[alpha_of(before) > 0.5]
    assert difference.mean() <= (0 if output_format == "png" else 4)
