"""Between the threads that receive and the reader: a queue bounded in bytes and messages.

A transport that can hold its sender back (TCP, WebSocket, HTTP) waits for room, so a slow pipeline slows the sender; one
that cannot (UDP) drops what does not fit and counts it.
"""

from __future__ import annotations

import threading
from collections import deque

from .arrival import Arrival

__all__ = ["Inlet"]

_OVERHEAD = 100


class Inlet:
    """Arrivals on their way to the reader. `stop` is the run's."""

    def __init__(self, stop: threading.Event, *, most_bytes: int = 16 << 20, most: int = 1 << 16) -> None:
        self._stop, self._most_bytes, self._most = stop, most_bytes, most
        self._queue: deque[Arrival] = deque()
        self._bytes = 0
        self._open = 0
        self._changed = threading.Condition()
        self._closed = self._sealed = False
        self._failure: BaseException | None = None
        #: Packets that did not fit, and messages that came on two connections.
        self.overflowed = self.repeated = 0

    @property
    def done(self) -> bool:
        """Whether receiving should stop: the run is being abandoned, or the reader has enough."""
        return self._closed or self._sealed or self._stop.is_set()

    def join(self) -> None:
        """Another line begins; the feed ends when all have left."""
        with self._changed:
            self._open += 1

    def leave(self, failure: BaseException | None = None) -> None:
        """A line has ended; with `failure`, the reader raises it."""
        with self._changed:
            self._open -= 1
            self._failure = self._failure or failure
            self._changed.notify_all()

    def put(self, arrival: Arrival) -> bool:
        """Add it, waiting for room; False if nobody wants it any more."""
        with self._changed:
            while self._is_full(arrival) and not self.done:
                self._changed.wait(0.1)
            return self._add(arrival)

    def offer(self, arrival: Arrival) -> bool:
        """Add it if there is room, else count it in `overflowed`."""
        with self._changed:
            if self._is_full(arrival):
                self.overflowed += 1
                return False
            return self._add(arrival)

    def _is_full(self, arrival: Arrival) -> bool:
        if not self._queue:
            return False
        return len(self._queue) >= self._most or self._bytes + len(arrival.data) + _OVERHEAD > self._most_bytes

    def _add(self, arrival: Arrival) -> bool:
        if self.done:
            return False
        self._queue.append(arrival)
        self._bytes += len(arrival.data) + _OVERHEAD
        if len(self._queue) == 1:
            self._changed.notify_all()
        return True

    def take(self, most: int, most_bytes: int, timeout_s: float) -> list[Arrival] | None:
        """What is there, waiting up to `timeout_s` for the first; None once every line has left and nothing is left.

        Raises what a line failed with, after all that had come before.
        """
        with self._changed:
            if not self._queue and self._open and not self.done:
                self._changed.wait(timeout_s)
            if self._stop.is_set():
                return None
            taken: list[Arrival] = []
            size = 0
            while self._queue and len(taken) < most and size < most_bytes:
                arrival = self._queue.popleft()
                size += len(arrival.data) + _OVERHEAD
                taken.append(arrival)
            self._bytes -= size
            self._changed.notify_all()
            if taken:
                return taken
            if self._failure is not None:
                raise self._failure
            return [] if self._open and not (self._closed or self._sealed) else None

    def seal(self) -> None:
        """Nothing more comes in; what is there can be taken."""
        with self._changed:
            self._sealed = True
            self._changed.notify_all()

    def close(self) -> None:
        """The reader wants no more."""
        with self._changed:
            self._closed = True
            self._queue.clear()
            self._bytes = 0
            self._changed.notify_all()
