"""Say what is in a data set, and unpack what of it can be trained on."""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from imageloom.datasets.archive import Archive, name_key, open_archive, refuse_forbidden
from imageloom.datasets.buckets import LONGEST_SHAPE, trained_size
from imageloom.datasets.captions import is_caption, read_captions, tidy
from imageloom.datasets.kinds import forbidden_bytes, is_picture
from imageloom.datasets.report import Item, Problem, Report
from imageloom.datasets.rules import (
    DEFAULT_LIMITS,
    DatasetLimits,
    counted,
    listed,
    refusal,
    shown,
)
from imageloom.domain.errors import InvalidInput
from imageloom.images import Picture, decode_picture, encode_picture, resize_picture
from imageloom.images.fitting import share

_MOST_TOLD = 3  # reasons in a refusal, and names of each: the API's errors are under 500 characters


def inspect(
    path: Path,
    *,
    trigger_word: str | None,
    resolution: int,
    limits: DatasetLimits = DEFAULT_LIMITS,
) -> Report:
    """Return what is in the zip at `path`, every picture decoded, nothing written.

    `trigger_word` is the caption of the pictures that have none; it is not put before the others.
    `resolution` is the side in pixels of the square that is trained at. Pictures that cannot be
    used are left out and listed. Needs the memory of one picture at a time, see `decode_picture`.
    Raises: InvalidInput, `dataset_url: …`, when the archive is not acceptable, when fewer than
    `limits.least_pictures` are usable, or when one has no caption and there is no trigger word.
    """
    with open_archive(path, limits=limits) as archive:
        pictures = [name for name in archive.names if is_picture(name)]
        captions = read_captions(archive, pictures, limits=limits)
        items, problems = _look_at(archive, pictures, limits=limits, captions=captions.of)
        problems += captions.unused
        problems += [
            Problem(name=name, kind="unused", message="it is neither a picture nor a caption")
            for name in archive.names
            if not is_picture(name) and not is_caption(name)
        ]
    _refuse_too_few(items, problems, limits)
    word = tidy(trigger_word or "")
    if not word:
        _refuse_without_caption(items)
    warnings = _warnings(items, word=word, resolution=resolution)
    items = [item if item.caption else dataclasses.replace(item, caption=word) for item in items]
    return Report(
        items=tuple(items),
        problems=tuple(problems),
        buckets=_buckets(items, resolution=resolution),
        sha256=_digest(items),
        warnings=tuple(warnings),
    )


def unpack(
    path: Path,
    report: Report,
    folder: Path,
    *,
    resolution: int,
    limits: DatasetLimits = DEFAULT_LIMITS,
) -> list[tuple[Path, str]]:
    """Write the pictures of `report` into `folder`, and return each one's file and caption.

    They are upright sRGB PNG, `0000.png` and so on in the order of the report's items; where the
    shorter side is over `resolution` it is reduced to it. `folder` exists, and `path` is the zip
    that `report` is of.
    """
    written = []
    with open_archive(path, limits=limits) as archive:
        for index, item in enumerate(report.items):
            picture = decode_picture(archive.read(item.name), max_pixels=limits.pixels)
            size = _reduced(picture.width, picture.height, resolution=resolution)
            target = folder / f"{index:04}.png"
            target.write_bytes(encode_picture(resize_picture(picture, *size), "png").data)
            written.append((target, item.caption))
    return written


def _look_at(
    archive: Archive,
    names: Sequence[str],
    *,
    captions: Mapping[str, str],
    limits: DatasetLimits,
) -> tuple[list[Item], list[Problem]]:
    """Decode every picture. An item's caption is "" where there is none."""
    items: dict[str, Item] = {}
    problems: list[Problem] = []
    unreadable = pixels = 0
    for name in names:
        picture = _decoded(archive, name, limits)
        if isinstance(picture, Problem):
            problems.append(picture)
            unreadable += 1
            if unreadable > limits.unreadable:
                raise refusal(
                    f"has over {limits.unreadable} unreadable pictures ({_told(problems)})"
                )
            continue
        pixels += picture.width * picture.height
        if pixels > limits.all_pixels:
            raise refusal(
                f"has over {limits.all_pixels / 1e6:g} megapixels in its pictures; send fewer or "
                "smaller ones"
            )
        item = Item(
            name=name,
            caption=captions.get(name_key(name), ""),
            width=picture.width,
            height=picture.height,
            sha256=_digest_of_pixels(picture),
        )
        twin = items.get(item.sha256)
        if min(item.width, item.height) < limits.least_side:
            problems.append(_tiny(item, limits))
        elif twin is not None:
            message = f"it has the same pixels as {shown(twin.name)}"
            problems.append(Problem(name=name, kind="duplicate", message=message))
        else:
            items[item.sha256] = item
    return list(items.values()), problems


