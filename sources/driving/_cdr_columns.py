"""The columns of a table that is filled block after block.

A block of a recording often holds a dozen messages of a topic, and then making its columns takes longer than decoding
them. What `ColumnBlock` works out for each block (layouts, types, offsets) is worked out here once for a table, and what
does not change (columns without values) is not made anew.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ...pipeline.columns import numpy_layout
from ...pipeline.memory import ALIGNMENT, BufferPool
from ._cdr_rows import Array

__all__ = ["Rows", "TableColumns", "bools", "zeros"]

_ZEROS = pa.py_buffer(bytes(1 << 16))


def zeros(nbytes: int) -> pa.Buffer:
    """Bytes that are 0; not to be written to."""
    return _ZEROS.slice(0, nbytes) if nbytes <= _ZEROS.size else pa.py_buffer(np.zeros(nbytes, np.uint8))


def bools(values: Array) -> pa.Array:
    """Bytes (0: false) as a boolean column."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def _bits(values: Array) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    type: pa.DataType
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    width: int
    plain: bool


class TableColumns:
    """The fixed-width columns of `schema`, without those that are handed over `ready` with each batch."""

    def __init__(self, schema: pa.Schema, ready: Collection[str] = ()) -> None:
        self.schema = schema
        self.names = schema.names
        self.fields: list[_Field] = []
        for field in schema:
            layout = numpy_layout(field.type)
            if layout is not None and field.name not in ready:
                dtype, shape = layout
                plain = not (pa.types.is_dictionary(field.type) or pa.types.is_fixed_size_list(field.type))
                width = dtype.itemsize * math.prod(shape)
                self.fields.append(_Field(field.name, field.type, dtype, shape, width, plain))

    def take(self, pool: BufferPool, rows: int) -> Rows:
        """Memory for `rows` rows."""
        return Rows(self, pool, rows)


class Rows:
    """One leased block; ``rows[name]`` is the writable array of a column, shape ``(rows, *row_shape)``."""

    __slots__ = ("_lease", "_places", "_table", "arrays")

    def __init__(self, table: TableColumns, pool: BufferPool, rows: int) -> None:
        self._table = table
        places, total = [], 0
        for field in table.fields:
            places.append(total)
            total += -(-rows * field.width // ALIGNMENT) * ALIGNMENT
        self._places, self._lease = places, pool.take(total)
        whole: Any = self._lease.array(np.uint8, total)
        self.arrays: dict[str, Array] = {}
        for field, place in zip(table.fields, places, strict=True):
            array = whole[place : place + rows * field.width].view(field.dtype)
            self.arrays[field.name] = array.reshape(rows, *field.shape) if field.shape else array

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def batch(
        self,
        rows: int,
        ready: Mapping[str, pa.Array],
        *,
        dictionaries: Mapping[str, pa.Array] | None = None,
        valid: Mapping[str, Array] | None = None,
    ) -> pa.RecordBatch:
        """The first `rows` rows with the columns `ready`; `valid` are masks of columns with nulls (not 0: there)."""
        made = dict(ready)
        for field, place in zip(self._table.fields, self._places, strict=True):
            data = self._lease.buffer(place, rows * field.width)
            mask = _bits(valid[field.name]) if valid and field.name in valid else None
            made[field.name] = _column(field, rows, [mask, data], dictionaries)
        return pa.RecordBatch.from_arrays([made[name] for name in self._table.names], schema=self._table.schema)


def _column(
    field: _Field, rows: int, buffers: Sequence[pa.Buffer | None], dictionaries: Mapping[str, pa.Array] | None
) -> pa.Array:
    kind = field.type
    if field.plain:
        return pa.Array.from_buffers(kind, rows, buffers)
    if dictionaries and field.name in dictionaries:
        codes = pa.Array.from_buffers(kind.index_type, rows, buffers)
        return pa.DictionaryArray.from_arrays(codes, dictionaries[field.name], ordered=kind.ordered, safe=False)
    values = pa.Array.from_buffers(kind.value_type, rows * kind.list_size, [None, buffers[1]])
    return pa.Array.from_buffers(kind, rows, buffers[:1], children=[values])
