"""Do together what is asked for at the same time, where one after another would wait on one lock.

Nobody waits for company: who comes first begins at once, and those who come meanwhile go together
next. So a busy line has one transaction, and one sync to disk, for many.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from contextvars import Context
from dataclasses import dataclass
from enum import Enum
from typing import Final, Generic, TypeVar

from imageloom.domain.errors import StoreUnavailable

MOST: Final = 64  # items of one piece of work: more would make the first of them wait for the last

Item = TypeVar("Item")
Result = TypeVar("Result")


class Not(Enum):
    """What is no result."""

    YET = "it goes with the next"


# For each item in order its result, what is wrong with it alone, or that it must come later.
Work = Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception | Not]]]


@dataclass(frozen=True, slots=True, eq=False)
class _Asked(Generic[Item, Result]):
    item: Item
    answer: asyncio.Future[Result]


class Together(Generic[Item, Result]):
    """The lines of one process, each with what waits in it."""

    def __init__(self) -> None:
        self._lines: dict[Hashable, list[_Asked[Item, Result]]] = {}
        self._working: set[asyncio.Task[None]] = set()

    async def do(self, line: Hashable, item: Item, work: Work[Item, Result]) -> Result:
        """Return what `work` makes of the item, with those that wait in the same line.

        Where `work` raises over several items, each is tried alone: it costs only whose fault it
        is. Where the database is away, all who wait hear of it. Raises: what `work` does.
        """
        answer: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        asked = _Asked(item, answer)
        if line in self._lines:
            self._lines[line].append(asked)
        else:
            self._lines[line] = [asked]
            # A context of its own: whose request came first is of no meaning to the others.
            task = asyncio.create_task(self._work_off(line, work), context=Context())
            self._working.add(task)
            task.add_done_callback(self._working.discard)
        return await asked.answer

    async def _work_off(self, line: Hashable, work: Work[Item, Result]) -> None:
        asked: list[_Asked[Item, Result]] = []
        try:
            while self._lines[line]:
                asked, self._lines[line] = self._lines[line][:MOST], self._lines[line][MOST:]
                try:
                    later = await _attend(asked, work)
                except StoreUnavailable as exc:
                    # Who came meanwhile has waited as long, and would wait as long again.
                    waiting, self._lines[line] = self._lines[line], []
                    _fail(asked + waiting, exc)
                else:
                    self._lines[line] = later + self._lines[line]
        finally:
            # Empty, but where the process is ending.
            for each in asked + self._lines.pop(line):
                each.answer.cancel()


async def _attend(
    asked: list[_Asked[Item, Result]], work: Work[Item, Result]
) -> list[_Asked[Item, Result]]:
    """Answer what was asked, and return what must come later. Raises: StoreUnavailable."""
    try:
        answers = await work([each.item for each in asked])
    except StoreUnavailable:
        raise
    except Exception as exc:  # noqa: BLE001  # told to who asked
        if len(asked) == 1:
            _fail(asked, exc)
            return []
        return [later for each in asked for later in await _attend([each], work)]
    later = []
    for each, answer in zip(asked, answers, strict=True):
        if answer is Not.YET:
            later.append(each)
        elif isinstance(answer, Exception):
            _fail([each], answer)
        elif not each.answer.done():
            each.answer.set_result(answer)
    return later


def _fail(asked: Sequence[_Asked[Item, Result]], exc: Exception) -> None:
    for each in asked:
        if not each.answer.done():  # who asked has left
            each.answer.set_exception(exc)
