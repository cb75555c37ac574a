"""The device's end of the pipe: messages come in on a thread, so that a cancel is seen mid-step."""

from __future__ import annotations

import os
import queue
import socket
import threading

from imageloom.device.pulse import Pulse
from imageloom.domain.messages import (
    HEADER_SIZE,
    Cancel,
    Ping,
    Request,
    ToDevice,
    ToParent,
    decode_for_device,
    encode_frame,
    frame_length,
)


class Link:
    """What the parent asks for, and the way to answer it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._arrived: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._cancelled: set[str] = set()
        self._send_lock = threading.Lock()
        self._pulse = Pulse()

    def start(self) -> None:
        """Begin to listen. When the parent is gone the process ends at once, even in mid-step."""
        threading.Thread(target=self._listen, name="link", daemon=True).start()

    def next_message(self, *, block: bool) -> Request | None:
        """Return what the parent asked for next; None where nothing waits and `block` is false, or
        where `wake` was called meanwhile.
        """
        if block:
            self._pulse.rest()
        try:
            return self._arrived.get(block=block)
        except queue.Empty:
            return None
        finally:
            self._pulse.beat()

    def wake(self) -> None:
        """End the waiting in `next_message`; from any thread."""
        self._arrived.put(None)

    def is_cancelled(self, key: str) -> bool:
        """Whether the parent wants the attempt dropped. Cheap: asked between all steps."""
        return key in self._cancelled

    def forget(self, key: str) -> None:
        """Drop what is remembered of an attempt that is over."""
        self._cancelled.discard(key)

    def send(self, message: ToParent) -> None:
        """Send a message, between two steps; blocks while the parent does not read."""
        self._pulse.beat()
        self._write(message)
        self._pulse.beat()

    def _write(self, message: ToParent) -> None:
        with self._send_lock:
            self._connection.sendall(encode_frame(message))

    def _listen(self) -> None:
        try:
            while True:
                self._take(decode_for_device(self._read(frame_length(self._read(HEADER_SIZE)))))
        except OSError:
            # Nobody is left to work for. No clean-up: a step may hold the interpreter for minutes.
            os._exit(0)

    def _take(self, message: ToDevice) -> None:
        if isinstance(message, Ping):
            self._write(self._pulse.look())
            return
        if isinstance(message, Cancel):
            self._cancelled.add(message.key)
        self._arrived.put(message)

    def _read(self, length: int) -> bytes:
        buffer = bytearray(length)
        view = memoryview(buffer)
        while view:
            got = self._connection.recv_into(view)
            if got == 0:
                raise ConnectionResetError("the worker hung up")
            view = view[got:]
        return bytes(buffer)
