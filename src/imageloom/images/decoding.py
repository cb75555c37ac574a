"""Decode what a user sent into an upright sRGB `Picture`, or say what is wrong with it.

The format is what the first bytes say, never a name or a header; only three decoders are ever
called. The number of pixels is judged from the picture's header, before anything is decoded.
"""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO
from typing import Literal

from PIL import Image, ImageChops, ImageCms, ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from imageloom.domain.errors import InvalidInput
from imageloom.images.picture import Picture, to_mode

Transparency = Literal["flatten", "keep"]

_ACCEPTED = "JPEG, PNG and WebP are accepted"
_LARGEST_PROFILE = 4 << 20  # bytes of an ICC profile; real ones of printers reach 3 MB
_ORIENTATION = 0x0112  # EXIF tag
_DEPTH_OF_PNG = 24  # offset of the bits a sample: IHDR is always the first chunk
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_COLOURS_OF_MODE = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}  # as an ICC header writes them
# What the decoders raise on hostile bytes; found by reading them and by fuzzing.
_BROKEN = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    ArithmeticError,
    AttributeError,
    struct.error,
    zlib.error,
    MemoryError,
)


def decode_picture(
    data: bytes,
    *,
    max_pixels: int,
    name: str = "the input",
    transparency: Transparency = "flatten",
) -> Picture:
    """Return the picture that `data` holds; of an animation, its first frame.

    EXIF orientation is applied, an ICC profile is converted to sRGB, 16 bits become 8. What is
    transparent lies on white, or with "keep" is the alpha of a cut-out, its colours not
    premultiplied; a picture that is opaque everywhere has no alpha.
    Needs 10 bytes of memory for a pixel, 15 with transparency or a rotation, measured at 24
    megapixels. `name` begins every message.
    Raises: InvalidInput when it is no picture, is damaged, or has more than `max_pixels`.
    """
    with warnings.catch_warnings():
        # Remarks on odd metadata are of no use to anybody. The filters are the process's: should
        # two threads restore them in the wrong order, what stays is this one filter, no harm.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        try:
            image = _open(data, name)
            _refuse_size(image, max_pixels=max_pixels, name=name)
            image.load()
            return _finish(image, data, transparency)
        except _BROKEN as exc:
            raise InvalidInput(f"{name} is a damaged or truncated picture") from exc


def _finish(image: Image.Image, data: bytes, transparency: Transparency) -> Picture:
    profile, orientation = image.info.get("icc_profile"), _orientation(image)
    colours, alpha = _separate(image, data)
    colours = _to_srgb(colours, profile)
    if alpha is not None and transparency == "flatten":
        white = Image.new("RGB", image.size, "white")
        white.paste(colours, mask=alpha)
        colours, alpha = white, None
    colours = _stand_upright(colours, orientation)
    if alpha is not None:
        alpha = _stand_upright(alpha, orientation)
    return Picture(
        width=colours.width,
        height=colours.height,
        rgb=colours.tobytes(),
        alpha=None if alpha is None else alpha.tobytes(),
    )


def _open(data: bytes, name: str) -> ImageFile.ImageFile:
    """Read the header. Not `Image.open`, which warns or fails at a pixel limit of its own."""
    file = BytesIO(data)
    if data.startswith(b"\xff\xd8\xff"):
        return JpegImageFile(file)
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return PngImageFile(file)
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return WebPImageFile(file)
    if not data:
        raise InvalidInput(f"{name} is empty, 0 bytes; {_ACCEPTED}")
    raise InvalidInput(f"{name} is {_what_else(data)}, not a picture that we read; {_ACCEPTED}")


