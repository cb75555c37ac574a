"""A zip of pictures becomes a list of pictures and captions, or a refusal that names the file."""

from __future__ import annotations

import io
import json
import random
import stat
import struct
import tracemalloc
import unicodedata
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from imageloom.datasets import (
    DatasetLimits,
    ProblemKind,
    Report,
    inspect,
    trained_size,
    unpack,
)
from imageloom.domain.errors import InvalidInput
from imageloom.runtime.training import plan

Files = dict[str, bytes]
Case = tuple[str, bytes, tuple[str, ...]]  # name, archive, what the refusal says


def picture(
    seed: int, *, size: tuple[int, int] = (64, 64), form: str = "PNG", **options: object
) -> bytes:
    image = Image.new("RGB", size, (seed * 37 % 256, seed * 91 % 256, seed % 256))
    image.putpixel((0, 0), (255, 255, 255))
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def four(suffix: str = "png") -> dict[str, bytes]:
    return {f"{index}.{suffix}": picture(index) for index in range(4)}


def captioned(count: int = 4) -> dict[str, bytes]:
    files = {f"{index}.png": picture(index) for index in range(count)}
    return files | {f"{index}.txt": f"dress {index}".encode() for index in range(count)}


def metadata(*rows: object) -> bytes:
    return "\n".join(json.dumps(row) for row in rows).encode()


