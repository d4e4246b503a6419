"""The state of open windows: slots in plain arrays, found by key and time, bounded in bytes.

Tumbling and sliding windows share *panes*: stretches of time that no window boundary cuts. A row enters one pane, however
many windows cover it; a window that closes adds up its panes in order of time. Boundaries of panes follow from the window
alone, so sums do not depend on batches. Session windows keep one slot an open session, merged when a row joins two.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..pipeline.operator import END_OF_TIME, NO_TIME
from . import _window_kernels as kernels
from ._accumulators import Accumulator
from ._inputs import Inputs

__all__ = ["Closed", "Panes", "WindowState"]

Ints = npt.NDArray[np.int64]

#: How many (pane, window) pairs are added up at a time.
_CHUNK = 1 << 18
_FIRST_CAPACITY = 256


class Closed(NamedTuple):
    """Windows that have closed: ``slots[i]`` of `accumulators` is that of key ``keys[i]`` from ``starts[i]``."""

    starts: Ints
    ends: Ints
    keys: Ints
    accumulators: Sequence[Accumulator]
    slots: Ints


class WindowState(ABC):
    """Slots with their keys, spans and accumulators.

    `fits` is asked before growing whether so many bytes are allowed; `refuse` raises if there is no room at all.
    """

    #: The arrays beside the key that say what a slot stands for; what a snapshot holds.
    spans: tuple[str, ...]

    def __init__(
        self, accumulators: Sequence[Accumulator], fits: Callable[[int], bool], refuse: Callable[[int], None]
    ) -> None:
        self.accumulators = tuple(accumulators)
        self._fits, self._refuse = fits, refuse
        self.capacity = 0
        self.arrays: dict[str, Ints] = {name: np.empty(0, np.int64) for name in ("key", "free", *self.extra_arrays())}
        self.used = np.zeros(0, np.uint8)
        self.counters = np.array([0, 0, 0, 0, END_OF_TIME], np.int64)
        self._resize(_FIRST_CAPACITY)

    @abstractmethod
    def extra_arrays(self) -> tuple[str, ...]:
        """Names of the int64 arrays kept beside the key."""

    @abstractmethod
    def add(self, times: Ints, keys: Ints, key_count: int, inputs: Inputs, watermark: int) -> Ints:
        """Let the rows of a batch enter; returns the slot of each, -1 for late rows."""

    @abstractmethod
    def close(self, before: int, watermark: int) -> Iterator[Closed]:
        """Windows with ``before < end <= watermark``, in parts that ascend by end; their slots are freed behind each."""

    @abstractmethod
    def _enter(self, slots: Ints) -> None:
        """Make `slots`, whose arrays are filled, findable."""

    @abstractmethod
    def _forget(self, slots: Ints) -> None:
        """Make `slots` unfindable."""

    def _index_bytes(self, capacity: int) -> int:
        return 0

    @property
    def live(self) -> Ints:
        """Slots in use."""
        return np.flatnonzero(self.used)

    @property
    def nbytes(self) -> int:
        """Bytes held, used or not."""
        return self._bytes(self.capacity)

    def _bytes(self, capacity: int) -> int:
        slot = 1 + 8 * len(self.arrays) + sum(a.slot_bytes for a in self.accumulators)
        return capacity * slot + self._index_bytes(capacity) + sum(a.shared_bytes for a in self.accumulators)

    def _grow(self, least: int = 1) -> None:
        """Room for at least `least` more slots: twice as many as now, or what the limit allows."""
        wanted = self.capacity + max(self.capacity, least)
        while not self._fits(self._bytes(wanted)):
            wanted = self.capacity + (wanted - self.capacity) // 2
            if wanted < self.capacity + least:
                self._refuse(self._bytes(self.capacity + least))
        self._resize(wanted)

    def _resize(self, capacity: int) -> None:
        fresh = np.arange(capacity - 1, self.capacity - 1, -1, dtype=np.int64)
        for name, array in self.arrays.items():
            self.arrays[name] = np.zeros(capacity, np.int64)
            self.arrays[name][: self.capacity] = array
        used = np.zeros(capacity, np.uint8)
        used[: self.capacity] = self.used
        self.used = used
        for accumulator in self.accumulators:
            accumulator.resize(capacity)
        self.capacity = capacity
        self._push(fresh)

    def _push(self, slots: Ints) -> None:
        count = int(self.counters[kernels.FREE])
        self.arrays["free"][count : count + slots.size] = slots
        self.counters[kernels.FREE] = count + slots.size

    def _release(self, slots: Ints) -> None:
        """Empty `slots` and make them free; they must be forgotten already."""
        self.used[slots] = 0
        for accumulator in self.accumulators:
            accumulator.clear(slots)
        self._push(slots)

    def _accumulate(self, slots: Ints, begin: int, end: int, inputs: Inputs) -> None:
        if begin < end:
            for accumulator in self.accumulators:
                accumulator.add(slots, begin, end, inputs)

    def renumber(self, numbers: Ints) -> None:
        """Keys have new numbers: ``numbers[old]``."""
        live = self.live
        self._forget(live)
        self.arrays["key"][live] = numbers[self.arrays["key"][live]]
        self._enter(live)

    def save(self) -> dict[str, Any]:
        """All slots in use, in order of time and key."""
        live = self.live
        live = live[np.lexsort((self.arrays["key"][live], self.arrays[self.spans[0]][live]))]
        arrays = {name: self.arrays[name][live] for name in ("key", *self.spans)}
        return {**arrays, "accumulators": [accumulator.save(live) for accumulator in self.accumulators]}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take back what `save` gave, into fresh state."""
        count = len(state["key"])
        if count > self.capacity:
            self._grow(count - self.capacity)
        free = int(self.counters[kernels.FREE])
        slots = self.arrays["free"][free - count : free].copy()
        self.counters[kernels.FREE] = free - count
        for name in ("key", *self.spans):
            self.arrays[name][slots] = state[name]
        self.used[slots] = 1
        for accumulator, saved in zip(self.accumulators, state["accumulators"], strict=True):
            accumulator.load(saved, slots)
        self._enter(slots)


