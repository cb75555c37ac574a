"""What users send becomes an upright sRGB picture or a clear refusal; what we make becomes files.

The photographs are those that the wheel of scikit-image carries.
"""

from __future__ import annotations

import random
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
import skimage
from PIL import Image, ImageChops, ImageCms, ImageDraw, ImageStat, PngImagePlugin

from imageloom.domain.errors import InvalidInput
from imageloom.images import (
    Format,
    Picture,
    decode_picture,
    encode_picture,
    fit_picture,
    resize_picture,
)

PHOTOGRAPHS = Path(skimage.__file__).parent / "data"
LIMIT = 64_000_000
FORMATS: tuple[Format, ...] = ("jpeg", "png", "webp")


def photograph(name: str = "astronaut.png") -> Image.Image:
    with Image.open(PHOTOGRAPHS / name) as image:
        return image.convert("RGB")


def saved(image: Image.Image, file_format: str, **options: object) -> bytes:
    out = BytesIO()
    image.save(out, file_format, **options)
    return out.getvalue()


def decode(data: bytes) -> Picture:
    return decode_picture(data, max_pixels=LIMIT)


def as_image(picture: Picture) -> Image.Image:
    return Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)


def difference(one: Picture, other: Image.Image) -> float:
    """Return the mean difference of two pictures of one size, 0 to 255."""
    mine, theirs = as_image(one), other.convert("RGB")
    assert mine.size == theirs.size
    pairs = zip(mine.tobytes(), theirs.tobytes(), strict=True)
    return sum(abs(a - b) for a, b in pairs) / len(one.rgb)


def refusal(data: bytes, *, max_pixels: int = LIMIT) -> str:
    with pytest.raises(InvalidInput) as refused:
        decode_picture(data, max_pixels=max_pixels)
    return refused.value.message


@pytest.fixture(scope="module")
def astronaut() -> Picture:
    return decode((PHOTOGRAPHS / "astronaut.png").read_bytes())


@pytest.fixture(scope="module")
def corners() -> Image.Image:
    """80 x 48, each corner of another colour, so that every turn of it differs."""
    image = Image.new("RGB", (80, 48), "red")
    draw = ImageDraw.Draw(image)
    draw.rectangle((40, 0, 79, 23), "lime")
    draw.rectangle((0, 24, 39, 47), "blue")
    draw.rectangle((40, 24, 79, 47), "white")
    return image


