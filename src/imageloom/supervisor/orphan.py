"""What a child of `serve` does so that it never outlives it, not even after a kill -9."""

from __future__ import annotations

import os
import signal
import threading


def end_with_parent() -> None:
    """End this process in order when its standard input ends, which only the parent holds open."""

    def wait() -> None:
        # Not sys.stdin: a thread that still reads from that aborts the interpreter at its end.
        while os.read(0, 4096):
            pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, name="parent", daemon=True).start()