class Panes(WindowState):
    """Windows of `size` ns that start every `every` ns from `offset`, cut into panes."""

    spans = ("pane",)

    def __init__(self, size: int, every: int, offset: int, *common: Any) -> None:
        self.size, self.every, self.offset = size, every, offset
        self.slides, self.rest = divmod(size, every)
        self.overlapping = size > every
        self.table = np.empty(0, np.int64)
        super().__init__(*common)

    def extra_arrays(self) -> tuple[str, ...]:
        return ("pane",)

    def add(self, times: Ints, keys: Ints, key_count: int, inputs: Inputs, watermark: int) -> Ints:
        out = np.empty(times.size, np.int64)
        closed = max(NO_TIME, self._closed(watermark))
        row = 0
        while True:
            own = self.arrays
            row = kernels.map_panes(
                times, keys, row, self.every, self.rest, self.offset, closed,
                self.table, own["pane"], own["key"], self.used, own["free"], self.counters, out,
            )  # fmt: skip
            if self.counters[kernels.STATUS] == kernels.DONE:
                break
            self._grow()
        self._accumulate(out, 0, times.size, inputs)
        return out

    def close(self, before: int, watermark: int) -> Iterator[Closed]:
        done, now = self._closed(before), self._closed(watermark)
        while done < now:
            live = self.live
            if not live.size:
                return
            panes = self.arrays["pane"][live]
            slides = panes >> 1 if self.rest else panes
            first = slides - self.slides + 1
            if self.rest:
                first -= (panes & 1) ^ 1
            first = np.maximum(first, max(done + 1, NO_TIME))
            lowest = int(first.min())
            if lowest > now:
                return
            done = min(now, lowest + max(1, _CHUNK // live.size) - 1) if self.overlapping else now
            hit = first <= done
            yield self._add_up(live[hit], first[hit], np.minimum(slides[hit], done))
            self._drop(live[slides <= done])

    def _add_up(self, slots: Ints, first: Ints, last: Ints) -> Closed:
        """Windows ``first[i]..last[i]`` of each pane's slot, their panes added in order of time."""
        if not self.overlapping:
            starts = self.offset + first * self.every
            return Closed(starts, starts + self.size, self.arrays["key"][slots], self.accumulators, slots)
        counts = last - first + 1
        ends = np.cumsum(counts)
        sources = np.repeat(slots, counts)
        windows = np.arange(ends[-1]) + np.repeat(first - (ends - counts), counts)
        order = np.lexsort((self.arrays["pane"][sources], self.arrays["key"][sources], windows))
        sources, windows = sources[order], windows[order]
        keys = self.arrays["key"][sources]
        new = np.ones(sources.size, np.bool_)
        new[1:] = (windows[1:] != windows[:-1]) | (keys[1:] != keys[:-1])
        targets = np.cumsum(new) - 1
        groups = int(targets[-1]) + 1
        into = [accumulator.like(groups) for accumulator in self.accumulators]
        for accumulator, total in zip(self.accumulators, into, strict=True):
            accumulator.fold(sources, targets, total)
        starts = self.offset + windows[new] * self.every
        return Closed(starts, starts + self.size, keys[new], into, np.arange(groups, dtype=np.int64))

    def _closed(self, watermark: int) -> int:
        """Number of the last window that `watermark` closes."""
        return (watermark - self.offset - self.size) // self.every

    def _drop(self, slots: Ints) -> None:
        if slots.size:
            self._forget(slots)
            self._release(slots)

    def _enter(self, slots: Ints) -> None:
        kernels.panes_enter(self.table, self.arrays["pane"], self.arrays["key"], slots)

    def _forget(self, slots: Ints) -> None:
        kernels.panes_remove(self.table, self.arrays["pane"], self.arrays["key"], slots)

    def _resize(self, capacity: int) -> None:
        super()._resize(capacity)
        self.table = np.full(self._index_bytes(capacity) // 8, -1, np.int64)
        self._enter(self.live)

    def _index_bytes(self, capacity: int) -> int:
        return 8 << max(1, (2 * capacity - 1).bit_length())
