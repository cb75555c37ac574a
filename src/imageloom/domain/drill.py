"""What a device that only plays one is told; no torch: for both ends of the pipe."""

from __future__ import annotations

from typing import Final

import msgspec

NAME: Final = "drill"  # of the setting, of the device, and in every receipt


class Drill(msgspec.Struct, frozen=True, kw_only=True):
    """How it plays: `step_seconds` for each step of all its rows together.

    `ledger` is a file that each beginning and end of an attempt adds a line to, None for none.
    """

    step_seconds: float = 0.0
    ledger: str | None = None
