"""Read a studio background from a picture's border, and follow it inwards.

It is followed through gradients, vignettes and soft shadows, and past a table's edge, up to the
first sharp edge: whatever is not reached may be the subject.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from imageloom.runtime.masks import (
    Bytes,
    Floats,
    Mask,
    blurred,
    dilated,
    eroded,
    highest_around,
    through_gaps,
)

_GROW_SIDE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The picture at working size against its background; all are [height, width(, 3)].

    Colours and distances are CIELAB, L 0 to 100. `lab` is the picture, lightly smoothed;
    `expected` the background behind each pixel and `far` how far the pixel is from it; `surface`
    the even light that fits the background best. `known` is background beyond doubt; `shade` what
    may be a shadow; `open` what the background reaches when soft shadows belong to it; `edges`
    the sharp edges; `border` the outermost pixels that are background; `noise` its grain.
    """

    lab: Floats
    expected: Floats
    far: Floats
    surface: Floats
    known: Mask
    shade: Mask
    open: Mask
    edges: Mask
    border: Mask
    noise: float

    @property
    def near(self) -> Floats:
        """The distance up to which a pixel may be background; more beside a strong edge."""
        return 1.5 + 3 * self.noise + 0.08 * highest_around(_steepness(self.lab, 1.0), 9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """How far down, 0 to 1, the line between two backgrounds leaves the picture on each side."""

    left: float
    right: float


def read_scene(rgb: Bytes) -> Scene:
    """Return what the border of `rgb` says of its background.

    Meant for a picture of about 512 pixels: distances in pixels are set for that.
    """
    raw = cv2.cvtColor(rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    grain = _grain(raw, frame(raw.shape[:2]))
    lab = cv2.GaussianBlur(raw, (0, 0), 0.6 if grain < 1 else 1.2)
    border, horizon = _background_border(lab)
    noise = max(_grain(lab, border), 0.25)
    terms = _surface_terms(lab.shape[:2], horizon)
    edges = _sharp_edges(lab - _surface(lab, border, terms), border)
    known = _grow(lab, border, edges, horizon, noise)
    expected = _expected(lab, eroded(known, 2) | border, terms)
    shade = _shade(lab, expected, noise)
    return Scene(
        lab=lab,
        expected=expected,
        far=np.linalg.norm(lab - expected, axis=2),
        known=known,
        shade=shade,
        open=through_gaps((shade & ~edges) | known, known, radius=2),
        edges=edges,
        border=border,
        surface=_surface(lab, known, terms),
        noise=noise,
    )


def frame(shape: tuple[int, ...]) -> Mask:
    """Return the outermost pixels of a picture of that shape, about a hundredth of its side."""
    height, width = shape[:2]
    thick = _thickness(shape)
    outermost = np.ones((height, width), np.bool_)
    outermost[thick : height - thick, thick : width - thick] = False
    return outermost


def _thickness(shape: tuple[int, ...]) -> int:
    return max(2, round(0.012 * max(shape[:2])))


def _grain(lab: Floats, where: Mask) -> float:
    """Return how far a pixel there usually is from the mean of those around it."""
    fine = np.linalg.norm(lab - cv2.GaussianBlur(lab, (0, 0), 3), axis=2)[where]
    return float(np.median(fine))


def _background_border(lab: Floats) -> tuple[Mask, Horizon | None]:
    """Return the outermost pixels that are background, and where a table meets the wall.

    The border is cut into runs where its colour jumps. A run is background when runs of its
    colour hold two of the four corners; a subject that reaches an edge does not.
    """
    height, width = lab.shape[:2]
    thick = _thickness(lab.shape)
    ring = np.concatenate(
        [
            lab[:thick].mean(axis=0),
            lab[:, -thick:].mean(axis=1),
            lab[-thick:].mean(axis=0)[::-1],
            lab[:, :thick].mean(axis=1)[::-1],
        ]
    )
    corners = (0, width, width + height, 2 * width + height)
    cuts, jump = _jumps(ring)
    plain = _background_runs(ring, cuts, jump, corners)
    top, right, bottom, left = np.split(plain, corners[1:])
    # At a corner, subject on one of the edges outweighs background on the other.
    mask = np.ones((height, width), np.bool_)
    mask[:thick] &= top
    mask[-thick:] &= bottom[::-1]
    mask[:, -thick:] &= right[:, None]
    mask[:, :thick] &= left[::-1, None]
    mask &= frame(mask.shape)
    if mask.mean() < 0.1 * frame(mask.shape).mean():  # nothing but jumps: no studio
        mask = frame(mask.shape)
    return mask, _horizon(ring, cuts, jump, width, height)


_REACH = 3


def _jumps(ring: Floats) -> tuple[list[int], float]:
    """Return where the colours along the border jump, and how large a jump is, in CIELAB."""
    count = len(ring)
    steps = np.linalg.norm(np.roll(ring, -_REACH, 0) - np.roll(ring, _REACH, 0), axis=1)
    jump = max(7.0, 4 * float(np.median(steps)))
    around = np.max([np.roll(steps, shift) for shift in range(-4, 5)], axis=0)
    peaks = np.flatnonzero((steps > jump) & (steps >= around))
    return [int(i) for i in peaks if (i - 1) % count not in peaks], jump


def _background_runs(ring: Floats, cuts: list[int], jump: float, corners: tuple[int, ...]) -> Mask:
    count = len(ring)
    plain = np.ones(count, np.bool_)
    if len(cuts) < 2:
        return plain
    runs = [
        np.arange(a, b if b > a else b + count) % count
        for a, b in zip(cuts, [*cuts[1:], cuts[0]], strict=True)
    ]
    middles = np.array([np.median(ring[run], axis=0) for run in runs])
    held = np.array([len(set(corners) & set(run.tolist())) for run in runs])
    alike = np.linalg.norm(middles[:, None] - middles[None], axis=2) < jump
    sure = (alike & (held > 0)) @ held >= 2
    if not sure.any():
        return plain
    trusted = np.concatenate([ring[run[_REACH + 1 : -_REACH - 1]] for run in _chosen(runs, sure)])
    if not len(trusted):
        return plain
    for run, middle, is_sure in zip(runs, middles, sure, strict=True):
        plain[run] = is_sure or np.linalg.norm(trusted - middle, axis=1).min() < jump / 2
    for cut in cuts:  # the mixed pixels of the jump itself
        plain[np.arange(cut - _REACH, cut + _REACH + 1) % count] = False
    return plain


def _chosen(runs: list[NDArray[np.intp]], which: Mask) -> list[NDArray[np.intp]]:
    return [run for run, chosen in zip(runs, which, strict=True) if chosen]


def _horizon(ring: Floats, cuts: list[int], jump: float, width: int, height: int) -> Horizon | None:
    """Return the line between two backgrounds that crosses the picture, if there is one."""

    def beside(row: int, *, start: int, step: int) -> tuple[Floats, Floats]:
        index = start + step * row
        above, below = np.arange(6, 14) * -step + index, np.arange(6, 14) * step + index
        count = len(ring)
        return np.median(ring[above % count], 0), np.median(ring[below % count], 0)

    right = [cut - width for cut in cuts if width <= cut < width + height]
    left = [2 * (width + height) - 1 - cut for cut in cuts if cut >= 2 * width + height]
    for one in left:
        for other in right:
            above, below = beside(one, start=2 * (width + height) - 1, step=-1)
            above_too, below_too = beside(other, start=width, step=1)
            apart = max(np.linalg.norm(above - above_too), np.linalg.norm(below - below_too))
            if apart < jump / 2 and abs(one - other) < 0.15 * width:
                return Horizon(left=one / height, right=other / height)
    return None


def _sharp_edges(lab: Floats, border: Mask) -> Mask:
    """Return the edges that no soft shadow has.

    An edge is sharp when it is much steeper seen finely than seen coarsely; that does not depend
    on its contrast, so that a pale product on white has edges and a deep shadow has none.
    """
    # JPEG coarsens hue in steps that light does not have.
    lab = lab * np.array((1, 0.5, 0.5), np.float32)
    fine, coarse = _steepness(lab, 1.0), _steepness(lab, 3.0)
    floor = max(0.4, 2 * float(np.quantile(fine[border], 0.9)))
    # JPEG echoes a strong edge over the 16 pixels of a block, at a tenth of its height.
    echo = 0.1 * highest_around(fine, 9)
    return np.asarray((fine > 1.6 * coarse) & (fine > np.maximum(floor, echo)))


def _steepness(lab: Floats, sigma: float) -> Floats:
    """Return the change of colour per pixel, after a blur of `sigma` pixels."""
    smooth = blurred(lab, sigma)
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=1 / 8)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=1 / 8)
    return np.asarray(np.sqrt((across**2 + down**2).sum(axis=2)))


