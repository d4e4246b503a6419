"""The sending end of an edge between two processes: a queue bounded in bytes that the other end pulls from.

A pull is a credit: the receiver asks for up to so many bytes, and what it has not asked for stays here. When the queue is
full the sender waits, so a slow consumer stops its producers through any number of processes. Pulls are numbered and
answered in order, however the calls arrive; each gives everything that is ready, so that small batches travel together.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Any

from ..clock import Clock
from ..errors import RunError
from ..inbox import Stopped
from ..ledger import Trace, birth
from ..options import readable_bytes
from .parcels import Elsewhere, packed

__all__ = ["LARGEST", "Outbox", "OutboxPort", "Parcels"]

#: Under which name a run's budgets say how large one batch may be.
LARGEST = "one batch"
#: What a pull gives: (what, payload, bytes, age in ns when it was queued), in order.
Parcels = list[tuple[str, Any, int, int]]


class Outbox:
    """One edge. `put` is called by the producer's thread, `pull` by the threads of remote calls."""

    def __init__(
        self, budget: int, clock: Clock, stop: threading.Event, *, items: int = 64, largest: int | None = None
    ) -> None:
        self._queue: deque[tuple[str, Any, int, int]] = deque()
        self._bytes = 0
        self._budget, self._items, self._largest = budget, items, largest
        self._clock, self._stop = clock, stop
        self._changed = threading.Condition()
        self._next = 0
        self.closed = False
        self.moved_bytes = 0
        self.copied_bytes = 0
        self.peak_bytes = 0

    def put(self, what: str, payload: Any, nbytes: int, born: int) -> int:
        """Queue an item, waiting for room; returns the ns waited. A batch larger than the budget waits until it is alone.

        Raises Stopped, and RunError for a batch that no object store could hold beside anything else.
        """
        if self._largest is not None and nbytes > self._largest:
            raise RunError(
                f"a batch of {readable_bytes(nbytes)} does not fit the object store, of which one batch may take "
                f"{readable_bytes(self._largest)}; form smaller batches, or start nodes with a larger object store"
            )
        waited = 0
        with self._changed:
            if nbytes and self._full(nbytes):
                started = self._clock.monotonic_ns()
                while self._full(nbytes):
                    if self._stop.is_set():
                        raise Stopped
                    self._changed.wait(0.25)
                waited = self._clock.monotonic_ns() - started
            if self._stop.is_set():
                raise Stopped
            self._queue.append((what, payload, nbytes, born))
            self._bytes += nbytes
            self.peak_bytes = max(self.peak_bytes, self._bytes)
            self._changed.notify_all()
        return waited

    def _full(self, nbytes: int) -> bool:
        return bool(self._queue) and (self._bytes + nbytes > self._budget or len(self._queue) >= self._items)

    def pull(self, number: int, credit: int, patience: float) -> Parcels:
        """What is ready, up to `credit` bytes (one item at least); empty after `patience` seconds without any."""
        with self._changed:
            while number != self._next:
                if self._stop.is_set():
                    return []
                self._changed.wait(0.25)
            if not self._queue:
                self._changed.wait_for(lambda: bool(self._queue) or self._stop.is_set(), patience)
            taken: list[tuple[str, Any, int, int]] = []
            total = 0
            while self._queue and (not taken or total + self._queue[0][2] <= credit):
                item = self._queue.popleft()
                total += item[2]
                taken.append(item)
            self._bytes -= total
            self._next += 1
            self._changed.notify_all()
        now = self._clock.monotonic_ns()
        return [
            (what, self._packed(payload, nbytes), nbytes, max(0, now - born)) for what, payload, nbytes, born in taken
        ]

    def _packed(self, payload: Any, nbytes: int) -> Any:
        parcel, copied = packed(payload)
        self.moved_bytes += 0 if isinstance(payload, Elsewhere) else nbytes  # counted by the pool that put it there
        self.copied_bytes += copied
        return parcel

    @property
    def depth(self) -> int:
        """Items that wait."""
        return len(self._queue)

    @property
    def waiting_bytes(self) -> int:
        return self._bytes

    def wake(self) -> None:
        """Let everyone who waits look at the stop event."""
        with self._changed:
            self._changed.notify_all()


class OutboxPort:
    """An outbox as a receiver: what a producing cell sees of a consumer in another process."""

    def __init__(self, outbox: Outbox, index: int, size: Any, metrics: Any, clock: Clock) -> None:
        self._outbox, self.index, self._size, self._metrics = outbox, index, size, metrics
        self._now = clock.monotonic_ns

    def push(self, batch: Any, port: int, trace: Trace | None) -> None:
        waited = self._outbox.put("batch", batch, self._size(batch), birth(trace) or self._now())
        if waited:
            self._metrics.wait_output_ns += waited

    def advance(self, watermark: int, port: int, trace: Trace | None) -> None:
        self._outbox.put("watermark", watermark, 0, self._now())

    def barrier(self, number: int, port: int) -> None:
        self._outbox.put("barrier", number, 0, self._now())

    def end(self, port: int, trace: Trace | None) -> None:
        self._outbox.put("end", None, 0, self._now())