def _decoded(archive: Archive, name: str, limits: DatasetLimits) -> Picture | Problem:
    try:
        data = archive.read(name)
    except InvalidInput as exc:
        return Problem(name=name, kind="unreadable", message=exc.message)
    refuse_forbidden(name, forbidden_bytes(data))
    try:
        return decode_picture(data, max_pixels=limits.pixels, name="it")
    except InvalidInput as exc:
        return Problem(name=name, kind="unreadable", message=exc.message)


def _digest_of_pixels(picture: Picture) -> str:
    digest = hashlib.sha256(f"{picture.width}x{picture.height}:".encode())
    digest.update(picture.rgb)
    return digest.hexdigest()


def _tiny(item: Item, limits: DatasetLimits) -> Problem:
    message = (
        f"it is {item.width} x {item.height}; both sides must have at least "
        f"{limits.least_side} pixels"
    )
    return Problem(name=item.name, kind="tiny", message=message)


def _refuse_too_few(
    items: Sequence[Item], problems: Sequence[Problem], limits: DatasetLimits
) -> None:
    if len(items) >= limits.least_pictures:
        return
    raise refusal(
        f"has {counted(len(items), 'usable picture')}; at least {limits.least_pictures} are needed"
        + (f" ({_told(problems)})" if problems else "")
    )


def _told(problems: Sequence[Problem]) -> str:
    """Return what is wrong and with which files, at first those that share a reason."""
    by_reason: dict[str, list[str]] = {}
    for each in problems:
        by_reason.setdefault(each.message, []).append(shown(each.name))
    told = [
        f"{listed(names, most=_MOST_TOLD, between=', ')}: {reason}"
        for reason, names in by_reason.items()
    ]
    return listed(told, most=_MOST_TOLD)


def _refuse_without_caption(items: Sequence[Item]) -> None:
    without = [shown(item.name) for item in items if not item.caption]
    if without:
        raise refusal(
            f"has {counted(len(without), 'picture')} without a caption "
            f"({listed(without, most=_MOST_TOLD)}); add .txt files of their names, or give "
            "config.trigger_word to be their caption"
        )


def _warnings(items: Sequence[Item], *, word: str, resolution: int) -> list[str]:
    """Return sentences about `items`, whose missing captions are still "" ."""
    without = sum(not item.caption for item in items)
    small = sum(min(item.width, item.height) < resolution for item in items)
    long = sum(
        max(item.width, item.height) > LONGEST_SHAPE * min(item.width, item.height)
        for item in items
    )
    warnings = []
    if without:
        warnings.append(f"without a caption: {counted(without, 'picture')}; it will be {word!r}")
    elif word and not any(word.lower() in item.caption.lower() for item in items):
        warnings.append(f"the trigger word {word!r} is in no caption, so nothing is tied to it")
    if small:
        warnings.append(
            f"smaller than {resolution} pixels: {counted(small, 'picture')}; enlarged, without "
            "fine detail"
        )
    if long:
        warnings.append(
            f"longer than {LONGEST_SHAPE:g} : 1: {counted(long, 'picture')}; its middle is seen"
        )
    return warnings


def _buckets(items: Sequence[Item], *, resolution: int) -> dict[tuple[int, int], int]:
    sizes = (_reduced(item.width, item.height, resolution=resolution) for item in items)
    return dict(Counter(trained_size(*size, side=resolution) for size in sizes).most_common())


def _reduced(width: int, height: int, *, resolution: int) -> tuple[int, int]:
    """Return the size with its shorter side reduced to `resolution`, never enlarged."""
    shorter = min(width, height)
    if shorter <= resolution:
        return width, height
    return share(width * resolution, shorter), share(height * resolution, shorter)


def _digest(items: Sequence[Item]) -> str:
    lines = sorted(f"{item.sha256} {item.caption}\n" for item in items)
    return hashlib.sha256("".join(lines).encode()).hexdigest()