def zipped(files: Files, *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return out.getvalue()


def zipped_infos(*entries: tuple[zipfile.ZipInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for info, data in entries:
            archive.writestr(info, data)
    return out.getvalue()


def patched(
    data: bytes, name: str, *, offset: int, layout: str, value: int | tuple[int, ...]
) -> bytes:
    """Change fields of the central header of `name`."""
    changed = bytearray(data)
    values = value if isinstance(value, tuple) else (value,)
    struct.pack_into(layout, changed, central_header(data, name) + offset, *values)
    return bytes(changed)


def central_header(data: bytes, name: str) -> int:
    at = data.index(b"PK\x01\x02")
    while data[at + 46 : at + 46 + len(name)] != name.encode():
        at = data.index(b"PK\x01\x02", at + 1)
    return at


class Folder:
    """A folder with an archive in it, beside what must not change."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.archive = root / "inbox" / "dataset.zip"
        self.target = root / "work" / "deep" / "pictures"
        self.archive.parent.mkdir()
        self.target.mkdir(parents=True)

    def inspect(
        self,
        data: bytes,
        *,
        trigger_word: str | None = "sks",
        resolution: int = 64,
        **limits: int,
    ) -> Report:
        self.archive.write_bytes(data)
        return inspect(
            self.archive,
            trigger_word=trigger_word,
            resolution=resolution,
            limits=DatasetLimits(**limits),
        )

    def unpack(self, report: Report, *, resolution: int = 64) -> list[tuple[Path, str]]:
        return unpack(self.archive, report, self.target, resolution=resolution)

    def refusal(self, data: bytes, *, trigger_word: str | None = "sks", **limits: int) -> str:
        before = self.tree() | {self.archive}
        with pytest.raises(InvalidInput) as refused:
            self.inspect(data, trigger_word=trigger_word, **limits)
        assert refused.value.param == "dataset_url"
        assert refused.value.message.startswith("dataset_url: ")
        assert len(refused.value.message) < 1500
        assert self.tree() == before
        return refused.value.message

    def tree(self) -> set[Path]:
        return {path for path in self.root.rglob("*") if path.is_file()}


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def problems(report: Report) -> dict[str, ProblemKind]:
    return {problem.name: problem.kind for problem in report.problems}


def captions(report: Report) -> dict[str, str]:
    return {item.name: item.caption for item in report.items}


# What is accepted


def test_captions_beside_the_pictures(folder: Folder) -> None:
    report = folder.inspect(zipped(captioned(5)), trigger_word=None)
    assert captions(report) == {f"{index}.png": f"dress {index}" for index in range(5)}
    assert report.problems == ()
    assert {(item.width, item.height) for item in report.items} == {(64, 64)}


def test_captions_in_one_metadata_file(folder: Folder) -> None:
    rows = [{"file_name": f"{index}.png", "text": f"dress {index}", "x": 1} for index in range(4)]
    report = folder.inspect(
        zipped(four() | {"metadata.jsonl": metadata(*rows) + b"\r\n\n"}), trigger_word=None
    )
    assert captions(report) == {f"{index}.png": f"dress {index}" for index in range(4)}
    assert report.problems == ()


def test_metadata_is_relative_to_its_own_folder(folder: Folder) -> None:
    files = {f"set/images/{name}": data for name, data in four().items()}
    rows = [{"file_name": f"images/{index}.png", "text": str(index)} for index in range(3)]
    rows.append({"file_name": "./images/3.PNG", "text": "3"})
    report = folder.inspect(zipped(files | {"set/metadata.jsonl": metadata(*rows)}))
    assert captions(report) == {f"set/images/{index}.png": str(index) for index in range(4)}


def test_text_file_serves_a_picture_that_metadata_does_not_name(folder: Folder) -> None:
    files = captioned() | {"metadata.jsonl": metadata({"file_name": "0.png", "text": "first"})}
    report = folder.inspect(zipped(files), trigger_word=None)
    assert captions(report)["0.png"] == "first"
    assert captions(report)["1.png"] == "dress 1"
    assert problems(report) == {"0.txt": "unused"}


def test_trigger_word_is_the_caption_only_where_there_is_none(folder: Folder) -> None:
    files = captioned() | {"1.txt": b" \n"}
    del files["0.txt"]
    report = folder.inspect(zipped(files), trigger_word=" sks  dress ")
    assert list(captions(report).values()) == ["sks dress", "sks dress", "dress 2", "dress 3"]
    assert any("2 pictures" in warning for warning in report.warnings)


def test_trigger_word_that_no_caption_holds_is_remarked(folder: Folder) -> None:
    assert any("'sks'" in each for each in folder.inspect(zipped(captioned())).warnings)
    assert folder.inspect(zipped(captioned()), trigger_word="DRESS").warnings == ()


def test_white_space_and_byte_order_mark_are_no_part_of_a_caption(folder: Folder) -> None:
    files = captioned() | {"0.txt": b"\xef\xbb\xbf a red\r\n\tdress \xe2\x80\xa6\n"}
    rows = [{"file_name": "1.png", "text": " blue\u00a0\nshoe"}]
    files |= {"metadata.jsonl": b"\xef\xbb\xbf" + metadata(*rows)}
    report = folder.inspect(zipped(files))
    assert captions(report)["0.png"] == "a red dress …"
    assert captions(report)["1.png"] == "blue shoe"


def test_names_match_in_any_case_and_normalisation(folder: Folder) -> None:
    files = four() | {
        "Été.PNG": picture(9),
        "é\u0301té.txt"[1:]: b"unrelated",
        unicodedata.normalize("NFD", "été.TXT"): b"summer",
    }
    report = folder.inspect(zipped(files))
    assert captions(report)["Été.PNG"] == "summer"


def test_utf_8_name_without_its_flag_is_understood(folder: Folder) -> None:
    # So macOS writes them: the flag that says UTF-8 is cleared in both headers.
    name = unicodedata.normalize("NFD", "été.png")
    data = bytearray(zipped(four() | {name: picture(9)}))
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        at = data.rindex(signature)
        assert struct.unpack_from("<H", data, at + offset)[0] & 0x800
        struct.pack_into("<H", data, at + offset, 0)
    assert name in captions(folder.inspect(bytes(data)))


def test_what_desktops_leave_behind_is_not_mentioned(folder: Folder) -> None:
    junk = ("__MACOSX/._0.png", "a/.DS_Store", "Thumbs.db", "a/._x.png", "desktop.ini")
    report = folder.inspect(zipped(four() | dict.fromkeys(junk, b"junk") | {"./": b"", "a/": b""}))
    assert report.problems == ()
    assert len(report.items) == 4


def test_pictures_of_no_use_are_left_out_and_listed(folder: Folder) -> None:
    whole = picture(7, form="JPEG")
    files = four() | {
        "again.webp": picture(0, form="WEBP", lossless=True),
        "animated.gif": picture(5, form="GIF"),
        "broken.jpg": whole[: len(whole) // 2],
        "empty.png": b"",
        "huge.png": picture(8, size=(200, 200)),
        "notes.md": b"# notes",
        "orphan.txt": b"no picture of that name",
        "text.png": b"not a picture",
    }
    report = folder.inspect(zipped(files), pixels=200 * 200 - 1)
    expected: dict[str, ProblemKind] = {
        "again.webp": "duplicate",
        "animated.gif": "unreadable",
        "broken.jpg": "unreadable",
        "empty.png": "unreadable",
        "huge.png": "unreadable",
        "notes.md": "unused",
        "orphan.txt": "unused",
        "text.png": "unreadable",
    }
    assert problems(report) == expected
    assert all(problem.message.startswith("it ") for problem in report.problems)
    assert len(report.items) == 4


def test_tiny_pictures_are_left_out_with_their_size(folder: Folder) -> None:
    report = folder.inspect(zipped(four() | {"narrow.png": picture(6, size=(640, 63))}))
    assert problems(report) == {"narrow.png": "tiny"}
    assert "640 x 63" in report.problems[0].message


def test_damaged_entry_is_listed(folder: Folder) -> None:
    data = bytearray(zipped(captioned(5), method=zipfile.ZIP_STORED))
    data[data.index(b"\x89PNG") + 60] ^= 1
    report = folder.inspect(bytes(data))
    assert problems(report) == {"0.png": "unreadable"}
    assert "damaged" in report.problems[0].message


def test_digest_follows_from_pixels_and_captions_alone(folder: Folder) -> None:
    files = captioned()
    first = folder.inspect(zipped(files)).sha256
    backwards = dict(reversed(files.items()))
    assert folder.inspect(zipped(backwards, method=zipfile.ZIP_STORED)).sha256 == first
    order = str.maketrans("0123", "2031")
    renamed = {f"a/{name.translate(order)}": data for name, data in files.items()}
    assert folder.inspect(zipped(renamed | {"README.md": b"x"})).sha256 == first
    reformatted = files | {"0.png": picture(0, compress_level=0)}
    assert folder.inspect(zipped(reformatted)).sha256 == first
    for change in ({"0.txt": b"other"}, {"0.png": picture(99)}):
        assert folder.inspect(zipped(files | change)).sha256 != first
    swapped = files | {"0.txt": files["1.txt"], "1.txt": files["0.txt"]}
    assert folder.inspect(zipped(swapped)).sha256 != first


def test_buckets_count_pictures_by_the_size_they_are_trained_at(folder: Folder) -> None:
    sizes = [(256, 256), (128, 128), (64, 64), (256, 128), (300, 150), (128, 256), (900, 100)]
    files = {f"{i}.png": picture(i, size=size) for i, size in enumerate(sizes)}
    report = folder.inspect(zipped(files))
    assert report.buckets == {(64, 64): 3, (88, 40): 3, (40, 96): 1}
    assert any("longer than 2 : 1: 1 picture;" in warning for warning in report.warnings)
    larger = folder.inspect(zipped(files), resolution=128)
    assert any("smaller than 128 pixels: 2 pictures" in each for each in larger.warnings)


def test_buckets_are_the_sizes_of_the_trainer() -> None:
    dice = random.Random(4)
    for _ in range(500):
        width, height = dice.randint(64, 6000), dice.randint(64, 6000)
        side = dice.choice([64, 72, 128, 200, 256, 512, 768, 1000, 1024, 2048])
        size = trained_size(width, height, side=side)
        expected = plan.bucket(plan.Size(width=width, height=height), side=side)
        assert size == (expected.width, expected.height)
        assert size[0] * size[1] <= side * side
        assert min(size) >= side * 0.6
        assert {each % 8 for each in size} == {0}


# What is unpacked


def test_pictures_are_written_upright_reduced_and_under_our_names(folder: Folder) -> None:
    turned = Image.new("RGB", (400, 200), "red")
    turned.paste("blue", (0, 0, 200, 200))
    out, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    turned.save(out, "JPEG", exif=exif.tobytes(), quality=95)
    files = captioned() | {"z/portrait.jpg": out.getvalue(), "z/portrait.txt": b"turned"}
    before = folder.tree()
    report = folder.inspect(zipped(files), resolution=100)
    written = folder.unpack(report, resolution=100)
    names = [f"{index:04}.png" for index in range(5)]
    assert [path for path, _ in written] == [folder.target / name for name in names]
    assert [caption for _, caption in written] == [item.caption for item in report.items]
    assert folder.tree() == before | {folder.archive} | {path for path, _ in written}
    with Image.open(written[4][0]) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "RGB", (100, 200))
        top, bottom = image.getpixel((50, 20)), image.getpixel((50, 180))
    assert isinstance(top, tuple)
    assert isinstance(bottom, tuple)
    assert top[2] > 200 > 50 > top[0]
    assert bottom[0] > 200 > 50 > bottom[2]
    with Image.open(written[0][0]) as image:
        assert image.size == (64, 64), "never enlarged"


def test_unpacked_pictures_are_in_the_buckets_of_the_report(folder: Folder) -> None:
    dice = random.Random(1)
    files = {
        f"{i}.png": picture(i, size=(dice.randint(64, 400), dice.randint(64, 400)))
        for i in range(30)
    }
    report = folder.inspect(zipped(files))
    found: dict[tuple[int, int], int] = {}
    for path, _ in folder.unpack(report):
        with Image.open(path) as image:
            size = trained_size(image.width, image.height, side=64)
        found[size] = found.get(size, 0) + 1
    assert found == report.buckets


# What refuses the whole archive


def entry(name: str, *, mode: int = stat.S_IFREG | 0o644) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def overlapping() -> bytes:
    """Two entries over the same bytes: the second begins inside the first."""
    inner = zipped_infos((zipfile.ZipInfo("inner.png"), picture(9)))
    inner = inner[: inner.index(b"PK\x01\x02")]
    data = zipped_infos(
        (zipfile.ZipInfo("0.png"), inner), (zipfile.ZipInfo("inner.png"), picture(9))
    )
    return patched(data, "inner.png", offset=42, layout="<I", value=30 + len("0.png"))


def nameless() -> bytes:
    """A file whose name is empty; what was its name is an extra field that nobody reads."""
    data = zipped_infos((zipfile.ZipInfo("Q"), picture(9)))
    data = patched(data, "Q", offset=28, layout="<2H", value=(0, 1))
    return data[:26] + struct.pack("<2H", 0, 1) + data[30:]


GOOD = zipped(four())
LAST = GOOD.rindex(b"PK\x03\x04")
FORBIDDEN: tuple[str, ...] = (
    "train.py",
    "a/run.SH",
    "setup.exe",
    "lib.so",
    "x.pt",
    "x.ckpt",
    "x.bin",
    "x.pkl",
)
FORBIDDEN += ("lora.safetensors", "more.zip", "more.tar.gz", "x.py.", "x.7z")
CLIMBING = ("../x.png", "a/../../x.png", "/etc/x.png", "C:/x.png", "c:x.png", "..", "a/..")
KINDS = {"link": stat.S_IFLNK, "device": stat.S_IFCHR, "pipe": stat.S_IFIFO}
ENTRY: list[Case] = [
    (f"climbs: {name}", zipped(four() | {name: b"x"}), (name,)) for name in CLIMBING
]
ENTRY += [(f"forbidden: {name}", zipped(four() | {name: b"x"}), (name,)) for name in FORBIDDEN]
ENTRY += [
    (name, zipped_infos((entry("passwd.png", mode=mode | 0o644), b"/etc")), ("passwd.png", name))
    for name, mode in KINDS.items()
]
ENTRY += [
    ("climbs in junk", zipped(four() | {"__MACOSX/../../x": b"x"}), ("__MACOSX/../../x",)),
    ("backslash", zipped(four() | {"a\\x.png": b"x"}), ("a\\x.png", "backslash")),
    ("control", zipped(four() | {"a\nb.png": b"x"}), ("a\\u000ab.png", "control")),
    ("no name", nameless(), ("without a name",)),
    ("long name", zipped(four() | {"a" * 501: b"x"}), ("501", "500")),
    ("case", zipped(four() | {"A/x.png": b"x", "a/X.png": b"y"}), ("A/x.png", "a/X.png")),
    ("form", zipped({"\u00e9.png": b"x", "e\u0301.png": b"y"}), ("\u00e9.png",)),
    ("dots", zipped({"a//x.png": b"x", "a/./x.png": b"y"}), ("a//x.png", "a/./x.png")),
    ("bzip2", zipped(four(), method=zipfile.ZIP_BZIP2), ("0.png", "bzip2", "deflate")),
    ("lzma", zipped(four(), method=zipfile.ZIP_LZMA), ("0.png", "lzma")),
    ("encrypted", patched(GOOD, "2.png", offset=8, layout="<H", value=1), ("encrypted", "2.png")),
    ("overlap", overlapping(), ("inner.png", "shares bytes")),
    (
        "same bytes twice",
        patched(GOOD, "1.png", offset=42, layout="<I", value=0),
        ("shares bytes",),
    ),
    ("ratio", zipped(four() | {"x.png": bytes(2_000_000)}), ("x.png", "2000000", "200")),
    ("disguised zip", zipped(four() | {"x.png": GOOD}), ("x.png", "archive")),
    ("disguised code", zipped(four() | {"x.jpg": b"MZ\x90\0"}), ("x.jpg", "code")),
]
WHOLE: list[Case] = [
    ("nothing", b"", ("empty", "zip")),
    ("a picture", picture(0), ("not a zip",)),
    ("gzip", b"\x1f\x8b\x08" + bytes(60), ("not a zip",)),
    ("a prefix", b"#!/bin/sh\n" + GOOD, ("not a zip",)),
    ("no entries", zipped({}), ("empty zip", "picture")),
    ("no pictures", zipped({"a.txt": b"x"}), ("0 usable pictures", "a.txt")),
    ("cut", GOOD[:-40], ("damaged or truncated",)),
    ("three", zipped(dict(list(four().items())[:3])), ("3 usable pictures", "at least 4")),
    ("no local header", GOOD[:LAST] + b"??" + GOOD[LAST + 2 :], ("truncated zip at 3.png",)),
    ("a length too far", patched(GOOD, "3.png", offset=20, layout="<I", value=99_999), ("3.png",)),
    ("an offset too far", patched(GOOD, "1.png", offset=42, layout="<I", value=99_999), ("1.png",)),
]


@pytest.mark.parametrize(
    ("data", "texts"), [case[1:] for case in WHOLE + ENTRY], ids=[case[0] for case in WHOLE + ENTRY]
)
def test_archive_is_refused_by_name(folder: Folder, data: bytes, texts: tuple[str, ...]) -> None:
    message = folder.refusal(data)
    for text in texts:
        assert text in message


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_refused(folder: Folder) -> None:
    for name in ("0.png", "x"):
        twice = zipped_infos(*[(entry(name), picture(index)) for index in range(2)])
        assert f"{name} and {name}" in folder.refusal(twice)


def test_name_that_ends_at_a_nul_is_refused(folder: Folder) -> None:
    data = zipped(four() | {"run.pyX.png": b"x"}).replace(b"run.pyX.png", b"run.py\0.png")
    assert "run.py\\u0000.png" in folder.refusal(data)


BAD_CAPTIONS: list[tuple[str, Files, tuple[str, ...]]] = [
    ("windows-1252", {"1.txt": "a\nrobe d'été".encode("cp1252")}, ("1.txt", "line 2", "0xe9")),
    ("UTF-16", {"1.txt": "robe".encode("utf-16")}, ("1.txt", "UTF-8")),
    ("too long", {"1.txt": b"x" * 4001}, ("1.txt", "4001", "4000")),
    ("far too long", {"1.txt": b" " * 20_000}, ("1.txt", "20000")),
    ("control", {"1.txt": b"a\0b"}, ("1.txt", "control")),
    ("not JSON", {"metadata.jsonl": metadata({"file_name": "0.png", "text": "x"}) + b"\nx"},
     ("line 2", "metadata.jsonl", "JSON")),
    ("not an object", {"metadata.jsonl": b'["0.png", "x"]'}, ("line 1", "file_name")),
    ("no text", {"metadata.jsonl": metadata({"file_name": "0.png"})}, ("line 1", "text")),
    ("text of a number", {"metadata.jsonl": metadata({"file_name": "0.png", "text": 1})},
     ("line 1", "text")),
    ("not there", {"metadata.jsonl": metadata({"file_name": "9.png", "text": "x"})},
     ("line 1", "9.png", "not in the zip")),
    ("outside", {"metadata.jsonl": metadata({"file_name": "/etc/passwd", "text": "x"})},
     ("line 1", "/etc/passwd")),
    ("a caption", {"metadata.jsonl": metadata({"file_name": "0.txt", "text": "x"})},
     ("line 1", "0.txt")),
    ("twice", {"metadata.jsonl": metadata(*[{"file_name": "0.png", "text": "x"}] * 2)},
     ("line 2", "again")),
    ("two files", {"metadata.jsonl": b"", "a/Metadata.jsonl": b""}, ("more than one",)),
    ("wrong encoding", {"metadata.jsonl": '\n{"file_name": "0.png", "text": "é"}'.encode("cp1252")},
     ("metadata.jsonl", "line 2")),
    ("deep", {"metadata.jsonl": b"[" * 60_000}, ("line 1", "JSON")),
    ("long line", {"metadata.jsonl": b"[" * 64_001}, ("line 1", "64001")),
    ("half a character", {"metadata.jsonl": b'{"file_name": "0.png", "text": "\\ud800"}'},
     ("line 1", "control")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("files", "texts"), [case[1:] for case in BAD_CAPTIONS], ids=[case[0] for case in BAD_CAPTIONS]
)
def test_unusable_caption_is_refused_by_file_and_line(
    folder: Folder, files: Files, texts: tuple[str, ...]
) -> None:
    message = folder.refusal(zipped(captioned() | files))
    for text in texts:
        assert text in message


def test_caption_whose_bytes_are_damaged_is_refused(folder: Folder) -> None:
    data = bytearray(zipped(captioned(), method=zipfile.ZIP_STORED))
    data[data.index(b"dress 2")] ^= 1
    assert "2.txt" in folder.refusal(bytes(data))


@pytest.mark.parametrize("trigger_word", [None, " "])
def test_picture_without_caption_is_refused_without_a_trigger_word(
    folder: Folder, trigger_word: str | None
) -> None:
    files = captioned()
    del files["2.txt"]
    message = folder.refusal(zipped(files), trigger_word=trigger_word)
    assert "2.png" in message
    assert "trigger_word" in message


def test_refusal_of_too_few_says_why_and_stays_short(folder: Folder) -> None:
    files = {f"{index:03}{'x' * 300}.png": b"no picture" for index in range(90)}
    message = folder.refusal(zipped(dict(list(four().items())[:2]) | files))
    assert "2 usable pictures" in message
    assert "unknown format" in message
    assert "and 87 more" in message


LIMITS: list[tuple[str, dict[str, int], str]] = [
    ("entries", {"entries": 3}, "at most 3 "),
    ("one entry", {"entry": 100}, "at most 100 "),
    ("all entries", {"unpacked": 370}, "at most 370 "),
    ("all pixels", {"all_pixels": 4 * 64 * 64 - 1}, "megapixels"),
    ("few", {"least_pictures": 5}, "at least 5 "),
]


@pytest.mark.parametrize(
    ("limits", "text"), [case[1:] for case in LIMITS], ids=[case[0] for case in LIMITS]
)
def test_limits_hold(folder: Folder, limits: dict[str, int], text: str) -> None:
    assert text in folder.refusal(GOOD, trigger_word="sks", **limits)


def test_many_unreadable_pictures_are_refused(folder: Folder) -> None:
    files = four() | {f"x{index}.png": b"no" for index in range(3)}
    assert len(folder.inspect(zipped(files), unreadable=3).problems) == 3
    assert "over 2 unreadable" in folder.refusal(zipped(files), unreadable=2)


def test_list_of_contents_is_bounded_before_it_is_read(
    folder: Folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = 0
    decode = zipfile.ZipInfo.__init__

    def counted(self: zipfile.ZipInfo, *args: object, **kwargs: object) -> None:
        nonlocal made
        made += 1
        decode(self, *args, **kwargs)  # type: ignore[arg-type]

    head = GOOD[: GOOD.index(b"PK\x01\x02")]
    many = (b"PK\x01\x02" + bytes(24) + struct.pack("<H", 1) + bytes(16) + b"a") * 60_000
    # Of one entry, it says.
    end = struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 1, 1, len(many), len(head), 0)
    data = head + many + end
    monkeypatch.setattr(zipfile.ZipInfo, "__init__", counted)
    assert "list of contents" in folder.refusal(data)
    assert made == 0


@pytest.mark.parametrize("size", [0, 1, 60, 10_000, 900_000])
def test_lying_size_leaves_a_picture_out(folder: Folder, size: int) -> None:
    files = four() | {"x.png": picture(9, size=(100, 100))}
    data = patched(zipped(files), "x.png", offset=24, layout="<I", value=size)
    report = folder.inspect(data)
    assert problems(report) == {"x.png": "unreadable"}


def test_no_more_is_unpacked_than_an_entry_declares(folder: Folder) -> None:
    # 60 MB packed into 60 KB, declared as 2000 bytes.
    data = zipped(four() | {"x.png": bytes(60_000_000)})
    data = patched(data, "x.png", offset=24, layout="<I", value=2000)
    folder.archive.write_bytes(data)
    tracemalloc.start()
    try:
        report = inspect(folder.archive, trigger_word="x", resolution=64)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert problems(report) == {"x.png": "unreadable"}
    assert peak < 8_000_000


# What nobody thought of


def test_any_bytes_are_read_or_refused_and_nothing_else_happens(folder: Folder) -> None:
    dice = random.Random(20)
    rows = [{"file_name": "0.png", "text": "x"}]
    files = captioned(5) | {"metadata.jsonl": metadata(*rows), "a/": b""}
    seeds = [zipped(files), zipped(files, method=zipfile.ZIP_STORED)]
    before = folder.tree() | {folder.archive}
    answers, told = {"read": 0, "refused": 0}, set()
    for _ in range(600):
        data = bytearray(dice.choice(seeds))
        structure = [at for at in range(len(data)) if data[at : at + 2] == b"PK"]
        for _ in range(dice.randint(1, 4)):
            # Mostly in the headers: elsewhere a checksum tells at once.
            near = dice.choice(structure) + dice.randrange(60)
            at = min(near if dice.random() < 0.8 else dice.randrange(len(data)), len(data) - 1)
            data[at] = dice.choice([0, 1, 0xFF, dice.randrange(256)])
        if dice.random() < 0.1:
            del data[dice.randrange(len(data)) :]
        try:
            folder.inspect(bytes(data))
            answers["read"] += 1
        except InvalidInput as exc:
            told.add(exc.message[:13])
            answers["refused"] += 1
    assert folder.tree() == before
    assert told == {"dataset_url: "}
    assert min(answers.values()) > 60, answers


def test_no_name_of_an_archive_is_ever_written(folder: Folder) -> None:
    dice = random.Random(8)
    parts = ["..", ".", "a", "A", "é", "con", "C:", "", " ", "~", "$HOME", "%2e%2e", "0000.png"]
    parts += ["\u202egnp", "a" * 200, "-rf", "*", "nul.png", "|", "..."]
    accepted = 0
    for _ in range(150):
        joined = ["/".join(dice.choices(parts, k=dice.randint(1, 4))) for _ in range(3)]
        files = four()
        for index, name in enumerate(joined, start=10):
            files[(name + dice.choice([".png", ".txt", ""])) or "x"] = picture(index)
        before = folder.tree() | {folder.archive}
        try:
            report = folder.inspect(zipped(files))
        except InvalidInput:
            assert folder.tree() == before
            continue
        accepted += 1
        expected = {folder.target / f"{index:04}.png" for index in range(len(report.items))}
        assert {path for path, _ in folder.unpack(report)} == expected
        assert folder.tree() == before | expected
        for path in expected:
            path.unlink()
    assert accepted > 10
