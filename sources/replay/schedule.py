"""When each message of a recording is due, and how well that was kept.

The schedule is absolute: a message is due when as much time has passed since the first one as did in the recording, divided
by the speed, so errors do not add up and the original gaps are kept. Who cannot keep up makes the whole replay late; nothing
is skipped.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Sequence

import numpy as np

from ...pipeline.clock import Clock, RealClock
from .steady import Rests

__all__ = ["Pacing", "Schedule"]

#: The last stretch before a message is due is not slept through, since a sleep ends later than it was asked to: the clock
#: is looked at again and again, and other threads get their turn in between.
_CLOSE_NS = 150_000
_BIN_NS, _BINS = 10_000, 20_000


def _give_way() -> None:
    """For systems where a thread cannot give its turn to another."""


_next_thread: Callable[[], object] = getattr(os, "sched_yield", _give_way)


class Pacing:
    """How far from its due time each message left, in bins of 10 us up to 200 ms."""

    def __init__(self) -> None:
        self._bins = [0] * (_BINS + 1)
        self.count = 0
        self.largest_ns = 0

    def add(self, late_ns: int) -> None:
        """A message left so late."""
        self.add_all(late_ns, (0,))

    def add_all(self, now: int, dues: Sequence[int]) -> None:
        """Messages that were due at `dues` have left `now`."""
        bins, first = self._bins, now - min(dues)
        for due in dues:
            late = (now - due) // _BIN_NS
            bins[late if 0 <= late < _BINS else _BINS if late > 0 else 0] += 1
        self.count += len(dues)
        self.largest_ns = max(self.largest_ns, first)

    def quantile_us(self, q: float) -> float:
        """The error that a share `q` of all messages stayed within, us; the upper edge of its bin."""
        if not self.count:
            return 0.0
        at = int(np.searchsorted(np.cumsum(np.array(self._bins, np.int64)), math.ceil(q * self.count)))
        return min((at + 1) * _BIN_NS, max(self.largest_ns, 0)) / 1e3 if at < _BINS else self.largest_ns / 1e3

    def report(self) -> dict[str, float]:
        """p50, p99 and the largest error, us."""
        return {
            "p50_us": self.quantile_us(0.5),
            "p99_us": self.quantile_us(0.99),
            "max_us": self.largest_ns / 1e3,
        }


class Schedule:
    """Turns recorded times into times of `clock`. `speed` 0 is as fast as it goes; gaps above `max_gap_ns` are cut to it."""

    def __init__(self, clock: Clock, stop: threading.Event, *, speed: float, max_gap_ns: int | None = None) -> None:
        if not (speed >= 0 and math.isfinite(speed)):
            raise ValueError(f"speed must be 0 (no pacing) or above, got {speed}")
        self._clock, self._stop, self._speed, self._max_gap = clock, stop, speed, max_gap_ns
        self._spins = isinstance(clock, RealClock)
        self._rests: Rests | None = None
        self._started: int | None = None
        self._last: int | None = None
        self._elapsed = 0
        self.pacing = Pacing()

    def dues(self, times: Sequence[int]) -> list[int]:
        """When messages recorded at `times` are due, by the clock's monotonic time; one that goes back is due at once."""
        if self._started is None:
            self._started = self._clock.monotonic_ns()
        started, speed, most = self._started, self._speed, self._max_gap
        elapsed, last = self._elapsed, times[0] if self._last is None else self._last
        found = []
        for time in times:
            gap = time - last
            if gap > 0:
                elapsed += gap if most is None or gap < most else most
                last = time
            found.append(started + int(elapsed / speed) if speed else started)
        self._elapsed, self._last = elapsed, last
        return found

    def again(self) -> None:
        """The recording begins anew right behind its end."""
        self._last = None

    def wait(self, due: int) -> bool:
        """Wait until `due`; True if the replay is being stopped."""
        clock = self._clock
        if not self._speed:
            return self._stop.is_set()
        if self._spins:
            now = clock.monotonic_ns()
            self._rests = self._rests or Rests(now)
            self._rests.during(due - now, now)
        while (ahead := due - clock.monotonic_ns()) > 0:
            if not self._spins:
                if clock.wait_ns(ahead, self._stop):
                    return True
            elif ahead <= _CLOSE_NS:
                _next_thread()
            elif clock.wait_ns(ahead - _CLOSE_NS, self._stop):
                return True
        return self._stop.is_set()

    def count_due(self, dues: Sequence[int], start: int) -> int:
        """How many of `dues` from `start` on have come; at least one."""
        now = self._clock.monotonic_ns()
        stop = start + 1
        while stop < len(dues) and (not self._speed or dues[stop] <= now):
            stop += 1
        return stop - start

    def left(self, dues: Sequence[int]) -> None:
        """The messages that were due then are out now."""
        if self._speed:
            self.pacing.add_all(self._clock.monotonic_ns(), dues)