@pytest.mark.parametrize(
    "name",
    ["astronaut.png", "camera.png", "cell.png", "chelsea.png", "coffee.png", "motorcycle_left.png"],
)
def test_photograph_is_read_as_pillow_reads_it(name: str) -> None:
    picture = decode((PHOTOGRAPHS / name).read_bytes())
    expected = photograph(name)
    assert (picture.width, picture.height) == expected.size
    assert picture.rgb == expected.tobytes()
    assert picture.alpha is None


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(
    corners: Image.Image, file_format: str, orientation: int
) -> None:
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    as_held = corners.transpose(undo[orientation]) if orientation > 1 else corners
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = decode(saved(as_held, file_format, exif=exif.tobytes(), quality=95))
    assert difference(picture, corners) < 3


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_senseless_orientation_is_ignored(corners: Image.Image, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    assert decode(saved(corners, "PNG", exif=exif.tobytes())).rgb == corners.tobytes()


@pytest.mark.parametrize("exif", [b"Exif\x00\x00", b"Exif\x00\x00II*\x00\xff\xff\xff\xff", b"junk"])
def test_damaged_exif_beside_intact_pixels_is_ignored(corners: Image.Image, exif: bytes) -> None:
    assert difference(decode(saved(corners, "JPEG", exif=exif, quality=95)), corners) < 3


def test_transparency_lies_on_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putpixel((0, 0), (10, 20, 30, 255))
    image.putpixel((1, 0), (10, 20, 30, 0))
    image.putpixel((2, 0), (0, 0, 0, 128))
    picture = decode(saved(image, "PNG"))
    assert picture.rgb == bytes([10, 20, 30, 255, 255, 255, 127, 127, 127])
    assert picture.alpha is None


def test_transparent_palette_and_grey_lie_on_white() -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([255, 0, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    one_index = decode(saved(palette, "PNG", transparency=1))
    each_index = decode(saved(palette, "PNG", transparency=b"\x80\xff"))
    assert one_index.rgb == bytes([255, 0, 0, 255, 255, 255])
    assert each_index.rgb == bytes([255, 127, 127, 0, 0, 255])
    grey = Image.new("LA", (2, 1))
    grey.putpixel((0, 0), (100, 255))
    assert decode(saved(grey, "PNG")).rgb == bytes([100, 100, 100, 255, 255, 255])
    assert decode(saved(grey, "WEBP", lossless=True)).rgb == decode(saved(grey, "PNG")).rgb


def keep(data: bytes) -> Picture:
    return decode_picture(data, max_pixels=LIMIT, transparency="keep")


def cut_out() -> Image.Image:
    """Return a photograph of 48 x 32 whose alpha falls from the left to the right, 255 to 0."""
    image = photograph("coffee.png").resize((48, 32))
    alpha = Image.frombytes("L", (48, 1), bytes(255 - 255 * x // 47 for x in range(48)))
    image.putalpha(alpha.resize((48, 32)))
    return image


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_kept_alpha_and_its_colours_stand_upright(orientation: int, file_format: str) -> None:
    upright = cut_out()
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    as_held = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = saved(as_held, file_format, exif=exif.tobytes(), lossless=True, exact=True)
    picture = keep(data)
    assert (picture.width, picture.height) == upright.size
    assert picture.rgb == upright.convert("RGB").tobytes()
    assert picture.alpha == upright.getchannel("A").tobytes()


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_alpha_that_is_opaque_everywhere_is_dropped(file_format: str) -> None:
    image = photograph()
    image.putalpha(255)
    assert keep(saved(image, file_format, lossless=True)) == decode(saved(photograph(), "PNG"))
    image.putpixel((3, 5), (1, 2, 3, 254))
    kept = keep(saved(image, file_format, lossless=True))
    assert kept.alpha is not None
    assert kept.alpha.index(254) == 5 * image.width + 3
    assert kept.alpha.count(255) == image.width * image.height - 1


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK"])
def test_picture_without_transparency_has_no_alpha(mode: str) -> None:
    data = saved(photograph().convert(mode), "JPEG" if mode == "CMYK" else "PNG")
    assert keep(data) == decode(data)


def test_transparent_palette_keeps_the_alpha_of_each_entry() -> None:
    palette = Image.new("P", (3, 1))
    palette.putpalette([255, 0, 0, 0, 200, 0, 0, 0, 255])
    palette.putpixel((1, 0), 1)
    palette.putpixel((2, 0), 2)
    each = keep(saved(palette, "PNG", transparency=b"\x80\xff\x00"))
    assert each.rgb == bytes([255, 0, 0, 0, 200, 0, 0, 0, 255])
    assert each.alpha == b"\x80\xff\x00"
    one = keep(saved(palette, "PNG", transparency=1))
    assert one.alpha == b"\xff\x00\xff"


@pytest.mark.parametrize(
    ("depth", "row", "key", "greys", "alpha"),
    [
        (1, b"\x40", 1, [0, 255, 0, 0], b"\xff\x00\xff\xff"),
        (1, b"\x40", 0, [0, 255, 0, 0], b"\x00\xff\x00\x00"),
        (2, b"\x1b", 2, [0, 85, 170, 255], b"\xff\xff\x00\xff"),
        (4, b"\x0f\x51", 5, [0, 255, 85, 17], b"\xff\xff\x00\xff"),
        (8, b"\x00\x63\x64\xff", 0x64, [0, 99, 100, 255], b"\xff\xff\x00\xff"),
        (
            16,
            struct.pack(">4H", 0, 65_534, 65_535, 25_700),
            65_535,
            [0, 255, 255, 100],
            b"\xff\xff\x00\xff",
        ),
    ],
)
def test_grey_that_means_transparent_is_found_at_every_depth(
    depth: int, row: bytes, key: int, greys: list[int], alpha: bytes
) -> None:
    named = chunk(b"tRNS", struct.pack(">H", key))
    data = png_of(4, 1, b"\x00" + row, depth=depth, colour=0, before=named)
    picture = keep(data)
    assert list(picture.rgb[::3]) == greys
    assert picture.alpha == alpha
    on_white = [grey if seen else 255 for grey, seen in zip(greys, alpha, strict=True)]
    assert list(decode(data).rgb[::3]) == on_white


def test_colour_that_means_transparent_is_found_in_8_and_16_bits() -> None:
    named = chunk(b"tRNS", struct.pack(">3H", 10, 20, 30))
    row = b"\x00" + bytes([10, 20, 30, 10, 20, 31, 11, 20, 30, 10, 21, 30])
    picture = keep(png_of(4, 1, row, colour=2, before=named))
    assert picture.rgb == row[1:]
    assert picture.alpha == b"\x00\xff\xff\xff"
    named = chunk(b"tRNS", struct.pack(">3H", 0x0A0B, 0x1413, 65_535))
    wide = b"\x00" + struct.pack(">6H", 0x0A0B, 0x1413, 65_535, 0x0A0B, 0x1413, 0)
    picture = keep(png_of(2, 1, wide, depth=16, colour=2, before=named))
    assert picture.rgb == bytes([10, 20, 255, 10, 20, 0])
    assert picture.alpha == b"\x00\xff"


def test_sixteen_bits_with_alpha_are_read() -> None:
    row = b"\x00" + struct.pack(">8H", 65_535, 25_700, 0, 32_896, 257, 514, 771, 0)
    picture = keep(png_of(2, 1, row, depth=16, colour=6))
    assert picture.rgb == bytes([255, 100, 0, 1, 2, 3])
    assert picture.alpha == b"\x80\x00"
    grey = b"\x00" + struct.pack(">4H", 25_700, 65_535, 65_535, 0)
    picture = keep(png_of(2, 1, grey, depth=16, colour=4))
    assert picture.rgb == bytes([100, 100, 100, 255, 255, 255])
    assert picture.alpha == b"\xff\x00"


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_animation_keeps_the_alpha_of_its_first_frame(file_format: str) -> None:
    first, second = cut_out(), Image.new("RGBA", (48, 32), "lime")
    data = saved(
        first,
        file_format,
        save_all=True,
        append_images=[second],
        duration=9,
        lossless=True,
        exact=True,
    )
    picture = keep(data)
    alpha = first.getchannel("A").tobytes()
    assert picture.alpha == alpha
    seen = [at for at, value in enumerate(alpha) if value]
    colours = first.convert("RGB").tobytes()
    assert all(picture.rgb[3 * at : 3 * at + 3] == colours[3 * at : 3 * at + 3] for at in seen)


def test_profile_is_converted_beside_kept_alpha() -> None:
    image = Image.new("RGBA", (8, 8), (200, 30, 30, 100))
    picture = keep(saved(image, "PNG", icc_profile=profile()))
    red, green, blue = picture.rgb[:3]
    assert max(abs(red - 30), abs(green - 200), abs(blue - 30)) < 3
    assert picture.alpha == bytes([100]) * 64


def grey_profile(gamma: float) -> bytes:
    """Return the smallest profile that is one: a white point and a curve for grey."""
    d50 = struct.pack(">3i", 63_190, 65_536, 54_061)
    white = b"XYZ ".ljust(8, b"\0") + d50
    curve = b"curv".ljust(8, b"\0") + struct.pack(">IH", 1, round(gamma * 256))
    start = 128 + 4 + 2 * 12
    table = struct.pack(">I4sII", 2, b"wtpt", start, len(white))
    table += struct.pack(">4sII", b"kTRC", start + len(white), len(curve))
    size = start + len(white) + len(curve)
    head = struct.pack(">I4xI4s4s4s12x4s28x", size, 0x02400000, b"mntr", b"GRAY", b"XYZ ", b"acsp")
    return (head + d50).ljust(128, b"\0") + table + white + curve


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_profile_is_converted_with_and_without_alpha(mode: str) -> None:
    image = Image.new("LA", (4, 4), (55, 200)).convert(mode)
    picture = keep(saved(image, "PNG", icc_profile=grey_profile(1.0)))
    assert picture.rgb == bytes([128]) * 48  # linear 55/255 = 0.2157 is 128 in sRGB
    assert picture.alpha == (bytes([200]) * 16 if mode == "LA" else None)


def test_ycck_jpeg_of_adobe_looks_like_the_original() -> None:
    original = photograph().crop((0, 0, 256, 256))
    # Stored are Y, Cb, Cr of the ink and 255 minus black; Pillow inverts all four as it writes.
    ink = ImageChops.invert(original).convert("YCbCr")
    stored = Image.merge("CMYK", (*ink.split(), Image.new("L", original.size, 255)))
    data = bytearray(saved(ImageChops.invert(stored), "JPEG", quality=95))
    data[data.index(b"Adobe") + 11] = 2  # the transform: YCCK
    assert difference(decode(bytes(data)), original) < 4


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_few_colours_are_widened(mode: str) -> None:
    image = photograph("camera.png").convert(mode)
    assert decode(saved(image, "PNG")).rgb == image.convert("RGB").tobytes()


def test_sixteen_bit_grey_keeps_its_range() -> None:
    values = [0, 128, 257, 25_700, 32_768, 65_535]
    wide = Image.frombytes("I;16", (6, 1), struct.pack("<6H", *values))
    picture = decode(saved(wide, "PNG"))
    assert list(picture.rgb[::3]) == [round(value / 257) for value in values]


def test_sixteen_bit_colour_is_read() -> None:
    row = b"\x00" + struct.pack(">6H", 65_535, 32_768, 0, 257, 25_700, 65_535)
    picture = decode(png_of(2, 1, row, depth=16, colour=2))
    assert picture.rgb == bytes([255, 128, 0, 1, 100, 255])


def test_cmyk_without_profile_looks_like_the_original() -> None:
    original = photograph()
    data = saved(original.convert("CMYK"), "JPEG", quality=95)
    assert difference(decode(data), original) < 4


def test_grey_jpeg_is_grey() -> None:
    picture = decode(saved(photograph().convert("L"), "JPEG"))
    assert picture.rgb[0::3] == picture.rgb[1::3] == picture.rgb[2::3]


def profile(**changes: str) -> bytes:
    """Return a display profile that is clearly not sRGB: ProPhoto-like by swapping primaries."""
    made = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", made[128:132])[0]
    tags = {
        bytes(made[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)
    }  # entries of 12 bytes: name, offset, size
    red, green = tags[b"rXYZ"], tags[b"gXYZ"]
    made[red + 4 : red + 12], made[green + 4 : green + 12] = (
        made[green + 4 : green + 12],
        made[red + 4 : red + 12],
    )
    return bytes(made).replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))


def test_profile_is_converted_to_srgb() -> None:
    flat = Image.new("RGB", (8, 8), (200, 30, 30))
    plain = decode(saved(flat, "PNG"))
    converted = decode(saved(flat, "PNG", icc_profile=profile()))
    assert plain.rgb[:3] == bytes([200, 30, 30])
    red, green, blue = converted.rgb[:3]
    assert abs(red - 30) < 3
    assert abs(green - 200) < 3
    assert abs(blue - 30) < 3


def test_srgb_profile_changes_nothing() -> None:
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image = photograph()
    assert decode(saved(image, "PNG", icc_profile=own)).rgb == image.tobytes()


@pytest.mark.parametrize("junk", [b"x", b"x" * 128, b"x" * 2000])
def test_broken_profile_is_ignored(junk: bytes) -> None:
    image = photograph()
    assert decode(saved(image, "PNG", icc_profile=junk)).rgb == image.tobytes()
    truncated = profile()[:300]
    assert decode(saved(image, "PNG", icc_profile=truncated)).rgb == image.tobytes()


def test_profile_of_other_colours_is_ignored() -> None:
    grey = photograph("camera.png").convert("L")
    data = saved(grey, "PNG", icc_profile=profile())
    assert decode(data).rgb == grey.convert("RGB").tobytes()


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_animation_gives_its_first_frame(file_format: str) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "lime")]
    data = saved(
        frames[0], file_format, save_all=True, append_images=frames[1:], lossless=True, duration=9
    )
    assert decode(data).rgb == frames[0].tobytes()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (b"", "is empty, 0 bytes"),
        (b"<!DOCTYPE html><html><body>Sign in</body></html>", "is HTML"),
        (b"\xef\xbb\xbf\n  <html lang=en>", "is HTML"),
        (b"<!-- x --><html>", "is HTML"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "is SVG"),
        (b'<?xml version="1.0"?>\n<svg onload="alert(1)"/>', "is SVG"),
        (b'<?xml version="1.0"?><Error/>', "is XML"),
        (b'{"error": "not found"}', "is JSON or other text"),
        (b"%PDF-1.7\n", "is PDF"),
        (b"GIF89a\x01\x00\x01\x00", "is GIF"),
        (b"BM\x00\x00", "is BMP"),
        (b"II*\x00\x08\x00", "is TIFF"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00", "is HEIC"),
        (b"\x00\x00\x00\x18ftypmif1\x00\x00", "is HEIC"),
        (b"\x00\x00\x00\x18ftypavif\x00\x00", "is AVIF"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00", "is a video"),
        (b"PK\x03\x04", "is a ZIP archive"),
        (b"import os\n", "is of an unknown format"),
        (b"\x00" * 100, "is of an unknown format"),
        (b"RIFF\x00\x00\x00\x00WAVE", "is of an unknown format"),
    ],
)
def test_other_content_is_named(data: bytes, found: str) -> None:
    message = refusal(data)
    assert message.startswith(f"the input {found}")
    assert message.endswith("JPEG, PNG and WebP are accepted")


def test_gif_is_refused_even_when_whole() -> None:
    assert refusal((PHOTOGRAPHS / "no_time_for_that_tiny.gif").read_bytes()).startswith(
        "the input is GIF"
    )


def test_name_of_the_input_is_in_the_message() -> None:
    with pytest.raises(InvalidInput, match=r"^dog/3\.jpg is empty"):
        decode_picture(b"", max_pixels=LIMIT, name="dog/3.jpg")


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9, 0.99])
def test_truncated_picture_is_refused(file_format: str, share: float) -> None:
    data = saved(photograph(), file_format)
    assert refusal(data[: int(len(data) * share)]) == "the input is a damaged or truncated picture"


