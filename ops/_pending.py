"""The order in which waiting rows are needed: right rows by event time, left rows as they came."""

from __future__ import annotations

from collections import deque

import numpy as np
import pyarrow as pa

from ..pipeline.columns import event_ns
from ..pipeline.operator import END_OF_TIME
from ._rows import Ints, is_sorted

__all__ = ["PendingRows", "TimeIndex"]


class TimeIndex:
    """Positions of held rows in order of (event time, arrival), with a number attached to each.

    Rows that come in order are appended; others are sorted into the part that they overlap.
    """

    __slots__ = ("_columns", "_start", "_stop")

    def __init__(self) -> None:
        self._columns: Ints = np.empty((3, 64), np.int64)
        self._start = self._stop = 0

    def __len__(self) -> int:
        return self._stop - self._start

    @property
    def ts(self) -> Ints:
        return self._columns[0, self._start : self._stop]

    @property
    def position(self) -> Ints:
        return self._columns[1, self._start : self._stop]

    @property
    def tag(self) -> Ints:
        """The attached numbers, writable."""
        return self._columns[2, self._start : self._stop]

    def insert(self, times: Ints, positions: Ints, tags: Ints | int) -> None:
        """Add rows that arrived after all that are there."""
        count = len(times)
        if not count:
            return
        if self._stop + count > self._columns.shape[1]:
            held = len(self)
            grown = np.empty((3, max(64, 2 * (held + count))), np.int64)
            grown[:, :held] = self._columns[:, self._start : self._stop]
            self._columns, self._start, self._stop = grown, 0, held
        before = self._stop
        self._stop += count
        self._columns[0, before : self._stop] = times
        self._columns[1, before : self._stop] = positions
        self._columns[2, before : self._stop] = tags
        if is_sorted(times) and (before == self._start or times[0] >= self._columns[0, before - 1]):
            return
        low = self._start + int(np.searchsorted(self._columns[0, self._start : before], times.min(), "right"))
        order = np.argsort(self._columns[0, low : self._stop], kind="stable")
        self._columns[:, low : self._stop] = self._columns[:, low : self._stop][:, order]

    def drop_front(self, count: int) -> None:
        """Forget the `count` oldest rows."""
        self._start += count


class PendingRows:
    """Batches in arrival order of which a prefix is taken, with the least event time of what is left."""

    def __init__(self) -> None:
        self._batches: deque[tuple[pa.RecordBatch, Ints, Ints, int]] = deque()
        self._least: deque[tuple[int, int]] = deque()
        self._came = 0
        self._taken = 0
        self.offset = 0
        self.rows = 0
        self.nbytes = 0

    def append(self, batch: pa.RecordBatch) -> None:
        """Add a batch behind all others; an empty one leaves no trace."""
        if not batch.num_rows:
            return
        times = event_ns(batch)
        least = times if is_sorted(times) else np.minimum.accumulate(times[::-1])[::-1]
        size = batch.nbytes
        self._batches.append((batch, times, least, size))
        while self._least and self._least[-1][1] >= least[0]:
            self._least.pop()
        self._least.append((self._came, int(least[0])))
        self._came += 1
        self.rows += batch.num_rows
        self.nbytes += size

    def head(self) -> tuple[pa.RecordBatch, Ints]:
        """The first batch and its event times, whole; rows before `offset` have been taken already."""
        batch, times, _, _ = self._batches[0]
        return batch, times

    def take(self, count: int) -> None:
        """The first `count` rows, all of the first batch, have left."""
        batch, _, _, size = self._batches[0]
        self.offset += count
        self.rows -= count
        if self.offset == batch.num_rows:
            self._batches.popleft()
            self.nbytes -= size
            self.offset = 0
            if self._least[0][0] == self._taken:
                self._least.popleft()
            self._taken += 1

    def oldest(self) -> int:
        """The least event time of the rows that are left; END_OF_TIME if there are none."""
        if not self._batches:
            return END_OF_TIME
        first = int(self._batches[0][2][self.offset])
        behind = 1 if self._least[0][0] == self._taken else 0
        return min(first, self._least[behind][1]) if len(self._least) > behind else first

    def batches(self) -> list[pa.RecordBatch]:
        """What is left, as slices, for a snapshot."""
        left = [batch for batch, _, _, _ in self._batches]
        if left and self.offset:
            left[0] = left[0].slice(self.offset)
        return left
