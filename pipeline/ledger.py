"""Where the accelerator's waiting time goes: every wait is charged to a step and a cause.

Each item carries a trace: a chain of what happened to it, newest first, as tuples
``(earlier, step, start_ns, end_ns, held_since_ns, cause)``. When the accelerator has waited from `a` to `b` for an item,
the ledger walks that chain: time in which the item was being worked on is charged to that step; time it lay in a queue to
the step it waited for; time before it existed to its source, or to batch filling when rows already lay in a half-full
batch and the source was only keeping its pace.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

__all__ = ["PACE", "Histogram", "Ledger", "Trace", "birth"]

#: (earlier trace or None, step index, start, end, held since or 0, cause or "" for the step's own)
Trace = tuple[Any, int, int, int, int, str]
#: Cause of a source that waits for its recorded pace.
PACE = "pace"


def birth(trace: Trace | None) -> int:
    """When an item came into being, in ns of the run's clock: when its source began with it, or let it go at its pace."""
    start = 0
    while trace is not None:
        start = trace[3] if trace[5] == PACE else trace[2]
        trace = trace[0]
    return start


class Ledger:
    """Milliseconds of accelerator waiting by (step, cause). Used by the accelerator's thread alone."""

    def __init__(self, steps: Sequence[str], causes: Sequence[str]) -> None:
        self._steps, self._causes = list(steps), list(causes)
        self._charged: dict[tuple[str, str], int] = {}

    def charge(self, step: int, cause: str, duration: int) -> None:
        """Add `duration` ns to a step."""
        if duration > 0:
            key = (self._steps[step], cause or self._causes[step])
            self._charged[key] = self._charged.get(key, 0) + duration

    def charge_wait(self, start: int, end: int, trace: Trace | None, consumer: int) -> None:
        """Divide the wait of step `consumer` from `start` to `end` over the trace of the item that ended it."""
        cursor, later, oldest = end, consumer, consumer
        held_step, held_since = -1, 0
        node = trace
        while node is not None and cursor > start:
            earlier, step, began, ended, held, cause = node
            if ended < cursor:  # it lay in a queue until `later` took it
                low = max(start, ended)
                self.charge(later, "transfer" if later == consumer else "", cursor - low)
                cursor = low
            low = max(start, began)
            if low < cursor:
                if cause == PACE and held_since and held_since < cursor:
                    filled = max(low, held_since)
                    self.charge(held_step, "batch fill", cursor - filled)
                    self.charge(step, "source", filled - low)
                else:
                    self.charge(step, "source" if cause == PACE else cause, cursor - low)
                cursor = low
            if held and not held_since:
                held_step, held_since = step, held
            later = oldest = step
            node = earlier
        # before it existed: its source had not begun with it, or (rows left over at the end) nobody had
        self.charge(oldest, "", cursor - start)

    @property
    def total_ns(self) -> int:
        return sum(self._charged.values())

    def rows(self) -> list[dict[str, Any]]:
        """The ledger, largest first."""
        ordered = sorted(self._charged.items(), key=lambda item: (-item[1], item[0]))
        return [{"step": step, "cause": cause, "ms": round(ns / 1e6, 3)} for (step, cause), ns in ordered]


class Histogram:
    """Durations in logarithmic buckets of 2 %: percentiles of any number of values in constant memory."""

    _STEP = 1.02

    def __init__(self) -> None:
        self._buckets: dict[int, int] = {}
        self.count = 0
        self.largest = 0

    def add(self, duration: int) -> None:
        """Count one duration in ns."""
        bucket = int(math.log(max(1, duration)) / math.log(self._STEP))
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1
        self.largest = max(self.largest, duration)

    def merge(self, other: Histogram) -> None:
        """Add all values of another histogram."""
        for bucket, count in other._buckets.items():
            self._buckets[bucket] = self._buckets.get(bucket, 0) + count
        self.count += other.count
        self.largest = max(self.largest, other.largest)

    def percentile(self, share: float) -> int:
        """The duration in ns below which `share` of the values lie, to 2 %; 0 if there are none."""
        remaining = share * self.count
        for bucket in sorted(self._buckets):
            remaining -= self._buckets[bucket]
            if remaining <= 0:
                return min(self.largest, int(self._STEP ** (bucket + 1)))
        return self.largest
