"""Which symbol an instrument id stands for at a time: from the header's mappings, and from those met in a live capture."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from . import _dbn_kernels as kernels
from ._dbn_metadata import Interval

__all__ = ["EVER", "SymbolTable"]

#: All times.
EVER = (-(1 << 63), (1 << 63) - 1)


class SymbolTable:
    """Intervals by instrument id, ready for the kernels. It does not change: `updated` gives another one."""

    def __init__(self, mapped: Mapping[int, Sequence[Interval]]) -> None:
        self._mapped = dict(mapped)
        names: dict[str, int] = {}
        rows: list[tuple[int, int, int, int]] = []
        for instrument in sorted(self._mapped):
            for begin, end, name in _disjoint(self._mapped[instrument]):
                rows.append((instrument, begin, end, names.setdefault(name, len(names))))
        columns: Any = list(zip(*rows, strict=True)) or [(), (), (), ()]
        self.instruments = np.array(columns[0], np.uint32)
        self.begins, self.ends = (np.array(columns[i], np.int64) for i in (1, 2))
        self.names = np.array(columns[3], np.int32)
        self.slots = np.full(1 << max(1, (2 * len(rows)).bit_length()), -1, np.int32)
        kernels.build_slots(self.instruments, self.slots)
        self.dictionary: pa.Array = pa.array(list(names), pa.utf8())
        self._unnamed: tuple[bytes, pa.Array] = (b"", self.dictionary)

    @property
    def arrays(self) -> tuple[npt.NDArray[Any], ...]:
        """What the kernels take: instruments, begins, ends, names, slots."""
        return self.instruments, self.begins, self.ends, self.names, self.slots

    def updated(self, named: Mapping[int, str]) -> SymbolTable:
        """Another table, in which `named` holds at all times. The same one if that says nothing new."""
        if all(self._mapped.get(i) == [(*EVER, name)] for i, name in named.items()):
            return self
        return SymbolTable({**self._mapped, **{i: [(*EVER, name)] for i, name in named.items()}})

    def name_rest(self, symbol: npt.NDArray[np.int32], ids: npt.NDArray[np.uint32]) -> pa.Array:
        """Give rows without a symbol (-1) one that tells their id, ``?<id>``; gives the dictionary for all."""
        missing = symbol < 0
        unnamed, place = np.unique(ids[missing], return_inverse=True)
        symbol[missing] = place + len(self.dictionary)
        key, array = self._unnamed
        if key != unnamed.tobytes():
            texts = pa.array([f"?{i}" for i in unnamed.tolist()], pa.utf8())
            array = pa.concat_arrays([self.dictionary, texts])
            self._unnamed = unnamed.tobytes(), array
        return array


def _disjoint(intervals: Sequence[Interval]) -> Sequence[Interval]:
    """Intervals of one instrument in order of time; where two overlap, the later one of the header counts."""
    if len(intervals) == 1:
        return intervals
    ordered = sorted(intervals, key=lambda interval: interval[:2])
    if all(left[1] <= right[0] for left, right in itertools.pairwise(ordered)):
        return ordered
    found: list[Interval] = []
    for new in intervals:
        kept: list[Interval] = []
        for begin, end, name in found:
            if begin < new[0]:
                kept.append((begin, min(end, new[0]), name))
            if end > new[1]:
                kept.append((max(begin, new[1]), end, name))
        found = [*kept, new] if new[0] < new[1] else kept
    return sorted((interval for interval in found if interval[0] < interval[1]), key=lambda interval: interval[:2])
