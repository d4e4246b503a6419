"""The receiving end of an edge between two processes: a thread that pulls and hands on.

Two pulls are under way at a time, so that the next parcels travel while these are being handed on, and no more: what is
not pulled waits at the sender, where it is counted. Batches are handed on as they lie in the object store.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from ..cells import Receiver
from ..clock import Clock
from .parcels import opened

__all__ = ["PATIENCE", "Puller"]

#: Seconds after which a pull comes back empty, so that a receiver that gives up is noticed.
PATIENCE = 1.0
_UNDER_WAY = 2


class Puller:
    """Feeds input `port` of `receiver` from a remote outbox; ``pull(number, credit, patience)`` gives a Ray reference."""

    def __init__(
        self,
        pull: Callable[[int, int, float], Any],
        get: Callable[[Any], Any],
        receiver: Receiver,
        port: int,
        producer: int,
        credit: int,
        clock: Clock,
        stop: threading.Event,
    ) -> None:
        self._pull, self._get, self._receiver, self._port = pull, get, receiver, port
        self._producer, self._credit, self._clock, self._stop = producer, credit, clock, stop
        self.calls = 0
        self.moved_bytes = 0

    def run(self) -> None:
        """Until the edge has ended. Raises Stopped, or what the call raised when the other process is lost."""
        under_way: deque[Any] = deque()
        while True:
            while len(under_way) < _UNDER_WAY:
                under_way.append(self._pull(self.calls, max(1, self._credit // _UNDER_WAY), PATIENCE))
                self.calls += 1
            parcels = self._get(under_way.popleft())
            if self._stop.is_set():
                return
            for what, payload, nbytes, age in parcels:
                if what == "end":
                    self._receiver.end(self._port, None)
                    return
                if what == "watermark":
                    self._receiver.advance(payload, self._port, None)
                elif what == "barrier":
                    self._receiver.barrier(payload, self._port)
                else:
                    self.moved_bytes += nbytes
                    now = self._clock.monotonic_ns()
                    trace = (None, self._producer, now - age, now, 0, "")
                    self._receiver.push(opened(payload, self._get), self._port, trace)
