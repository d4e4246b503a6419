"""Replaying at the recorded pace: an absolute schedule, original gaps kept, never dropping.

A row is due when as much time has passed since the first row of the run as did in the recording, divided by the speed. A
consumer that is slower makes the whole replay late; how late is reported, and nothing is skipped.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa

from .columns import event_ns
from .context import Context

__all__ = ["Pacer"]

#: Rows due within this time of each other leave together.
_QUANTUM_NS = 5_000_000


class Pacer:
    """One schedule for all sources of a run, by ``ts_recv``."""

    def __init__(self, speed: float) -> None:
        self.speed = speed
        self.largest_lag_ns = 0
        self._origin: tuple[int, int] | None = None
        self._lock = threading.Lock()

    def pieces(self, batch: pa.RecordBatch) -> Sequence[tuple[pa.RecordBatch, int]]:
        """`batch` cut where its rows are due at different times, with the recorded time of each piece."""
        times = event_ns(batch, "ts_recv")
        step = max(1, int(_QUANTUM_NS * self.speed))
        cuts = np.flatnonzero(np.diff(times // step)) + 1
        bounds = [0, *cuts.tolist(), len(times)]
        return [(batch.slice(low, high - low), int(times[low:high].max())) for low, high in pairwise(bounds)]

    def wait(self, due: int, context: Context) -> bool:
        """Wait until the recorded time `due`; True if the run is being stopped."""
        now = context.clock.monotonic_ns()
        with self._lock:
            if self._origin is None:
                self._origin = (due, now)
        recorded, started = self._origin
        ahead = started + int((due - recorded) / self.speed) - now
        if ahead > 0:
            return context.clock.wait_ns(ahead, context.stop)
        with self._lock:
            self.largest_lag_ns = max(self.largest_lag_ns, -ahead)
        return context.stop.is_set()

    def report(self) -> dict[str, float]:
        """What was asked for, and by how much the replay fell behind."""
        return {"speed": self.speed, "largest_lag_ms": round(self.largest_lag_ns / 1e6, 3)}