@pytest.mark.parametrize(
    "head", [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"RIFF\x00\x00\x00\x00WEBP"]
)
@pytest.mark.parametrize("rest", [b"", b"\x00" * 100, b"\xff" * 100, b"<html>" * 50])
def test_signature_alone_is_no_picture(head: bytes, rest: bytes) -> None:
    assert refusal(head + rest) == "the input is a damaged or truncated picture"


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(
    width: int,
    height: int,
    rows: bytes,
    *,
    depth: int = 8,
    colour: int = 0,
    before: bytes = b"",
) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + before
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("width", "height", "megapixels"),
    [(65_535, 65_535, "4294.8"), (12_000, 12_000, "144.0"), (9000, 10_000, "90.0")],
)
def test_pixel_bomb_is_refused_from_its_header(width: int, height: int, megapixels: str) -> None:
    data = png_of(width, height, b"\x00" * 1000)
    tracemalloc.start()
    try:
        message = refusal(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert message == (
        f"the input is {width} x {height}, {megapixels} megapixels; at most 64 are accepted"
    )
    assert peak < 5_000_000


def test_whole_png_of_144_megapixels_is_refused_without_a_warning() -> None:
    data = png_of(12_000, 12_000, b"\x00" * (12_001 * 12_000))
    assert len(data) < 500_000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "144.0 megapixels" in refusal(data)


@pytest.mark.parametrize("file_format", ["JPEG", "WEBP"])
def test_large_jpeg_and_webp_are_refused_from_their_headers(file_format: str) -> None:
    data = saved(Image.new("L", (3000, 3000)), file_format)
    assert "9.0 megapixels; at most 8 are accepted" in refusal(data, max_pixels=8_000_000)
    assert refusal(data[:2000], max_pixels=8_000_000)


def test_picture_of_exactly_the_limit_is_read() -> None:
    assert decode_picture(saved(Image.new("RGB", (20, 10)), "PNG"), max_pixels=200).width == 20


def test_text_bomb_in_png_is_refused() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("x", "y" * 80_000_000, zip=True)
    assert "damaged" in refusal(saved(Image.new("RGB", (4, 4)), "PNG", pnginfo=info))


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_damaged_bytes_give_a_picture_or_invalid_input(file_format: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    options = {"exif": exif.tobytes(), "icc_profile": profile()}
    image = photograph().resize((96, 64)).convert("RGB")
    whole = saved(image, file_format, **options)
    chance = random.Random(7)
    for _ in range(400):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            decode_picture(bytes(data), max_pixels=1_000_000)
        except InvalidInput:
            pass


@pytest.mark.parametrize(
    ("output_format", "media_type", "suffix", "tolerance"),
    [
        ("jpeg", "image/jpeg", "jpg", 2.0),
        ("png", "image/png", "png", 0.0),
        ("webp", "image/webp", "webp", 3.0),
    ],
)
def test_encoded_picture_is_decoded_alike(
    astronaut: Picture, output_format: Format, media_type: str, suffix: str, tolerance: float
) -> None:
    encoded = encode_picture(astronaut, output_format)
    assert (encoded.media_type, encoded.suffix) == (media_type, suffix)
    assert difference(decode(encoded.data), as_image(astronaut)) <= tolerance


@pytest.mark.parametrize("output_format", FORMATS)
def test_encoding_is_deterministic_and_carries_nothing_else(
    astronaut: Picture, output_format: Format
) -> None:
    encoded = encode_picture(astronaut, output_format)
    assert encoded == encode_picture(astronaut, output_format)
    with Image.open(BytesIO(encoded.data)) as image:
        assert not set(image.info) & {"exif", "icc_profile", "xmp", "comment", "photoshop"}


def test_jpeg_keeps_full_colour_resolution(astronaut: Picture) -> None:
    with Image.open(BytesIO(encode_picture(astronaut, "jpeg").data)) as image:
        assert [layer[1:3] for layer in image.layer] == [(1, 1)] * 3  # type: ignore[attr-defined]


@pytest.mark.parametrize("output_format", ["png", "webp"])
def test_cut_out_keeps_its_alpha(output_format: Format) -> None:
    cut_out = Picture(width=2, height=1, rgb=bytes([255, 0, 0, 0, 0, 255]), alpha=b"\xff\x00")
    with Image.open(BytesIO(encode_picture(cut_out, output_format).data)) as image:
        assert image.mode == "RGBA"
        assert image.getchannel("A").tobytes() == b"\xff\x00"


def test_cut_out_as_jpeg_is_refused() -> None:
    cut_out = Picture(width=1, height=1, rgb=b"abc", alpha=b"\x00")
    with pytest.raises(ValueError, match="no JPEG form"):
        encode_picture(cut_out, "jpeg")


@pytest.mark.parametrize("output_format", ["jpeg", "webp"])
def test_quality_sets_the_size_of_the_file(astronaut: Picture, output_format: Format) -> None:
    sizes = [
        len(encode_picture(astronaut, output_format, quality=quality).data)
        for quality in (1, 50, 100)
    ]
    assert sizes[0] * 2 < sizes[1]
    assert sizes[1] * 2 < sizes[2]
    usual = {"jpeg": 95, "webp": 92}[output_format]
    assert encode_picture(astronaut, output_format) == encode_picture(
        astronaut, output_format, quality=usual
    )


def test_png_has_no_quality(astronaut: Picture) -> None:
    assert encode_picture(astronaut, "png", quality=1) == encode_picture(astronaut, "png")


@pytest.mark.parametrize(
    ("output_format", "largest"), [("jpeg", 65_500), ("webp", 16_383), ("png", None)]
)
def test_side_that_a_format_cannot_hold_is_refused(
    output_format: Format, largest: int | None
) -> None:
    long = Picture(width=65_501, height=1, rgb=bytes(3 * 65_501))
    if largest is None:
        assert decode(encode_picture(long, output_format).data) == long
        return
    with pytest.raises(InvalidInput, match=f"^65501 x 1 is too large .* reach {largest}; ask for"):
        encode_picture(long, output_format)
    as_long = Picture(width=largest, height=1, rgb=bytes(3 * largest))
    assert decode(encode_picture(as_long, output_format).data).width == largest


@pytest.mark.parametrize(
    ("width", "height", "rgb", "alpha"),
    [(2, 2, b"abc", None), (0, 0, b"", None), (-1, -1, b"abc", None), (1, 1, b"abc", b"xx")],
)
def test_picture_of_another_size_than_its_bytes_cannot_be_made(
    width: int, height: int, rgb: bytes, alpha: bytes | None
) -> None:
    with pytest.raises(ValueError, match="bytes, not"):
        Picture(width=width, height=height, rgb=rgb, alpha=alpha)


@pytest.mark.parametrize("size", [(64, 64), (100, 40), (40, 100), (1024, 512), (1, 1)])
@pytest.mark.parametrize("bring", [fit_picture, resize_picture])
def test_picture_is_brought_to_the_size(
    astronaut: Picture, size: tuple[int, int], bring: Callable[[Picture, int, int], Picture]
) -> None:
    brought = bring(astronaut, *size)
    assert (brought.width, brought.height) == size
    assert bring(brought, *size) is brought


def test_fit_cuts_both_sides_alike_and_keeps_proportions() -> None:
    image = Image.new("RGB", (300, 100), "red")
    image.paste("white", (100, 0, 200, 100))
    fitted = fit_picture(decode(saved(image, "PNG")), 50, 50)
    assert min(ImageStat.Stat(as_image(fitted).crop((2, 0, 48, 50))).extrema[1]) > 250


def test_fit_and_resize_keep_the_alpha() -> None:
    cut_out = Picture(width=4, height=2, rgb=b"\x80" * 24, alpha=b"\xff" * 8)
    for brought in (fit_picture(cut_out, 2, 2), resize_picture(cut_out, 2, 2)):
        assert brought.alpha == b"\xff" * 4
