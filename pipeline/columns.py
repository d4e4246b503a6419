"""Between Arrow columns and numpy arrays, without a copy in either direction.

`as_numpy` views a column; a `ColumnBlock` holds all fixed-width columns of a batch in one pooled block, so that a decoder
writes rows straight into the memory that leaves as a `RecordBatch`. What does not change from block to block (types,
widths, numpy's dtypes) is in its `ColumnLayout`: working it out takes as long as decoding a thousand rows, so who makes
many blocks makes the layout once.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .memory import ALIGNMENT, BufferPool, Lease

__all__ = ["ColumnBlock", "ColumnLayout", "as_numpy", "event_ns", "is_fixed_width", "numpy_layout"]


_PLAIN: dict[int, np.dtype[Any]] = {
    kind.id: np.dtype(kind.to_pandas_dtype())
    for kind in (
        *(pa.int8(), pa.int16(), pa.int32(), pa.int64()),
        *(pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
        *(pa.float16(), pa.float32(), pa.float64()),
    )
} | {kind.id: np.dtype(np.int64) for kind in (pa.timestamp("ns"), pa.duration("ns"))}


def numpy_layout(kind: pa.DataType) -> tuple[np.dtype[Any], tuple[int, ...]] | None:
    """The numpy dtype and per-row shape of an Arrow type, or None where rows are not fixed-width bytes.

    Timestamps and durations are int64, dictionaries their index type, ``fixed_size_binary[n]`` ``uint8 (n,)``.
    Booleans are bit-packed in Arrow and so have no layout.
    """
    plain = _PLAIN.get(kind.id)
    if plain is not None:
        return plain, ()
    if isinstance(kind, pa.FixedShapeTensorType):
        inner = numpy_layout(kind.value_type)
        return None if inner is None else (inner[0], (*kind.shape, *inner[1]))
    if pa.types.is_dictionary(kind):
        return numpy_layout(kind.index_type)
    if pa.types.is_fixed_size_list(kind):
        inner = numpy_layout(kind.value_type)
        return None if inner is None else (inner[0], (kind.list_size, *inner[1]))
    if pa.types.is_fixed_size_binary(kind):
        return np.dtype(np.uint8), (kind.byte_width,)
    return None


def is_fixed_width(kind: pa.DataType) -> bool:
    """Whether rows of this type are a fixed number of bytes that numpy can view."""
    return numpy_layout(kind) is not None


def as_numpy(array: pa.Array) -> npt.NDArray[Any]:
    """A read-only numpy view of a fixed-width column, shape ``(rows, *row_shape)``; dictionaries give their indices.

    Raises TypeError for a type without a fixed-width layout and ValueError for a column with nulls.
    """
    kind = array.type
    layout = numpy_layout(kind)
    if layout is None:
        raise TypeError(f"a column of {kind} has no numpy view without a copy")
    if array.null_count:
        raise ValueError(f"a column with {array.null_count} nulls has no numpy view; fill them first")
    dtype, shape = layout
    offset, rows = array.offset, len(array)
    if not shape and not pa.types.is_dictionary(kind):
        return _view(array.buffers()[1], dtype, (rows,), offset * dtype.itemsize)
    per_row = 1
    while True:  # down to the array whose buffer holds the values; `offset` counts its elements
        if isinstance(array, pa.ExtensionArray):
            inner = array.storage
            offset += inner.offset - array.offset
        elif pa.types.is_fixed_size_list(array.type):
            inner = array.values
            offset = offset * array.type.list_size + inner.offset
            per_row *= array.type.list_size
            if inner.null_count and inner.slice(offset - inner.offset, rows * per_row).null_count:
                raise ValueError("a column with nulls inside its rows has no numpy view; fill them first")
        elif pa.types.is_dictionary(array.type):
            inner = array.indices
            offset += inner.offset - array.offset
        else:
            break
        array = inner
    unit = array.type.byte_width if pa.types.is_fixed_size_binary(array.type) else dtype.itemsize
    return _view(array.buffers()[1], dtype, (rows, *shape), offset * unit)


def _view(data: pa.Buffer | None, dtype: np.dtype[Any], shape: tuple[int, ...], start: int) -> npt.NDArray[Any]:
    items = math.prod(shape)
    if items == 0 or data is None:
        view = np.empty(shape, dtype)
    else:
        view = np.frombuffer(data, dtype, items, start)
        if len(shape) > 1:
            view = view.reshape(shape)
    view.flags.writeable = False  # Arrow calls memory of its own mutable; a batch that has left its stage is not
    return view


def event_ns(batch: pa.RecordBatch, name: str = "ts_event") -> npt.NDArray[np.int64]:
    """A time column of `batch` as int64 ns since the epoch, without a copy."""
    return as_numpy(batch.column(name))


@dataclass(frozen=True, slots=True)
class _Field:
    """A column: its type, numpy's dtype and shape of a row and their bytes, and whether it is numbers without a wrapper."""

    name: str
    type: pa.DataType
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    width: int
    plain: bool


