"""Server-sent events as text becomes values: what both halves of the client read them by."""

from __future__ import annotations

import json
from dataclasses import dataclass

from imageloom.client._types import FINAL, JSON

PATIENCE = 60.0  # seconds without a word from the server
TAKE_UP = 1.0  # seconds before a stream that broke is asked for again


@dataclass(slots=True)
class Seen:
    """Where a stream is: the `id` of the last event, and whether that was the last of all.

    `ended` where the server has nothing more to tell.
    """

    id: str | None = None
    over: bool = False
    ended: bool = False
    _next: str | None = None
    _data: str = ""

    def take(self, line: str) -> JSON | None:
        """Take one line of the stream, and return the data of the event that it completes."""
        name, _, value = line.partition(": ")
        match name:
            case "id":
                self._next = value
            case "data":
                self._data += value
            case "" if self._data:
                data: JSON = json.loads(self._data)
                self.id, self._data = self._next, ""
                self.over = data.get("status") in FINAL
                return data
        return None