def _what_else(data: bytes) -> str:
    start = data[:1024].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if b"<svg" in start:
        return "SVG"
    if start.startswith((b"<!doctype html", b"<html", b"<head", b"<body", b"<script")):
        return "HTML"
    if b"<html" in start:
        return "HTML"
    if start.startswith(b"<?xml"):
        return "XML"
    if start.startswith((b"{", b"[")):
        return "JSON or other text"
    signatures = {
        b"GIF8": "GIF",
        b"%PDF": "PDF",
        b"BM": "BMP",
        b"II*\x00": "TIFF",
        b"MM\x00*": "TIFF",
        b"PK\x03\x04": "a ZIP archive",
        b"\x1f\x8b": "gzip",
        b"\xff\x0a": "JPEG XL",
        b"\x00\x00\x00\x0cJXL ": "JPEG XL",
        b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
        b"8BPS": "a Photoshop file",
    }
    for signature, found in signatures.items():
        if data.startswith(signature):
            return found
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in (b"avif", b"avis"):
            return "AVIF"
        if brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
            return "HEIC"
        return "a video"
    return "of an unknown format"


def _refuse_size(image: ImageFile.ImageFile, *, max_pixels: int, name: str) -> None:
    pixels = image.width * image.height
    if pixels > max_pixels:
        raise InvalidInput(
            f"{name} is {image.width} x {image.height}, {pixels / 1e6:.1f} megapixels; "
            f"at most {max_pixels / 1e6:g} are accepted"
        )


def _separate(image: Image.Image, data: bytes) -> tuple[Image.Image, Image.Image | None]:
    """Return the colours, eight bits a channel, and the alpha, mode L, of what is not opaque."""
    if image.mode == "P" and image.has_transparency_data:
        image = image.convert("RGBA")
    if image.mode in ("RGBA", "LA"):
        alpha: Image.Image | None = image.getchannel("A")
        image = image.convert(image.mode[:-1])
    else:
        key = image.info.get("transparency")
        alpha = None if key is None else _all_but(image, key, depth=data[_DEPTH_OF_PNG])
    if image.mode.startswith("I"):
        # Pillow itself would clip 16-bit greys.
        image = image.convert("I").point([(value + 128) // 257 for value in range(65_536)], "L")
    opaque = alpha is None or alpha.getextrema()[0] == 255
    return image, None if opaque else alpha


def _all_but(image: Image.Image, key: int | tuple[int, int, int], *, depth: int) -> Image.Image:
    """Return an alpha of 0 where `image` has the colour `key`, as a PNG of `depth` bits counts it.

    Colours of 16 bits are compared in their upper eight, all that Pillow reads of them.
    """
    if isinstance(key, tuple):
        bands = zip(image.split(), key, strict=True)
        masks = [_not_value(band, value >> (depth - 8)) for band, value in bands]
        return ImageChops.lighter(ImageChops.lighter(masks[0], masks[1]), masks[2])
    if image.mode.startswith("I"):
        return image.convert("I").point([255 * (value != key) for value in range(65_536)], "L")
    if image.mode == "1":
        return _not_value(image.convert("L"), key)
    return _not_value(image, key * 255 // (2**depth - 1))


def _not_value(band: Image.Image, value: int) -> Image.Image:
    return band.point([255 * (other != value) for other in range(256)])


def _to_srgb(image: Image.Image, profile: object) -> Image.Image:
    if image.mode == "1":
        image = image.convert("L")
    elif image.mode not in _COLOURS_OF_MODE:
        image = image.convert("RGB")
    if isinstance(profile, bytes) and 0 < len(profile) <= _LARGEST_PROFILE:
        try:
            return _convert_profile(image, profile)
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass  # a broken profile: the colours are then taken as they are, as browsers do
    return to_mode(image, "RGB")


def _convert_profile(image: Image.Image, profile: bytes) -> Image.Image:
    if profile[16:20].decode("latin-1") != _COLOURS_OF_MODE[image.mode]:
        return to_mode(image, "RGB")
    source = ImageCms.ImageCmsProfile(BytesIO(profile))
    if image.mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
        return image
    converted = ImageCms.profileToProfile(
        image,
        source,
        ImageCms.createProfile("sRGB"),
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        outputMode="RGB",
        flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )
    if converted is None:
        raise ValueError("no conversion")
    return converted


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except _BROKEN:
        return 1  # damaged EXIF beside intact pixels: the picture is as good as without it
    return value if isinstance(value, int) else 1


def _stand_upright(image: Image.Image, orientation: int) -> Image.Image:
    turn = _UPRIGHT.get(orientation)
    return image if turn is None else image.transpose(turn)
