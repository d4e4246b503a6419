"""What a format of comma-separated ticks says about itself, and the fields of its lines once they are parsed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from . import _ticks_csv_kernels as kernels

__all__ = ["Cells", "Dialect", "Field", "wrap"]


@dataclass(frozen=True, slots=True)
class Field:
    """A field of a line. `scale` makes a ``stamp`` ns; 0 tells its unit from its size."""

    name: str
    kind: str = "skip"
    optional: bool = False
    scale: int = 0


@dataclass(frozen=True)
class Dialect:
    """A format of lines. `assemble` makes columns (numpy or Arrow, all of one length) and the line of each row."""

    format: str
    fields: tuple[Field, ...]
    schema: pa.Schema
    assemble: Callable[[Cells], Mapping[str, Any]]
    header: bool = False
    #: Rows that a line can give.
    rows: int = 1
    constants: Mapping[str, Any] = field(default_factory=dict)
    #: Lines that cannot be although their fields can, by what is wrong.
    check: Callable[[Cells], Mapping[str, Any]] | None = None


class Cells:
    """The fields of sound lines, by name. `seq` numbers the lines; `next_same(name)` looks at the line behind each."""

    def __init__(
        self,
        dialect: Dialect,
        slots: Mapping[str, tuple[str, int]],
        arrays: tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]],
        good: npt.NDArray[np.int64],
        status: npt.NDArray[np.int64],
        base: int,
        first_seq: int,
    ) -> None:
        self.dialect = dialect
        self._slots, self._arrays, self._good, self._status, self._base = slots, arrays, good, status, base
        self.seq: npt.NDArray[np.uint64] = good.astype(np.uint64) + np.uint64(first_seq)

    def __len__(self) -> int:
        return len(self._good)

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """Which lines of the block these are."""
        return self._good

    def only(self, rows: npt.NDArray[np.int64]) -> Cells:
        """The fields of these of the sound lines, by their place in the block."""
        found = copy(self)
        found.seq = rows.astype(np.uint64) + self.seq[:1] - self._good[:1].astype(np.uint64)
        found._good = rows
        return found

    def __contains__(self, name: str) -> bool:
        return name in self._slots

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """A number field: int64, or float64 for floats. A missing integer is `kernels.NONE`, a missing float NaN."""
        kind, slot = self._slots[name]
        return np.ascontiguousarray(self._arrays[kind == "float"][slot][self._good])

    def number(self, name: str) -> pa.Array:
        """An int64 column with nulls where there is none."""
        values = self[name]
        return pa.array(values, pa.int64(), mask=values == kernels.NONE)

    def text(self, name: str, index: pa.DataType) -> pa.Array:
        """A dictionary column. What is not UTF-8 has U+FFFD in its place."""
        spans = self._arrays[2][self._slots[name][1]]
        ends = np.zeros(len(self) + 1, np.int32)
        total = kernels.span_sizes(spans, self._good, ends)
        out = np.empty(total, np.uint8)
        kernels.span_texts(self._base, spans, self._good, ends, out)
        raw = pa.Array.from_buffers(pa.binary(), len(self), [None, pa.py_buffer(ends), pa.py_buffer(out)])
        try:
            text = raw.cast(pa.utf8())
        except pa.ArrowInvalid:
            text = pa.array([value.decode("utf-8", "replace") for value in raw.to_pylist()], pa.utf8())
        encoded = text.dictionary_encode()
        return pa.DictionaryArray.from_arrays(encoded.indices.cast(index), encoded.dictionary)

    def next_same(self, name: str) -> npt.NDArray[np.bool_]:
        """Whether the line behind each line is sound and has the same value."""
        values = self._arrays[0][self._slots[name][1]]
        behind = self._good + 1
        inside = np.minimum(behind, len(values) - 1)
        same: npt.NDArray[np.bool_] = (
            (behind < len(values)) & (self._status[inside] & 255 == 0) & (values[inside] == values[self._good])
        )
        return same


def wrap(schema: pa.Schema, columns: Mapping[str, Any]) -> pa.RecordBatch:
    """A batch of `schema` from numpy and Arrow columns; numpy ones share their memory."""
    arrays = []
    for column in schema:
        values = columns[column.name]
        if isinstance(values, np.ndarray):
            storage = pa.int64() if pa.types.is_timestamp(column.type) else column.type
            values = pa.array(values, storage)
            values = values.view(column.type) if storage != column.type else values
        arrays.append(values)
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
