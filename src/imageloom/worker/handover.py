"""What an attempt can leave to the next one before a drain stops it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable


class Handover:
    """The meeting point of a drain, which knows when, and of one attempt, which knows how."""

    def __init__(self) -> None:
        self._save: Callable[[], Awaitable[None]] | None = None

    @property
    def offered(self) -> bool:
        """Whether there is something that a next attempt can go on from."""
        return self._save is not None

    def offer(self, save: Callable[[], Awaitable[None]]) -> None:
        """Let `save` keep what the attempt has done; it returns once a next one can go on."""
        self._save = save

    async def save(self) -> None:
        """Keep what was done so far, where the attempt can.

        Waits for ever where the attempt ends meanwhile: the caller watches that, and the time.
        """
        if self._save is not None:
            await self._save()