class ColumnLayout:
    """How blocks of `schema` are laid out: one behind the other the columns that have a fixed width and are not `ready`.

    The other columns are handed to `ColumnBlock.batch` by the caller. Immutable, and so for any number of threads.
    """

    __slots__ = ("fields", "names", "schema")

    def __init__(self, schema: pa.Schema, *, ready: Collection[str] = ()) -> None:
        self.schema = schema
        self.names: tuple[str, ...] = tuple(schema.names)
        fields = []
        for field in schema:
            layout = None if field.name in ready else numpy_layout(field.type)
            if layout is not None:
                dtype, shape = layout
                width = dtype.itemsize * math.prod(shape)
                fields.append(_Field(field.name, field.type, dtype, shape, width, not _is_wrapped(field.type)))
        self.fields: tuple[_Field, ...] = tuple(fields)

    def take(self, pool: BufferPool, rows: int) -> ColumnBlock:
        """Memory of `pool` for `rows` rows."""
        return ColumnBlock(pool, self, rows)


class ColumnBlock:
    """All fixed-width columns of `rows` rows, laid out in one leased block.

    ``block[name]`` is the writable numpy array ``(rows, *row_shape)``; `batch` turns the first `n` rows into a
    `RecordBatch` that shares the memory. Columns without a fixed-width layout are handed to `batch` by the caller.
    A schema instead of a `ColumnLayout` is laid out for this one block.
    """

    __slots__ = ("_lease", "_places", "arrays", "layout", "rows")

    def __init__(self, pool: BufferPool, layout: ColumnLayout | pa.Schema, rows: int) -> None:
        self.layout = layout if isinstance(layout, ColumnLayout) else ColumnLayout(layout)
        self.rows = rows
        places, total = [], 0
        for field in self.layout.fields:
            places.append(total)
            total += -(-rows * field.width // ALIGNMENT) * ALIGNMENT
        self._places: list[int] = places
        self._lease: Lease = pool.take(total)
        whole: Any = self._lease.array(np.uint8, total)
        self.arrays: dict[str, npt.NDArray[Any]] = {}
        for field, place in zip(self.layout.fields, places, strict=True):
            array = whole[place : place + rows * field.width].view(field.dtype)
            self.arrays[field.name] = array.reshape(rows, *field.shape) if field.shape else array

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        return self.arrays[name]

    @property
    def schema(self) -> pa.Schema:
        """That of the batches."""
        return self.layout.schema

    def batch(
        self,
        rows: int,
        *,
        dictionaries: Mapping[str, pa.Array] | None = None,
        columns: Mapping[str, pa.Array] | None = None,
        valid: Mapping[str, npt.NDArray[Any]] | None = None,
        start: int = 0,
    ) -> pa.RecordBatch:
        """Rows ``start:start+rows`` as a batch.

        `dictionaries` gives the values of dictionary columns, `columns` ready arrays for the others, `valid` masks
        (True or not 0: present) for columns with nulls.
        """
        if start < 0 or rows < 0 or start + rows > self.rows:
            raise ValueError(f"rows {start}:{start + rows} are outside a block of {self.rows}")
        made = dict(columns) if columns else {}
        buffer, wrap = self._lease.buffer, pa.Array.from_buffers
        for field, place in zip(self.layout.fields, self._places, strict=True):
            name = field.name
            if name in made:
                continue
            data, mask = buffer(place + start * field.width, rows * field.width), None
            if valid is not None and name in valid:
                mask = pa.py_buffer(np.packbits(valid[name][start : start + rows], bitorder="little"))
            if field.plain:
                made[name] = wrap(field.type, rows, [mask, data])
            else:
                made[name] = _wrap(field.type, rows, mask, data, dictionaries.get(name) if dictionaries else None)
        return pa.RecordBatch.from_arrays([made[name] for name in self.layout.names], schema=self.layout.schema)


def _is_wrapped(kind: pa.DataType) -> bool:
    """Whether a column of this type is more than one array with one buffer of values."""
    return isinstance(kind, pa.BaseExtensionType) or pa.types.is_fixed_size_list(kind) or pa.types.is_dictionary(kind)


def _wrap(
    kind: pa.DataType, rows: int, mask: pa.Buffer | None, data: pa.Buffer, dictionary: pa.Array | None
) -> pa.Array:
    if isinstance(kind, pa.DictionaryType):
        if dictionary is None:
            raise ValueError("a dictionary column needs its dictionary")
        indices = pa.Array.from_buffers(kind.index_type, rows, [mask, data])
        return pa.DictionaryArray.from_arrays(indices, dictionary, ordered=kind.ordered, safe=False)
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, _wrap(kind.storage_type, rows, mask, data, None))
    if pa.types.is_fixed_size_list(kind):
        values = _wrap(kind.value_type, rows * kind.list_size, None, data, None)
        return pa.Array.from_buffers(kind, rows, [mask], children=[values])
    return pa.Array.from_buffers(kind, rows, [mask, data])
