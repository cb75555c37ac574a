"""Cut a call that reports between its steps into units of work, whatever it calls inside."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import Future
from threading import Semaphore, Thread
from typing import TypeVar

from imageloom.runtime.units import Dropped

T = TypeVar("T")


def in_stretches(work: Callable[[Callable[[], None]], T]) -> Generator[None, None, T]:
    """Do `work` as far as it calls the function that it is given, and yield; then go on with it.

    A library's loop cannot yield, so it runs on a thread of its own: by turns with the caller,
    never beside it. Modes that torch keeps per thread, gradients and autocast, are entered in
    `work`, and touch nothing else while it waits. The generator is to be closed where it is not
    gone through: that raises `Dropped` in `work`, and waits until it has left.
    """
    ours, theirs = Semaphore(0), Semaphore(0)
    answer: Future[T] = Future()
    closed = False

    def hold() -> None:
        ours.release()
        theirs.acquire()
        if closed:
            raise Dropped("closed")

    def run() -> None:
        theirs.acquire()
        try:
            answer.set_result(work(hold))
        except BaseException as exc:  # noqa: BLE001  # the caller's, whatever it is
            answer.set_exception(exc)
        ours.release()

    thread = Thread(target=run, name="stretches", daemon=True)
    thread.start()
    try:
        while True:
            theirs.release()
            ours.acquire()
            if answer.done():
                return answer.result()
            yield
    finally:
        closed = True
        theirs.release()
        thread.join()
