"""One denoising step of many rows: which ride along, and what to do where it fails."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from imageloom.runtime.shortage import forget_frames, is_out_of_memory
from imageloom.runtime.units import Drawing

if TYPE_CHECKING:  # both import torch, and the loop runs without
    from imageloom.runtime.denoiser import Denoiser
    from imageloom.runtime.rows import Row

# Lanes of one pass. The embedded model on one core takes 6.0 ms a lane at 2 lanes, 3.1 at 16 and
# 2.8 at 32, but every row then waits twice as long for its step.
MOST_LANES: Final = 16
# Lanes x pixels of one pass: 4 lanes of 1024 x 1024, 16 of 512 x 512. Beyond it a large GPU is
# full, and a step takes longer for each lane that is added.
MOST_WORK: Final = 4 * 1024 * 1024


def choose_rows(lead: Drawing, drawing: Sequence[Drawing]) -> list[Row]:
    """Return the rows of the next pass: those that fit with the first row of `lead`.

    One of each attempt in turn, in the order of `drawing`, until the pass is full. The first row of
    `lead` is always among them.
    """
    first = lead.rows[0]
    fitting = [
        [row for row in units.rows if row.fits == first.fits]
        for units in drawing
        if units.denoiser is lead.denoiser
    ]
    most_rows = lead.denoiser.most_rows(first)
    chosen, lanes, work = [first], len(first.lanes), first.work
    for row in (row for turn in zip_longest(*fitting) for row in turn if row is not None):
        if row is first:
            continue
        lanes, work = lanes + len(row.lanes), work + row.work
        if lanes > MOST_LANES or work > MOST_WORK or len(chosen) == most_rows:
            break
        chosen.append(row)
    return chosen


def step_rows(denoiser: Denoiser, rows: Sequence[Row]) -> Mapping[Row, Exception | None]:
    """Do one denoising step of the rows; return those that were stepped, with what went wrong.

    Where memory does not suffice, half of the rows are stepped and the others come later. Where
    anything else fails, each is tried alone, so that it costs only whose fault it is.
    """
    before = [row.position for row in rows]
    failure = _failure(denoiser, rows)
    if failure is None:
        return dict.fromkeys(rows)
    if len(rows) == 1:
        return {rows[0]: failure}
    # Some may have had their step: it failed in the turn of another.
    left = [row for row, place in zip(rows, before, strict=True) if row.position == place]
    stepped = {row: None for row in rows if row not in left}
    if is_out_of_memory(failure):
        denoiser.remember_too_many(rows)
        return {**stepped, **step_rows(denoiser, left[: max(1, len(rows) // 2)])}
    return {**stepped, **{row: step_rows(denoiser, [row])[row] for row in left}}


def _failure(denoiser: Denoiser, rows: Sequence[Row]) -> Exception | None:
    """Step the rows and return what was raised, None where nothing was."""
    try:
        denoiser.step(rows)
    except Exception as exc:  # noqa: BLE001  # told to the attempt whose row it is
        if is_out_of_memory(exc):
            # Else the activations of the pass that did not fit are there while half is tried.
            forget_frames(exc)
        return exc
    return None