def _grow(lab: Floats, border: Mask, edges: Mask, horizon: Horizon | None, noise: float) -> Mask:
    """Follow the background inwards from the border, a few pixels at a time.

    Each step compares with the background found so far close by, so that slow changes of light
    are followed across the picture and an edge is not.
    """
    height, width = lab.shape[:2]
    scale = min(1.0, _GROW_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(cv2.GaussianBlur(lab, (0, 0), 0.7), size, interpolation=cv2.INTER_AREA)
    terms = _surface_terms(size[::-1], horizon)
    seeds = cv2.resize(border.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.6
    closed = cv2.resize(edges.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.3
    limit = 1.2 + 3 * noise + 0.06 * highest_around(_steepness(small, 1.0), 4)
    known = seeds
    for _ in range(48):
        expected = _expected(small, eroded(known, 1) | seeds, terms)
        near = (np.linalg.norm(small - expected, axis=2) < limit) & ~closed
        grown = through_gaps((near & dilated(known, 6)) | known, known, radius=1)
        gain = int(grown.sum()) - int(known.sum())
        known = grown
        if gain < 0.0003 * known.size:
            break
    large = cv2.resize(known.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large > 0.9) | border


def _expected(lab: Floats, known: Mask, terms: Floats) -> Floats:
    """Return the background everywhere, from where it is `known`.

    A curved surface over the whole picture carries light into holes and across the subject; what
    it misses (a fold, a stain) is spread from the pixels around.
    """
    weight = known.astype(np.float32)
    surface = _surface(lab, known, terms)
    total = cv2.GaussianBlur(weight, (0, 0), 2)
    rest = cv2.GaussianBlur((lab - surface) * weight[..., None], (0, 0), 2)
    return surface + _pull_push(rest / np.maximum(total, 1e-3)[..., None], weight)


def _surface(lab: Floats, known: Mask, terms: Floats) -> Floats:
    """Return the sum of `terms` that fits the `known` pixels best, per channel."""
    chosen = terms[known]
    weights = np.linalg.lstsq(chosen.T @ chosen, chosen.T @ lab[known], rcond=1e-5)[0]
    return np.asarray(terms @ weights, np.float32)


def _surface_terms(shape: tuple[int, ...], horizon: Horizon | None) -> Floats:
    """Return the terms of a quadratic in x and y, and of its step at a horizon.

    Shape [height, width, 6 or 9]; x and y run from -1 to 1.
    """
    height, width = shape
    y, x = np.meshgrid(
        np.linspace(-1, 1, height, dtype=np.float32),
        np.linspace(-1, 1, width, dtype=np.float32),
        indexing="ij",
    )
    terms = [np.ones_like(x), x, y, x * x, x * y, y * y]
    if horizon is not None:
        line = height * np.linspace(horizon.left, horizon.right, width, dtype=np.float32)
        below = np.clip((np.arange(height, dtype=np.float32)[:, None] - line) / 3 + 0.5, 0, 1)
        terms += [below, below * x, below * y]
    return np.stack(terms, axis=2)


def _pull_push(colours: Floats, weight: Floats) -> Floats:
    """Return `colours` where `weight` is 1, and elsewhere what the nearest such pixels spread."""
    height, width = weight.shape
    if max(height, width) <= 2:
        total = max(float(weight.sum()), 1e-6)
        mean = (colours * weight[..., None]).sum(axis=(0, 1)) / total
        return np.broadcast_to(mean, colours.shape).astype(np.float32)
    size = ((width + 1) // 2, (height + 1) // 2)
    share = cv2.resize(weight, size, interpolation=cv2.INTER_AREA).reshape(size[::-1])
    summed = cv2.resize(colours * weight[..., None], size, interpolation=cv2.INTER_AREA)
    summed = summed.reshape(*size[::-1], 3)
    coarse = _pull_push(summed / np.maximum(share, 1e-6)[..., None], np.minimum(1, share * 4))
    spread = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(colours * weight[..., None] + spread * (1 - weight[..., None]))


def _shade(lab: Floats, expected: Floats, noise: float) -> Mask:
    """Return what may be background in a shadow: it is darker, of the same hue."""
    difference = lab[..., 0] - expected[..., 0]
    darker = (difference < 1) & (lab[..., 0] > 0.45 * expected[..., 0])
    # A shadow takes the same share of every primary, so that hue fades along with the light.
    share = lab[..., :1] / np.maximum(expected[..., :1], 1)
    hue = np.linalg.norm(lab[..., 1:] - share * expected[..., 1:], axis=2)
    return np.asarray(darker & (hue < 2 + 2 * noise + 0.1 * np.abs(difference)))
