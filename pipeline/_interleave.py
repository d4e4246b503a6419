"""Rows of several batches as one sequence, in a given order: each fixed-width column is copied once."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .columns import ColumnBlock, as_numpy, is_fixed_width
from .memory import BufferPool

__all__ = ["interleave"]

Ints = npt.NDArray[np.int64]
#: Rows of one batch, and the rows of the result that they become.
_Piece = tuple[pa.RecordBatch, Ints]

#: Bytes of an output batch, roughly.
_BATCH = 4 << 20


class _TooWide(Exception):
    """The values of a dictionary column do not fit its index type."""


def interleave(
    schema: pa.Schema, batches: Sequence[pa.RecordBatch], order: npt.NDArray[np.intp], pool: BufferPool
) -> list[pa.RecordBatch]:
    """The rows of `batches`, one behind the other, in `order`; batches of `schema`, each a few megabytes at most.

    Rows of the same batch must keep their order. Dictionaries are unified by value; where all values together do not
    fit the index type the rows are cut into more batches.
    """
    total = sum(batch.num_rows for batch in batches)
    ranks = np.empty(total, np.int64)
    ranks[order] = np.arange(total, dtype=np.int64)
    bounds = np.cumsum([0, *(batch.num_rows for batch in batches)])
    pieces = [(batch, ranks[low:high]) for batch, (low, high) in zip(batches, itertools.pairwise(bounds), strict=True)]
    step = max(1, total * _BATCH // max(1, sum(batch.nbytes for batch in batches)))
    out: list[pa.RecordBatch] = []
    for start in range(0, total, step):
        out += _between(schema, pieces, start, min(total, start + step), pool)
    return out


def _between(
    schema: pa.Schema, pieces: Sequence[_Piece], start: int, stop: int, pool: BufferPool
) -> list[pa.RecordBatch]:
    """Rows ``start:stop`` of the result."""
    part: list[_Piece] = []
    for batch, ranks in pieces:
        low, high = np.searchsorted(ranks, (start, stop)).tolist()
        if low < high:
            part.append((batch.slice(low, high - low), ranks[low:high] - start))
    if len(part) == 1:
        return [pa.RecordBatch.from_arrays(part[0][0].columns, schema=schema)]
    try:
        return [_gathered(schema, part, stop - start, pool)]
    except _TooWide:
        middle = (start + stop) // 2
        return [*_between(schema, pieces, start, middle, pool), *_between(schema, pieces, middle, stop, pool)]


def _gathered(schema: pa.Schema, pieces: Sequence[_Piece], total: int, pool: BufferPool) -> pa.RecordBatch:
    places = [ranks for _, ranks in pieces]
    columns: dict[str, pa.Array] = {}
    views: dict[str, list[npt.NDArray[Any]]] = {}
    for index, field in enumerate(schema):
        arrays = [batch.column(index) for batch, _ in pieces]
        if pa.types.is_dictionary(field.type):
            columns[field.name] = _dictionary(field.type, arrays, places, total)
        elif (found := _views(arrays)) is not None:
            views[field.name] = found
        else:
            back = np.empty(total, np.int64)
            back[np.concatenate(places)] = np.arange(total)
            columns[field.name] = pa.concat_arrays(arrays).take(pa.array(back))
    block = ColumnBlock(pool, pa.schema([field for field in schema if field.name in views]), total)
    for name, found in views.items():
        for place, view in zip(places, found, strict=True):
            block[name][place] = view
    made = block.batch(total)
    columns |= zip(made.schema.names, made.columns, strict=True)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _views(arrays: Sequence[pa.Array]) -> list[npt.NDArray[Any]] | None:
    """Fixed-width columns as numpy; None where one is not, or holds nulls."""
    if not is_fixed_width(arrays[0].type) or any(array.null_count for array in arrays):
        return None
    try:
        return [as_numpy(array) for array in arrays]
    except ValueError:  # nulls inside rows
        return None


def _dictionary(kind: pa.DictionaryType, arrays: Sequence[pa.Array], places: Sequence[Ints], total: int) -> pa.Array:
    """Dictionary columns under one dictionary; a null among the values becomes a null of the row."""
    dtype = np.dtype(kind.index_type.to_pandas_dtype())
    values = arrays[0].dictionary
    shared = all(array.dictionary.equals(values) for array in arrays[1:])
    codes = np.full(total, -1, dtype if shared and dtype.kind == "i" else np.int64)
    start = 0
    if not shared:
        encoded = pa.concat_arrays([array.dictionary for array in arrays]).dictionary_encode()
        values, numbers = encoded.dictionary, as_numpy(encoded.indices.cast(pa.int64()).fill_null(-1))
    for array, place in zip(arrays, places, strict=True):
        indices = array.indices
        present = indices.is_valid().to_numpy(zero_copy_only=False) if indices.null_count else slice(None)
        found = as_numpy(indices.drop_null() if indices.null_count else indices)
        codes[place[present]] = found if shared else numbers[start + found.astype(np.int64)]
        start += len(array.dictionary)
    missing = codes < 0
    most = np.iinfo(dtype).max
    if len(values) > most + 1:
        used = np.unique(codes[~missing])
        if used.size > most + 1:
            raise _TooWide
        values = values.take(pa.array(used))
        codes = np.searchsorted(used, np.where(missing, used[0] if used.size else 0, codes))
    indices = pa.array(np.where(missing, 0, codes).astype(dtype), mask=missing if missing.any() else None)
    return pa.DictionaryArray.from_arrays(indices, values, ordered=kind.ordered)
