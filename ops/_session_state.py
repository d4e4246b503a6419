"""The state of session windows: one slot an open session, in a list for each key; two become one when a row joins them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ..pipeline.operator import END_OF_TIME
from . import _window_kernels as kernels
from ._inputs import Inputs
from ._window_state import Closed, WindowState

__all__ = ["Sessions"]

Ints = npt.NDArray[np.int64]


class Sessions(WindowState):
    """One slot an open session: rows of a key with less than `gap` ns between neighbours."""

    spans = ("first", "last")

    def __init__(self, gap: int, *common: Any) -> None:
        self.gap = gap
        self.head = np.empty(0, np.int64)
        super().__init__(*common)

    def extra_arrays(self) -> tuple[str, ...]:
        return ("first", "last", "older")

    def add(self, times: Ints, keys: Ints, key_count: int, inputs: Inputs, watermark: int) -> Ints:
        self._reach(key_count)
        out = np.empty(times.size, np.int64)
        begin = 0
        while True:
            own = self.arrays
            row = kernels.map_sessions(
                times, keys, begin, self.gap, watermark,
                self.head, own["older"], own["first"], own["last"], own["key"], self.used, own["free"],
                self.counters, out,
            )  # fmt: skip
            self._accumulate(out, begin, row, inputs)
            begin = row
            status = self.counters[kernels.STATUS]
            if status == kernels.DONE:
                return out
            if status == kernels.FULL:
                self._grow()
            else:
                self._merge(self.counters[[kernels.LEFT]], self.counters[[kernels.RIGHT]])

    def _merge(self, left: Ints, right: Ints) -> None:
        for accumulator in self.accumulators:
            accumulator.fold(right, left, accumulator)
        self._release(right)

    def close(self, before: int, watermark: int) -> Iterator[Closed]:
        if watermark < self.counters[kernels.SOONEST]:
            return
        live = self.live
        ends = self.arrays["last"][live] + self.gap
        over = ends <= watermark
        slots, ends, left = live[over], ends[over], ends[~over]
        if slots.size:
            yield Closed(self.arrays["first"][slots], ends, self.arrays["key"][slots], self.accumulators, slots)
            self._forget(slots)
            self._release(slots)
        self.counters[kernels.SOONEST] = left.min(initial=END_OF_TIME)

    def renumber(self, numbers: Ints) -> None:
        live = self.live
        self.arrays["key"][live] = numbers[self.arrays["key"][live]]
        self.head = np.empty(0, np.int64)
        self._enter(live)

    def _reach(self, key_count: int) -> None:
        if key_count > self.head.size:
            head = np.full(max(key_count, 2 * self.head.size), -1, np.int64)
            head[: self.head.size] = self.head
            self.head = head

    def _enter(self, slots: Ints) -> None:
        if slots.size:
            self._reach(int(self.arrays["key"][slots].max()) + 1)
            ordered = slots[np.argsort(self.arrays["first"][slots], kind="stable")]
            kernels.sessions_enter(self.head, self.arrays["older"], self.arrays["key"], ordered)
            ends = self.arrays["last"][slots] + self.gap
            self.counters[kernels.SOONEST] = min(int(self.counters[kernels.SOONEST]), int(ends.min()))

    def _forget(self, slots: Ints) -> None:
        kernels.sessions_remove(self.head, self.arrays["older"], self.arrays["key"], slots)

    def _index_bytes(self, capacity: int) -> int:
        return self.head.nbytes
