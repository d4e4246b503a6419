"""What lies between two threads: queues bounded in bytes, one for each input of a stage.

A producer waits while its queue is full; an item larger than the whole budget passes alone when the queue is empty. A
stage with several inputs takes from the one whose event time is furthest behind and lets the others wait, so that a fast
stream cannot fill memory while a slow one is awaited. Only where two inputs come from one source may a full queue be
taken first: there the source could not go on otherwise. An input on which a checkpoint's barrier has come is held back
until it has come on the others.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Literal

from .clock import Clock
from .context import StageMetrics
from .ledger import Trace
from .operator import END_OF_TIME, NO_TIME

__all__ = ["Inbox", "InboxPort", "Item", "Stopped"]

What = Literal["batch", "watermark", "barrier", "end"]
Item = tuple[What, int, Any, int, "Trace | None"]


class Stopped(Exception):
    """The run is being abandoned; unwinds a stage's thread."""


class Inbox:
    """The inputs of one stage."""

    def __init__(
        self, ports: int, budget: int, clock: Clock, stop: threading.Event, *, related: bool = False, items: int = 0
    ) -> None:
        self._queues: list[deque[Item]] = [deque() for _ in range(ports)]
        self._bytes = [0] * ports
        self._times = [NO_TIME] * ports
        self._open = [True] * ports
        self._held = [False] * ports
        self._budget, self._related, self._items = budget, related, items
        self._changed = threading.Condition()
        self._clock, self._stop = clock, stop
        self._waiting_full = 0
        self._waiting_empty = False
        self.peak_bytes = 0

    def put(self, port: int, what: What, payload: Any, nbytes: int, trace: Trace | None) -> int:
        """Add an item, waiting for room; returns the ns waited. Raises Stopped."""
        waited = 0
        with self._changed:
            if what == "batch" and self._full(port, nbytes):
                started = self._clock.monotonic_ns()
                self._waiting_full += 1
                self._changed.notify_all()
                while self._full(port, nbytes):
                    if self._stop.is_set():
                        raise Stopped
                    self._changed.wait(0.25)
                self._waiting_full -= 1
                waited = self._clock.monotonic_ns() - started
            if self._stop.is_set():
                raise Stopped
            self._queues[port].append((what, port, payload, nbytes, trace))
            self._bytes[port] += nbytes
            total = sum(self._bytes)
            if total > self.peak_bytes:
                self.peak_bytes = total
            if self._waiting_empty:
                self._changed.notify_all()
        return waited

    def _full(self, port: int, nbytes: int) -> bool:
        queue = self._queues[port]
        if not queue:
            return False
        return self._bytes[port] + nbytes > self._budget or 0 < self._items <= len(queue)

    def get(self) -> Item | None:
        """The next item, waiting for one; None when every input has ended. Raises Stopped."""
        with self._changed:
            while True:
                if self._stop.is_set():
                    raise Stopped
                port = self._choose()
                if port is not None:
                    break
                if not any(self._open):
                    return None
                self._waiting_empty = True
                self._changed.wait(0.25)
                self._waiting_empty = False
            item = self._queues[port].popleft()
            self._bytes[port] -= item[3]
            if item[0] == "watermark":
                self._times[port] = item[2]
            elif item[0] == "end":
                self._close(port)
            elif item[0] == "barrier":
                self._held[port] = True
                self._release_when_aligned()
            if self._waiting_full:
                self._changed.notify_all()
            return item

    def _close(self, port: int) -> None:
        self._times[port] = END_OF_TIME
        self._open[port] = False
        self._release_when_aligned()

    def close(self, port: int) -> None:
        """Nothing will come on `port`: it had ended when the snapshot was made from which this run goes on."""
        with self._changed:
            self._close(port)

    def _release_when_aligned(self) -> None:
        if all(held or not is_open for held, is_open in zip(self._held, self._open, strict=True)):
            self._held = [False] * len(self._held)

    def _choose(self) -> int | None:
        if len(self._queues) == 1:
            return 0 if self._queues[0] else None
        eligible = [p for p in range(len(self._queues)) if self._open[p] and not self._held[p]]
        behind = min(eligible, key=self._times.__getitem__, default=None)
        if behind is None:
            return None
        lowest = self._times[behind]
        for port in eligible:
            if self._times[port] == lowest and self._queues[port]:
                return port
        if (self._related and self._waiting_full) or any(self._held):
            return next((p for p in eligible if self._queues[p]), None)
        return None

    def wake(self) -> None:
        """Let everyone who waits look at the stop event."""
        with self._changed:
            self._changed.notify_all()

    @property
    def depth(self) -> tuple[int, int]:
        """Items and bytes that wait."""
        return sum(map(len, self._queues)), sum(self._bytes)

    @property
    def waiting_port(self) -> int | None:
        """The input that would be taken next, for naming a stall."""
        ports = [p for p in range(len(self._queues)) if self._open[p]]
        return min(ports, key=self._times.__getitem__, default=None)


class InboxPort:
    """An inbox as a receiver: what a producing cell sees of another thread."""

    def __init__(self, inbox: Inbox, index: int, size: Callable[[Any], int], metrics: StageMetrics) -> None:
        self._inbox, self.index, self._size, self._metrics = inbox, index, size, metrics

    def push(self, batch: Any, port: int, trace: Trace | None) -> None:
        waited = self._inbox.put(port, "batch", batch, self._size(batch), trace)
        if waited:
            self._metrics.wait_output_ns += waited

    def advance(self, watermark: int, port: int, trace: Trace | None) -> None:
        self._inbox.put(port, "watermark", watermark, 0, trace)

    def barrier(self, number: int, port: int) -> None:
        self._inbox.put(port, "barrier", number, 0, None)

    def end(self, port: int, trace: Trace | None) -> None:
        self._inbox.put(port, "end", None, 0, trace)
