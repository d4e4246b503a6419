"""The one seam through which the core sees time.

Event time comes from the data. Processing time is needed for latency limits on live feeds, for pacing a replay and for
measuring; it is read here and nowhere else, so a run can be driven by a clock that a test advances by hand.
"""

from __future__ import annotations

import threading
import time
from typing import Protocol, runtime_checkable

__all__ = ["Clock", "ManualClock", "RealClock", "SyntheticClock"]


@runtime_checkable
class Clock(Protocol):
    """What the core may ask of a clock. All values are nanoseconds."""

    def now_ns(self) -> int:
        """Wall-clock time, ns since the Unix epoch, UTC."""
        ...

    def monotonic_ns(self) -> int:
        """Time that never goes back, for measuring intervals."""
        ...

    def wait_ns(self, duration: int, stop: threading.Event) -> bool:
        """Wait for `duration`; return True at once if `stop` is set meanwhile."""
        ...


class RealClock:
    """The machine's clock, running `speed` times as fast as it does for waits (2.0 halves every wait)."""

    __slots__ = ("speed",)

    def __init__(self, speed: float = 1.0) -> None:
        if not speed > 0:
            raise ValueError(f"speed must be positive, got {speed}")
        self.speed = speed

    def now_ns(self) -> int:
        return time.time_ns()

    def monotonic_ns(self) -> int:
        return time.perf_counter_ns()

    def wait_ns(self, duration: int, stop: threading.Event) -> bool:
        return stop.wait(max(0, duration) / 1e9 / self.speed)


class ManualClock:
    """A clock that moves only when `advance` is called; waits block until it has moved far enough."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now = start_ns
        self._moved = threading.Condition()

    def now_ns(self) -> int:
        return self._now

    def monotonic_ns(self) -> int:
        return self._now

    def advance(self, duration: int) -> None:
        """Move the clock by `duration` ns and wake whoever waits."""
        if duration < 0:
            raise ValueError(f"a clock does not go back: {duration=}")
        with self._moved:
            self._now += duration
            self._moved.notify_all()

    def wait_ns(self, duration: int, stop: threading.Event) -> bool:
        with self._moved:
            due = self._now + duration
            while self._now < due and not stop.is_set():
                self._moved.wait(0.05)
        return stop.is_set()


class SyntheticClock:
    """A clock that jumps: every wait ends at once and moves the time by what was asked for."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now = start_ns
        self._lock = threading.Lock()

    def now_ns(self) -> int:
        return self._now

    def monotonic_ns(self) -> int:
        return self._now

    def wait_ns(self, duration: int, stop: threading.Event) -> bool:
        with self._lock:
            self._now += max(0, duration)
        return stop.is_set()
