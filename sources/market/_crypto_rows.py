"""Memory of a batch of messages while it is filled, and the names of symbols as numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.memory import BufferPool
from ..text._ndjson_text import hash_text

__all__ = ["MOST_SYMBOLS", "Rows", "Symbols", "address"]

MOST_SYMBOLS = 65_536
_PADDING = 64


def address(array: npt.NDArray[Any]) -> int:
    """Where an array's memory begins."""
    return int(array.ctypes.data)


class Symbols:
    """Names by number in the order in which a recording first has them, in a form that kernels search."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names: list[str] = []
        self._codes: dict[str, int] = {}
        self._kept: list[npt.NDArray[np.uint8]] = []
        self._places, self._sizes = np.zeros(64, np.int64), np.zeros(64, np.int32)
        #: What kernels take: addresses of slots, places and sizes, the mask, the last code found.
        self.table = np.zeros(5, np.int64)
        self._values: pa.Array | None = None
        self._index()
        for name in names:
            self.code(name)

    def code(self, name: str) -> int:
        """The number of a name, a new one if need be; -1 if there are too many."""
        code = self._codes.get(name)
        if code is not None:
            return code
        code = len(self.names)
        if code >= MOST_SYMBOLS:
            return -1
        raw = name.encode()
        kept = np.zeros(len(raw) + _PADDING, np.uint8)
        kept[: len(raw)] = np.frombuffer(raw, np.uint8)
        self._kept.append(kept)
        self.names.append(name)
        self._codes[name], self._values = code, None
        if code == len(self._places):
            self._places = np.pad(self._places, (0, code))
            self._sizes = np.pad(self._sizes, (0, code))
        self._places[code], self._sizes[code] = address(kept), len(raw)
        if 2 * code >= len(self._slots) or code % 64 == 0:
            self._index()
        else:
            self._enter(code)
        return code

    def _index(self) -> None:
        self._slots = np.full(4 * len(self._places), -1, np.int32)
        for code in range(len(self.names)):
            self._enter(code)
        self.table[:4] = address(self._slots), len(self._slots) - 1, address(self._places), address(self._sizes)

    def _enter(self, code: int) -> None:
        mask = len(self._slots) - 1
        slot = int(hash_text(int(self._places[code]), int(self._sizes[code]))) & mask
        while self._slots[slot] >= 0:
            slot = (slot + 1) & mask
        self._slots[slot] = code

    def values(self) -> pa.Array:
        """The names in order of their numbers; the same array until one is added."""
        if self._values is None:
            self._values = pa.array(self.names, pa.utf8())
        return self._values


class Rows:
    """Columns of one batch."""

    def __init__(self, pool: BufferPool, columns: ColumnLayout, room: int) -> None:
        self.room = room
        self._block = columns.take(pool, room)
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        self._flags = [name for name in columns.names if name not in self._block.arrays]
        for name in columns.names:
            self.arrays[name] = np.empty(room, np.uint8) if name in self._flags else self._block[name]
        self._names = columns.names[4:]
        self.columns = np.array([address(array) for array in self.arrays.values()], np.int64)

    def put(
        self, row: int, stamps: tuple[int, int, int], code: int, rows: list[tuple[Any, ...]], more: tuple[Any, ...]
    ) -> int:
        """Write the rows of one event at `row`, with `more` values that they share; the row behind them."""
        stop = row + len(rows)
        for name, value in zip(("ts_event", "ts_recv", "seq", "symbol"), (*stamps, code), strict=True):
            self.arrays[name][row:stop] = value
        own = len(rows[0]) if rows else 0
        for index, name in enumerate(self._names[:own]):
            array = self.arrays[name]
            array[row:stop] = np.array([values[index] for values in rows], array.dtype)
        for name, value in zip(self._names[own:], more, strict=True):
            self.arrays[name][row:stop] = value
        if more and rows:
            self.arrays["last_in_event"][stop - 1] = 1
        return stop

    def batch(self, rows: int, symbols: pa.Array) -> pa.RecordBatch:
        """The first `rows` rows as a batch that shares this memory."""
        columns = {
            name: pa.Array.from_buffers(
                pa.bool_(), rows, [None, pa.py_buffer(np.packbits(self.arrays[name][:rows], bitorder="little"))]
            )
            for name in self._flags
        }
        return self._block.batch(rows, dictionaries={"symbol": symbols}, columns=columns)
