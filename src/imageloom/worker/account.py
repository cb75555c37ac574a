"""What an attempt had of its device, over all the runs there that it was made of."""

from __future__ import annotations

from imageloom.domain.messages import Usage


class Account:
    """Adds up what the device says as each run ends; `usage` is None where it said nothing."""

    def __init__(self) -> None:
        self.usage: Usage | None = None

    def add(self, usage: Usage | None) -> None:
        """Note one run more."""
        before = self.usage
        if usage is None or before is None:
            self.usage = usage or before
            return
        peaks = [each.memory_bytes for each in (before, usage) if each.memory_bytes is not None]
        self.usage = Usage(
            seconds=before.seconds + usage.seconds,
            memory_bytes=max(peaks, default=None),
            relief=tuple(dict.fromkeys((*before.relief, *usage.relief))),
        )
